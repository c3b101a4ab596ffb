"""TE: places of the domain where patches have vertices, and how these are connected (Mesa `gen200.xml` 3DSTATE_TE).

Places on edges are those of Direct3D 11's functional specification (fixed-function tessellator), which OpenGL's rules allow: numbers with
16 bits behind the point; a factor between two counts of segments moves points between their places for both. Rings of points lie
one in the other, and each is stitched to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor, isnan

import numpy as np
from numpy.typing import NDArray

Row = list[int]
"""Numbers of points along one side of a ring, both ends included."""
_UNIT = 1 << 16
_LEAST = 1 / _UNIT
_MOST_ODD, _MOST = 63.0, 64.0


class Domain(IntEnum):
    """What a patch is."""

    QUAD = 0
    TRIANGLE = 1
    ISOLINE = 2


class Output(IntEnum):
    """What comes out."""

    POINT = 0
    LINE = 1
    CLOCKWISE = 2
    COUNTER_CLOCKWISE = 3


class Partitioning(IntEnum):
    """How factors become segments."""

    INTEGER = 0
    ODD_FRACTIONAL = 1
    EVEN_FRACTIONAL = 2
    POWER_OF_2 = 3


@dataclass(frozen=True)
class Tessellated:
    """A patch's points and primitives."""

    places: NDArray[np.float32]
    """[points, 3]: u, v, w."""
    primitives: NDArray[np.int64]
    """[primitives, points of one]"""


@dataclass(frozen=True, slots=True)
class _Segments:
    """An edge cut in segments."""

    odd: bool
    factor: float

    @property
    def _half(self) -> float:
        half = (round(self.factor * _UNIT) + 1) // 2 / _UNIT
        # A factor of 1 that is taken as even has two segments.
        return half + 0.5 if self.odd or half == 0.5 else half

    @property
    def points(self) -> int:
        """How many, both ends included."""
        return 2 * ceil(self._half) + (0 if self.odd else 1)

    def place(self, point: int) -> float:
        """Where a point is, from 0 to 1."""
        half = self._half
        low, high = floor(half), ceil(half)
        flip = point >= high
        if flip:
            point = 2 * high - point - (1 if self.odd else 0)
        if point == high:
            return 0.5
        below = point - 1 if point > self._split(low, high) else point
        less = 1 if self.odd else 0
        where = below / max(1, 2 * low - less) * (1 - (half - low)) + point / (2 * high - less) * (half - low)
        where = round(where * _UNIT) / _UNIT
        return 1 - where if flip else where

    def _split(self, low: int, high: int) -> int:
        """The last point of a half that is there for both counts of segments."""
        if low == high:
            return high + 1
        count = low - 1 if self.odd else low
        if not count:
            return 0
        return 2 * (count - (1 << count.bit_length() - 1)) + 1


def tessellate(domain: Domain, partitioning: Partitioning, output: Output, factors: tuple[float, ...]) -> Tessellated:
    """A patch's points and primitives.

    `factors`: of quads those of the sides u = 0, v = 0, u = 1, v = 1, then those inside along u and v; of triangles those of the sides
    u = 0, v = 0, w = 0, then the one inside; of isolines how many lines, and of how many segments.
    """
    return _tessellated(domain, partitioning, output, tuple(factors[: (6, 4, 2)[domain]]))


@lru_cache(maxsize=256)
def _tessellated(domain: Domain, partitioning: Partitioning, output: Output, factors: tuple[float, ...]) -> Tessellated:
    outside = factors[: (4, 3, 2)[domain]]
    if any(isnan(factor) or factor <= 0 for factor in outside):
        return Tessellated(np.zeros((0, 3), dtype=np.float32), np.zeros((0, 3), dtype=np.int64))
    builder = _Builder(domain)
    match domain:
        case Domain.QUAD:
            _quad(builder, partitioning, factors)
        case Domain.TRIANGLE:
            _triangle(builder, partitioning, factors)
        case Domain.ISOLINE:
            _isolines(builder, partitioning, factors)
    return builder.done(output)


