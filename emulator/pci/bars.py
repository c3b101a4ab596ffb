"""BARs: what a model declares, what the client maps, and the registers that a guest sizes them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.pci.config_space import ConfigRegister
from vfio_user_xe.emulator.pci.transport import AccessHandler, Region

BAR0_OFFSET = 0x10
BARS = 6
_TYPE_64BIT = 0x4
_PREFETCHABLE = 0x8


@dataclass(slots=True)
class Bar:
    """A memory BAR of `size` bytes (a power of two, at least 16; mapped ones at least a page).

    Trapped: give `handler`. Mapped: give `memory` (byte `memory_offset + x` of it is byte x of the BAR). Mixed: give
    both, and `areas`, the `(offset, length)` parts that are mapped; the rest goes to the handler. Memory without
    `areas` is mapped whole.
    """

    size: int
    handler: AccessHandler | None = None
    memory: Memory | None = None
    memory_offset: int = 0
    areas: list[tuple[int, int]] | None = None
    prefetchable: bool = False
    is_64bit: bool = True
    device_memory: bool = False
    """Byte x of this BAR is device address x of the function, as peers that reach it by bus address must know."""

    @property
    def type_bits(self) -> int:
        """Bits 3:0 of the BAR register."""
        return (_TYPE_64BIT if self.is_64bit else 0) | (_PREFETCHABLE if self.prefetchable else 0)

    def region(self, name: str) -> Region:
        """What the transport serves.

        Raises:
            ValueError: the BAR cannot be served; it names `name` and what is wrong.

        While the card is made.
        """
        areas = self.areas
        if areas is None:
            areas = [] if self.memory is None else [(0, self.size)]
        self._check(name, areas)
        return Region(self.size, self.handler, self.memory, self.memory_offset, list(areas))

    def _check(self, name: str, areas: list[tuple[int, int]]) -> None:
        if self.size < 16 or self.size & (self.size - 1):
            raise ValueError(f"{name}: size {self.size:#x} is not a power of two of at least 16")
        if not self.is_64bit and self.size > 1 << 31:
            raise ValueError(f"{name}: size {self.size:#x} needs a 64-bit BAR")
        if self.memory_offset % PAGE_SIZE:
            raise ValueError(f"{name}: memory offset {self.memory_offset:#x} is not a multiple of {PAGE_SIZE:#x}")
        if areas and self.memory is None:
            raise ValueError(f"{name}: has areas to map but no memory")
        end = 0
        for offset, length in areas:
            if offset % PAGE_SIZE or length % PAGE_SIZE or length <= 0:
                raise ValueError(f"{name}: area ({offset:#x}, {length:#x}) is not made of whole pages")
            if offset < end:
                raise ValueError(f"{name}: area at {offset:#x} overlaps the one before it, or they are not sorted")
            end = offset + length
            if end > self.size:
                raise ValueError(f"{name}: area ({offset:#x}, {length:#x}) is outside of the BAR ({self.size:#x})")
        if self.memory is not None and self.memory_offset + end > self.memory.size:
            raise ValueError(
                f"{name}: maps {self.memory.name!r} up to {self.memory_offset + end:#x}, which has only"
                f" {self.memory.size:#x} bytes"
            )
        if self.handler is None and sum(length for _, length in areas) < self.size:
            raise ValueError(f"{name}: has neither handler nor memory for all of it")


def check_layout(name: str, bars: Mapping[int, Bar]) -> None:
    """Raise ValueError when BAR numbers are impossible: outside of 0..5, or the upper half of a 64-bit one."""
    for index, bar in bars.items():
        if not 0 <= index < BARS:
            raise ValueError(f"{name}: BAR{index} does not exist, allowed are 0 to {BARS - 1}")
        if bar.is_64bit and (index + 1 in bars or index + 1 == BARS):
            raise ValueError(f"{name}: BAR{index} is 64-bit and needs BAR{index + 1} for its upper half")


def bar_registers(index: int, size: int, type_bits: int, base: int = BAR0_OFFSET) -> list[ConfigRegister]:
    """The one or two registers of BAR `index`: writable above the size, type bits fixed."""
    mask = ~(size - 1)
    registers = [
        ConfigRegister(f"BAR{index}", base + 4 * index, 4, reset=type_bits, writable=mask & 0xFFFFFFF0),
    ]
    if type_bits & _TYPE_64BIT:
        registers.append(
            ConfigRegister(f"BAR{index}_HIGH", base + 4 * index + 4, 4, writable=mask >> 32 & 0xFFFFFFFF),
        )
    return registers


def read_registers(handler: AccessHandler, offset: int, length: int) -> bytes:
    """Any number of bytes of trapped registers: cut into aligned dwords, and bytes at the ends, as bulk DMA arrives."""
    return b"".join(handler.read(at, size).to_bytes(size, "little") for at, size in _cut(offset, length))


def write_registers(handler: AccessHandler, offset: int, data: bytes | memoryview) -> None:
    """Store bytes in trapped registers; see `read_registers`."""
    for at, size in _cut(offset, len(data)):
        handler.write(at, size, int.from_bytes(data[at - offset : at - offset + size], "little"))


def _cut(offset: int, length: int) -> Iterator[tuple[int, int]]:
    end = offset + length
    while offset < end:
        size = 4 if offset % 4 == 0 and end - offset >= 4 else 1
        yield offset, size
        offset += size
