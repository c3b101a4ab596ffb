"""Functions (PF and VFs) and what they share: every access of a block is one function's.

A function goes with every address: blocks never take a bare address but `(function, space, address)`, so that a
VF's GGTT, LMTT, DMA identity and interrupts are always its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, GgttSpace
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
from vfio_user_xe.device_models.xe.memory.spaces import AddressSpaces
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.profiles.profile import Profile
from vfio_user_xe.emulator.fabric.interconnect import Fabric
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.pci.function import Function


class Device:
    """What the functions of one card share, and every block may use; `gpu.Gpu` puts the blocks on it."""

    def __init__(self, card: Card, profile: Profile, vram: Vram) -> None:
        self.card = card
        self.profile = profile
        self.executor: Executor = card.executor
        self.fabric: Fabric = card.fabric
        self.vram = vram
        self.spaces = AddressSpaces()
        self.functions: list[XeFunction] = []
        """By VFID."""

    @property
    def pf(self) -> XeFunction:
        """The PF."""
        return self.functions[0]


@dataclass(slots=True, eq=False)
class XeFunction:
    """The PF (`vfid` 0) or VF `vfid`. `pci` is the initiator of its accesses."""

    vfid: int
    pci: Function
    registers: RegisterFile
    ggtt: Ggtt
    gpu: Device
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
