"""Copies and fills of memory at memory speed: whole contiguous spans at a time, without the interpreter's lock.

Everything here is a `Bulk`: it works in steps, between which the executor may do something else, and yields a fault
that it meets instead of raising it, to try that place again when it is resumed.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from device_models.xe.address_space import AccessFault, AddressSpace, Fault, TranslationFault
from emulator.interconnect import Window

if TYPE_CHECKING:
    from device_models.xe.engines.command_streamer import Bulk
    from device_models.xe.vram import Vram

STEP = 2 << 20
"""Bytes of a step: some hundred microseconds."""
_LOCKED_STEP = 256 << 10
"""Bytes of a step that keeps the interpreter's lock (memory that Python maps read-only has no address to give)."""
_WITHOUT_LOCK = 16 << 10
"""From this size on letting the lock go is worth its price."""

_memmove = ctypes.memmove
_memset = ctypes.memset


def copy(source: AddressSpace, source_address: int, target: AddressSpace, target_address: int, length: int) -> Bulk:
    """Copy `length` bytes. Where the two overlap, the result is as undefined as the hardware's."""
    reader = _Cursor(source, source_address, write=False)
    writer = _Cursor(target, target_address, write=True)
    while length:
        fault = reader.open(length) or writer.open(length)
        if fault is not None:
            yield fault
            continue
        count = min(length, STEP, reader.left, writer.left)
        yield from move(reader.window, reader.offset, writer.window, writer.offset, count)
        reader.advance(count)
        writer.advance(count)
        length -= count


def move(source: Window, source_offset: int, target: Window, target_offset: int, count: int) -> Bulk:
    """Copy between two windows, at most `STEP` bytes, counted in both ledger entries."""
    if source.view is None or target.view is None:
        target.write(target_offset, source.read(source_offset, count))
        yield None
        return
    read, written = source.entry, target.entry
    read.reads += 1
    read.bytes_read += count
    written.writes += 1
    written.bytes_written += count
    from_view = source.view[source_offset : source_offset + count]
    to_view = target.view[target_offset : target_offset + count]
    if count < _WITHOUT_LOCK:
        to_view[:] = from_view
    elif from_view.readonly or to_view.readonly:
        for start in range(0, count, _LOCKED_STEP):
            to_view[start : start + _LOCKED_STEP] = from_view[start : start + _LOCKED_STEP]
            yield None
        return
    else:
        _memmove(_address(to_view), _address(from_view), count)
    yield None


def fill(target: AddressSpace, address: int, length: int, pattern: bytes, vram: Vram) -> Bulk:
    """Fill `length` bytes with `pattern` again and again; zeros in VRAM by giving its pages back to the host.

    `length` is a multiple of the pattern's.
    """
    if pattern.count(pattern[0]) == len(pattern):
        pattern = pattern[:1]
    cursor = _Cursor(target, address, write=True)
    done = 0
    while done < length:
        fault = cursor.open(length - done)
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


def _fill_window(window: Window, offset: int, count: int, pattern: bytes, done: int) -> None:
    if len(pattern) == 1 and window.view is not None and not window.view.readonly:
        window.entry.writes += 1
        window.entry.bytes_written += count
        _memset(_address(window.view[offset : offset + count]), pattern[0], count)
    else:
        # A span may end in the middle of the pattern.
        phase = done % len(pattern)
        repeated = pattern * (-(-(count + phase) // len(pattern)))
        window.write(offset, memoryview(repeated)[phase : phase + count])


class _Cursor:
    """A place in an address space, with the window that it is in."""

    __slots__ = ("_address", "_space", "_write", "left", "offset", "window")

    def __init__(self, space: AddressSpace, address: int, *, write: bool) -> None:
        self._space = space
        self._address = address
        self._write = write
        self.window: Window
        self.offset = self.left = 0

    def open(self, length: int) -> Fault | None:
        """Have a window here, for `length` bytes if it can be; the fault that says why there is none."""
        if self.left and self.window.valid:
            return None
        try:
            self.window = self._space.window(self._address, length, self._write)
        except (TranslationFault, AccessFault) as fault:
            return fault
        self.offset, self.left = 0, self.window.length
        return None

    def advance(self, count: int) -> None:
        """Go on behind `count` bytes."""
        self.offset += count
        self.left -= count
        self._address += count


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
