"""Guest memory as one function's client announced it with DMA_MAP.

A range that came with a descriptor is a memoryview, or is reached by file I/O where the client says so (DMA_MAP's FILE_IO flag); one
without is reached by messages (`dma_messages.py`). Its file is mapped, or kept open, once (`guest_files.py`).
"""

from __future__ import annotations

import bisect
import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.guest_files import FileError, GuestFiles, MappedFile, OpenFile

ADDRESS_LIMIT = 1 << 64
_PERMISSIONS = wire.DMA_READABLE | wire.DMA_WRITABLE
_BY_DESCRIPTOR = wire.DMA_MMAP | wire.DMA_FILE_IO


class MapError(Exception):
    """A DMA_MAP or DMA_UNMAP that cannot be carried out; `errno` is what the client is told."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(slots=True, frozen=True)
class Range:
    """Guest memory `[start, end)`; `view` are its bytes; without a view it is at `offset` of `file`, or behind messages."""

    start: int
    end: int
    flags: int
    view: memoryview | None
    file: OpenFile | None = None
    offset: int = 0


class GuestMemory:
    """The ranges of one client, looked up in O(log n). Every method may be called from any thread."""

    def __init__(self, max_ranges: int = wire.MAX_DMA_MAPS) -> None:
        self.max_ranges = max_ranges
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._ranges: list[Range] = []
        self._files = GuestFiles()
        self._file_of: dict[int, MappedFile] = {}
        self._by_file_io = 0

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
        if flags & ~(_PERMISSIONS | _BY_DESCRIPTOR):
            raise MapError(
                errno.EINVAL, f"flags {flags:#x}: readable (1), writeable (2), mmap (4) and file I/O (8) are defined"
            )
        if flags & _BY_DESCRIPTOR == _BY_DESCRIPTOR:
            raise MapError(errno.EINVAL, f"flags {flags:#x}: mmap (4) and file I/O (8) exclude each other")
        if flags & _BY_DESCRIPTOR and fd is None:
            raise MapError(errno.EINVAL, f"flags {flags:#x}: mmap (4) and file I/O (8) want a descriptor")
        if size == 0 or address + size > ADDRESS_LIMIT:
            raise MapError(errno.EINVAL, f"size {size:#x} at {address:#x} is empty or wraps around")
        if address % PAGE_SIZE or size % PAGE_SIZE:
            raise MapError(errno.EINVAL, f"[{address:#x}, +{size:#x}) is not a multiple of the page size {PAGE_SIZE}")
        with self._lock:
            index = self._place(address, size)
            if fd is None:
                added = Range(address, address + size, flags, None)
            else:
                try:
                    added = self._with_descriptor(address, size, flags, fd, offset)
                except FileError as exc:
                    raise MapError(exc.errno, str(exc)) from exc
            self._insert(index, added)

    def _with_descriptor(self, address: int, size: int, flags: int, fd: int, offset: int) -> Range:
        readable, writable = bool(flags & wire.DMA_READABLE), bool(flags & wire.DMA_WRITABLE)
        if flags & wire.DMA_FILE_IO:
            opened = self._files.opened(fd, offset, size, readable, writable)
            self._by_file_io += 1
            return Range(address, address + size, flags, None, opened, offset)
        file = self._files.mapped(fd, offset, size, writable)
        view = file.view[offset : offset + size]
        self._file_of[address] = file
        return Range(address, address + size, flags, view if writable else view.toreadonly())

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

    def read(self, address: int, length: int, by_messages: Callable[[int, int], bytes]) -> bytes:
        """Memory without a view: by file I/O where the client said so, by `by_messages` elsewhere.

        Raises:
            DmaError: the file cannot be read there, or what `by_messages` raises.
        """
        if not self._by_file_io:
            return by_messages(address, length)
        read = []
        for at, count, file, offset in self._pieces(address, length, False):
            try:
                read.append(by_messages(at, count) if file is None else file.read(offset, count))
            except OSError as exc:
                raise DmaError(f"pread of {count} bytes for {at:#x}: {exc.strerror}", exc.errno or errno.EIO) from exc
        return b"".join(read)

    def write(
        self, address: int, data: bytes | memoryview, by_messages: Callable[[int, bytes | memoryview], None]
    ) -> None:
        """As `read`, the other way.

        Raises:
            DmaError: the file cannot be written there, or what `by_messages` raises.
        """
        if not self._by_file_io:
            by_messages(address, data)
            return
        view = memoryview(data).cast("B")
        for at, count, file, offset in self._pieces(address, len(view), True):
            part = view[at - address : at - address + count]
            try:
                if file is None:
                    by_messages(at, part)
                else:
                    file.write(offset, part)
            except OSError as exc:
                raise DmaError(f"pwrite of {count} bytes for {at:#x}: {exc.strerror}", exc.errno or errno.EIO) from exc

    def _pieces(self, address: int, length: int, write: bool) -> Iterator[tuple[int, int, OpenFile | None, int]]:
        """`[address, address + length)` in pieces: address, bytes, and the file to use with the offset in it.

        A piece without a file is for messages, whose answer says whether anything is there.
        """
        end = address + length
        while address < end:
            found, after = self._at(address)
            count = min(end, after) - address
            if found is not None and found.file is not None and found.flags & _needed(write):
                yield address, count, found.file, found.offset + address - found.start
            else:
                yield address, count, None, 0
            address += count

    def _at(self, address: int) -> tuple[Range | None, int]:
        """The range at `address`, if any, and where it, or the gap there, ends."""
        with self._lock:
            index = bisect.bisect_right(self._starts, address)
            if index and address < self._ranges[index - 1].end:
                return self._ranges[index - 1], self._ranges[index - 1].end
            return None, self._starts[index] if index < len(self._starts) else ADDRESS_LIMIT

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
        gone = self._ranges[first:last]
        for start in self._starts[first:last]:
            self._file_of.pop(start, None)
        del self._starts[first:last]
        del self._ranges[first:last]
        removed = sum(r.end - r.start for r in gone)
        by_file_io = sum(r.file is not None for r in gone)
        self._by_file_io -= by_file_io
        del gone
        if by_file_io:
            self._files.forget()
        return removed


def _needed(write: bool) -> int:
    return wire.DMA_WRITABLE if write else wire.DMA_READABLE
