"""A region's bytes as the protocol reads and writes them: trapped, mapped, or both.

`read` and `write` of 1, 2, 4 and 8 bytes are the access path; for a region that is trapped throughout they are the
handler's own methods.
"""

from __future__ import annotations

import struct
import sys

from vfio_user_xe.emulator.model.memory import OutOfBounds
from vfio_user_xe.emulator.pci.transport import AccessHandler, Region, name_at


class RegionAccess:
    """One region, made ready for a session. Offsets were checked against `size` by the caller."""

    def __init__(self, region: Region) -> None:
        self.size = region.size
        self.region = region
        self._handler = region.handler or _Absent()
        self._areas = [(offset, offset + length) for offset, length in region.areas]
        self._view = memoryview(b"")
        if region.memory is not None:
            region.memory.check(region.memory_offset, max((end for _, end in self._areas), default=0))
            self._view = region.memory.view[region.memory_offset :]
        elif self._areas:
            raise OutOfBounds("a region with areas needs a memory")
        # Aligned accesses of 1, 2, 4 or 8 bytes; a region without areas costs no look at them.
        self.read = self._read if self._areas else self._handler.read
        self.write = self._write if self._areas else self._handler.write

    def _read(self, offset: int, size: int) -> int:
        for start, end in self._areas:
            if start <= offset < end:
                return int.from_bytes(self._view[offset : offset + size], "little")
        return self._handler.read(offset, size)

    def _write(self, offset: int, size: int, value: int) -> None:
        for start, end in self._areas:
            if start <= offset < end:
                self._view[offset : offset + size] = value.to_bytes(size, "little")
                return
        self._handler.write(offset, size, value)

    def read_block(self, offset: int, length: int) -> bytes:
        """Any number of bytes."""
        for start, end in self._areas:
            if start <= offset and offset + length <= end:
                return bytes(self._view[offset : offset + length])
        whole = getattr(self._handler, "read_block", None)
        if whole is not None and not self._areas:
            return bytes(whole(offset, length))
        parts = bytearray()
        for at, size in _pieces(offset, length):
            parts += self.read(at, size).to_bytes(size, "little")
        return bytes(parts)

    def write_block(self, offset: int, data: memoryview) -> None:
        """Any number of bytes."""
        for start, end in self._areas:
            if start <= offset and offset + len(data) <= end:
                self._view[offset : offset + len(data)] = data
                return
        for at, size in _pieces(offset, len(data)):
            self.write(at, size, int.from_bytes(data[at - offset : at - offset + size], "little"))


class _Absent(AccessHandler):
    """Behind the mapped areas of a region that traps nothing: reads as all ones, as nothing does on a bus."""

    def read(self, offset: int, size: int) -> int:
        return (1 << size * 8) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        pass


def failure(access: RegionAccess | None, index: int, offset: int) -> str:
    """In words: where an access to region `index` failed by the exception that is being handled, and how."""
    name = name_at(access.region.handler, offset) if access is not None else ""
    kind, _, frames = sys.exc_info()
    # The session packs what a hook returned: its own frame is the only one then.
    packed = kind is struct.error and frames is not None and frames.tb_next is None
    how = "returned no number that fits" if packed else "failed"
    return f"{offset:#x} of region {index}{f', {name},' if name else ''} {how}"


def no_read(offset: int, size: int) -> int:
    """In the place of an absent region's `read`: no access comes here."""
    raise IndexError(f"no region is there ({size} bytes at {offset:#x})")


def no_write(offset: int, size: int, value: int) -> None:
    """In the place of an absent region's `write`: no access comes here."""
    raise IndexError(f"no region is there ({value:#x}, {size} bytes at {offset:#x})")


def _pieces(offset: int, length: int) -> list[tuple[int, int]]:
    """Cut `[offset, offset + length)` into aligned accesses of at most 4 bytes."""
    pieces = []
    end = offset + length
    while offset < end:
        size = 4
        while offset & (size - 1) or offset + size > end:
            size //= 2
        pieces.append((offset, size))
        offset += size
    return pieces
