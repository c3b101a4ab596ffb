"""Strips and fans (SF): triangles and rectangles in screen coordinates, as the rasteriser takes them.

Three edge functions E of a place (x, y) say all: a sample is inside where none is below zero, and they weight what is
interpolated. With corner values v, weights q and n of a primitive:

    perspective    sum(E q v) / sum(E q)        screen space    sum(E n v) / sum(E n)        1/w = sum(E q) / sum(E n)

Where all corners are before the eye, places are snapped to 1/256 of a pixel, E are exact, q = 1/w and n = 1. Otherwise E are
those of homogeneous coordinates, q = 1 and n = w (Olano and Greer, Triangle Scan Conversion using 2D Homogeneous Coordinates).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import POSITION, Clipped, ClipState, Floats
from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.state import Op, kept, remembered
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Indices = NDArray[np.int64]
SUBPIXELS = 256
"""Places are in units of 1/256 of a pixel."""
_FARTHEST = 1 << 15
"""Pixels from the origin up to which edge functions of snapped places are exact."""
_LEAST_SHARE = 1e-9
"""Of the largest w of a triangle: a smaller one is taken for the eye's."""
_LAYER, _VIEWPORT, _POINT_SIZE = 1, 2, 3
CULL_BOTH, CULL_NONE, CULL_FRONT, CULL_BACK = range(4)


@dataclass(frozen=True, slots=True)
class SetupState:
    """What setup needs of 3DSTATE_SF and 3DSTATE_RASTER."""

    transform: bool
    cull: int
    counter_clockwise: bool
    """Front faces wind so, as seen on the screen."""
    provoking: tuple[int, int, int]
    """Of triangles, lines and fans."""
    line_width: float
    point_width: float
    point_width_from_state: bool
    fill_modes: tuple[int, int]
    """Of front and back faces: 0 solid, 1 lines, 2 points."""
    rectangles: bool = False
    """Lines end across their direction; otherwise along the shorter axis of the screen."""
    regions: tuple[float, float] | None = None
    """Pixels over which the coverage of lines goes from all to nothing, at their sides and ends; None: they are not antialiased."""

    @classmethod
    @remembered(Op.SF, Op.RASTER, Op.WM)
    def of(cls, lrc: Lrc) -> SetupState:
        """The context's state now."""
        sf, raster, wm = kept(lrc, Op.SF), kept(lrc, Op.RASTER), kept(lrc, Op.WM)
        width = bits(sf, 1, 29, 12) / 128
        # Lines of no width are one pixel wide, and of no rectangle (PRM, Zero-Width (Cosmetic) Line Rasterization).
        antialiased = flag(raster, 1, 2) and width > 0
        return cls(
            transform=flag(sf, 1, 1),
            cull=bits(raster, 1, 17, 16),
            counter_clockwise=flag(raster, 1, 21),
            provoking=(bits(sf, 3, 30, 29), bits(sf, 3, 28, 27), bits(sf, 3, 26, 25)),
            line_width=width,
            point_width=bits(sf, 3, 10, 0) / 8,
            point_width_from_state=flag(sf, 3, 11),
            fill_modes=(bits(raster, 1, 6, 5), bits(raster, 1, 4, 3)),
            rectangles=antialiased or (flag(raster, 1, 12) and width > 0),
            regions=(2.0 ** (bits(wm, 1, 7, 6) - 1), 2.0 ** (bits(wm, 1, 9, 8) - 1)) if antialiased else None,
        )


@dataclass(frozen=True, slots=True)
class Viewports:
    """SF_CLIP_VIEWPORTs and the rectangles of pixels that may be drawn to."""

    matrix: Floats
    """[viewports, 6]: m00, m11, m22, m30, m31, m32."""
    bounds: Indices
    """[viewports, 4]: first x and y, and those behind the last, of viewport, scissor and drawing rectangle."""


@dataclass(frozen=True)
class Setup:
    """Primitives, each with what the docstring of this module says."""

    edges: Floats
    """[primitives, 3 edges, 3]: E = e[0] x + e[1] y + e[2]; places in subpixels."""
    inclusive: NDArray[np.bool_]
    """[primitives, 3]: samples on the edge belong to the primitive (top and left edges)."""
    perspective: Floats
    """[primitives, 3]: q"""
    screen: Floats
    """[primitives, 3]: n"""
    depth: Floats
    """[primitives, 3]: depth times n."""
    planes: Floats
    """[primitives, 3, planes]: clip distances."""
    bounds: Indices
    """[primitives, 4]: pixels, first x and y, and those behind the last."""
    rectangle: NDArray[np.bool_]
    """[primitives]: it is all of `extent`, and edges only interpolate."""
    extent: Floats
    """[primitives, 4]: of rectangles, in subpixels."""
    vertices: Indices
    """[primitives, 3]: positions among the vertices."""
    provoking: Indices
    """[primitives]: which of the three."""
    front: NDArray[np.bool_]
    layer: Indices
    viewport: Indices
    number: Indices
    """[primitives]: of the draw's instance (gl_PrimitiveID)."""
    smooth: Floats
    """[primitives, 8] of antialiased lines: how far a place in subpixels is from the middle, across and along, in regions of
    antialiasing as a[0] x + a[1] y + a[2], and at which distance nothing is covered. [primitives, 0] of others."""

    def __len__(self) -> int:
        return len(self.edges)

    def of(self, chosen: NDArray[np.bool_] | Indices) -> Setup:
        """Some of them."""
        return Setup(**{item.name: getattr(self, item.name)[chosen] for item in fields(self)})