class _Builder:
    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._places: list[tuple[float, float, float]] = []
        self._primitives: list[tuple[int, ...]] = []

    def point(self, u: float, v: float) -> int:
        """A new point's number."""
        self._places.append((u, v, 1 - u - v if self._domain is Domain.TRIANGLE else 0.0))
        return len(self._places) - 1

    def ring(self, sides: list[list[tuple[float, float]]]) -> list[Row]:
        """Points of sides that close a ring: each begins where the one before it ends."""
        starts = [[self.point(u, v) for u, v in side[:-1]] for side in sides]
        return [[*row, starts[(number + 1) % len(starts)][0]] for number, row in enumerate(starts)]

    def add(self, *points: int) -> None:
        self._primitives.append(points)

    def stitch(self, outer: Row, inner: Row) -> None:
        """Triangles between a side and the one that lies inside of it, in the direction of the ring."""
        wide, narrow = len(outer) - 1, len(inner) - 1
        one, other = 0, 0
        while one < wide or other < narrow:
            ahead = (2 * one + 1) * (narrow + 2), (2 * other + 3) * wide
            if one < wide and (other == narrow or ahead[0] <= ahead[1]):
                self.add(outer[one], outer[one + 1], inner[other])
                one += 1
            else:
                self.add(outer[one], inner[other + 1], inner[other])
                other += 1

    def strip(self, outer: Row, inner: Row) -> None:
        """Triangles between two sides of one length."""
        for number in range(len(outer) - 1):
            self.add(outer[number], outer[number + 1], inner[number])
            self.add(outer[number + 1], inner[number + 1], inner[number])

    def done(self, output: Output) -> Tessellated:
        places = np.array(self._places, dtype=np.float32).reshape(-1, 3)
        if output is Output.POINT:
            return Tessellated(places, np.arange(len(places), dtype=np.int64)[:, None])
        size = 2 if self._domain is Domain.ISOLINE else 3
        primitives = np.array(self._primitives, dtype=np.int64).reshape(-1, size)
        if size == 3 and output is Output.COUNTER_CLOCKWISE:
            primitives = primitives[:, [0, 2, 1]]
        return Tessellated(places, primitives)


def _clamped(partitioning: Partitioning, factor: float, least: float | None = None) -> float:
    if partitioning is Partitioning.ODD_FRACTIONAL:
        return min(max(factor, 1.0 if least is None else least), _MOST_ODD)
    if partitioning is Partitioning.EVEN_FRACTIONAL:
        return min(max(factor, 2.0), _MOST)
    whole = float(ceil(min(max(factor, 1.0), _MOST)))
    return float(1 << ceil(whole - 1).bit_length()) if partitioning is Partitioning.POWER_OF_2 and whole > 1 else whole


def _segments(partitioning: Partitioning, factor: float, *, inside: bool = False) -> _Segments:
    """Of a clamped factor."""
    if partitioning is Partitioning.ODD_FRACTIONAL:
        return _Segments(True, factor)
    if partitioning is Partitioning.EVEN_FRACTIONAL:
        return _Segments(False, factor)
    return _Segments(factor % 2 == 1 and not (inside and factor == 1), factor)


def _inside(partitioning: Partitioning, factors: tuple[float, ...], all_of: tuple[float, ...]) -> list[float]:
    """Clamped factors inside: where any is more than 1, there is a ring inside of the sides."""
    framed = any(factor > 1 + _LEAST / 2 for factor in all_of)
    least = 1 + _LEAST if framed else None
    return [_clamped(partitioning, 1.0 if isnan(factor) else factor, least) for factor in factors]


