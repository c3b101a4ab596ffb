"""The parts that every block of the model shares: the GPU, its GTs, and its functions (PF and VFs).

A function goes with every address: blocks never take a bare address but `(function, space, address)`, so that a
VF's GGTT, LMTT, DMA identity and interrupts are always its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, GgttSpace
from vfio_user_xe.device_models.xe.memory.spaces import AddressSpaces
from vfio_user_xe.device_models.xe.profiles.profile import GSI_LIMIT, MEDIA_GSI_OFFSET, Profile
from vfio_user_xe.emulator.model.registers import Register

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines import Engines
    from vfio_user_xe.device_models.xe.guc import Guc
    from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
    from vfio_user_xe.device_models.xe.memory.vram import Vram
    from vfio_user_xe.device_models.xe.soc.interrupts import Interrupts
    from vfio_user_xe.emulator.fabric.interconnect import Fabric
    from vfio_user_xe.emulator.model.card import Card
    from vfio_user_xe.emulator.model.executor import Executor
    from vfio_user_xe.emulator.model.register_file import RegisterFile
    from vfio_user_xe.emulator.pci.function import Function


@dataclass(slots=True, eq=False)
class XeFunction:
    """The PF (`vfid` 0) or VF `vfid`. `pci` is the initiator of its accesses."""

    vfid: int
    pci: Function
    registers: RegisterFile
    ggtt: Ggtt
    gpu: Gpu
    ggtt_space: AddressSpace = field(init=False)
    """Reads and writes by GGTT address, as this function sees the GGTT."""

    def __post_init__(self) -> None:
        self.ggtt_space = GgttSpace(self)

    @property
    def name(self) -> str:
        """ "pf", "vf1", ..."""
        return self.pci.name

    @property
    def is_vf(self) -> bool:
        """Whether it is a VF."""
        return self.vfid != 0


class Gpu:
    """One card's GPU: what its functions share."""

    def __init__(self, card: Card, profile: Profile, vram: Vram) -> None:
        self.card = card
        self.profile = profile
        self.executor: Executor = card.executor
        self.fabric: Fabric = card.fabric
        self.vram = vram
        self.spaces = AddressSpaces()
        self.functions: list[XeFunction] = []
        """By VFID."""
        self.gts: list[Gt] = []
        """The main GT, then the media GT if there is one."""
        self.interrupts: Interrupts

    @property
    def pf(self) -> XeFunction:
        """The PF."""
        return self.functions[0]


class Gt:
    """One GT: its engines and its GuC."""

    def __init__(self, gpu: Gpu, index: int) -> None:
        self.gpu = gpu
        self.index = index
        self.gsi_offset = MEDIA_GSI_OFFSET if index else 0
        self.infos = gpu.profile.engines[index]
        self.engines: Engines
        self.guc: Guc

    @property
    def engine_names(self) -> tuple[str, ...]:
        """Names of the engines that are present, as `engines.ENGINES` has them."""
        return tuple(info.name.upper() for info in self.infos)

    @property
    def name(self) -> str:
        """ "gt0", "gt1"."""
        return f"gt{self.index}"

    def register(self, name: str, offset: int, **options: Any) -> Register:
        """This GT's copy of a GT register: at its own offset, and called "GT1.NAME" on the media GT."""
        return Register(f"GT{self.index}.{name}" if self.index else name, self.offset(offset), **options)

    def offset(self, offset: int) -> int:
        """Where this GT's copy of the GT register `offset` is in BAR0 (`xe_mmio.c:xe_mmio_adjusted_addr`)."""
        return offset + self.gsi_offset if offset < GSI_LIMIT else offset
