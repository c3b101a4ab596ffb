"""PNG files of 8-bit red, green and blue (PNG specification, 3rd edition)."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A file of `width` by `height` pixels of three bytes, the top row first, without gaps.

    Raises:
        ValueError: there are more or fewer bytes than that.

    From any thread.
    """
    row = 3 * width
    if len(pixels) != row * height:
        raise ValueError(f"{len(pixels)} bytes are not {width} by {height} pixels of 3 bytes")
    filtered = b"".join(b"\0" + pixels[at : at + row] for at in range(0, len(pixels), row))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
