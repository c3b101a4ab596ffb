"""The windower's rasteriser: which samples of which pixels primitives cover, in quads of two by two pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.setup import SUBPIXELS, Indices, Setup
from vfio_user_xe.device_models.xe.render.stipple import stippled

PIXEL_X = np.array([0, 1, 0, 1])
PIXEL_Y = np.array([0, 0, 1, 1])
"""Where the four pixels of a quad are in it: the order of lanes."""
CHUNK = 1 << 15
"""Quads that are looked at together."""


@dataclass(frozen=True)
class Quads:
    """Quads in the order of their primitives."""

    primitive: Indices
    """[quads]"""
    x: Indices
    """[quads]: of the left pixels, even."""
    y: Indices
    coverage: NDArray[np.uint16]
    """[quads, 4]: bits by sample."""

    def __len__(self) -> int:
        return len(self.primitive)

    def of(self, chosen: NDArray[np.bool_] | Indices | slice) -> Quads:
        """Some of them."""
        return Quads(self.primitive[chosen], self.x[chosen], self.y[chosen], self.coverage[chosen])

    def with_coverage(self, coverage: NDArray[np.uint16]) -> Quads:
        """Those that something of is covered still."""
        left = coverage.any(axis=1)
        return Quads(self.primitive[left], self.x[left], self.y[left], coverage[left])


def rasterize(setup: Setup, samples: Floats, stipple: NDArray[np.uint32] | None = None) -> Iterator[Quads]:
    """The covered quads, in pieces that take like time and may be empty.

    `samples` [samples, 2] are where samples are in a pixel, in subpixels; `stipple` is what `polygon_stipple` gives.
    """
    if not len(setup):
        return
    left, top = setup.bounds[:, 0] // 2, setup.bounds[:, 1] // 2
    wide, high = (setup.bounds[:, 2] + 1) // 2 - left, (setup.bounds[:, 3] + 1) // 2 - top
    ends = np.cumsum(wide * high)
    begins = ends - wide * high
    total = int(ends[-1])
    for first in range(0, total, CHUNK):
        index = np.arange(first, min(total, first + CHUNK), dtype=np.int64)
        low = np.searchsorted(ends, first, side="right")
        high_end = np.searchsorted(ends, index[-1], side="right")
        if low == high_end:
            primitive = np.full(len(index), low, dtype=np.int64)
        else:
            primitive = np.searchsorted(ends, index, side="right")
        within = index - begins[primitive]
        row = within // wide[primitive]
        x = 2 * (left[primitive] + within - row * wide[primitive])
        y = 2 * (top[primitive] + row)
        coverage = _coverage(setup, samples, primitive, x, y)
        if stipple is not None:
            drawn = stippled(stipple, x[:, None] + PIXEL_X, y[:, None] + PIXEL_Y)
            coverage = np.where(drawn, coverage, 0).astype(np.uint16)
        found = coverage.any(axis=1)
        yield Quads(primitive[found], x[found], y[found], coverage[found])


def edge_values(setup: Setup, primitive: Indices, x: Floats, y: Floats) -> Floats:
    """[quads, 4, 3]: the edge functions at places in subpixels [quads, 4]."""
    edges = setup.edges[primitive]
    found: Floats = edges[:, None, :, 0] * x[:, :, None] + edges[:, None, :, 1] * y[:, :, None] + edges[:, None, :, 2]
    return found


def line_coverage(setup: Setup, quads: Quads) -> Floats:
    """[quads, 4]: how much antialiased lines cover of pixels, 0 to 1."""
    x = ((quads.x[:, None] + PIXEL_X) * SUBPIXELS + SUBPIXELS // 2).astype(np.float64)
    y = ((quads.y[:, None] + PIXEL_Y) * SUBPIXELS + SUBPIXELS // 2).astype(np.float64)
    smooth = setup.smooth[quads.primitive]
    shares = []
    for first in (0, 4):
        a, b, c, most = (smooth[:, first + n, None] for n in range(4))
        shares.append(np.clip(most - np.abs(a * x + b * y + c), 0, 1))
    return np.asarray(shares[0] * shares[1])


def _coverage(setup: Setup, samples: Floats, primitive: Indices, x: Indices, y: Indices) -> NDArray[np.uint16]:
    pixel_x, pixel_y = x[:, None] + PIXEL_X, y[:, None] + PIXEL_Y
    bounds = setup.bounds[primitive][:, :, None]
    inside = (pixel_x >= bounds[:, 0]) & (pixel_x < bounds[:, 2]) & (pixel_y >= bounds[:, 1]) & (pixel_y < bounds[:, 3])
    rectangle = setup.rectangle[primitive]
    coverage = np.zeros(inside.shape, dtype=np.uint16)
    for number, (offset_x, offset_y) in enumerate(samples):
        place_x, place_y = pixel_x * SUBPIXELS + offset_x, pixel_y * SUBPIXELS + offset_y
        if rectangle.all():
            covered = _in_extent(setup.extent[primitive][:, :, None], place_x, place_y)
        else:
            values = edge_values(setup, primitive, place_x, place_y)
            covered = ((values > 0) | ((values == 0) & setup.inclusive[primitive][:, None, :])).all(axis=2)
            if rectangle.any():
                extent = setup.extent[primitive][:, :, None]
                covered = np.where(rectangle[:, None], _in_extent(extent, place_x, place_y), covered)
            if setup.planes.shape[2]:
                weighted, planes = values * setup.perspective[primitive][:, None, :], setup.planes[primitive]
                distance = weighted[:, :, :1] * planes[:, None, 0] + weighted[:, :, 1:2] * planes[:, None, 1]
                distance = distance + weighted[:, :, 2:] * planes[:, None, 2]
                covered &= ~(distance < 0).any(axis=2)
        coverage |= (covered & inside).astype(np.uint16) << np.uint16(number)
    return coverage


def _in_extent(extent: Floats, x: Floats, y: Floats) -> NDArray[np.bool_]:
    return np.asarray((x >= extent[:, 0]) & (x < extent[:, 2]) & (y >= extent[:, 1]) & (y < extent[:, 3]))
