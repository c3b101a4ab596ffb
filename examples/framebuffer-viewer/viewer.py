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


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    """A PNG file (8 bits, red, green, blue) of `rows` of 3 * `width` bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    filtered = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def picture(framebuffer: Framebuffer, options: argparse.Namespace) -> bytes:
    """The framebuffer now, as a PNG file."""
    size, convert = FORMATS[options.format]
    stride = options.stride or options.width * size
    if stride < options.width * size:
        raise ValueError(f"a row of {options.width} pixels has {options.width * size} bytes, more than {stride}")
    length = stride * (options.height - 1) + options.width * size
    data = framebuffer.copy(options.offset, length)
    starts = range(0, stride * options.height, stride)
    return png(options.width, options.height, [convert(data[at : at + options.width * size]) for at in starts])


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
    parser.add_argument("--width", type=number, required=True, help="in pixels")
    parser.add_argument("--height", type=number, required=True, help="in pixels")
    parser.add_argument("--stride", type=number, default=0, help="bytes from a row to the next (default: no gap)")
    parser.add_argument("--offset", type=number, default=0, help="where in the exported memory the first pixel is")
    parser.add_argument("--format", choices=FORMATS, default="xrgb8888")
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
