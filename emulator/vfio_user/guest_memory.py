"""Guest memory as one function's client announced it with DMA_MAP.

A range that came with a descriptor is a memoryview; one without is reached by messages (`dma_messages.py`). A file
is mapped once, however many ranges point into it, so thousands of small vIOMMU mappings cost a slice each, not a
mapping.
"""

from __future__ import annotations

import bisect
import errno
import mmap
import os
import threading
import weakref
from dataclasses import dataclass

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.vfio_user import wire

ADDRESS_LIMIT = 1 << 64


class MapError(Exception):
    """A DMA_MAP or DMA_UNMAP that cannot be carried out; `errno` is what the client is told."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(slots=True, frozen=True)
class Range:
    """Guest memory `[start, end)`; `view` are its bytes, or None when it can only be reached by messages."""

    start: int
    end: int
    flags: int
    view: memoryview | None


class _MappedFile:
    """One file mapped whole; its mapping goes when the last view on it does."""

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.size = size
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        self.view = memoryview(self.map)


class GuestMemory:
    """The ranges of one client, looked up in O(log n). Every method may be called from any thread."""

    def __init__(self, max_ranges: int = wire.MAX_DMA_MAPS) -> None:
        self.max_ranges = max_ranges
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._ranges: list[Range] = []
        self._files: weakref.WeakValueDictionary[tuple[int, int, int, bool], _MappedFile] = (
            weakref.WeakValueDictionary()
        )
        self._file_of: dict[int, _MappedFile] = {}

    def __len__(self) -> int:
        return len(self._ranges)

    def ranges(self) -> list[Range]:
        """All ranges in the order of their addresses."""
        with self._lock:
            return list(self._ranges)

    def map(self, address: int, size: int, flags: int, fd: int | None, offset: int) -> None:
        """Add `[address, address + size)`. `fd` stays the caller's.

        Raises:
            MapError: EINVAL for a range or flags that may not be, EEXIST or ENOSPC where there is no place for it.

        On the access thread of the function.
        """
        if flags & ~(wire.DMA_READABLE | wire.DMA_WRITABLE):
            raise MapError(errno.EINVAL, f"flags {flags:#x}: only readable (1) and writeable (2) are defined")
        if size == 0 or address + size > ADDRESS_LIMIT:
            raise MapError(errno.EINVAL, f"size {size:#x} at {address:#x} is empty or wraps around")
        if address % PAGE_SIZE or size % PAGE_SIZE:
            raise MapError(errno.EINVAL, f"[{address:#x}, +{size:#x}) is not a multiple of the page size {PAGE_SIZE}")
        with self._lock:
            index = self._place(address, size)
            view = None
            if fd is not None:
                file = self._file(fd, offset, size, bool(flags & wire.DMA_WRITABLE))
                view = file.view[offset : offset + size]
                if not flags & wire.DMA_WRITABLE:
                    view = view.toreadonly()
                self._file_of[address] = file
            self._insert(index, Range(address, address + size, flags, view))

    def add(self, address: int, size: int, flags: int, view: memoryview | None) -> None:
        """Add a range that the caller has checked and, where there is a `view`, mapped.

        Raises:
            MapError: it overlaps another range, or there are `max_ranges` already.
        """
        with self._lock:
            self._insert(self._place(address, size), Range(address, address + size, flags, view))

    def _place(self, address: int, size: int) -> int:
        """Where `[address, address + size)` belongs among the ranges.

        Raises:
            MapError: it overlaps another range, or there are `max_ranges` already.
        """
        index = bisect.bisect_right(self._starts, address)
        before = self._ranges[index - 1] if index else None
        after = self._ranges[index] if index < len(self._ranges) else None
        for other in (before, after):
            if other is not None and other.start < address + size and address < other.end:
                raise MapError(errno.EEXIST, f"[{address:#x}, +{size:#x}) overlaps [{other.start:#x}, {other.end:#x})")
        if len(self._ranges) >= self.max_ranges:
            raise MapError(errno.ENOSPC, f"{self.max_ranges} ranges are mapped already (max_dma_maps)")
        return index

    def _insert(self, index: int, added: Range) -> None:
        self._starts.insert(index, added.start)
        self._ranges.insert(index, added)

    def unmap(self, address: int, size: int) -> int:
        """Remove the mappings that make up `[address, address + size)`; returns how many bytes that were.

        The range may span several mappings, but none may be cut.

        Raises:
            MapError: ENOENT when nothing is mapped there, EINVAL for a cut.

        On the access thread of the function.
        """
        if size == 0 or address + size > ADDRESS_LIMIT:
            raise MapError(errno.EINVAL, f"size {size:#x} at {address:#x} is empty or wraps around")
        with self._lock:
            first = bisect.bisect_left(self._starts, address)
            last = bisect.bisect_left(self._starts, address + size)
            if first and self._ranges[first - 1].end > address:
                raise MapError(errno.EINVAL, f"{address:#x} lies inside of the mapping at {self._starts[first - 1]:#x}")
            if first == last:
                raise MapError(errno.ENOENT, f"nothing is mapped in [{address:#x}, +{size:#x})")
            if self._ranges[last - 1].end > address + size:
                raise MapError(errno.EINVAL, f"the end cuts the mapping at {self._starts[last - 1]:#x}")
            return self._remove(first, last)

    def unmap_all(self) -> int:
        """Remove every mapping; returns how many bytes that were."""
        with self._lock:
            return self._remove(0, len(self._ranges))

    def find(self, address: int) -> Range | None:
        """The range that `address` lies in."""
        with self._lock:
            index = bisect.bisect_right(self._starts, address) - 1
            if index < 0:
                return None
            found = self._ranges[index]
        return found if address < found.end else None

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        """See `Transport.view`."""
        found = self.find(address)
        if found is None or found.view is None or not found.flags & _needed(write):
            return None
        offset = address - found.start
        return found.view[offset : offset + length]

    def mapped(self, address: int, length: int, write: bool) -> bool:
        """Whether all of `[address, address + length)` may be accessed so, over as many ranges as it takes."""
        end = address + length
        while address < end:
            found = self.find(address)
            if found is None or not found.flags & _needed(write):
                return False
            address = found.end
        return True

    def _remove(self, first: int, last: int) -> int:
        removed = sum(r.end - r.start for r in self._ranges[first:last])
        for start in self._starts[first:last]:
            self._file_of.pop(start, None)
        del self._starts[first:last]
        del self._ranges[first:last]
        return removed

    def _file(self, fd: int, offset: int, size: int, writable: bool) -> _MappedFile:
        """The mapping of the file behind `fd`, shared by all ranges of it."""
        status = os.fstat(fd)
        if offset % PAGE_SIZE:
            raise MapError(errno.EINVAL, f"offset {offset:#x} into the file is not a multiple of {PAGE_SIZE}")
        length = status.st_size
        if length == 0:
            # A device file has no size; map the requested range.
            length = offset + size
        if offset + size > length:
            raise MapError(errno.EINVAL, f"[{offset:#x}, +{size:#x}) is beyond the file's end at {length:#x}")
        key = (status.st_dev, status.st_ino, length, writable)
        file = self._files.get(key)
        if file is None:
            try:
                file = _MappedFile(fd, length, writable)
            except (OSError, ValueError) as exc:
                number = exc.errno if isinstance(exc, OSError) and exc.errno else errno.EINVAL
                raise MapError(number, f"the descriptor cannot be mapped: {exc}") from exc
            self._files[key] = file
        return file


def _needed(write: bool) -> int:
    return wire.DMA_WRITABLE if write else wire.DMA_READABLE
