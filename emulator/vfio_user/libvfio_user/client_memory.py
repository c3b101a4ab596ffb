"""The client's memory by way of libvfio-user: mappings of it that last, and DMA by messages."""

from __future__ import annotations

import errno
import os
import threading
from typing import Any

from vfio_user_xe.emulator.vfio_user.libvfio_user.library import Library

_MREMAP_MAYMOVE = 1
_DIRECT_ACCESS = 1
"""VFU_SGL_DIRECT_ACCESS: use the client's descriptor where it has one."""


def own_view(library: Library, info: Any, size: int) -> memoryview:
    """The bytes of a range (`vfu_dma_info_t`), through a second mapping of them: it lasts as long as it is used.

    The library's own goes when the client takes the range back, also from under who is using it.

    Raises:
        OSError: the host refuses the mapping.

    On the context's thread.
    """
    ffi, system = library.ffi, library.system
    mapping = info.mapping
    # A length of 0 makes a second mapping of the same pages (mremap(2), "old_size").
    start = system.mremap(mapping.start, 0, mapping.length, _MREMAP_MAYMOVE)
    if int(ffi.cast("intptr_t", start)) == -1:
        raise OSError(ffi.errno, os.strerror(ffi.errno))
    length = mapping.length
    owned = ffi.gc(ffi.cast("char *", start), lambda pointer: system.munmap(pointer, length), length)
    offset = int(ffi.cast("uintptr_t", info.mapped_at)) - int(ffi.cast("uintptr_t", mapping.start))
    return memoryview(ffi.buffer(owned, length)).cast("B")[offset : offset + size]


class Transfer:
    """One DMA message to be: done when `done` is set, `error` is 0 for success."""

    __slots__ = ("address", "data", "done", "error", "write")

    def __init__(self, address: int, data: memoryview, write: bool) -> None:
        self.address = address
        self.data = data
        self.write = write
        self.done = threading.Event()
        self.error = 0


def carry_out(library: Library, context: Any, segment: Any, transfer: Transfer, mapped: bool) -> int:
    """Send one message and wait for the reply; the error, 0 for none. `segment` is memory for a `dma_sg_t`.

    Memory that is not `mapped` is reached by file I/O where the client gave a descriptor for that. Mapped memory is asked for by a
    message: who wants it without one has the mapping.

    On the context's thread, inside of the library.
    """
    calls, ffi = library.calls, library.ffi
    address, count = ffi.cast("void *", transfer.address), len(transfer.data)
    protection = 2 if transfer.write else 1
    flags = 0 if mapped else _DIRECT_ACCESS
    pointer = ffi.cast("segment *", segment)
    if calls.vfu_addr_to_sgl(context, address, count, pointer, 1, protection) != 1:
        return int(ffi.errno) or errno.EFAULT
    if transfer.write:
        buffer = ffi.from_buffer(transfer.data)
        failed = calls.vfu_sgl_write(context, pointer, 1, buffer, flags) != 0
    else:
        buffer = ffi.from_buffer(transfer.data, require_writable=True)
        failed = calls.vfu_sgl_read(context, pointer, 1, buffer, flags) != 0
    return (int(ffi.errno) or errno.EIO) if failed else 0
