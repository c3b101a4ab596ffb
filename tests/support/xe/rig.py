"""A GPU without a card: VRAM, guest memory, functions with page tables, for tests of address spaces and engines.

The fabric and the `iov` interconnect are the real ones; guest memory is one interconnect with a dictionary of memories.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import NonCallableMock

from tests.support.xe.layout import MIB
from tests.support.xe.page_tables import PageTableWriter
from vfio_user_xe.device_models.xe.memory.address_space import GgttSpace
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.formats.ggtt import DEVICE_MEMORY, PRESENT, PTES_SIZE, VFID_SHIFT
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.device_models.xe.memory.spaces import AddressSpaces
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator, Space, Way, Window
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.observe.trace import Tracer
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.plugins.iov import Iov

VRAM_SIZE = 64 * MIB


class GuestMemory:
    """Guest RAM of each function at DMA address 0, `size` bytes; `messages` makes it reachable by messages only."""

    way: Way = "legacy"

    def __init__(self, fabric: Fabric, size: int = 16 * MIB) -> None:
        self.name = "host_dma"
        self.size = size
        self.messages = False
        self._fabric = fabric
        self._memories: dict[str, Memory] = {}

    def of(self, name: str) -> memoryview:
        if name not in self._memories:
            self._memories[name] = Memory(self.size, f"ram-{name}")
        return self._memories[name].view

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        if space != Space.SYSTEM or address >= self.size:
            return None
        entry = self._fabric.ledger.entry(initiator.name, "guest", self.name, kind)
        view = self.of(initiator.name)[address : address + length]
        return _Messages(address, view, entry) if self.messages else Window(address, len(view), view, "guest", entry)


class _Messages(Window):
    __slots__ = ("_bytes",)

    def __init__(self, address: int, view: memoryview, entry: Any) -> None:
        super().__init__(address, len(view), None, "guest", entry)
        self._bytes = view

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._bytes[offset : offset + length])

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        self._bytes[offset : offset + len(data)] = data


@dataclass(eq=False)
class FakeFunction:
    """What engines and address spaces need of a function."""

    vfid: int
    gpu: Any
    ggtt: Ggtt
    pci: Any
    registers: Any = None
    ggtt_space: GgttSpace = field(init=False)

    def __post_init__(self) -> None:
        self.ggtt_space = GgttSpace(self)

    @property
    def name(self) -> str:
        return str(self.pci.name)


class Rig:
    """One GPU: `pf`, VFs by `vf(n)`, `ram` of the guest, allocators for VRAM and GGTT."""

    def __init__(self, vram: int = VRAM_SIZE) -> None:
        self.fabric = Fabric()
        self.vram = Vram(vram, fabric=self.fabric)
        self.card = NonCallableMock(
            spec=Card, device_memory=self.vram, fabric=self.fabric, tracer=Tracer(), clock=CardClock()
        )
        self.spaces = AddressSpaces()
        self.ram = GuestMemory(self.fabric)
        self.fabric.interconnects = [Iov(self.card, {}), self.ram]
        self.fabric.ledger.ways.update(iov=Iov.way, host_dma="legacy")
        self.functions: dict[int, FakeFunction] = {}
        self._next_vram = itertools.count(0x10_0000, 0x10_0000)
        self._gsm = {0: Memory(PTES_SIZE, "gsm")}
        self.pf = self._function(0)

    def vf(self, vfid: int, ggtt: tuple[int, int] | None = None) -> FakeFunction:
        if vfid not in self.functions:
            self._gsm[vfid] = Memory(PTES_SIZE, f"gsm-vf{vfid}")
            self._function(vfid)
        function = self.functions[vfid]
        if ggtt is not None:
            function.ggtt.provision(*ggtt)
        return function

    def _function(self, vfid: int) -> FakeFunction:
        pci = NonCallableMock(spec=Function, index=vfid, transport=None)
        pci.name = f"vf{vfid}" if vfid else "pf"
        function = FakeFunction(vfid, self, Ggtt(vfid, self._gsm[vfid].view), pci)
        self.functions[vfid] = function
        return function

    def close(self) -> None:
        self.vram.close()
        for memory in self._gsm.values():
            memory.close()

    # Memory.

    def alloc(self) -> int:
        """DPA of a fresh, zeroed MiB of VRAM."""
        return next(self._next_vram)

    def dwords(self, dpa: int, count: int) -> list[int]:
        return self.vram.memory.view[dpa : dpa + 4 * count].cast("I").tolist()

    def dword(self, dpa: int) -> int:
        return self.dwords(dpa, 1)[0]

    def poke(self, dpa: int, *values: int) -> None:
        self.vram.memory.view[dpa : dpa + 4 * len(values)].cast("I")[:] = memoryview(
            b"".join((v & 0xFFFFFFFF).to_bytes(4, "little") for v in values)
        ).cast("I")

    def map_ggtt(
        self,
        ggtt_address: int,
        target: int,
        size: int = 0x1000,
        *,
        system: bool = False,
        function: Any = None,
        vfid: int = 0,
    ) -> None:
        """Write GGTT entries: present, DM unless `system`."""
        ggtt = (function or self.pf).ggtt
        for offset in range(0, size, 0x1000):
            flags = PRESENT | (0 if system else DEVICE_MEMORY) | vfid << VFID_SHIFT
            ggtt.entries[(ggtt_address + offset) >> 12] = (target + offset) | flags


class PageTables(PageTableWriter):
    """Builds a PPGTT in VRAM of `function`; tables are allocated from `pool` up (function's view)."""

    def __init__(self, rig: Rig, function: Any, pool: int) -> None:
        self.rig = rig
        self.function = function
        super().__init__(pool)

    def space(self, asid: int = 1) -> PpgttSpace:
        return PpgttSpace(self.function, self.root, asid)

    def table(self, address: int) -> memoryview:
        found = self.rig.vram.resolve(self.function.pci, address, 0x1000, True)
        assert found is not None
        return found[1].cast("Q")

    def load(self, address: int) -> int:
        return self.table(address & ~0xFFF)[(address & 0xFFF) >> 3]

    def store(self, address: int, value: int) -> None:
        self.table(address & ~0xFFF)[(address & 0xFFF) >> 3] = value

    def map(self, va: int, target: int, size: int = 0x1000, *, system: bool = False, flags: int = 3) -> None:
        """4 KiB leaves."""
        for offset in range(0, size, 0x1000):
            self.entry(va + offset, 0, (target + offset) | flags | (0 if system else ppgtt.DEVICE_MEMORY))

    def map_64k(self, va: int, targets: Mapping[int, int]) -> None:
        """A compact table: index 0..31 -> target."""
        leaf = self.new_table()
        self.entry(va, 1, leaf | 3 | ppgtt.COMPACT_64K)
        for index, target in targets.items():
            self.table(leaf)[index] = target | 3 | ppgtt.DEVICE_MEMORY


__all__ = ["MIB", "AccessFault", "FakeFunction", "GuestMemory", "PageTables", "Rig", "Space"]
