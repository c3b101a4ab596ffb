#!/usr/bin/env python3
"""A framebuffer in a VF's memory, as a PNG.

Connects to the socket of `vfio-user-xe export`, maps the memory that it hands over, and writes what is there now. A
program of its own: it needs nothing but Python.
"""

from __future__ import annotations

import argparse
import array
import json
import mmap
import os
import select
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Revoked(Exception):
    """The card took the memory back."""


class Framebuffer:
    """`length` bytes of a function's memory, mapped."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)
        packet, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
        if not fds:
            raise Revoked("nothing was handed over")
        self.what: dict[str, Any] = json.loads(packet)
        # The memory stays where it is; a page that the guest writes is seen at once.
        mapped = mmap.mmap(fds[0], self.what["length"], prot=mmap.PROT_READ, offset=self.what["offset"])
        os.close(fds[0])
        self.view = memoryview(mapped)

    def copy(self, offset: int, length: int) -> bytes:
        """The present content. Raises `Revoked`: then the bytes that were read may belong to no function any more."""
        if offset + length > len(self.view):
            raise ValueError(f"the picture ends at {offset + length:#x}, the memory at {len(self.view):#x}")
        data = bytes(self.view[offset : offset + length])
        self.check()
        return data

    def check(self) -> None:
        """Raise `Revoked` when the card has told so, or is gone."""
        if select.select([self._socket], [], [], 0)[0]:
            packet = self._socket.recv(1 << 16)
            raise Revoked(json.loads(packet)["reason"] if packet else "the exporter is gone")


def from_xrgb8888(row: bytes) -> bytes:
    """Blue, green, red, nothing: DRM_FORMAT_XRGB8888 in memory."""
    pixels = bytearray(len(row) // 4 * 3)
    pixels[0::3], pixels[1::3], pixels[2::3] = row[2::4], row[1::4], row[0::4]
    return bytes(pixels)


def from_xbgr8888(row: bytes) -> bytes:
    """Red, green, blue, nothing: DRM_FORMAT_XBGR8888 in memory."""
    pixels = bytearray(len(row) // 4 * 3)
    pixels[0::3], pixels[1::3], pixels[2::3] = row[0::4], row[1::4], row[2::4]
    return bytes(pixels)


def from_rgb565(row: bytes) -> bytes:
    """Five bits of red at the top, six of green, five of blue: DRM_FORMAT_RGB565."""
    words = array.array("H", row)
    if sys.byteorder == "big":
        words.byteswap()
    pixels = bytearray(3 * len(words))
    pixels[0::3] = bytes((w >> 11) * 255 // 31 for w in words)
    pixels[1::3] = bytes((w >> 5 & 63) * 255 // 63 for w in words)
    pixels[2::3] = bytes((w & 31) * 255 // 31 for w in words)
    return bytes(pixels)


FORMATS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "xrgb8888": (4, from_xrgb8888),
    "xbgr8888": (4, from_xbgr8888),
    "rgb565": (2, from_rgb565),
}
"""Bytes a pixel, and how a row becomes red, green and blue bytes."""


TILINGS: dict[str, tuple[int, int, int]] = {
    "x": (512, 8, 0b0001_1111_1111),
    "tile4": (128, 32, 0b0010_1100_1111),
    "tile64": (512, 128, 0b0011_0010_1100_1111),
}
"""Of pixels of 2 and 4 bytes: a tile's bytes a row, its rows, and the bits of an offset in it that come from the byte of the
row; the others come from the row. Tiles lie side by side, as many as a row of the picture (its stride) has."""


def spread(value: int, mask: int) -> int:
    """The bits of `value`, lowest first, at the places where `mask` has bits."""
    result = 0
    for place in range(mask.bit_length()):
        if mask >> place & 1:
            result |= (value & 1) << place
            value >>= 1
    return result


def tiled_row(data: bytes, y: int, length: int, stride: int, tiling: str) -> bytes:
    """The first `length` bytes of row `y` of a tiled picture."""
    width, rows, mask = TILINGS[tiling]
    first = y // rows * (stride // width) * width * rows + spread(y % rows, width * rows - 1 & ~mask)
    # Bytes that stay together: the lowest bits of an offset come from the row's bytes.
    run = (mask ^ mask + 1) + 1 >> 1
    places = [first + x // width * width * rows + spread(x % width, mask) for x in range(0, length, run)]
    return b"".join(data[at : at + run] for at in places)[:length]


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    """A PNG file (8 bits, red, green, blue) of `rows` of 3 * `width` bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    filtered = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def picture(framebuffer: Framebuffer, options: argparse.Namespace) -> bytes:
    """The framebuffer now, as a PNG file: as the options say, else as the exporter has said."""
    surface = {"width": 0, "height": 0, "pitch": 0, "format": "xrgb8888", "tiling": "linear"}
    surface |= framebuffer.what.get("surface", {})
    surface |= {name: value for name in surface if (value := getattr(options, name)) is not None}
    width, height, tiling = surface["width"], surface["height"], surface["tiling"]
    if not width or not height:
        raise ValueError("say --width and --height: the exporter has not")
    for name, allowed in (("format", [*FORMATS]), ("tiling", ["linear", *TILINGS])):
        if surface[name] not in allowed:
            raise ValueError(f"{name} {surface[name]}: allowed are {', '.join(allowed)}")
    size, convert = FORMATS[surface["format"]]
    row = width * size
    tile_width, tile_rows, _ = TILINGS.get(tiling, (1, 1, 0))
    stride = surface["pitch"] or -(-row // tile_width) * tile_width
    if stride < row or stride % tile_width:
        raise ValueError(f"a row of {width} pixels has {row} bytes; {stride} is less, or no multiple of {tile_width}")
    if tiling == "linear":
        data = framebuffer.copy(options.offset, stride * (height - 1) + row)
        rows = [data[at : at + row] for at in range(0, stride * height, stride)]
    else:
        data = framebuffer.copy(options.offset, stride * -(-height // tile_rows) * tile_rows)
        rows = [tiled_row(data, y, row, stride, tiling) for y in range(height)]
    return png(width, height, [convert(one) for one in rows])


def arguments() -> argparse.Namespace:
    """The command line."""

    def number(text: str) -> int:
        value = int(text, 0)
        if value < 0:
            raise ValueError
        return value

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("socket", help="the socket of 'vfio-user-xe export'")
    parser.add_argument("png", type=Path, help="the file to write")
    parser.add_argument(
        "--width", type=number, help="in pixels (default of this and the next four: what the exporter says)"
    )
    parser.add_argument("--height", type=number, help="in pixels")
    parser.add_argument("--stride", type=number, dest="pitch", help="bytes from a row to the next (else no gap)")
    parser.add_argument("--tiling", help="linear, x, tile4, tile64 (else linear)")
    parser.add_argument("--offset", type=number, default=0, help="where in the exported memory the first pixel is")
    parser.add_argument("--format", help=f"{', '.join(FORMATS)} (else xrgb8888)")
    parser.add_argument("--every", type=float, metavar="SECONDS", help="write it again and again")
    return parser.parse_args()


def main() -> int:
    """Write the picture; 1 when there is none."""
    options = arguments()
    try:
        framebuffer = Framebuffer(options.socket)
        while True:
            # Whole or not at all: another program may read the file.
            temporary = options.png.with_name(options.png.name + ".new")
            temporary.write_bytes(picture(framebuffer, options))
            temporary.replace(options.png)
            if options.every is None:
                return 0
            time.sleep(options.every)
    except Revoked as error:
        print(f"viewer: the memory was taken back: {error}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"viewer: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
