"""Strips and fans (SF), points and lines: as the rectangles and pairs of triangles that they cover, in screen coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.setup import SUBPIXELS, Indices, Setup, SetupState, Viewports
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape

_POINT_SIZE = 3
_VIEWPORT = 2
_NEAREST = 1e-6
"""Smallest w of what is left of a line."""
_CORNERS = 4
"""Vertices of a line's two triangles."""
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
    state: SetupState, viewports: Viewports, vertices: NDArray[np.uint32], positions: Floats, primitives: Primitives,
    planes: Floats, *, flat: NDArray[np.bool_], outlines: bool = False,
) -> tuple[Widened, Strokes]:  # fmt: skip
    """Two triangles for each line, and where it is; `planes` [lines, 2, planes] are the ends' distances from what clips them.

    `flat` [dwords of a vertex] are not interpolated. `outlines`: lines of one number are those of a polygon.
    """
    pairs, provoking = primitives.vertices, primitives.provoking(*state.provoking)
    data = vertices[pairs]
    ends, low, high = _cut(planes, positions[pairs])
    left = low < high
    data, ends, provoking = data[left].copy(), ends[left], provoking[left]
    shares = np.stack([low[left], high[left]], axis=1)
    _move(data, shares, flat)
    screen = _screen(state, viewports, data.reshape(-1, data.shape[2]), ends.reshape(-1, 4)).reshape(-1, 2, 4)
    place, steep = _places(screen)
    if not state.rectangles:
        exits = _by_diamonds(screen, place, steep, state.line_width, shares != [0, 1])
        _move(data, exits, flat)
        screen = screen[:, :1] + (screen[:, 1:] - screen[:, :1]) * exits[:, :, None]
        place, _ = _places(screen)
    strokes = Strokes(place, steep, _follows(pairs[left], primitives.numbers()[left] if outlines else None), state)
    across, beyond, nudge = strokes.reach()
    corners = np.repeat(screen, 2, axis=1)  # a, a, b, b
    sides, forth = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([-1.0, -1.0, 1.0, 1.0])
    shift = across[:, None, :] * sides[None, :, None] + beyond[:, None, :] * forth[None, :, None] + nudge[:, None, :]
    corners[:, :, :2] += shift * corners[:, :, 3:]
    first = 4 * np.arange(len(screen), dtype=np.int64)[:, None]
    triangles = (first + np.array([0, 1, 2, 2, 1, 3], dtype=np.int64)).reshape(-1, 3)
    # Which corner of each triangle is the provoking end's.
    chosen = np.stack([np.where(provoking == 0, 0, 2), np.where(provoking == 0, 1, 0)], axis=1).reshape(-1)
    numbers = np.repeat(primitives.numbers()[left], 2)
    widened = Widened(
        np.repeat(data, 2, axis=1).reshape(-1, data.shape[2]),
        corners.reshape(-1, 4),
        Primitives(Shape.LINE, triangles, chosen, chosen, chosen, number=numbers),
        replace(state, transform=False),
    )
    return widened, strokes


