"""Topologies: how consecutive vertices become points, lines, triangles and rectangles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Topology(IntEnum):
    """Primitive topology types (genxml 3D_Prim_Topo_Type)."""

    POINTLIST = 1
    LINELIST = 2
    LINESTRIP = 3
    TRILIST = 4
    TRISTRIP = 5
    TRIFAN = 6
    QUADLIST = 7
    QUADSTRIP = 8
    LINELIST_ADJ = 9
    LINESTRIP_ADJ = 10
    TRILIST_ADJ = 11
    TRISTRIP_ADJ = 12
    TRISTRIP_REVERSE = 13
    POLYGON = 14
    RECTLIST = 15
    LINELOOP = 16
    TRIFAN_NOSTIPPLE = 22


_FEW = 64
"""Vertices whose primitives are kept for the next draw."""
PATCHLIST_1 = 0x20
"""Patches of one vertex; those of more follow."""
_MOST_OF_PATCH = 32


class Shape(Enum):
    """What a primitive is."""

    POINT = 1
    LINE = 2
    TRIANGLE = 3
    RECTANGLE = 4
    """Three vertices of a rectangle parallel to the axes; the fourth is implied."""
    PATCH = 5
    """Vertices that only tessellation makes something of."""


class UnknownTopology(ValueError):
    """A topology that is not assembled; the text says which."""


@dataclass(frozen=True)
class Primitives:
    """Vertices of primitives, in the order in which they are drawn."""

    shape: Shape
    vertices: Indices
    """[primitives, vertices of one]: positions among the vertices that were fetched."""
    first: Indices
    """[primitives]: which of them is the provoking one if that is the first, in the sense of the API."""
    second: Indices
    """[primitives]: the middle one, of fans."""
    last: Indices
    """[primitives]: and if it is the last."""
    fan: bool = False
    number: Indices | None = None
    """[primitives]: of the patch that each comes from; None: they are counted themselves."""
    adjacent: Indices | None = None
    """[primitives, vertices of one and those beside its edges]: in the order in which geometry shaders see them."""
    edges: NDArray[np.bool_] | None = None
    """[triangles, 3]: whether the edge that begins at each corner is one of the polygon's; None: all are."""

    def numbers(self) -> Indices:
        """[primitives]: `number`, or how they are counted without it."""
        return np.arange(len(self.vertices), dtype=np.int64) if self.number is None else self.number

    def flagged(self, flags: NDArray[np.bool_]) -> Primitives:
        """Polygons of which edges that begin at vertices [vertices] without a flag are not drawn; other primitives as they are."""
        if self.edges is None:
            return self
        return replace(self, edges=self.edges & flags[self.vertices])

    def of(self, chosen: Indices) -> Primitives:
        """Some of them, each with the number that it has here."""
        return Primitives(
            self.shape,
            self.vertices[chosen],
            self.first[chosen],
            self.second[chosen],
            self.last[chosen],
            self.fan,
            chosen if self.number is None else self.number[chosen],
            edges=None if self.edges is None else self.edges[chosen],
        )

    def repeated(self, times: int, vertices: int) -> Primitives:
        """Those of so many instances of `vertices` vertices each, one behind the other, each with the numbers of the first."""
        if times == 1:
            return self

        def moved(corners: Indices) -> Indices:
            begins = vertices * np.arange(times, dtype=np.int64)
            return (corners + begins[:, None, None]).reshape(-1, corners.shape[1])

        return Primitives(
            self.shape,
            moved(self.vertices),
            np.tile(self.first, times),
            np.tile(self.second, times),
            np.tile(self.last, times),
            self.fan,
            np.tile(self.numbers(), times),
            adjacent=None if self.adjacent is None else moved(self.adjacent),
            edges=None if self.edges is None else np.tile(self.edges, (times, 1)),
        )

    def pieces(self, most: int) -> Iterator[tuple[int, int, Primitives]]:
        """In pieces of so many at most: the first vertex of each, the one behind its last, and primitives that count from there."""
        for first in range(0, len(self.vertices), most):
            piece = (
                self.of(np.arange(first, min(len(self.vertices), first + most))) if len(self.vertices) > most else self
            )
            begins = int(piece.vertices.min())
            yield begins, int(piece.vertices.max()) + 1, replace(piece, vertices=piece.vertices - begins)

    def last_behind(self) -> Indices:
        """[primitives, vertices of one]: turned so that the API's last vertex is the last of each."""
        size = self.vertices.shape[1]
        turn = (np.arange(size) + self.last[:, None] + 1) % size
        return np.take_along_axis(self.vertices, turn, axis=1)

    def provoking(self, triangles: int, lines: int, fans: int) -> Indices:
        """[primitives]: which vertex of each is the provoking one, by the select fields of 3DSTATE_SF (0 first, 1, 2)."""
        if self.shape is Shape.LINE:
            return self.first if lines == 0 else self.last
        select = fans if self.fan else triangles
        return (self.first, self.second, self.last)[min(select, 2)]


