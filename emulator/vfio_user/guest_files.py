"""The descriptors that came with DMA_MAP: mapped, or read and written by file I/O.

A file is mapped, or kept open, once, however many ranges point into it: thousands of small vIOMMU mappings cost a slice each, and no
descriptors. Two descriptors are of the same file when they are of one open file description, or of one regular file with a size,
opened for the same. Others are not: the inode of an anonymous file, and a file of procfs, can stand for several things.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import sys
import weakref
from typing import NamedTuple

from vfio_user_xe.emulator.model.memory import PAGE_SIZE

_KCMP = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine)
_KCMP_FILE = 0
_LIMIT = 1 << 63
"""What an offset of a file may not reach."""


class FileError(Exception):
    """A descriptor that cannot be used so; `errno` is what the client is told."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class MappedFile:
    """One file mapped whole; its mapping goes when the last view on it does."""

    def __init__(self, fd: int, size: int, writable: bool) -> None:
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.size = size
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, access)
        self.view = memoryview(self.map)


class OpenFile:
    """One open file that is read and written by pread and pwrite; closed when its last range, and access, is gone. From any thread."""

    def __init__(self, fd: int) -> None:
        """`fd` stays the caller's."""
        self.fd = os.dup(fd)
        weakref.finalize(self, os.close, self.fd)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of the file.

        Raises:
            OSError: the file cannot be read there; EIO where it ends.
        """
        pieces = []
        while length:
            piece = os.pread(self.fd, length, offset)
            if not piece:
                raise OSError(errno.EIO, "the file ends")
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset` of the file.

        Raises:
            OSError: the file cannot be written there.
        """
        while len(data):
            count = os.pwrite(self.fd, data, offset)
            if not count:
                raise OSError(errno.EIO, "nothing is written")
            offset += count
            data = data[count:]


class _Key(NamedTuple):
    device: int
    inode: int
    mode: int


class GuestFiles:
    """What is open and mapped for one client. Its caller has the lock."""

    def __init__(self) -> None:
        self._mapped: weakref.WeakValueDictionary[tuple[int, int, int, bool], MappedFile] = (
            weakref.WeakValueDictionary()
        )
        self._open: dict[_Key, weakref.WeakSet[OpenFile]] = {}

    def mapped(self, fd: int, offset: int, size: int, writable: bool) -> MappedFile:
        """The mapping of the file behind `fd`, shared by all ranges of it.

        Raises:
            FileError: the descriptor cannot be mapped so, or the file is too short.
        """
        status = os.fstat(fd)
        if offset % PAGE_SIZE:
            raise FileError(errno.EINVAL, f"offset {offset:#x} into the file is not a multiple of {PAGE_SIZE}")
        length = status.st_size
        if length == 0:
            # A device file has no size; map the requested range.
            length = offset + size
        if offset + size > length:
            raise FileError(errno.EINVAL, f"[{offset:#x}, +{size:#x}) is beyond the file's end at {length:#x}")
        key = (status.st_dev, status.st_ino, length, writable)
        file = self._mapped.get(key) if status.st_size else None
        if file is None:
            try:
                file = MappedFile(fd, length, writable)
            except (OSError, ValueError, OverflowError) as exc:
                number = exc.errno if isinstance(exc, OSError) and exc.errno else errno.EINVAL
                raise FileError(number, f"the descriptor cannot be mapped: {exc}") from exc
            if status.st_size:
                self._mapped[key] = file
        return file

    def opened(self, fd: int, offset: int, size: int, readable: bool, writable: bool) -> OpenFile:
        """The file behind `fd` for file I/O in `[offset, offset + size)`, shared by all ranges of it.

        Raises:
            FileError: the descriptor is not open for that, has no offsets, or the file is too short.
        """
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        if (readable and mode == os.O_WRONLY) or (writable and mode == os.O_RDONLY):
            raise FileError(errno.EACCES, "the descriptor is not open for what the flags say")
        if offset + size > _LIMIT:
            raise FileError(errno.EINVAL, f"[{offset:#x}, +{size:#x}) is no place in a file")
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
        except OSError as exc:
            raise FileError(errno.EINVAL, f"the descriptor has no offsets: {exc.strerror}") from exc
        status = os.fstat(fd)
        sized = stat.S_ISREG(status.st_mode) and status.st_size > 0
        if sized and offset + size > status.st_size:
            raise FileError(errno.EINVAL, f"[{offset:#x}, +{size:#x}) is beyond the file's end at {status.st_size:#x}")
        known = self._open.setdefault(_Key(status.st_dev, status.st_ino, mode), weakref.WeakSet())
        for file in known:
            if sized or _same(file.fd, fd):
                return file
        try:
            opened = OpenFile(fd)
        except OSError as exc:
            raise FileError(exc.errno or errno.EMFILE, f"the descriptor cannot be kept: {exc.strerror}") from exc
        known.add(opened)
        return opened

    def forget(self) -> None:
        """Drop what is remembered of files that nothing uses any more."""
        for key in [key for key, known in self._open.items() if not known]:
            del self._open[key]


def _same(one: int, other: int) -> bool:
    """Whether both are of one open file description; False where the kernel does not say."""
    if _KCMP is None or not sys.platform.startswith("linux"):
        return False
    pid = os.getpid()
    return int(_syscall(_KCMP, pid, pid, _KCMP_FILE, one, other)) == 0


_syscall = ctypes.CDLL(None).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong]