@dataclass(frozen=True)
class Strokes:
    """Lines on the screen."""

    places: Floats
    """[lines, 2, 2]: both ends, in pixels."""
    steep: NDArray[np.bool_]
    """[lines]: y is the longer axis."""
    follows: NDArray[np.bool_]
    """[lines]: it begins where the one before ends, in the same strip."""
    state: SetupState

    def line_of(self, setup: Setup) -> Indices:
        """[primitives]: which line each of them is a part of."""
        return np.asarray(setup.vertices[:, 0] // _CORNERS)

    def reach(self) -> tuple[Floats, Floats, Floats]:
        """[lines, 2] each, in pixels: from a line's middle to its side, from its last end on, and what all of it is moved by."""
        state = self.state
        if not state.rectangles:
            half = max(1.0, round(state.line_width)) / 2
            across = np.where(self.steep[:, None], [half, 0.0], [0.0, half])
            return across, np.zeros_like(across), self._nudges()
        sides, ends = state.regions or (0.0, 0.0)
        along, _ = self._directions()
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        return across * (state.line_width + sides) / 2, along * ends / 2, np.zeros_like(across)

    def along(self) -> tuple[Floats, NDArray[np.bool_]]:
        """[lines, 2]: both ends on the longer axis, in pixels, as they are set up; and whether the line descends there."""
        ends = np.where(self.steep[:, None], self.places[:, :, 1], self.places[:, :, 0])
        descends = ends[:, 1] < ends[:, 0]
        nudges = self.reach()[2].sum(axis=1, keepdims=True)
        return np.floor((ends + nudges) * SUBPIXELS + 0.5) / SUBPIXELS, descends

    def _nudges(self) -> Floats:
        """The pixel in whose centre a line ends is not drawn, whichever way it goes: edges at the left and top belong to it."""
        ends = np.where(self.steep[:, None], self.places[:, :, 1], self.places[:, :, 0])
        step = np.where(ends[:, 1] < ends[:, 0], 1 / SUBPIXELS, 0.0)
        return np.stack([np.where(self.steep, 0, step), np.where(self.steep, step, 0)], axis=1)

    def smoothed(self, setup: Setup) -> Setup:
        """With what `Setup.smooth` says, if lines are antialiased."""
        if self.state.regions is None:
            return setup
        sides, ends = self.state.regions
        along, length = self._directions()
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        middle = self.places.mean(axis=1)
        halves = np.full(len(length), self.state.line_width / 2), length / 2
        columns: list[Floats] = []
        for direction, region, half in zip((across, along), (sides, ends), halves, strict=True):
            origin = -(direction * middle).sum(axis=1)
            columns += [direction[:, 0] / SUBPIXELS / region, direction[:, 1] / SUBPIXELS / region, origin / region]
            columns.append(half / region + 0.5)
        return replace(setup, smooth=np.stack(columns, axis=1)[self.line_of(setup)])

    def _directions(self) -> tuple[Floats, Floats]:
        """[lines, 2], [lines]: from the first end to the last, and how far."""
        path = self.places[:, 1] - self.places[:, 0]
        length = np.sqrt((path * path).sum(axis=1))
        return np.where(length[:, None] > 0, path / np.maximum(length, 1e-30)[:, None], [1.0, 0.0]), length


def _follows(pairs: Indices, numbers: Indices | None) -> NDArray[np.bool_]:
    """Which lines begin with the vertex that the one before ends with, as those of strips do, and of a polygon's outline."""
    found = np.zeros(len(pairs), dtype=np.bool_)
    found[1:] = pairs[1:, 0] == pairs[:-1, 1]
    if numbers is not None:
        found[1:] &= numbers[1:] == numbers[:-1]
    return found


def _cut(planes: Floats, ends: Floats) -> tuple[Floats, Floats, Floats]:
    """Ends of lines inside of the planes, and where between the old ends they are."""
    w = ends[:, :, 3]
    distances = [w - _NEAREST, *(w * _BEYOND + sign * ends[:, :, axis] for axis in range(2) for sign in (1, -1))]
    distances += [planes[:, :, number] for number in range(planes.shape[2])]
    low, high = np.zeros(len(ends)), np.ones(len(ends))
    for distance in distances:
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


def _move(data: NDArray[np.uint32], shares: Floats, flat: NDArray[np.bool_]) -> None:
    """Attributes go with the ends that were moved; the header and what is flat stay. `shares` [lines, 2]: where between the old ends."""
    with np.errstate(all="ignore"):
        values = data[:, :, 4:].view(np.float32)
        moved = values[:, :1] + (values[:, 1:] - values[:, :1]) * shares[:, :, None].astype(np.float32)
    data[:, :, 4:] = np.where((shares != [0, 1])[:, :, None] & ~flat[4:], moved, values).view(np.uint32)


def _places(screen: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """[lines, 2, 2], [lines]: ends in pixels, and whether y is the longer axis."""
    with np.errstate(all="ignore"):
        place = np.nan_to_num(screen[:, :, :2] / screen[:, :, 3:])
    return place, np.abs(place[:, 1, 1] - place[:, 0, 1]) > np.abs(place[:, 1, 0] - place[:, 0, 0])


def _by_diamonds(
    screen: Floats, place: Floats, steep: NDArray[np.bool_], width: float, fixed: NDArray[np.bool_]
) -> Floats:
    """[lines, 2]: shares of a line at which it has to end so that it crosses the centres of the pixels whose diamonds it leaves.

    A line covers a pixel if it leaves the diamond around its centre (OpenGL 4.6, 14.5.1). Between its ends that is each pixel
    whose centre it crosses on its longer axis. One that begins behind a centre, but in the diamond, leaves it, and one that ends
    there does not; `fixed` ends stay as they are.
    """
    snapped = np.floor(place * SUBPIXELS + 0.5) / SUBPIXELS
    long = np.where(steep[:, None], snapped[:, :, 1], snapped[:, :, 0])
    # A line of several pixels is one of one pixel beside it, and repeated (14.5.2.1).
    short = np.where(steep[:, None], snapped[:, :, 0], snapped[:, :, 1]) - (max(1.0, round(width)) - 1) / 2
    centre = np.floor(long) + 0.5
    behind = (long - centre) * np.sign(long[:, 1:] - long[:, :1])
    inside = np.abs(long - centre) + np.abs(short - np.floor(short) - 0.5) < 0.5
    axis = np.where(steep[:, None, None], screen[:, :, 1:2], screen[:, :, :1])
    with np.errstate(all="ignore"):
        # Distances of both ends from each centre, times w: linear along the line.
        away = axis - centre[:, None, :] * screen[:, :, 3:]
        at = away[:, 0] / (away[:, 0] - away[:, 1])
        w = screen[:, :1, 3] + (screen[:, 1:, 3] - screen[:, :1, 3]) * at
    return np.where(inside & (behind > 0) & ~fixed & np.isfinite(at) & (w > 0), at, [0.0, 1.0])


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