def set_up(
    state: SetupState,
    clip_state: ClipState,
    viewports: Viewports,
    vertices: NDArray[np.uint32],
    positions: Floats,
    primitives: Primitives,
    clipped: Clipped,
) -> Setup:
    """Triangles or rectangles; those that cannot be seen are left out."""
    corners = primitives.vertices
    provoking = primitives.provoking(*state.provoking)
    first = corners[np.arange(len(corners)), provoking]
    header = vertices[:, :POSITION]
    layer = header[first, _LAYER].astype(np.int64)
    if clip_state.no_layers:
        layer[:] = 0
    viewport = np.minimum(header[first, _VIEWPORT].astype(np.int64), clip_state.most_viewports)
    viewport = np.minimum(viewport, len(viewports.bounds) - 1)
    clip_space = positions[corners]
    matrix = viewports.matrix[viewport][:, :, None]
    w = clip_space[:, :, 3] if clip_state.divide else np.ones(clip_space.shape[:2])
    x, y, z = clip_space[:, :, 0], clip_space[:, :, 1], clip_space[:, :, 2]
    if state.transform:
        x, y, z = (
            x * matrix[:, 0] + matrix[:, 3] * w,
            y * matrix[:, 1] + matrix[:, 4] * w,
            z * matrix[:, 2] + matrix[:, 5] * w,
        )
    before = (w > 0).all(axis=1)
    with np.errstate(all="ignore"):
        screen_x, screen_y, depth = x / w, y / w, z / w
        near = (np.abs(screen_x) < _FARTHEST).all(axis=1) & (np.abs(screen_y) < _FARTHEST).all(axis=1)
        snapped_x = np.floor(screen_x * SUBPIXELS + 0.5)
        snapped_y = np.floor(screen_y * SUBPIXELS + 0.5)
    plain = np.asarray(before & near)
    rectangle = np.full(len(corners), primitives.shape is Shape.RECTANGLE)
    if plain.all():
        edges, area = _edges(snapped_x, snapped_y), _area(snapped_x, snapped_y)
    else:
        edges = np.zeros((len(corners), 3, 3))
        edges[plain] = _edges(snapped_x[plain], snapped_y[plain])
        edges[~plain] = _homogeneous(x[~plain] * SUBPIXELS, y[~plain] * SUBPIXELS, w[~plain])
        area = np.where(plain, _area(snapped_x, snapped_y), _determinant(x, y, w))
    edges *= np.sign(area)[:, None, None]
    clockwise = area > 0
    front = clockwise != state.counter_clockwise
    with np.errstate(all="ignore"):
        perspective = np.where(plain[:, None], 1 / w, 1.0)
    screen = np.where(plain[:, None], 1.0, w)
    depth = np.where(plain[:, None], depth, z)
    left, right = snapped_x.min(axis=1), snapped_x.max(axis=1)
    top, bottom = snapped_y.min(axis=1), snapped_y.max(axis=1)
    extent = np.stack([left, top, right, bottom], axis=1)
    bounds = viewports.bounds[viewport].copy()
    inside = np.floor(extent[plain] / SUBPIXELS).astype(np.int64)
    bounds[plain, :2] = np.maximum(bounds[plain, :2], inside[:, :2])
    bounds[plain, 2:] = np.minimum(bounds[plain, 2:], inside[:, 2:] + 1)
    if primitives.shape is Shape.TRIANGLE and not plain.all():
        bounds[~plain] = crossing_bounds(
            bounds[~plain],
            np.stack([x[~plain], y[~plain], w[~plain]], axis=2),
            clipped.planes[~plain, :, 0] if clip_state.cuts_near else None,
        )
    seen = clipped.visible & (area != 0) & np.isfinite(area)
    seen &= (bounds[:, 0] < bounds[:, 2]) & (bounds[:, 1] < bounds[:, 3])
    if primitives.shape is Shape.TRIANGLE:
        culled = {CULL_BOTH: np.ones_like(front), CULL_FRONT: front, CULL_BACK: ~front}.get(state.cull)
        if culled is not None:
            seen &= ~culled
    else:
        front[:] = True
        seen &= plain
    whole = Setup(
        edges=edges,
        inclusive=(edges[:, :, 0] > 0) | ((edges[:, :, 0] == 0) & (edges[:, :, 1] > 0)),
        perspective=perspective,
        screen=screen,
        depth=depth,
        planes=_needed(clipped.planes),
        bounds=bounds,
        rectangle=rectangle,
        extent=extent,
        vertices=corners,
        provoking=provoking,
        front=front,
        layer=layer,
        viewport=viewport,
        number=primitives.numbers(),
        smooth=np.zeros((len(corners), 0)),
    )
    return whole if seen.all() else whole.of(seen)


