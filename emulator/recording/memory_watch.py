"""Writes of a client into memory that it has mapped: no message says so, so they are found by comparing.

Each memory has a shadow, and a look at it (`MemoryWatch.changes`) compares the two wherever the memory has pages at all
and brings the shadow up to date. Of 100 MiB that takes some 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.transport import Region

_CHUNK = 64 * PAGE_SIZE
_LINE = 64
_MAP_NORESERVE = 0x4000
"""Linux' number; the module has it from Python 3.13 on."""

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class MemoryWatch:
    """The mapped areas of one region."""

    def __init__(self, region: Region) -> None:
        """`region` must have a memory."""
        assert region.memory is not None
        self._memory = region.memory
        self._shift = region.memory_offset
        self._areas = list(region.areas)
        self._view = region.memory.view
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._view))
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._shadow = mmap.mmap(-1, region.memory.size, flags=flags)
        self._shadow_address = ctypes.addressof(ctypes.c_char.from_buffer(self._shadow))
        self._populated: list[tuple[int, int]] = []

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """What is not as at the last look: offset in the region, and the bytes that are there now."""
        populated: list[tuple[int, int]] = []
        for offset, length in self._areas:
            start = self._shift + offset
            populated += _data(self._memory.fd, start, start + length)
        for start, end in _without(self._populated, populated):
            # Pages were given back: zero again, which was the device's own doing.
            self._shadow[start:end] = bytes(end - start)
        self._populated = populated
        for start, end in populated:
            for first, last in self._changed_pages(start, end):
                low, high = (first, last) if last - first > PAGE_SIZE else self._changed_lines(first)
                data = bytes(self._view[low:high])
                self._shadow[low:high] = data
                yield low - self._shift, data

    def _changed_pages(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Stretches of pages, at most a chunk long."""
        for chunk in range(start, end, _CHUNK):
            limit = min(chunk + _CHUNK, end)
            if self._same(chunk, limit):
                continue
            first = None
            for page in range(chunk, limit, PAGE_SIZE):
                same = self._same(page, page + PAGE_SIZE)
                if first is None and not same:
                    first = page
                elif first is not None and same:
                    yield first, page
                    first = None
            if first is not None:
                yield first, limit

    def _changed_lines(self, page: int) -> tuple[int, int]:
        lines = [line for line in range(page, page + PAGE_SIZE, _LINE) if not self._same(line, line + _LINE)]
        return (lines[0], lines[-1] + _LINE) if lines else (page, page + PAGE_SIZE)

    def _same(self, start: int, end: int) -> bool:
        return bool(_libc.memcmp(self._address + start, self._shadow_address + start, end - start) == 0)


def _data(fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """Where the file has pages between `start` and `end`."""
    found = []
    with contextlib.suppress(OSError):
        while start < end:
            try:
                first = os.lseek(fd, start, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    break
                raise
            if first >= end:
                break
            start = min(os.lseek(fd, first, os.SEEK_HOLE), end)
            found.append((first, start))
    return found


def _without(before: list[tuple[int, int]], now: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of the ordered stretches `before` is not in `now`."""
    for start, end in before:
        at = start
        for low, high in now:
            if high <= at:
                continue
            if low >= end:
                break
            if low > at:
                yield at, low
            at = max(at, high)
        if at < end:
            yield at, end
