"""ETC1, ETC2 and EAC: blocks of four by four texels (Khronos Data Format Specification, chapters ETC1, ETC2).

Bytes come highest first; texels are numbered down the columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Texels = NDArray[np.float64]

_COLUMNS = np.arange(16).reshape(4, 4).T.reshape(-1)
"""Number down the columns of each texel of the rows."""
_X, _Y = np.arange(16) % 4, np.arange(16) // 4
_STEPS = np.array([(2, 8), (5, 17), (9, 29), (13, 42), (18, 60), (24, 80), (33, 106), (47, 183)])
_MODIFIERS = np.concatenate([_STEPS, -_STEPS], axis=1)
"""[table, code]"""
_DISTANCES = np.array([3, 6, 11, 16, 23, 32, 41, 64])
_ALPHA = np.array([
    (-3, -6, -9, -15, 2, 5, 8, 14), (-3, -7, -10, -13, 2, 6, 9, 12), (-2, -5, -8, -13, 1, 4, 7, 12),
    (-2, -4, -6, -13, 1, 3, 5, 12), (-3, -6, -8, -12, 2, 5, 7, 11), (-3, -7, -9, -11, 2, 6, 8, 10),
    (-4, -7, -8, -11, 3, 6, 7, 10), (-3, -5, -8, -11, 2, 4, 7, 10), (-2, -6, -8, -10, 1, 5, 7, 9),
    (-2, -5, -8, -10, 1, 4, 7, 9), (-2, -4, -8, -10, 1, 3, 7, 9), (-2, -5, -7, -10, 1, 4, 6, 9),
    (-3, -4, -7, -10, 2, 3, 6, 9), (-1, -2, -3, -10, 0, 1, 2, 9), (-4, -6, -8, -9, 3, 5, 7, 8), (-3, -5, -7, -9, 2, 4, 6, 8),
])  # fmt: skip
"""[table, code]"""


def colours(blocks: Bytes) -> Texels:
    """ETC1 and ETC2 without alpha."""
    return _colours(blocks.astype(np.int64), punch=False)


def punched(blocks: Bytes) -> Texels:
    """ETC2 with texels that are transparent ("punchthrough alpha")."""
    return _colours(blocks.astype(np.int64), punch=True)


def colours_alpha(blocks: Bytes) -> Texels:
    """ETC2 behind an EAC block of alpha."""
    texels = _colours(blocks[:, 8:].astype(np.int64), punch=False)
    block = blocks[:, :8].astype(np.int64)
    modifier, multiplier = _modifiers(block)
    texels[:, :, 3] = np.clip(block[:, :1] + modifier * multiplier, 0, 255) / 255
    return texels


def red(blocks: Bytes, *, signed: bool = False) -> Texels:
    """EAC of one channel with 11 bits."""
    texels = np.zeros((len(blocks), 16, 4))
    texels[:, :, 3] = 1
    texels[:, :, 0] = _eleven_bits(blocks, signed)
    return texels


def red_green(blocks: Bytes, *, signed: bool = False) -> Texels:
    """EAC of two channels."""
    texels = red(blocks[:, :8], signed=signed)
    texels[:, :, 1] = _eleven_bits(blocks[:, 8:], signed)
    return texels


def _eleven_bits(blocks: Bytes, signed: bool) -> NDArray[np.float64]:
    block = blocks.astype(np.int64)
    modifier, multiplier = _modifiers(block)
    change = np.where(multiplier == 0, modifier, 8 * modifier * multiplier)
    if signed:
        base = np.maximum(np.where(block[:, :1] > 127, block[:, :1] - 256, block[:, :1]), -127)
        return np.asarray(np.clip(8 * base + change, -1023, 1023) / 1023)
    return np.asarray(np.clip(8 * block[:, :1] + 4 + change, 0, 2047) / 2047)


def _modifiers(block: Numbers) -> tuple[Numbers, Numbers]:
    """[blocks, 16] modifiers, and [blocks, 1] what multiplies them."""
    codes = (block[:, 2:8] << 8 * np.arange(5, -1, -1)).sum(axis=1)
    code = codes[:, None] >> 45 - 3 * _COLUMNS & 7
    return _ALPHA[(block[:, 1] & 0xF)[:, None], code], block[:, 1:2] >> 4


def _colours(block: Numbers, *, punch: bool) -> Texels:
    b = [block[:, number] for number in range(8)]
    msb, lsb = b[4] << 8 | b[5], b[6] << 8 | b[7]
    code = (msb[:, None] >> _COLUMNS & 1) << 1 | lsb[:, None] >> _COLUMNS & 1
    differential = b[3] & 2 != 0
    apart = punch | differential
    sums = [(part >> 3) + _signed3(part & 7) for part in b[:3]]
    beyond = [apart & ((total < 0) | (total > 31)) for total in sums]
    t = beyond[0]
    h = beyond[1] & ~t
    planar = beyond[2] & ~beyond[1] & ~t
    see_through = punch & ~differential & ~planar
    result = _halves(b, code, sums, apart, see_through)
    for chosen, paint in ((t, _paint_t), (h, _paint_h)):
        if chosen.any():
            painted = paint([part[chosen] for part in b])
            result[chosen] = np.take_along_axis(painted, code[chosen][:, :, None], axis=1)
    if planar.any():
        result[planar] = _planar([part[planar] for part in b])
    texels = np.ones((len(block), 16, 4))
    texels[:, :, :3] = np.clip(result, 0, 255) / 255
    texels[see_through[:, None] & (code == 2)] = 0
    return texels


def _halves(
    b: list[Numbers], code: Numbers, sums: list[Numbers], apart: NDArray[np.bool_], see_through: NDArray[np.bool_]
) -> Numbers:
    """[blocks, 16, 3]: individual and differential mode: two halves, each with a colour and steps from it."""
    bases = []
    for part, total in zip(b[:3], sums, strict=True):
        one = np.where(apart, _expand(part >> 3, 5), (part >> 4) * 17)
        other = np.where(apart, _expand(total & 0x1F, 5), (part & 0xF) * 17)
        bases.append(np.stack([one, other], axis=1))
    base = np.stack(bases, axis=2)
    half = np.where((b[3] & 1)[:, None] == 1, _Y >= 2, _X >= 2).astype(np.int64)
    table = np.where(half == 1, (b[3] >> 2 & 7)[:, None], (b[3] >> 5)[:, None])
    step = _MODIFIERS[table, code]
    step = np.where(see_through[:, None] & (code % 2 == 0), 0, step)
    return np.asarray(np.take_along_axis(base, half[:, :, None], axis=1) + step[:, :, None])


def _paint_t(b: list[Numbers]) -> Numbers:
    one = 17 * np.stack([(b[0] >> 3 & 3) << 2 | b[0] & 3, b[1] >> 4, b[1] & 0xF], axis=1)
    other = 17 * np.stack([b[2] >> 4, b[2] & 0xF, b[3] >> 4], axis=1)
    distance = _DISTANCES[b[3] >> 1 & 6 | b[3] & 1][:, None]
    return np.stack([one, other + distance, other, other - distance], axis=1)


def _paint_h(b: list[Numbers]) -> Numbers:
    four = [
        np.stack([b[0] >> 3 & 0xF, (b[0] & 7) << 1 | b[1] >> 4 & 1, b[1] & 8 | (b[1] & 3) << 1 | b[2] >> 7], axis=1),
        np.stack([b[2] >> 3 & 0xF, (b[2] & 7) << 1 | b[3] >> 7, b[3] >> 3 & 0xF], axis=1),
    ]
    order = [colour[:, 0] << 8 | colour[:, 1] << 4 | colour[:, 2] for colour in four]
    distance = _DISTANCES[b[3] & 4 | (b[3] & 1) << 1 | (order[0] >= order[1])][:, None]
    one, other = 17 * four[0], 17 * four[1]
    return np.stack([one + distance, one - distance, other + distance, other - distance], axis=1)


def _planar(b: list[Numbers]) -> Numbers:
    origin = (
        b[0] >> 1 & 0x3F,
        (b[0] & 1) << 6 | b[1] >> 1 & 0x3F,
        (b[1] & 1) << 5 | b[2] & 0x18 | (b[2] & 3) << 1 | b[3] >> 7,
    )
    right = ((b[3] & 0x7C) >> 1 | b[3] & 1, b[4] >> 1, (b[4] & 1) << 5 | b[5] >> 3)
    down = ((b[5] & 7) << 3 | b[6] >> 5, (b[6] & 0x1F) << 2 | b[7] >> 6, b[7] & 0x3F)
    columns = []
    for *raw, width in zip(origin, right, down, (6, 7, 6), strict=True):
        o, h, v = (_expand(value, width)[:, None] for value in raw)
        columns.append(_X * (h - o) + _Y * (v - o) + 4 * o + 2 >> 2)
    return np.stack(columns, axis=2)


def _signed3(value: Numbers) -> Numbers:
    return np.where(value > 3, value - 8, value)


def _expand(value: Numbers, width: int) -> Numbers:
    """To eight bits, the highest bits repeated below."""
    return value << 8 - width | value >> 2 * width - 8
