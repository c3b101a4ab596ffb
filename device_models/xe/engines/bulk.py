"""Copies and fills of memory at memory speed: whole contiguous spans at a time, without the interpreter's lock.

Everything here is a `Bulk`: it works in steps, between which the executor may do something else, and yields a fault
that it meets instead of raising it, to try that place again when it is resumed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.memory.address_space import (
    AccessFault,
    AddressSpace,
    Extent,
    Fault,
    TranslationFault,
)
from vfio_user_xe.emulator.fabric.interconnect import Window

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk
    from vfio_user_xe.device_models.xe.memory.vram import Vram

STEP = 8 << 20
"""Bytes of a step: about a millisecond."""
_LOCKED_STEP = 256 << 10
"""Bytes copied at a time where the lock is kept (memory that is mapped read-only has no address to give)."""
_WITHOUT_LOCK = 16 << 10
"""From this size on letting the lock go is worth its price."""

_memmove = ctypes.memmove
_memset = ctypes.memset


def copy(source: AddressSpace, source_address: int, target: AddressSpace, target_address: int, length: int) -> Bulk:
    """Copy `length` bytes. Where the two overlap, the result is as undefined as the hardware's."""
    reader = Cursor(source, source_address, length, write=False)
    writer = Cursor(target, target_address, length, write=True)
    pending = 0
    while length:
        fault = reader.open() or writer.open()
        if fault is not None:
            yield fault
            continue
        count = min(length, STEP, reader.left, writer.left)
        move(reader.window, reader.offset, writer.window, writer.offset, count)
        reader.advance(count)
        writer.advance(count)
        length -= count
        pending += count
        if pending >= STEP:
            pending = 0
            yield None


def move(source: Window, source_offset: int, target: Window, target_offset: int, count: int) -> None:
    """Copy between two windows, counted in both ledger entries."""
    if source.view is None or target.view is None:
        target.write(target_offset, source.read(source_offset, count))
        return
    entry = source.entry
    entry.reads += 1
    entry.bytes_read += count
    entry = target.entry
    entry.writes += 1
    entry.bytes_written += count
    from_view = source.view[source_offset : source_offset + count]
    to_view = target.view[target_offset : target_offset + count]
    if count < _WITHOUT_LOCK:
        to_view[:] = from_view
    elif from_view.readonly or to_view.readonly:
        for start in range(0, count, _LOCKED_STEP):
            to_view[start : start + _LOCKED_STEP] = from_view[start : start + _LOCKED_STEP]
    else:
        _memmove(address_of(to_view), address_of(from_view), count)


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
        if pattern == b"\0" and window.view is not None and vram.zero(window.view[offset : offset + whole]):
            count = whole
            window.entry.writes += 1
            window.entry.bytes_written += count
        else:
            count = min(whole, STEP)
            _fill_window(window, offset, count, pattern, done)
        cursor.advance(count)
        done += count
        yield None


def address_of(view: memoryview) -> int:
    """Where the bytes of a writable view are in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _fill_window(window: Window, offset: int, count: int, pattern: bytes, done: int) -> None:
    if len(pattern) == 1 and window.view is not None and not window.view.readonly:
        window.entry.writes += 1
        window.entry.bytes_written += count
        _memset(address_of(window.view[offset : offset + count]), pattern[0], count)
    else:
        # A span may begin and end in the middle of the pattern.
        phase = done % len(pattern)
        repeated = pattern * (-(-(count + phase) // len(pattern)))
        window.write(offset, memoryview(repeated)[phase : phase + count])


class Cursor:
    """A place in an address space that moves forward, with the window that it is in."""

    __slots__ = ("_address", "_end", "_extents", "_rest", "_space", "_write", "left", "offset", "window")

    def __init__(self, space: AddressSpace, address: int, length: int, *, write: bool) -> None:
        self._space = space
        self._address = address
        self._end = address + length
        self._write = write
        self._extents: Iterator[Extent] | None = None
        self._rest: Extent | None = None
        """What of the current extent is not in the window."""
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
                self._extents = self._space.extents(self._address, self._end - self._address, self._write)
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
        self._address += count
