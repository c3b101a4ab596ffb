"""3DSTATE_LINE_STIPPLE and 3DSTATE_POLY_STIPPLE_PATTERN: which pixels of lines and of filled polygons are left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.setup import Indices, Setup
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.wide import Strokes

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_PATTERN_BITS = 16
_SIDE = 32
"""Rows and columns of a polygon stipple."""
_FAR = 1 << 20
"""Pixels: a line's first and last part reach as far as the line does."""


def polygon_stipple(lrc: Lrc) -> NDArray[np.uint32] | None:
    """The pattern of the context's state now: rows by y modulo 32, bit 31 is the column at the left; None without stippling."""
    if not flag(kept(lrc, Op.WM), 1, 4):
        return None
    pattern, offset = kept(lrc, Op.POLY_STIPPLE_PATTERN), kept(lrc, Op.POLY_STIPPLE_OFFSET)
    rows = np.array([bits(pattern, 1 + row, 31, 0) for row in range(_SIDE)], dtype=np.uint32)
    right, down = bits(offset, 1, 12, 8), bits(offset, 1, 4, 0)
    rows = np.roll(rows, -down).astype(np.uint64)
    turned = rows << np.uint64(right) | rows >> np.uint64(_SIDE - right)
    return (turned & np.uint64(0xFFFF_FFFF)).astype(np.uint32)


def stippled(pattern: NDArray[np.uint32], x: Indices, y: Indices) -> NDArray[np.bool_]:
    """Which pixels a polygon stipple leaves."""
    shift = (_SIDE - 1 - x % _SIDE).astype(np.uint32)
    return np.asarray(pattern[y % _SIDE] >> shift & np.uint32(1) != 0)


@dataclass(frozen=True, slots=True)
class LineStipple:
    """Pixels along a line are drawn or not by bits of a pattern, each for `repeat` pixels; strips go on with it."""

    pattern: int
    repeat: int

    @classmethod
    def of(cls, lrc: Lrc) -> LineStipple | None:
        """The context's state now; None without stippling."""
        words = kept(lrc, Op.LINE_STIPPLE)
        if not flag(kept(lrc, Op.WM), 1, 3):
            return None
        return cls(bits(words, 1, 15, 0), max(1, bits(words, 2, 8, 0)))

    def cut(self, setup: Setup, strokes: Strokes) -> Setup:
        """Lines that are set up, as those of their pieces that are drawn: each a part of the columns (of steep lines, rows)."""
        first, count, forwards = _columns(strokes)
        line, begins, ends = self._pieces(_bases(count, strokes.follows), count)
        low = first[line] + np.where(forwards[line], begins, count[line] - ends)
        high = low + ends - begins
        # What is antialiased, or a rectangle across its direction, reaches beyond its ends.
        at_first, at_last = begins == 0, ends == count[line]
        low = np.where(np.where(forwards[line], at_first, at_last), low - _FAR, low)
        high = np.where(np.where(forwards[line], at_last, at_first), high + _FAR, high)
        each = np.bincount(line, minlength=len(count))
        offset = np.cumsum(each) - each
        of_row = strokes.line_of(setup)
        rows = np.repeat(np.arange(len(setup)), each[of_row])
        within = np.arange(len(rows)) - np.repeat(np.cumsum(each[of_row]) - each[of_row], each[of_row])
        piece = offset[of_row[rows]] + within
        found = setup.of(rows)
        axis = strokes.steep[of_row[rows]].astype(np.int64)
        bounds, every = found.bounds.copy(), np.arange(len(rows))
        bounds[every, axis] = np.maximum(bounds[every, axis], low[piece])
        bounds[every, axis + 2] = np.minimum(bounds[every, axis + 2], high[piece])
        seen = (bounds[:, 0] < bounds[:, 2]) & (bounds[:, 1] < bounds[:, 3])
        return replace(found, bounds=bounds).of(seen)

    def _pieces(self, base: Indices, count: Indices) -> tuple[Indices, Indices, Indices]:
        """Lines, and from which of their pixels to which, for each bit of the pattern that is set."""
        last = np.maximum(base + count - 1, base)
        cells = np.where(count > 0, last // self.repeat - base // self.repeat + 1, 0)
        line = np.repeat(np.arange(len(count)), cells)
        cell = base[line] // self.repeat + np.arange(len(line)) - np.repeat(np.cumsum(cells) - cells, cells)
        drawn = self.pattern >> cell % _PATTERN_BITS & 1 != 0
        line, cell = line[drawn], cell[drawn]
        begins = np.maximum(cell * self.repeat - base[line], 0)
        return line, begins, np.minimum((cell + 1) * self.repeat - base[line], count[line])


def _columns(strokes: Strokes) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Of each line the first column (or row) whose centre it crosses, how many it crosses, and whether they ascend."""
    along, descends = strokes.along()
    crossed = np.ceil(along - 0.5).astype(np.int64)
    return crossed.min(axis=1), np.abs(crossed[:, 1] - crossed[:, 0]), ~descends


def _bases(count: Indices, follows: NDArray[np.bool_]) -> Indices:
    """Pixels before each line in its strip."""
    before = np.cumsum(count) - count
    starts = np.maximum.accumulate(np.where(follows, 0, np.arange(len(count))))
    return np.asarray(before - before[starts])
