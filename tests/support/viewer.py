"""The framebuffer viewer of the examples, and the pictures that it writes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

VIEWER = Path(__file__).parents[2] / "examples" / "framebuffer-viewer" / "viewer.py"


def pixels(file: Path) -> list[list[tuple[int, int, int]]]:
    """The rows of a PNG of 8-bit red, green and blue without filters (PNG specification, 3rd edition)."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, colour) == (8, 2)
    raw = zlib.decompress(chunks[1][1])
    rows = []
    for y in range(height):
        row = raw[y * (3 * width + 1) : (y + 1) * (3 * width + 1)]
        assert row[0] == 0
        rows.append([(row[1 + 3 * x], row[2 + 3 * x], row[3 + 3 * x]) for x in range(width)])
    return rows