def _triangle(builder: _Builder, partitioning: Partitioning, factors: tuple[float, ...]) -> None:
    outside = [_clamped(partitioning, factor) for factor in factors[:3]]
    (inside,) = _inside(partitioning, factors[3:4], tuple(outside))
    sides = [_segments(partitioning, factor) for factor in outside]
    middle = _segments(partitioning, inside, inside=True)
    ring = builder.ring([
        [(0, places) for places in reversed(_places(sides[0]))],
        [(place, 0) for place in _places(sides[1])],
        [(place, 1 - place) for place in reversed(_places(sides[2]))],
    ])  # fmt: skip
    if all(factor == 1 for factor in (*outside, inside)):
        builder.add(ring[0][0], ring[0][1], ring[1][1])
        return
    count = middle.points
    for number in range(1, (count + 1) // 2):
        last = count - 1 - number
        if number == last:
            # Places have 16 bits behind the point, and a third is cut off there (Direct3D 11's tessellator).
            centre = builder.point((_UNIT // 3) / _UNIT, (_UNIT // 3) / _UNIT)
            inner = [[centre]] * 3
        else:
            away = round(middle.place(number) * 2 / 3 * _UNIT) / _UNIT
            along = [middle.place(point) - away / 2 for point in range(number, last + 1)]
            inner = builder.ring([
                [(away, place) for place in reversed(along)],
                [(place, away) for place in along],
                [(place, 1 - place - away) for place in reversed(along)],
            ])  # fmt: skip
        for outer_side, inner_side in zip(ring, inner, strict=True):
            builder.stitch(outer_side, inner_side)
        ring = inner
        if last - number == 1:
            builder.add(ring[0][0], ring[0][1], ring[1][1])


def _quad(builder: _Builder, partitioning: Partitioning, factors: tuple[float, ...]) -> None:
    outside = [_clamped(partitioning, factor) for factor in factors[:4]]
    inside = _inside(partitioning, factors[4:6], (*outside, *factors[4:6]))
    sides = [_segments(partitioning, factor) for factor in outside]
    u, v = (_segments(partitioning, factor, inside=True) for factor in inside)
    left, top, right, bottom = (_places(side) for side in sides)
    ring = builder.ring([
        [(0, place) for place in reversed(left)], [(place, 0) for place in top],
        [(1, place) for place in right], [(place, 1) for place in reversed(bottom)],
    ])  # fmt: skip
    if all(factor == 1 for factor in (*outside, *inside)):
        builder.strip(ring[1], ring[3][::-1])
        return
    number = 1
    while True:
        last_u, last_v = u.points - 1 - number, v.points - 1 - number
        across = [u.place(point) for point in range(number, last_u + 1)]
        down = [v.place(point) for point in range(number, last_v + 1)]
        if len(across) == 1 or len(down) == 1:
            row = [builder.point(x, y) for x in across for y in down]
            ends = [[row[0]], row, [row[-1]], row[::-1]] if len(down) == 1 else [row[::-1], [row[0]], row, [row[-1]]]
            for outer_side, inner_side in zip(ring, ends, strict=True):
                builder.stitch(outer_side, inner_side)
            return
        inner = builder.ring([
            [(across[0], y) for y in reversed(down)], [(x, down[0]) for x in across],
            [(across[-1], y) for y in down], [(x, down[-1]) for x in reversed(across)],
        ])  # fmt: skip
        for outer_side, inner_side in zip(ring, inner, strict=True):
            builder.stitch(outer_side, inner_side)
        ring = inner
        if len(down) == 2:
            builder.strip(ring[1], ring[3][::-1])
            return
        if len(across) == 2:
            builder.strip(ring[2], ring[0][::-1])
            return
        number += 1


def _isolines(builder: _Builder, partitioning: Partitioning, factors: tuple[float, ...]) -> None:
    lines = ceil(min(max(factors[0], 1.0), _MOST))
    along = _places(_segments(partitioning, _clamped(partitioning, factors[1])))
    for line in range(lines):
        row = [builder.point(place, round(line / lines * _UNIT) / _UNIT) for place in along]
        for one, other in pairwise(row):
            builder.add(one, other)


def _places(segments: _Segments) -> list[float]:
    return [segments.place(point) for point in range(segments.points)]
