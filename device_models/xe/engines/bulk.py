"""Copies and fills of memory at memory speed: whole contiguous spans at a time, without the interpreter's lock.

Everything here is a `Bulk`: it works in steps, between which the executor may do something else, and yields a fault
that it meets instead of raising it, to try that place again when it is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator

from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk
from vfio_user_xe.device_models.xe.memory.address_space import (
    AccessFault,
    AddressSpace,
    Extent,
    Fault,
    TranslationFault,
)
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.emulator.fabric.pages import PAGE, PAGE_SHIFT, Pages, copy_pages
from vfio_user_xe.emulator.fabric.span import Revoked, Window, move

STEP = 8 << 20
"""Bytes of a step: about a millisecond."""
_SCATTERED = 32 << 10
"""Where a piece is no longer than this, what is behind it is looked up and copied by pages."""


def copy(source: AddressSpace, source_address: int, target: AddressSpace, target_address: int, length: int) -> Bulk:
    """Copy `length` bytes. Where the two overlap, the result is as undefined as the hardware's."""
    reader = Cursor(source, source_address, length, write=False)
    writer = Cursor(target, target_address, length, write=True)
    pending = 0
    scattered = False
    while length:
        if scattered and (count := _copy_scattered(reader, writer, length)):
            length -= count
            pending += count
            if pending >= STEP:
                pending = 0
                yield None
            continue
        fault = reader.open() or writer.open()
        if fault is not None:
            yield fault
            continue
        count = min(length, STEP, reader.left, writer.left)
        scattered = count <= _SCATTERED < length
        try:
            move(reader.window, reader.offset, writer.window, writer.offset, count)
        except Revoked:
            continue  # Between the look and the copy: the cursor opens it anew, or says why not.
        reader.advance(count)
        writer.advance(count)
        length -= count
        pending += count
        if pending >= STEP:
            pending = 0
            yield None


def _copy_scattered(reader: Cursor, writer: Cursor, length: int) -> int:
    """Copy as many whole pages as are found at once; 0 where there is none that this can copy."""
    if (reader.address | writer.address) & PAGE - 1 or length < PAGE:
        return 0
    most = length >> PAGE_SHIFT
    source = reader.pages(most)
    target = writer.pages(len(source)) if source is not None else None
    if source is None or target is None:
        return 0
    count = len(target)
    copy_pages(source.first(count), target)
    reader.skip(count << PAGE_SHIFT)
    writer.skip(count << PAGE_SHIFT)
    return count << PAGE_SHIFT


def fill(target: AddressSpace, address: int, length: int, pattern: bytes, vram: Vram) -> Bulk:
    """Fill `length` bytes with `pattern` again and again; zeros in VRAM by what costs least (`Vram.zero`)."""
    if pattern.count(pattern[0]) == len(pattern):
        pattern = pattern[:1]
    cursor = Cursor(target, address, length, write=True)
    done = 0
    while done < length:
        fault = cursor.open()
        if fault is not None:
            yield fault
            continue
        whole = min(length - done, cursor.left)
        window, offset = cursor.window, cursor.offset
        try:
            if pattern == b"\0" and window.zero(offset, whole, vram.zero):
                count = whole
            else:
                count = min(whole, STEP)
                # A span may begin and end in the middle of the pattern.
                window.fill(offset, count, pattern, done % len(pattern))
        except Revoked:
            continue
        cursor.advance(count)
        done += count
        yield None


class Cursor:
    """A place in an address space that moves forward, with the window that it is in."""

    __slots__ = ("_end", "_extents", "_rest", "_space", "_write", "address", "left", "offset", "window")

    def __init__(self, space: AddressSpace, address: int, length: int, *, write: bool) -> None:
        self._space = space
        self.address = address
        self._end = address + length
        self._write = write
        self._extents: Iterator[Extent] | None = None
        self._rest: Extent | None = None
        """The part of the current extent that is not in the window."""
        self.window: Window
        self.offset = 0
        self.left = 0
        """How much of the window is ahead."""

    def open(self) -> Fault | None:
        """Have something ahead in a window; the fault that says why there is nothing."""
        if self.left and self.window.valid:
            return None
        try:
            if self.left or self._extents is None:
                # At the beginning, after a fault, or after the window was taken away: look up anew where this is.
                self._extents = self._space.extents(self.address, self._end - self.address, self._write)
                self._rest = None
            extent = self._rest or next(self._extents)
            self.left = 0
            window, offset = self._space.locate(extent, self._write)
        except (TranslationFault, AccessFault) as fault:
            self._extents = None
            return fault
        self.window, self.offset = window, offset
        self.left = count = min(extent.length, window.length - offset)
        self._rest = None
        if count < extent.length:
            self._rest = extent._replace(address=extent.address + count, length=extent.length - count)
        return None

    def advance(self, count: int) -> None:
        """Go on behind `count` bytes."""
        self.offset += count
        self.left -= count
        self.address += count

    def pages(self, most: int) -> Pages | None:
        """The pages from here on; `address` is a page's."""
        return self._space.pages(self.address, most, self._write)

    def skip(self, count: int) -> None:
        """Go on behind `count` bytes that were reached without the window."""
        self.address += count
        self.left = 0
        self._extents = None
