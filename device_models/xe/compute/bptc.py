"""BC6H and BC7: blocks of four by four texels in modes (Khronos Data Format Specification, chapter BPTC).

Blocks of one mode are decoded together: fields are at the same bits in all of them, but for the indices behind the ends of the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Texels = NDArray[np.float64]

_TEXELS = np.arange(16)
_WEIGHTS = {
    2: np.array([0, 21, 43, 64]),
    3: np.array([0, 9, 18, 27, 37, 46, 55, 64]),
    4: np.array([0, 4, 9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64]),
}
"""By bits of an index."""
_TWO = """
    cccc 8888 eeee ecc8 c880 feec fec8 ec80 c800 ffec fe80 e800 ffe8 ff00 fff0 f000 f710 008e 7100 08ce 008c 7310 3100 8cce
    088c 3110 6666 366c 17e8 0ff0 718e 399c aaaa f0f0 5a5a 33cc 3c3c 55aa 9696 a55a 73ce 13c8 324c 3bdc 6996 c33c 9966 0660
    0272 04e4 4e40 2720 c936 936c 39c6 639c 9336 9cc6 817e e718 ccf0 0fcc 7744 ee22
"""
"""Partitions in two subsets: a bit a texel, the first one lowest."""
_THREE = """
    aa685050 6a5a5040 5a5a4200 5450a0a8 a5a50000 a0a05050 5555a0a0 5a5a5050 aa550000 aa555500 aaaa5500 90909090 94949494
    a4a4a4a4 a9a59450 2a0a4250 a5945040 0a425054 a5a5a500 55a0a0a0 a8a85454 6a6a4040 a4a45000 1a1a0500 0050a4a4 aaa59090
    14696914 69691400 a08585a0 aa821414 50a4a450 6a5a0200 a9a58000 5090a0a8 a8a09050 24242424 00aa5500 24924924 24499224
    50a50a50 500aa550 aaaa4444 66660000 a5a0a5a0 50a050a0 69286928 44aaaa44 66666600 aa444444 54a854a8 95809580 96969600
    a85454a8 80959580 aa141414 96960000 aaaa1414 a05050a0 a0a5a5a0 96000000 40804080 a9a8a9a8 aaaaaa44 2a4a5254
