"""Viewports, scissors and the drawing rectangle: where on the screen a primitive may be."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.setup import Viewports
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_VIEWPORT_BYTES, _SCISSOR_BYTES, _DEPTH_BYTES = 64, 8, 8
_LARGEST = 1 << 14
"""Pixels of a surface's side at most."""


def viewports(lrc: Lrc, dynamic: int, memory: UnitMemory) -> Viewports:
    """The context's viewports now.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    count = bits(kept(lrc, Op.CLIP), 3, 3, 0) + 1
    transforms = scissors = b""
    if flag(kept(lrc, Op.SF), 1, 1):
        pointer = bits(kept(lrc, Op.VIEWPORT_SF_CLIP), 1, 31, 6) << 6
        transforms = memory.read(dynamic + pointer, count * _VIEWPORT_BYTES)
    if flag(kept(lrc, Op.RASTER), 1, 1):
        pointer = bits(kept(lrc, Op.SCISSOR_STATE_POINTERS), 1, 31, 5) << 5
        scissors = memory.read(dynamic + pointer, count * _SCISSOR_BYTES)
    return _viewports(count, transforms, scissors, tuple(kept(lrc, Op.DRAWING_RECTANGLE)))


@lru_cache(maxsize=64)
def _viewports(count: int, transforms: bytes, scissors: bytes, rectangle: tuple[int, ...]) -> Viewports:
    """What these SF_CLIP_VIEWPORTs, SCISSOR_RECTs and 3DSTATE_DRAWING_RECTANGLE say; most draws have those of the one before."""
    matrix = np.zeros((count, 6))
    bounds = np.zeros((count, 4), dtype=np.int64)
    bounds[:, 2:] = _LARGEST
    if transforms:
        floats = np.frombuffer(transforms, dtype=np.float32).reshape(count, -1).astype(np.float64)
        matrix = floats[:, :6]
        extent = np.nan_to_num(np.clip(floats[:, 12:16], -_LARGEST, 2 * _LARGEST))
        bounds[:, 0] = np.maximum(bounds[:, 0], np.floor(extent[:, 0]))
        bounds[:, 1] = np.maximum(bounds[:, 1], np.floor(extent[:, 2]))
        bounds[:, 2] = np.minimum(bounds[:, 2], np.floor(extent[:, 1]) + 1)
        bounds[:, 3] = np.minimum(bounds[:, 3], np.floor(extent[:, 3]) + 1)
    if scissors:
        _intersect(bounds, np.frombuffer(scissors, dtype=np.uint16).reshape(count, 4).astype(np.int64))
    if rectangle:
        corners = np.array([[bits(rectangle, dword, half + 15, half) for dword in (1, 2) for half in (0, 16)]])
        _intersect(bounds, corners)
    return Viewports(matrix, bounds)


def depth_ranges(lrc: Lrc, dynamic: int, memory: UnitMemory) -> Floats:
    """[viewports, 2]: what depths are clamped to (CC_VIEWPORT).

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    pointer = kept(lrc, Op.VIEWPORT_CC)
    if not pointer:
        return np.array([[0.0, 1.0]])
    count = bits(kept(lrc, Op.CLIP), 3, 3, 0) + 1
    data = memory.read(dynamic + (bits(pointer, 1, 31, 5) << 5), count * _DEPTH_BYTES)
    return np.frombuffer(data, dtype=np.float32).reshape(count, 2).astype(np.float64)


def _intersect(bounds: NDArray[np.int64], corners: NDArray[np.int64]) -> None:
    """With rectangles whose last pixels belong to them."""
    bounds[:, :2] = np.maximum(bounds[:, :2], corners[:, :2])
    bounds[:, 2:] = np.minimum(bounds[:, 2:], corners[:, 2:] + 1)
