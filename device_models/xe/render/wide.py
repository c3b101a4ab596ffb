"""Strips and fans (SF), points and lines: as the rectangles and pairs of triangles that they cover, in screen coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import ClipState, Floats
from vfio_user_xe.device_models.xe.render.setup import SetupState, Viewports
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape

_POINT_SIZE = 3
_VIEWPORT = 2
_NEAREST = 1e-6
"""Smallest w of what is left of a line."""
_BEYOND = 16.0
"""Widths of the view volume to which lines are cut, so that their ends are numbers."""


@dataclass(frozen=True)
class Widened:
    """What is set up instead; positions are on the screen times w, so that nothing is transformed again."""

    vertices: NDArray[np.uint32]
    positions: Floats
    primitives: Primitives
    state: SetupState


def points(
    state: SetupState, viewports: Viewports, vertices: NDArray[np.uint32], positions: Floats, primitives: Primitives,
    limits: tuple[float, float],
) -> Widened:  # fmt: skip
    """A rectangle around each point; widths are between `limits` if the last is not zero."""
    which = primitives.vertices[:, 0]
    seen = np.isfinite(positions[which]).all(axis=1) & (positions[which, 3] > 0)
    which = which[seen]
    some = vertices[which]
    width = np.full(len(some), state.point_width)
    if not state.point_width_from_state:
        width = np.nan_to_num(np.ascontiguousarray(some[:, _POINT_SIZE]).view(np.float32).astype(np.float64))
    if limits[1]:
        width = np.clip(width, *limits)
    screen = _screen(state, viewports, some, positions[which])
    half = width / 2 * screen[:, 3]
    corners = np.repeat(screen, 3, axis=0)
    # Right bottom, left bottom, left top: the order of rectangles.
    corners[:, 0] += np.stack([half, -half, -half], axis=1).reshape(-1)
    corners[:, 1] += np.stack([half, half, -half], axis=1).reshape(-1)
    triples = np.arange(3 * len(which), dtype=np.int64).reshape(-1, 3)
    first = np.zeros(len(which), dtype=np.int64)
    return Widened(
        np.repeat(some, 3, axis=0),
        corners,
        Primitives(Shape.RECTANGLE, triples, first, first, first, number=primitives.numbers()[seen]),
        replace(state, transform=False),
    )


def lines(
    state: SetupState, clip: ClipState, viewports: Viewports, vertices: NDArray[np.uint32], positions: Floats,
    primitives: Primitives,
) -> Widened:  # fmt: skip
    """Two triangles for each line: it is as wide as it is, across its shorter axis."""
    pairs, provoking = primitives.vertices, primitives.provoking(*state.provoking)
    data = vertices[pairs]
    ends, low, high = _cut(clip, positions[pairs])
    left = low < high
    data, ends, provoking = data[left].copy(), ends[left], provoking[left]
    # Attributes go with the ends that were cut off; those of the header stay.
    shares = np.stack([low[left], high[left]], axis=1)
    with np.errstate(all="ignore"):
        values = data[:, :, 4:].view(np.float32)
        moved = values[:, :1] + (values[:, 1:] - values[:, :1]) * shares[:, :, None].astype(np.float32)
    cut = (shares != [0, 1])[:, :, None]
    data[:, :, 4:] = np.where(cut, moved, values).view(np.uint32)
    flat = data.reshape(-1, data.shape[2])
    screen = _screen(state, viewports, flat, ends.reshape(-1, 4)).reshape(-1, 2, 4)
    with np.errstate(all="ignore"):
        place = screen[:, :, :2] / screen[:, :, 3:]
    steep = np.abs(place[:, 1, 1] - place[:, 0, 1]) > np.abs(place[:, 1, 0] - place[:, 0, 0])
    half = max(1.0, round(state.line_width)) / 2
    across = np.where(steep[:, None], [half, 0.0], [0.0, half])
    corners = np.repeat(screen, 2, axis=1)  # a, a, b, b
    sides = np.array([-1.0, 1.0, -1.0, 1.0])
    corners[:, :, :2] += across[:, None, :] * sides[None, :, None] * corners[:, :, 3:]
    first = 4 * np.arange(len(screen), dtype=np.int64)[:, None]
    triangles = (first + np.array([0, 1, 2, 2, 1, 3], dtype=np.int64)).reshape(-1, 3)
    # Which corner of each triangle is the provoking end's.
    chosen = np.stack([np.where(provoking == 0, 0, 2), np.where(provoking == 0, 1, 0)], axis=1).reshape(-1)
    return Widened(
        np.repeat(data, 2, axis=1).reshape(-1, data.shape[2]),
        corners.reshape(-1, 4),
        Primitives(Shape.LINE, triangles, chosen, chosen, chosen, number=np.repeat(primitives.numbers()[left], 2)),
        replace(state, transform=False),
    )


def _cut(clip: ClipState, ends: Floats) -> tuple[Floats, Floats, Floats]:
    """Ends of lines inside of the planes, and where between the old ends they are."""
    z, w = ends[:, :, 2], ends[:, :, 3]
    planes = [w - _NEAREST, *(w * _BEYOND + sign * ends[:, :, axis] for axis in range(2) for sign in (1, -1))]
    if clip.enabled and clip.near:
        planes.append(z if clip.d3d else z + w)
    if clip.enabled and clip.far:
        planes.append(w - z)
    low, high = np.zeros(len(ends)), np.ones(len(ends))
    for distance in planes:
        a, b = distance[:, 0], distance[:, 1]
        with np.errstate(all="ignore"):
            at = a / (a - b)
        low = np.where((a < 0) & (b >= 0), np.maximum(low, at), low)
        high = np.where((a >= 0) & (b < 0), np.minimum(high, at), high)
        high = np.where((a < 0) & (b < 0), -1.0, high)
    high = np.where(np.isfinite(ends).all(axis=(1, 2)), high, -1.0)
    span = ends[:, 1] - ends[:, 0]
    moved = np.stack([ends[:, 0] + span * low[:, None], ends[:, 0] + span * high[:, None]], axis=1)
    return moved, low, high


def _screen(state: SetupState, viewports: Viewports, vertices: NDArray[np.uint32], positions: Floats) -> Floats:
    """[vertices, 4]: x, y and z on the screen times w, and w."""
    if not state.transform:
        return positions.copy()
    number = np.minimum(vertices[:, _VIEWPORT].astype(np.int64), len(viewports.matrix) - 1)
    matrix, w = viewports.matrix[number], positions[:, 3]
    result = positions.copy()
    for axis in range(3):
        result[:, axis] = positions[:, axis] * matrix[:, axis] + matrix[:, axis + 3] * w
    return result
