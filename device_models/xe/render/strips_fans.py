"""Strips and fans (SF): primitives, set up as what the rasteriser takes; filled, widened, offset and stippled as state says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render import wide
from vfio_user_xe.device_models.xe.render.clip import POSITION, ClipState, Floats, clip
from vfio_user_xe.device_models.xe.render.depth_offset import DepthOffset
from vfio_user_xe.device_models.xe.render.depth_stencil import DepthFormat
from vfio_user_xe.device_models.xe.render.fields import bits
from vfio_user_xe.device_models.xe.render.outlines import FillMode, Outlined, filled
from vfio_user_xe.device_models.xe.render.setup import CULL_NONE, Setup, SetupState, Viewports, facing, set_up
from vfio_user_xe.device_models.xe.render.setup_backend import SetupBackend
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.stipple import LineStipple, polygon_stipple
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Vertices = NDArray[np.uint32]


@dataclass(frozen=True)
class Drawable:
    """Primitives for the rasteriser."""

    setup: Setup
    vertices: Vertices
    count: int
    """Primitives that these are pieces of, without those that cannot be seen."""
    points: bool
    offset: Floats | None = None
    """[primitives of `setup`]: added to depths."""
    stipple: NDArray[np.uint32] | None = None
    """[32]: which pixels are drawn, as `polygon_stipple` has it; None: all are."""


class StripsFans:
    """The state of this fixed function, and of those that it needs."""

    def __init__(self, lrc: Lrc, viewports: Viewports, depth: DepthFormat | None) -> None:
        """The context's state now, for a depth buffer of this format (None: there is none)."""
        self._state = SetupState.of(lrc)
        self._clip = ClipState.of(lrc)
        self._backend = SetupBackend.of(lrc)
        self._viewports = viewports
        self._offset = DepthOffset.of(lrc, depth)
        self._line_stipple = LineStipple.of(lrc)
        self._polygon_stipple = polygon_stipple(lrc)
        words = kept(lrc, Op.CLIP)
        self._point_limits = bits(words, 3, 27, 17) / 8, bits(words, 3, 16, 6) / 8
        """Least and most width of points."""

    def set_up(self, vertices: Vertices, primitives: Primitives, *, stipples: bool = True) -> Iterator[Drawable]:
        """What can be seen of these; `stipples` says whether polygons are stippled at all."""
        positions = np.ascontiguousarray(vertices[:, POSITION : POSITION + 4]).view(np.float32).astype(np.float64)
        stipple = self._polygon_stipple if stipples else None
        if primitives.shape is not Shape.TRIANGLE or not any(self._state.fill_modes):
            yield from self._flat(vertices, positions, primitives, None, stipple)
            return
        front = facing(self._state, self._viewports, vertices, positions, primitives)
        for part in filled(self._state, primitives, front):
            offsets = self._offsets(part.mode, vertices, positions, primitives)
            outlined = Outlined(primitives.numbers(), front, offsets)
            yield from self._flat(vertices, positions, part.primitives, outlined, stipple)

    def _offsets(self, mode: FillMode, vertices: Vertices, positions: Floats, triangles: Primitives) -> Floats | None:
        """[triangles]: depth offsets, which outlines and corners have from their triangles' slopes."""
        if mode not in self._offset.modes:
            return None
        counted = replace(triangles, number=np.arange(len(triangles.vertices)))
        clipped = clip(self._clip, vertices, positions, triangles.vertices)
        state = replace(self._state, cull=CULL_NONE)
        setup = set_up(state, self._clip, self._viewports, vertices, positions, counted, clipped)
        offsets = np.zeros(len(triangles.vertices))
        offsets[setup.number] = self._offset.offsets(setup)
        return offsets

    def _flat(
        self,
        vertices: Vertices,
        positions: Floats,
        primitives: Primitives,
        outlined: Outlined | None,
        stipple: NDArray[np.uint32] | None,
    ) -> Iterator[Drawable]:
        """Points, lines, triangles or rectangles; `outlined` has the triangles that they are of."""
        if primitives.shape in (Shape.POINT, Shape.LINE):
            yield from self._widened(vertices, positions, primitives, outlined)
            return
        clipped = clip(self._clip, vertices, positions, primitives.vertices)
        setup = set_up(self._state, self._clip, self._viewports, vertices, positions, primitives, clipped)
        if not len(setup):
            return
        offset: Floats | None = None
        if outlined is not None:
            setup, offset = outlined.into(setup)
        elif primitives.shape is Shape.TRIANGLE and FillMode.SOLID in self._offset.modes:
            offset = self._offset.offsets(setup)
        stipple = stipple if primitives.shape is Shape.TRIANGLE else None
        yield Drawable(setup, vertices, len(setup), points=False, offset=offset, stipple=stipple)

    def _widened(
        self, vertices: Vertices, positions: Floats, primitives: Primitives, outlined: Outlined | None
    ) -> Iterator[Drawable]:
        clipped = clip(self._clip, vertices, positions, primitives.vertices)
        if not clipped.visible.all():
            left = np.nonzero(clipped.visible)[0]
            primitives, clipped = primitives.of(left), replace(clipped, planes=clipped.planes[left])
        points, strokes = primitives.shape is Shape.POINT, None
        if points:
            widened = wide.points(self._state, self._viewports, vertices, positions, primitives, self._point_limits)
        else:
            widened, strokes = wide.lines(
                self._state, self._viewports, vertices, positions, primitives, clipped.planes,
                flat=self._backend.flat_dwords(vertices.shape[1]), outlines=outlined is not None,
            )  # fmt: skip
        if not len(widened.primitives.vertices):
            return
        whole = replace(self._clip, enabled=False)
        unclipped = clip(whole, widened.vertices, widened.positions, widened.primitives.vertices)
        setup = set_up(
            widened.state, whole, self._viewports, widened.vertices, widened.positions, widened.primitives, unclipped
        )
        count = len(setup)
        if strokes is not None:
            count = len(np.unique(strokes.line_of(setup)))
            setup = strokes.smoothed(setup)
            if self._line_stipple is not None:
                setup = self._line_stipple.cut(setup, strokes)
        if not len(setup):
            return
        offset: Floats | None = None
        if outlined is not None:
            setup, offset = outlined.into(setup)
        yield Drawable(setup, widened.vertices, count, points=points, offset=offset)