def crossing_bounds(bounds: Indices, corners: Floats, near: Floats | None) -> Indices:
    """[triangles, 4]: pixels that triangles which reach behind the eye may cover, of those in `bounds`.

    `corners` [triangles, 3, 3] are x and y in pixels times w, and w; `near` [triangles, 3] the distances from the near plane, if that clips.
    """
    found = bounds.copy()
    x, y, w = (corners[:, :, axis] for axis in range(3))
    left, top, right, bottom = (bounds[:, side, None] for side in range(4))
    # Beyond one side of the bounds with all corners: nothing is seen, whatever the signs of w.
    with np.errstate(all="ignore"):
        beyond = (x < (left - 1) * w).all(axis=1) | (x > (right + 1) * w).all(axis=1)
        beyond |= (y < (top - 1) * w).all(axis=1) | (y > (bottom + 1) * w).all(axis=1)
    found[beyond, 2:] = found[beyond, :2]
    if near is None:
        return found
    # What is left before the near plane: corners, and where edges cross it.
    following = np.roll(near, -1, axis=1)
    crosses = (near >= 0) != (following >= 0)
    with np.errstate(all="ignore"):
        share = np.where(crosses, near / (near - following), 0)[:, :, None]
        points = np.concatenate([corners, corners + share * (np.roll(corners, -1, axis=1) - corners)], axis=1)
        there = np.concatenate([near >= 0, crosses], axis=1)
        least = _LEAST_SHARE * np.abs(corners[:, :, 2]).max(axis=1)
        places = points[:, :, :2] / points[:, :, 2:]
        bounded = (
            np.isfinite(places).all(axis=2)
            & (np.abs(places) < _FARTHEST).all(axis=2)
            & (points[:, :, 2] > least[:, None])
        )
    bounded = (bounded | ~there).all(axis=1) & there.any(axis=1)
    low = np.where(there[:, :, None], places, np.inf)[bounded].min(axis=1)
    high = np.where(there[:, :, None], places, -np.inf)[bounded].max(axis=1)
    found[bounded, :2] = np.maximum(found[bounded, :2], np.floor(low).astype(np.int64) - 1)
    found[bounded, 2:] = np.minimum(found[bounded, 2:], np.floor(high).astype(np.int64) + 2)
    return found


_NEXT, _LAST = np.array([1, 2, 0]), np.array([2, 0, 1])
"""Of each corner, the two others."""


def facing(
    state: SetupState, viewports: Viewports, vertices: NDArray[np.uint32], positions: Floats, primitives: Primitives
) -> NDArray[np.bool_]:
    """Which triangles show their front."""
    corners = primitives.vertices
    x, y, w = (positions[corners][:, :, axis] for axis in (0, 1, 3))
    turns = _determinant(x, y, w)
    if state.transform:
        number = np.minimum(vertices[corners[:, 0], _VIEWPORT].astype(np.int64), len(viewports.matrix) - 1)
        turns = turns * np.sign(viewports.matrix[number, 0] * viewports.matrix[number, 1])
    return np.asarray((turns > 0) != state.counter_clockwise)


def _needed(planes: Floats) -> Floats:
    """Without the planes that nothing is beyond."""
    return planes[:, :, (planes < 0).any(axis=(0, 1))]


def _area(x: Floats, y: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])


def _edges(x: Floats, y: Floats) -> Floats:
    """Of snapped places: exact."""
    from_x, from_y = x[:, _NEXT], y[:, _NEXT]
    a, b = from_y - y[:, _LAST], x[:, _LAST] - from_x
    return np.stack([a, b, -(a * from_x + b * from_y)], axis=2)


def _homogeneous(x: Floats, y: Floats, w: Floats) -> Floats:
    """Rows of the adjoint of the matrix of corners."""
    result = np.zeros((len(x), 3, 3))
    for corner in range(3):
        j, k = (corner + 1) % 3, (corner + 2) % 3
        result[:, corner, 0] = y[:, j] * w[:, k] - y[:, k] * w[:, j]
        result[:, corner, 1] = x[:, k] * w[:, j] - x[:, j] * w[:, k]
        result[:, corner, 2] = x[:, j] * y[:, k] - x[:, k] * y[:, j]
    return result


def _determinant(x: Floats, y: Floats, w: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return np.asarray(
            x[:, 0] * (y[:, 1] * w[:, 2] - y[:, 2] * w[:, 1])
            + x[:, 1] * (y[:, 2] * w[:, 0] - y[:, 0] * w[:, 2])
            + x[:, 2] * (y[:, 0] * w[:, 1] - y[:, 1] * w[:, 0])
        )
