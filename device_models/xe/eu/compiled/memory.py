"""Memory that the handlers work on: thread storage, SLM, and the map of a function's address space."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, CountStruct, MapStruct, PageStruct
from vfio_user_xe.device_models.xe.eu.compiled.library import Library

SMALL_SHIFT = 12
LARGE_SHIFT = 16
_FIRST_SLOTS = 1 << 12


def address_of(memory: NDArray[Any]) -> int:
    """Where an array that can be written begins; `ndarray.ctypes` takes four times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory.data))


def aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes in cache lines of their own (64 bytes): another processor's writes beside them would take them away."""
    memory = np.zeros((size + 63 & -64) + 64, dtype=np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Used(NamedTuple):
    """What was accessed through pages that were entered with one ledger number."""

    ledger: int
    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


class Counts:
    """What one slot accessed, page by page; not shared by host threads."""

    def __init__(self, slots: int) -> None:
        self.resize(slots)

    def resize(self, slots: int) -> None:
        """Zeros for so many slots of the map."""
        self.array = aligned(slots * ctypes.sizeof(CountStruct)).view(np.uint64).reshape(slots, -1)
        self.touched = aligned(4 * (slots + 1)).view(np.uint32)
        """How many rows of `array` are not zero, and which."""
        self.address = self.array.ctypes.data
        self.touched_address = self.touched.ctypes.data


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
        self._counts: list[Counts] = []
        self._ledgers = 1
        """Ledger numbers below this one are in use."""
        self._totals = np.zeros(4, dtype=np.uint64)
        """Zeros for `harvest` to count in."""
        self._totals_at = self._totals.ctypes.data

    @property
    def address(self) -> int:
        """Of the `struct map`."""
        return ctypes.addressof(self.struct)

    def counts(self) -> Counts:
        """New counters for a slot that runs on this map; the map keeps them until `forget`."""
        counts = Counts(self._slots)
        self._counts.append(counts)
        return counts

    def forget(self, counts: Counts) -> None:
        """The slot of these counters is no more. Harvest before."""
        self._counts.remove(counts)

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
        self._ledgers = max(self._ledgers, ledger + 1)

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
        touched = [counts for counts in self._counts if counts.touched[0]]
        if not touched:
            return []
        if len(self._totals) != 4 * self._ledgers:
            self._totals = np.zeros(4 * self._ledgers, dtype=np.uint64)
            self._totals_at = self._totals.ctypes.data
        for counts in touched:
            self._library.harvest(self.address, counts.address, counts.touched_address, self._totals_at)
        totals = self._totals.tolist()
        self._totals.fill(0)
        return [
            Used(place // 4, *totals[place : place + 4])
            for place in range(0, len(totals), 4)
            if totals[place] or totals[place + 2]
        ]

    def _new_table(self) -> NDArray[np.uint8]:
        return aligned(self._slots * ctypes.sizeof(PageStruct))

    def _rebuild(self) -> None:
        self._pages = self._new_table()
        self.struct.pages = self._pages.ctypes.data
        self.struct.slots = self._slots
        self.struct.used = 0
        for counts in self._counts:
            counts.resize(self._slots)
        entries, self._entries = self._entries, {}
        for (address, shift), (host, access, ledger) in entries.items():
            self.insert(address, shift, host, Access(access), ledger)


class MapFull(Exception):
    """A map has no room for another page before it grows."""
