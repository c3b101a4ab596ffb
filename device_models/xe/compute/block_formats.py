"""Block-compressed surface formats: blocks of four by four texels between bytes in memory and numbers by channel.

Codes as in Mesa `isl.h` (ISL_FORMAT_*); the coding is that of the Khronos Data Format Specification, chapters S3TC, RGTC, BPTC, ETC, EAC.
ASTC and FXT1 are not there: the hardware has none since Gfx12.5 (`isl_format.c:isl_format_supports_sampling`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import bptc, etc
from vfio_user_xe.device_models.xe.compute.formats import Format, Kind, linear_of_srgb

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Texels = NDArray[np.float64]
"""[blocks, 16, 4]: rows of four texels, by channel."""
SIDE = 4
"""Texels of a block's side."""


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """A format whose unit in memory is a block of `SIDE` by `SIDE` texels."""

    bytes: int
    """Of a block."""
    decode: Callable[[Bytes], Texels]
    """[blocks, bytes] to texels."""
    channels: int = 4
    kind: Kind = Kind.UNORM

    @property
    def form(self) -> Format:
        """What can be said of it as of other formats: its size, kind and channels."""
        return Format(self.bytes, self.kind, tuple((channel, channel, 1) for channel in range(self.channels)))


def colours_565(blocks: Bytes, *, four: bool, transparent: bool = True) -> Texels:
    """Eight bytes: two colours of 5, 6 and 5 bits, and two bits a texel.

    `four` says that there are always two colours between them; otherwise their order says whether one is black, and transparent.
    """
    low, high = (_little(blocks, at, 2) for at in (0, 2))
    ends = np.stack([_expanded(low), _expanded(high)], axis=1)
    thirds = np.stack([(2 * ends[:, 0] + ends[:, 1]) / 3, (ends[:, 0] + 2 * ends[:, 1]) / 3], axis=1)
    palette = np.ones((len(blocks), 4, 4))
    palette[:, :2, :3] = ends
    palette[:, 2:, :3] = thirds
    if not four:
        three = low <= high
        palette[three, 2, :3] = ends[three].mean(axis=1)
        palette[three, 3, :3] = 0
        if transparent:
            palette[three, 3, 3] = 0
    codes = _little(blocks, 4, 4)[:, None] >> 2 * np.arange(16) & 3
    return np.take_along_axis(palette, codes[:, :, None], axis=1)


def channel(blocks: Bytes, *, signed: bool = False) -> NDArray[np.float64]:
    """[blocks, 16]: eight bytes with two ends and three bits a texel."""
    ends = blocks[:, :2].view(np.int8).astype(np.float64) if signed else blocks[:, :2].astype(np.float64)
    first, last = (
        (np.maximum(ends[:, :1], -127), np.maximum(ends[:, 1:], -127)) if signed else (ends[:, :1], ends[:, 1:])
    )
    least, most = (-127.0, 127.0) if signed else (0.0, 255.0)
    seven, five = np.arange(1, 7) / 7, np.arange(1, 5) / 5
    many = np.concatenate([first, last, first + (last - first) * seven], axis=1)
    few = np.concatenate([first, last, first + (last - first) * five, first * 0 + least, first * 0 + most], axis=1)
    palette = np.where(ends[:, :1] > ends[:, 1:], many, few)
    codes = _little(blocks, 2, 6)[:, None] >> 3 * np.arange(16) & 7
    return np.asarray(np.take_along_axis(palette, codes, axis=1) / most)


def _bc1(blocks: Bytes, *, transparent: bool = True) -> Texels:
    return colours_565(blocks, four=False, transparent=transparent)


def _bc2(blocks: Bytes) -> Texels:
    texels = colours_565(blocks[:, 8:], four=True)
    texels[:, :, 3] = np.stack([blocks[:, :8] & 0xF, blocks[:, :8] >> 4], axis=2).reshape(len(blocks), 16) / 15
    return texels


def _bc3(blocks: Bytes) -> Texels:
    texels = colours_565(blocks[:, 8:], four=True)
    texels[:, :, 3] = channel(np.ascontiguousarray(blocks[:, :8]))
    return texels


def _bc4(blocks: Bytes, *, signed: bool = False, channels: int = 1) -> Texels:
    texels = np.zeros((len(blocks), 16, 4))
    texels[:, :, 3] = 1
    for number in range(channels):
        texels[:, :, number] = channel(np.ascontiguousarray(blocks[:, 8 * number : 8 * number + 8]), signed=signed)
    return texels


def _srgb(decode: Callable[[Bytes], Texels]) -> Callable[[Bytes], Texels]:
    """Red, green and blue of a format made linear."""

    def linear(blocks: Bytes) -> Texels:
        texels = decode(blocks)
        texels[:, :, :3] = linear_of_srgb(texels[:, :, :3])
        return texels

    return linear


def _little(blocks: Bytes, first: int, count: int) -> Numbers:
    """Numbers of `count` bytes from `first` on."""
    shifts = 8 * np.arange(count, dtype=np.int64)
    return np.asarray((blocks[:, first : first + count].astype(np.int64) << shifts).sum(axis=1))


def _expanded(colours: Numbers) -> NDArray[np.float64]:
    """[colours, 3]: 5, 6 and 5 bits, blue lowest."""
    return np.stack([(colours >> 11) / 31, (colours >> 5 & 0x3F) / 63, (colours & 0x1F) / 31], axis=1)


_BC1_OPAQUE = partial(_bc1, transparent=False)
FORMATS: dict[int, BlockFormat] = {
    0x180: BlockFormat(8, _srgb(_BC1_OPAQUE), 3), 0x191: BlockFormat(8, _BC1_OPAQUE, 3),
    0x186: BlockFormat(8, _bc1), 0x18B: BlockFormat(8, _srgb(_bc1)),
    0x187: BlockFormat(16, _bc2), 0x18C: BlockFormat(16, _srgb(_bc2)),
    0x188: BlockFormat(16, _bc3), 0x18D: BlockFormat(16, _srgb(_bc3)),
    0x189: BlockFormat(8, _bc4, 1), 0x199: BlockFormat(8, partial(_bc4, signed=True), 1, Kind.SNORM),
    0x18A: BlockFormat(16, partial(_bc4, channels=2), 2), 0x19A: BlockFormat(16, partial(_bc4, signed=True, channels=2), 2, Kind.SNORM),
    0x1A1: BlockFormat(16, partial(bptc.floats, signed=True), 3, Kind.FLOAT),
    0x1A4: BlockFormat(16, partial(bptc.floats, signed=False), 3, Kind.FLOAT),
    0x1A2: BlockFormat(16, bptc.colours), 0x1A3: BlockFormat(16, _srgb(bptc.colours)),
    0x1A9: BlockFormat(8, etc.colours, 3), 0x1AA: BlockFormat(8, etc.colours, 3), 0x1AF: BlockFormat(8, _srgb(etc.colours), 3),
    0x1AB: BlockFormat(8, etc.red, 1), 0x1AC: BlockFormat(16, etc.red_green, 2),
    0x1AD: BlockFormat(8, partial(etc.red, signed=True), 1, Kind.SNORM), 0x1AE: BlockFormat(16, partial(etc.red_green, signed=True), 2, Kind.SNORM),
    0x1C0: BlockFormat(8, etc.punched), 0x1C1: BlockFormat(8, _srgb(etc.punched)),
    0x1C2: BlockFormat(16, etc.colours_alpha), 0x1C3: BlockFormat(16, _srgb(etc.colours_alpha)),
}  # fmt: skip
