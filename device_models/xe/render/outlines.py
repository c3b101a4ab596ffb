"""Triangles that 3DSTATE_RASTER fills as their outlines or their corners."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.setup import CULL_BACK, CULL_BOTH, CULL_FRONT, Indices, Setup, SetupState
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape


class FillMode(IntEnum):
    """3DSTATE_RASTER dword 1, 6:5 and 4:3."""

    SOLID = 0
    WIREFRAME = 1
    POINT = 2


@dataclass(frozen=True)
class Filled:
    """What is drawn of triangles of one fill mode."""

    mode: FillMode
    primitives: Primitives
    """Triangles, lines or points; their numbers are those of the triangles in what `filled` was given."""


@dataclass(frozen=True)
class Outlined:
    """What outlines and corners have of the triangles that they belong to."""

    numbers: Indices
    """[triangles]: of the draw's instance (gl_PrimitiveID)."""
    front: NDArray[np.bool_]
    """[triangles]"""
    offsets: Floats | None
    """[triangles]: of depth."""

    def into(self, setup: Setup) -> tuple[Setup, Floats | None]:
        """What `filled` gave, set up, and its depth offsets."""
        triangle = setup.number
        offsets = None if self.offsets is None else self.offsets[triangle]
        return replace(setup, number=self.numbers[triangle], front=self.front[triangle]), offsets


def filled(state: SetupState, primitives: Primitives, front: NDArray[np.bool_]) -> list[Filled]:
    """Triangles that are not culled, as what the fill modes of their faces draw of them: themselves, their edges, or their corners."""
    culled = {CULL_BOTH: np.ones_like(front), CULL_FRONT: front, CULL_BACK: ~front}.get(
        state.cull, np.zeros_like(front)
    )
    modes = np.where(front, *state.fill_modes)
    counted = replace(primitives, number=np.arange(len(front), dtype=np.int64))
    parts = [(mode, np.nonzero(~culled & (modes == mode))[0]) for mode in FillMode]
    made = {FillMode.SOLID: lambda part: part, FillMode.WIREFRAME: edges_of, FillMode.POINT: corners_of}
    return [Filled(mode, made[mode](counted.of(chosen))) for mode, chosen in parts if len(chosen)]


def edges_of(triangles: Primitives) -> Primitives:
    """The outlines of triangles, without edges that are inside of a quad or polygon, or are flagged so."""
    corners = triangles.vertices
    pairs = np.stack([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]], axis=1).reshape(-1, 2)
    return _pieces(Shape.LINE, triangles, pairs)


def corners_of(triangles: Primitives) -> Primitives:
    """The corners of triangles at which such an edge begins."""
    return _pieces(Shape.POINT, triangles, triangles.vertices.reshape(-1, 1))


def _pieces(shape: Shape, triangles: Primitives, vertices: Indices) -> Primitives:
    """Three of each triangle, with its number."""
    numbers = np.repeat(triangles.numbers(), 3)
    if triangles.edges is not None:
        drawn = triangles.edges.reshape(-1)
        vertices, numbers = vertices[drawn], numbers[drawn]
    first, last = np.zeros(len(vertices), dtype=np.int64), np.full(len(vertices), vertices.shape[1] - 1)
    return Primitives(shape, vertices, first, last, last, number=numbers)