def assemble(kind: int, count: int) -> Primitives:
    """The primitives of `count` consecutive vertices; nobody writes to their arrays.

    Raises:
        UnknownTopology: `kind` is none that is assembled here.
    """
    return _assembled(kind, count) if count <= _FEW else _assembled.__wrapped__(kind, count)


@lru_cache(maxsize=256)
def _assembled(kind: int, count: int) -> Primitives:
    if PATCHLIST_1 <= kind < PATCHLIST_1 + _MOST_OF_PATCH:
        return listed(Shape.PATCH, _chunks(count, kind - PATCHLIST_1 + 1))
    try:
        topology = Topology(kind)
    except ValueError:
        raise UnknownTopology(f"topology {kind:#x}") from None
    match topology:
        case Topology.POINTLIST:
            return listed(Shape.POINT, np.arange(count)[:, None])
        case Topology.LINELIST:
            return listed(Shape.LINE, _chunks(count, 2))
        case Topology.LINESTRIP | Topology.LINELOOP:
            lines = _windows(count, 2)
            if topology is Topology.LINELOOP and count > 2:
                lines = np.concatenate([lines, [[count - 1, 0]]])
            return listed(Shape.LINE, lines)
        case Topology.LINELIST_ADJ | Topology.LINESTRIP_ADJ:
            lines = _chunks(count, 4) if topology is Topology.LINELIST_ADJ else _windows(count, 4)
            return replace(listed(Shape.LINE, lines[:, 1:3]), adjacent=lines)
        case Topology.TRILIST:
            triangles = listed(Shape.TRIANGLE, _chunks(count, 3))
            return replace(triangles, edges=np.ones(triangles.vertices.shape, dtype=np.bool_))
        case Topology.TRILIST_ADJ:
            six = _chunks(count, 6)
            return replace(listed(Shape.TRIANGLE, six[:, ::2]), adjacent=six)
        case Topology.TRISTRIP | Topology.TRISTRIP_REVERSE:
            return _strip(_windows(count, 3), reverse=topology is Topology.TRISTRIP_REVERSE)
        case Topology.TRISTRIP_ADJ:
            even = _windows(count // 2, 3) * 2
            return replace(_strip(even, reverse=False), adjacent=_beside_strip(len(even)))
        case Topology.TRIFAN | Topology.TRIFAN_NOSTIPPLE | Topology.POLYGON:
            return _fan(count, polygon=topology is Topology.POLYGON)
        case Topology.QUADLIST:
            quads = _chunks(count, 4)
            return _quads((quads[:, [0, 1, 3]], quads[:, [1, 2, 3]]), ((True, False, True), (True, True, False)))
        case Topology.QUADSTRIP:
            quads = _windows(count, 4)[::2]
            return _quads((quads[:, [0, 1, 3]], quads[:, [2, 0, 3]]), ((True, True, False), (True, False, True)))
        case Topology.RECTLIST:
            return listed(Shape.RECTANGLE, _chunks(count, 3))


def _chunks(count: int, size: int) -> Indices:
    return np.arange(count // size * size, dtype=np.int64).reshape(-1, size)


def _windows(count: int, size: int) -> Indices:
    return np.arange(max(0, count - size + 1), dtype=np.int64)[:, None] + np.arange(size)


def listed(shape: Shape, vertices: Indices) -> Primitives:
    """Primitives that have no vertices in common but those that `vertices` [primitives, vertices of one] names twice."""
    number = len(vertices)
    last = vertices.shape[1] - 1
    return Primitives(
        shape,
        vertices.astype(np.int64),
        np.zeros(number, np.int64),
        np.full(number, min(1, last)),
        np.full(number, last),
    )


def _strip(windows: Indices, *, reverse: bool) -> Primitives:
    """Every other triangle has its last two vertices exchanged, so that all wind the same way."""
    odd = np.arange(len(windows)) % 2 == (0 if reverse else 1)
    vertices = np.where(odd[:, None], windows[:, [0, 2, 1]], windows)
    first = np.zeros(len(windows), np.int64)
    return Primitives(Shape.TRIANGLE, vertices, first, np.where(odd, 2, 1), np.where(odd, 1, 2))


def _beside_strip(count: int) -> Indices:
    """Vertices of a strip of triangles with those beside their edges (OpenGL 4.6, table 10.1)."""
    if not count:
        return np.zeros((0, 6), dtype=np.int64)
    at = 2 * np.arange(count, dtype=np.int64)
    before = np.where(at == 0, 1, at - 2)
    ahead = np.where(at == 2 * (count - 1), at + 5, at + 6)
    odd = at % 4 == 2
    first, second = np.where(odd, at + 2, at), np.where(odd, at, at + 2)
    beside_second, beside_third = np.where(odd, at + 3, ahead), np.where(odd, ahead, at + 3)
    return np.stack([first, before, second, beside_second, at + 4, beside_third], axis=1)


def joined(parts: Sequence[tuple[int, Primitives]]) -> Primitives:
    """Primitives of several runs of vertices, each with the place where its vertices begin."""
    if len(parts) == 1 and not parts[0][0]:
        return parts[0][1]
    each = [part for _, part in parts]
    beside = [part.adjacent + begin for begin, part in parts if part.adjacent is not None]
    outer = [part.edges for _, part in parts if part.edges is not None]
    return Primitives(
        each[0].shape,
        np.concatenate([part.vertices + begin for begin, part in parts]),
        np.concatenate([part.first for part in each]),
        np.concatenate([part.second for part in each]),
        np.concatenate([part.last for part in each]),
        fan=each[0].fan,
        adjacent=np.concatenate(beside) if beside else None,
        edges=np.concatenate(outer) if outer else None,
    )


def _fan(count: int, *, polygon: bool) -> Primitives:
    number = max(0, count - 2)
    middle = np.arange(1, number + 1, dtype=np.int64)
    vertices = np.stack([np.zeros_like(middle), middle, middle + 1], axis=1)
    places = [np.full(number, index) for index in range(3)]
    edges = None
    if polygon:
        places = [places[0]] * 3
        edges = np.stack([middle == 1, np.ones_like(middle, dtype=np.bool_), middle == number], axis=1)
    return Primitives(Shape.TRIANGLE, vertices, places[0], places[1], places[2], fan=True, edges=edges)


def _quads(halves: tuple[Indices, Indices], outer: tuple[tuple[bool, ...], tuple[bool, ...]]) -> Primitives:
    """Two triangles a quad, and which of their edges are the quad's; its last vertex is the last of both, and provokes."""
    vertices = np.stack(halves, axis=1).reshape(-1, 3)
    last = np.full(len(vertices), 2)
    return Primitives(Shape.TRIANGLE, vertices, last, last, last, edges=np.tile(outer, (len(halves[0]), 1)))
