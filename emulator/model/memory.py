"""Memory that lives in a file descriptor, so that a guest can map what a device reads and writes.

A `Memory` is one memfd: sparse (only touched pages cost anything), mapped once in this process, and handed to the
client by descriptor and offset. VRAM and page-table windows are such memories; no access to them is ever trapped.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

PAGE_SIZE = 4096
"""Bytes: what can be mapped is a multiple of it."""

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class OutOfBounds(Exception):
    """A range that does not lie inside its memory."""


class Memory:
    """`size` bytes of zeroed, shareable, sparse memory.

    `view` is the whole of it as a writable memoryview of bytes; slices of it are windows without a copy. `fd` may be
    passed to other processes; it stays owned by this object.
    """

    def __init__(self, size: int, name: str = "memory") -> None:
        """Create `size` bytes (a positive multiple of the page size, 4096).

        Raises:
            ValueError: `size` is not such a multiple.
            OSError: The host has no memory or descriptor for it.

        From any thread.
        """
        if size <= 0 or size % PAGE_SIZE:
            raise ValueError(f"memory {name!r}: size {size:#x} is not a positive multiple of {PAGE_SIZE:#x}")
        self.name = name
        self.size = size
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # A process that gets the descriptor must not truncate the file, which would kill this one by SIGBUS.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self.view = memoryview(self._map)

    def check(self, offset: int, length: int) -> None:
        """Raise `OutOfBounds` unless `[offset, offset + length)` lies inside this memory.

        Raises:
            OutOfBounds: Part of the range is outside.

        From any thread.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfBounds(f"{self.name}: [{offset:#x}, {offset + length:#x}) is outside of [0, {self.size:#x})")

    def discard(self, offset: int, length: int) -> None:
        """Zero `[offset, offset + length)` and give whole pages of it back to the host.

        Costs the same for a page and for a gibibyte of untouched memory: the fast way to clear VRAM.

        Raises:
            OutOfBounds: Part of the range is outside.
            OSError: The host refuses.

        From any thread.
        """
        self.check(offset, length)
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        if length and _libc.fallocate(self.fd, mode, offset, length) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{self.name}: cannot discard {length:#x} bytes at {offset:#x}: {os.strerror(error)}")

    def resident(self) -> int:
        """Bytes of host memory this memory costs now."""
        return os.fstat(self.fd).st_blocks * 512

    def close(self) -> None:
        """Give the descriptor back. The mapping goes when the last view on it is gone."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self.view = memoryview(b"")
        del self._map
