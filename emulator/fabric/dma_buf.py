"""dma-bufs on the host: memory of a memfd as a real dma-buf, where the host has /dev/udmabuf.

Constants and layout from include/uapi/linux/udmabuf.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

UDMABUF = Path("/dev/udmabuf")
_CREATE = 1 << 30 | 24 << 16 | ord("u") << 8 | 0x42
"""UDMABUF_CREATE: _IOW('u', 0x42, struct udmabuf_create)."""
_ARGUMENT = struct.Struct("=IIQQ")
"""struct udmabuf_create: memfd, flags, offset, size."""
_CLOEXEC = 1


def make_dma_buf(memfd: int, offset: int, length: int, device: Path = UDMABUF) -> int:
    """The file descriptor of a dma-buf of `[offset, offset + length)` (in whole pages) of `memfd`; the caller owns it.

    The kernel pins the pages that are there now: where the memfd loses pages later (a hole is punched), the dma-buf
    keeps the old ones.

    Raises:
        OSError: there is no udmabuf device, or the range is larger than the host allows (udmabuf's size_limit_mb,
            64 MiB by default).
    """
    opened = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(opened, _CREATE, _ARGUMENT.pack(memfd, _CLOEXEC, offset, length), False)  # type: ignore[return-value]
    finally:
        os.close(opened)
