"""What a register file notes of how it is used: accesses that the model has nothing for, and reads of a watched register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_ALL = 0xFFFFFFFF


@dataclass(slots=True)
class Unmodelled:
    """What happened at an offset that nobody declared."""

    offset: int
    reads: int = 0
    writes: int = 0
    first_value: int = 0
    """The first value written, or read when it was never written."""


class ReadWatch:
    """What the reads of one register returned while it was watched."""

    __slots__ = ("all_ones", "all_zeros", "last", "reader", "reads")

    def __init__(self, reader: Callable[[], int]) -> None:
        self.reads = 0
        self.last = 0
        self.all_ones = _ALL
        """Bits that were 1 in every read."""
        self.all_zeros = _ALL
        """Bits that were 0 in every read."""
        self.reader = reader

    def __call__(self) -> int:
        value = self.reader()
        self.last = value
        self.all_ones &= value
        self.all_zeros &= ~value
        self.reads += 1
        return value


@dataclass(slots=True)
class UnmodelledBits:
    """Writes that set bits of a declared register which are reserved or not modelled."""

    offset: int
    """Of the dword that was written."""
    writes: int = 0
    bits: int = 0
    """All such bits that any write has set."""
    first_value: int = 0
    """The first value written that had one."""
