"""Clip: which primitives can be seen, and by which planes their fragments are to be tested.

Nothing is cut: a triangle that crosses the eye's plane is set up in homogeneous coordinates (`setup.py`), and fragments beyond
a clip plane are found by the interpolated distance from it, which is the same set of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.state import Op, has_meshes, kept, remembered

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
POSITION = 4
"""Dwords of a vertex before its position: shading rate, layer, viewport, point size."""
_DISTANCES = 8
"""Dwords before the user clip distances, if there are any."""
_USER_PLANES = 8


class ClipMode(IntEnum):
    """3DSTATE_CLIP dword 2, 15:13."""

    NORMAL = 0
    REJECT_ALL = 3
    ACCEPT_ALL = 4


@dataclass(frozen=True, slots=True)
class ClipState:
    """Fields of 3DSTATE_CLIP and of what it takes from the last stage before it."""

    enabled: bool
    mode: int
    d3d: bool
    """Depth from 0 to w, not from -w."""
    near: bool
    far: bool
    clip_distances: int
    """Bits: the distances by which fragments are clipped."""
    cull_distances: int
    """And those by which primitives are dropped that are below zero at all vertices."""
    divide: bool
    """Positions have a w to be divided by."""
    no_layers: bool
    """Layers that shaders give are taken as 0."""
    most_viewports: int

    @property
    def cuts_near(self) -> bool:
        """The first of the planes is the near one."""
        return self.enabled and self.mode == ClipMode.NORMAL and self.near

    @classmethod
    @remembered(Op.CLIP, Op.RASTER, Op.GS, Op.DS, Op.VS, Op.MESH_CONTROL, Op.CLIP_MESH)
    def of(cls, lrc: Lrc) -> ClipState:
        """The context's state now."""
        clip, raster, last = kept(lrc, Op.CLIP), kept(lrc, Op.RASTER), _last_stage(lrc)
        return cls(
            enabled=flag(clip, 2, 31),
            mode=bits(clip, 2, 15, 13),
            d3d=flag(clip, 2, 30),
            near=flag(raster, 1, 0),
            far=flag(raster, 1, 26),
            clip_distances=bits(clip, 2, 23, 16) if flag(clip, 1, 17) and not has_meshes(lrc) else last[1],
            cull_distances=bits(clip, 1, 7, 0) if flag(clip, 1, 20) and not has_meshes(lrc) else last[0],
            divide=not flag(clip, 2, 9),
            no_layers=flag(clip, 3, 5),
            most_viewports=bits(clip, 3, 3, 0),
        )


def _last_stage(lrc: Lrc) -> tuple[int, int]:
    """Cull and clip bitmasks of the last stage that is enabled: mesh, geometry, domain, vertex shader."""
    if has_meshes(lrc):
        words = kept(lrc, Op.CLIP_MESH)
        return bits(words, 1, 7, 0), bits(words, 1, 15, 8)
    for op, enable, masks in ((Op.GS, 7, 9), (Op.DS, 7, 8), (Op.VS, 7, 8)):
        words = kept(lrc, op)
        if flag(words, enable, 0):
            return bits(words, masks, 7, 0), bits(words, masks, 15, 8)
    return 0, 0


@dataclass(frozen=True)
class Clipped:
    """What is left of primitives after clipping."""

    visible: Flags
    """[primitives]"""
    planes: Floats
    """[primitives, vertices, planes]: distances; fragments where an interpolated one is below zero are not drawn."""


def distances(state: ClipState, vertices: NDArray[np.uint32], positions: Floats) -> Floats:
    """[vertices, planes]: the distances from near, far and user planes that may clip."""
    columns: list[Floats] = []
    if state.enabled and state.mode == ClipMode.NORMAL:
        z, w = positions[:, 2], positions[:, 3]
        if state.near:
            columns.append(z if state.d3d else z + w)
        if state.far:
            columns.append(w - z)
        columns += [_distance(vertices, number) for number in range(_USER_PLANES) if state.clip_distances >> number & 1]
    return np.stack(columns, axis=1) if columns else np.zeros((len(vertices), 0))


def clip(state: ClipState, vertices: NDArray[np.uint32], positions: Floats, primitives: NDArray[np.int64]) -> Clipped:
    """Which of `primitives` [primitives, vertices of one] can be seen, and what may cut them.

    `vertices` [vertices, dwords] are as the last stage wrote them, `positions` [vertices, 4] are in clip space.
    """
    planes = distances(state, vertices, positions)[primitives]
    visible = np.ones(len(primitives), dtype=np.bool_)
    if state.enabled and state.mode == ClipMode.REJECT_ALL:
        visible[:] = False
    corners = positions[primitives]
    visible &= np.isfinite(corners).all(axis=(1, 2))
    if state.enabled and state.mode == ClipMode.NORMAL:
        visible &= (corners[:, :, 3] > 0).any(axis=1)
        if planes.shape[2]:
            visible &= np.asarray((planes >= 0).any(axis=1)).all(axis=1)
        for number in range(_USER_PLANES):
            if state.cull_distances >> number & 1:
                visible &= (_distance(vertices, number)[primitives] >= 0).any(axis=1)
    return Clipped(visible, planes)


def _distance(vertices: NDArray[np.uint32], number: int) -> Floats:
    """User clip distance of each vertex."""
    at = _DISTANCES + number
    if at >= vertices.shape[1]:
        return np.zeros(len(vertices))
    return np.nan_to_num(np.ascontiguousarray(vertices[:, at]).view(np.float32).astype(np.float64), nan=-1.0)