"""
"""Partitions in three: two bits a texel."""
_ANCHORS = {
    1: (),
    2: ("fffffffffffffffff282288f28228822ff6828ff28222ff66268ff22fffff22f",),
    3: (
        "33ff83ff88666533338f336a588685ff8f356a8ff3f5ffff3f55585a5a8dfc33",
        "f883ff38fffffff8f8f3f8f83f6affa8f3faa89a6f8f3668f3ffffffffff3ff8",
    ),
}
"""By subsets: texels of all but the first one whose index has a bit less, by partition."""
_SUBSETS = {
    1: np.zeros((64, 16), dtype=np.int64),
    2: np.array([int(word, 16) for word in _TWO.split()])[:, None] >> _TEXELS & 1,
    3: np.array([int(word, 16) for word in _THREE.split()])[:, None] >> 2 * _TEXELS & 3,
}
"""By number of subsets: [partition, texel]"""


@dataclass(frozen=True, slots=True)
class _Mode:
    """A mode of BC7: bits of its fields."""

    subsets: int
    partition: int
    rotation: int
    selection: int
    colour: int
    alpha: int
    own: bool
    """Each end has a lowest bit of its own that its channels share."""
    shared: bool
    """Both ends of a subset share it."""
    index: int
    second: int
    """Of a second set of indices; 0: there is none."""


_MODES = (
    _Mode(3, 4, 0, 0, 4, 0, True, False, 3, 0),
    _Mode(2, 6, 0, 0, 6, 0, False, True, 3, 0),
    _Mode(3, 6, 0, 0, 5, 0, False, False, 2, 0),
    _Mode(2, 6, 0, 0, 7, 0, True, False, 2, 0),
    _Mode(1, 0, 2, 1, 5, 6, False, False, 2, 3),
    _Mode(1, 0, 2, 0, 7, 8, False, False, 2, 2),
    _Mode(1, 0, 0, 0, 7, 7, True, False, 4, 0),
    _Mode(2, 6, 0, 0, 5, 5, True, False, 2, 0),
)


@dataclass(frozen=True, slots=True)
class _FloatMode:
    """A mode of BC6H."""

    number: int
    """What its first bits say: two, or five."""
    bits: int
    """Of an end."""
    deltas: tuple[int, int, int] | None
    """Bits of the differences of other ends from the first; None: they are ends themselves."""
    index: int
    fields: str
    """Bits of channels of the ends w to z, as they follow one another; "9:0" has bit 0 first, "10:11" bit 11."""


_FLOAT_MODES = tuple(
    _FloatMode(*mode)
    for mode in (
        (0b00, 10, (5, 5, 5), 3, "gy4 by4 bz4 rw9:0 gw9:0 bw9:0 rx4:0 gz4 gy3:0 gx4:0 bz0 gz3:0 bx4:0 bz1 by3:0 ry4:0 bz2 rz4:0 bz3"),
        (0b01, 7, (6, 6, 6), 3,
         "gy5 gz4 gz5 rw6:0 bz0 bz1 by4 gw6:0 by5 bz2 gy4 bw6:0 bz3 bz5 bz4 rx5:0 gy3:0 gx5:0 gz3:0 bx5:0 by3:0 ry5:0 rz5:0"),
        (0b00010, 11, (5, 4, 4), 3, "rw9:0 gw9:0 bw9:0 rx4:0 rw10 gy3:0 gx3:0 gw10 bz0 gz3:0 bx3:0 bw10 bz1 by3:0 ry4:0 bz2 rz4:0 bz3"),
        (0b00110, 11, (4, 5, 4), 3,
         "rw9:0 gw9:0 bw9:0 rx3:0 rw10 gz4 gy3:0 gx4:0 gw10 gz3:0 bx3:0 bw10 bz1 by3:0 ry3:0 bz0 bz2 rz3:0 gy4 bz3"),
        (0b01010, 11, (4, 4, 5), 3,
         "rw9:0 gw9:0 bw9:0 rx3:0 rw10 by4 gy3:0 gx3:0 gw10 bz0 gz3:0 bx4:0 bw10 by3:0 ry3:0 bz1 bz2 rz3:0 bz4 bz3"),
        (0b01110, 9, (5, 5, 5), 3, "rw8:0 by4 gw8:0 gy4 bw8:0 bz4 rx4:0 gz4 gy3:0 gx4:0 bz0 gz3:0 bx4:0 bz1 by3:0 ry4:0 bz2 rz4:0 bz3"),
        (0b10010, 8, (6, 5, 5), 3, "rw7:0 gz4 by4 gw7:0 bz2 gy4 bw7:0 bz3 bz4 rx5:0 gy3:0 gx4:0 bz0 gz3:0 bx4:0 bz1 by3:0 ry5:0 rz5:0"),
        (0b10110, 8, (5, 6, 5), 3,
         "rw7:0 bz0 by4 gw7:0 gy5 gy4 bw7:0 gz5 bz4 rx4:0 gz4 gy3:0 gx5:0 gz3:0 bx4:0 bz1 by3:0 ry4:0 bz2 rz4:0 bz3"),
        (0b11010, 8, (5, 5, 6), 3,
         "rw7:0 bz1 by4 gw7:0 by5 gy4 bw7:0 bz5 bz4 rx4:0 gz4 gy3:0 gx4:0 bz0 gz3:0 bx5:0 by3:0 ry4:0 bz2 rz4:0 bz3"),
        (0b11110, 6, None, 3,
         "rw5:0 gz4 bz0 bz1 by4 gw5:0 gy5 by5 bz2 gy4 bw5:0 gz5 bz3 bz5 bz4 rx5:0 gy3:0 gx5:0 gz3:0 bx5:0 by3:0 ry5:0 rz5:0"),
        (0b00011, 10, None, 4, "rw9:0 gw9:0 bw9:0 rx9:0 gx9:0 bx9:0"),
        (0b00111, 11, (9, 9, 9), 4, "rw9:0 gw9:0 bw9:0 rx8:0 rw10 gx8:0 gw10 bx8:0 bw10"),
        (0b01011, 12, (8, 8, 8), 4, "rw9:0 gw9:0 bw9:0 rx7:0 rw10:11 gx7:0 gw10:11 bx7:0 bw10:11"),
        (0b01111, 16, (4, 4, 4), 4, "rw9:0 gw9:0 bw9:0 rx3:0 rw10:15 gx3:0 gw10:15 bx3:0 bw10:15"),
    )
)  # fmt: skip


class _Reader:
    """Fields of blocks one behind the other."""

    def __init__(self, blocks: Bytes, first: int) -> None:
        self._bits = np.unpackbits(blocks, axis=1, bitorder="little").astype(np.int64)
        self.at = first

    def take(self, count: int) -> Numbers:
        """[blocks]: the next field, its lowest bit first; no bits are zero."""
        found = (self._bits[:, self.at : self.at + count] << np.arange(count)).sum(axis=1)
        self.at += count
        return np.asarray(found)

    def indices(self, count: int, shorter: NDArray[np.bool_]) -> Numbers:
        """[blocks, 16]: indices of `count` bits, and one less where `shorter`."""
        widths = count - shorter.astype(np.int64)
        starts = self.at + np.cumsum(widths, axis=1) - widths
        found = np.zeros(widths.shape, dtype=np.int64)
        for bit in range(count):
            there = bit < widths
            places = np.where(there, starts + bit, 0)
            found |= np.where(there, np.take_along_axis(self._bits, places, axis=1), 0) << bit
        self.at += 16 * count - int(shorter[0].sum())
        return found


def colours(blocks: Bytes) -> Texels:
    """BC7."""
    texels = np.zeros((len(blocks), 16, 4))
    lowest = np.where(blocks[:, 0] == 0, 8, np.log2(np.maximum(blocks[:, 0] & -blocks[:, 0].astype(np.int64), 1)))
    for number, mode in enumerate(_MODES):
        chosen = np.nonzero(lowest == number)[0]
        if len(chosen):
            texels[chosen] = _colours(mode, _Reader(blocks[chosen], number + 1)) / 255
    return texels


def _colours(mode: _Mode, reader: _Reader) -> Numbers:
    """[blocks, 16, 4]: of eight bits."""
    partition, rotation, selection = (reader.take(count) for count in (mode.partition, mode.rotation, mode.selection))
    ends = _ends(mode, reader)
    subset = _SUBSETS[mode.subsets][partition]
    shorter = _shorter(mode.subsets, partition)
    first = reader.indices(mode.index, shorter)
    of_colour, of_alpha = _WEIGHTS[mode.index][first], _WEIGHTS[mode.index][first]
    if mode.second:
        of_alpha = _WEIGHTS[mode.second][reader.indices(mode.second, shorter)]
        exchanged = (selection == 1)[:, None]
        of_colour, of_alpha = np.where(exchanged, of_alpha, of_colour), np.where(exchanged, of_colour, of_alpha)
    weights = np.stack([of_colour, of_colour, of_colour, of_alpha], axis=2)
    found = _between(ends, subset, weights)
    for channel in range(3):
        turned = rotation == channel + 1
        found[turned, :, channel], found[turned, :, 3] = found[turned, :, 3], found[turned, :, channel].copy()
    return found


def _ends(mode: _Mode, reader: _Reader) -> Numbers:
    """[blocks, subsets, 2, 4]: of eight bits."""
    count = 2 * mode.subsets
    widths = (mode.colour, mode.colour, mode.colour, mode.alpha)
    raw = [np.stack([reader.take(width) for _ in range(count)], axis=1) for width in widths]
    low: Numbers | None = None
    if mode.own:
        low = np.stack([reader.take(1) for _ in range(count)], axis=1)
    elif mode.shared:
        low = np.repeat(np.stack([reader.take(1) for _ in range(mode.subsets)], axis=1), 2, axis=1)
    columns = []
    for values, width in zip(raw, widths, strict=True):
        if not width:
            columns.append(np.full_like(values, 255))
            continue
        columns.append(_expanded(values, width) if low is None else _expanded(values << 1 | low, width + 1))
    return np.stack(columns, axis=2).reshape(-1, mode.subsets, 2, 4)


def _expanded(values: Numbers, width: int) -> Numbers:
    """To eight bits, the highest bits repeated below."""
    return values << 8 - width | values >> 2 * width - 8


def _shorter(subsets: int, partition: Numbers) -> NDArray[np.bool_]:
    """[blocks, 16]: texels whose index has a bit less, one of each subset."""
    found = np.broadcast_to(_TEXELS == 0, (len(partition), 16))
    for anchors in _ANCHORS[subsets]:
        texel = np.array([int(digit, 16) for digit in anchors])[partition]
        found = found | (texel[:, None] == _TEXELS)
    return np.asarray(found)


def _between(ends: Numbers, subset: Numbers, weights: Numbers) -> Numbers:
    """[blocks, 16, channels]"""
    rows = np.arange(len(ends))[:, None]
    low, high = ends[rows, subset, 0], ends[rows, subset, 1]
    return np.asarray((64 - weights) * low + weights * high + 32 >> 6)


def floats(blocks: Bytes, *, signed: bool) -> Texels:
    """BC6H: halves, of which "unsigned" ones are none below zero."""
    texels = np.zeros((len(blocks), 16, 4))
    texels[:, :, 3] = 1
    low = blocks[:, 0].astype(np.int64)
    numbers = np.where(low & 2, low & 0x1F, low & 3)
    for mode in _FLOAT_MODES:
        chosen = np.nonzero(numbers == mode.number)[0]
        if len(chosen):
            texels[chosen, :, :3] = _floats(mode, _Reader(blocks[chosen], 5 if mode.number & 2 else 2), signed)
    return texels


def _floats(mode: _FloatMode, reader: _Reader, signed: bool) -> Texels:
    ends = _float_ends(mode, reader, signed)
    subsets = ends.shape[1]
    partition = reader.take(5 if subsets == 2 else 0)
    indices = reader.indices(mode.index, _shorter(subsets, partition))
    weights = np.repeat(_WEIGHTS[mode.index][indices][:, :, None], 3, axis=2)
    values = _between(ends, _SUBSETS[subsets][partition], weights)
    if signed:
        size = np.abs(values) * 31 >> 5
        halves = np.where(values < 0, size | 0x8000, size)
    else:
        halves = values * 31 >> 6
    return halves.astype(np.uint16).view(np.float16).astype(np.float64)


def _float_ends(mode: _FloatMode, reader: _Reader, signed: bool) -> Numbers:
    """[blocks, subsets, 2, 3]: of 16 bits."""
    count = 4 if "y" in mode.fields else 2
    ends: Numbers | None = None
    for field in mode.fields.split():
        channel, end, places = "rgb".index(field[0]), "wxyz".index(field[1]), field[2:].split(":")
        begin, last = int(places[-1]), int(places[0])
        step = 1 if last >= begin else -1
        for place in range(begin, last + step, step):
            bit = reader.take(1)
            if ends is None:
                ends = np.zeros((len(bit), count, 3), dtype=np.int64)
            ends[:, end, channel] |= bit << place
    assert ends is not None  # every mode has fields
    if mode.deltas is not None:
        for channel, width in enumerate(mode.deltas):
            ends[:, 1:, channel] = ends[:, :1, channel] + _signed(ends[:, 1:, channel], width) & (1 << mode.bits) - 1
    whole = _whole_signed(_signed(ends, mode.bits), mode.bits) if signed else _whole(ends, mode.bits)
    return whole.reshape(-1, count // 2, 2, 3)


def _signed(values: Numbers, width: int) -> Numbers:
    return np.asarray(np.where(values >> width - 1 & 1, values - (1 << width), values))


def _whole(values: Numbers, width: int) -> Numbers:
    if width >= 15:
        return values
    spread = (values << 15) + 0x4000 >> width - 1
    return np.where(values == 0, 0, np.where(values == (1 << width) - 1, 0xFFFF, spread))


def _whole_signed(values: Numbers, width: int) -> Numbers:
    if width >= 16:
        return values
    size = np.abs(values)
    spread = (size << 15) + 0x4000 >> width - 1
    found = np.where(size == 0, 0, np.where(size >= (1 << width - 1) - 1, 0x7FFF, spread))
    return np.where(values < 0, -found, found)
