"""Memory that the handlers work on: thread storage, SLM, and the map of a function's address space."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, CountStruct, MapStruct, PageStruct
from vfio_user_xe.device_models.xe.eu.compiled.library import Library

SMALL_SHIFT = 12
LARGE_SHIFT = 16
_FIRST_SLOTS = 1 << 12


def aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes that begin at a multiple of 64."""
    memory = np.zeros(size + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


@dataclass(frozen=True, slots=True)
class Used:
    """What was accessed through pages that were entered with one ledger number."""

    ledger: int
    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


class Counts:
    """What one slot accessed, page by page; not shared by host threads."""

    def __init__(self, slots: int) -> None:
        self.array = np.zeros((slots, ctypes.sizeof(CountStruct) // 8), dtype=np.uint64)


class Map:
    """Pages of one function's address space that the execution units may access, as host memory.

    All methods may be called from any host thread, but only while no slot runs on this map; `insert` alone may be called
    while slots run that look for other pages.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._slots = _FIRST_SLOTS
        self._pages = self._new_table()
        self.struct = MapStruct(pages=self._pages.ctypes.data, slots=self._slots, used=0)
        self._entries: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._counts: weakref.WeakSet[Counts] = weakref.WeakSet()

    @property
    def address(self) -> int:
        """Of the `struct map`."""
        return ctypes.addressof(self.struct)

    def counts(self) -> Counts:
        """New counters for a slot that runs on this map."""
        counts = Counts(self._slots)
        self._counts.add(counts)
        return counts

    def insert(self, address: int, shift: int, host: int, access: Access, ledger: int = 0) -> None:
        """Enter the page of `1 << shift` bytes (4 or 64 KiB) at `address`, which lies at `host` in this process.

        `ledger` is the caller's number for what is accessed there (`harvest`).

        Raises:
            ValueError: the page's size is neither, or it does not begin at a multiple of it.
            MapFull: the table has to grow first (`grow`).
        """
        if shift not in (SMALL_SHIFT, LARGE_SHIFT) or address % (1 << shift):
            raise ValueError(f"a page of 1 << {shift} bytes at 0x{address:x}: pages of 4 and 64 KiB can be entered")
        if self._library.map_insert(self.address, address, shift, host, int(access), ledger) < 0:
            raise MapFull(f"{self.struct.used} of {self._slots} slots are taken")
        self._entries[address, shift] = (host, int(access), ledger)

    def grow(self) -> None:
        """Double the table. What was counted so far is to be harvested before."""
        self._slots *= 2
        self._rebuild()

    def remove(self, address: int, size: int) -> None:
        """Forget all pages that have bytes of `[address, address + size)`. Harvest before."""
        end = address + size
        kept = {
            key: entry for key, entry in self._entries.items() if key[0] >= end or key[0] + (1 << key[1]) <= address
        }
        if len(kept) != len(self._entries):
            self._entries = kept
            self._rebuild()

    def clear(self) -> None:
        """Forget all pages. Harvest before."""
        self._entries = {}
        self._rebuild()

    def harvest(self) -> list[Used]:
        """What was accessed since the last call, for each ledger number."""
        totals: dict[int, list[int]] = {}
        pages = self._pages.view(_PAGE)["ledger"]
        for counts in self._counts:
            touched = np.flatnonzero(counts.array[:, 0] | counts.array[:, 2])
            if not len(touched):
                continue
            for ledger, row in zip(pages[touched].tolist(), counts.array[touched].tolist(), strict=True):
                total = totals.setdefault(ledger, [0, 0, 0, 0])
                for column, value in enumerate(row):
                    total[column] += value
            counts.array[touched] = 0
        return [Used(ledger, *total) for ledger, total in totals.items()]

    def _new_table(self) -> NDArray[np.uint8]:
        return aligned(self._slots * ctypes.sizeof(PageStruct))

    def _rebuild(self) -> None:
        self._pages = self._new_table()
        self.struct.pages = self._pages.ctypes.data
        self.struct.slots = self._slots
        self.struct.used = 0
        for counts in self._counts:
            counts.array = np.zeros((self._slots, 4), dtype=np.uint64)
        entries, self._entries = self._entries, {}
        for (address, shift), (host, access, ledger) in entries.items():
            self.insert(address, shift, host, Access(access), ledger)


class MapFull(Exception):
    """A map has no room for another page before it grows."""


_PAGE = np.dtype([("tag", np.uint64), ("host", np.uint64), ("access", np.uint32), ("ledger", np.uint32)])
