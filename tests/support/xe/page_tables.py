"""A PPGTT as a driver builds it: five levels of 512 entries, tables taken from a pool as they are needed (`xe_pt.c`)."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

PRESENT = 3
"""Present and writable."""
LARGE, DEVICE_MEMORY = 1 << 7, 1 << 11
_ADDRESS = 0xFFFF_FFFF_F000


class PageTableWriter(ABC):
    """Writes entries through `load` and `store`; the root is the first page of `pool`. Addresses are the function's own."""

    table_flags = PRESENT

    def __init__(self, pool: int) -> None:
        self._pages = itertools.count(pool, 0x1000)
        self.root = self.new_table()

    def new_table(self) -> int:
        """The next page of the pool, which is zero."""
        return next(self._pages)

    @abstractmethod
    def load(self, address: int) -> int:
        """A qword of a table."""

    @abstractmethod
    def store(self, address: int, value: int) -> None:
        """Write a qword of a table."""

    def entry(self, va: int, level: int, value: int) -> None:
        """Store `value` at `level` (0: of 4 KiB, 1: of 2 MiB) for `va`, making the tables above."""
        table = self.root
        for above in range(4, level, -1):
            place = table + 8 * (va >> (12 + 9 * above) & 0x1FF)
            found = self.load(place)
            if not found & 1:
                found = self.new_table() | self.table_flags
                self.store(place, found)
            table = found & _ADDRESS
        self.store(table + 8 * (va >> (12 + 9 * level) & 0x1FF), value)
