"""3DSTATE_MULTISAMPLE and 3DSTATE_SAMPLE_PATTERN: where samples are in a pixel."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_CENTRE = 128.0
_STEP = 16
"""Subpixels: places are in sixteenths of a pixel."""
_PATTERNS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((4, 4), (12, 12)),
    2: ((6, 2), (14, 6), (2, 10), (10, 14)),
    3: ((9, 5), (7, 11), (13, 9), (5, 3), (3, 13), (1, 7), (11, 15), (15, 1)),
    4: (
        (9, 9), (7, 5), (5, 10), (12, 7), (3, 6), (10, 13), (13, 11), (11, 3),
        (6, 14), (8, 1), (4, 2), (2, 12), (0, 8), (15, 4), (14, 15), (1, 0),
    ),
}  # fmt: skip
"""Standard sample positions in sixteenths, by the exponent of their number (intel_sample_positions.c)."""
_FIRST_BYTES = {0: (34,), 1: range(32, 34), 2: range(28, 32), 3: (*range(24, 28), *range(20, 24)), 4: range(4, 20)}
"""Bytes of 3DSTATE_SAMPLE_PATTERN, its header included, by the exponent: a byte a sample, y in the lower half."""
_DX10_1 = 2
"""3DSTATE_RASTER's API mode in which polygons have samples whatever "multisample rasterization enable" says."""


def sample_places(exponent: int, pattern: Words = ()) -> NDArray[np.float64]:
    """[samples, 2]: places of samples in a pixel, in subpixels; `pattern` is the 3DSTATE_SAMPLE_PATTERN, if there was one.

    Nobody writes to them.
    """
    return _places(exponent, tuple(pattern))


@lru_cache(maxsize=64)
def _places(exponent: int, pattern: tuple[int, ...]) -> NDArray[np.float64]:
    if pattern and exponent in _FIRST_BYTES:
        places = [bits(pattern, at // 4, 8 * (at % 4) + 7, 8 * (at % 4)) for at in _FIRST_BYTES[exponent]]
        return np.array([(place >> 4, place & 0xF) for place in places], dtype=np.float64) * _STEP
    standard = _PATTERNS.get(exponent)
    if standard is None:
        return np.array([[_CENTRE, _CENTRE]])
    return np.array(standard, dtype=np.float64) * _STEP


def samples_of(lrc: Lrc) -> NDArray[np.float64]:
    """[samples, 2]: of the context's state now; all at the centre where primitives are drawn without multisampling."""
    raster = kept(lrc, Op.RASTER)
    places = sample_places(bits(kept(lrc, Op.MULTISAMPLE), 1, 3, 1), kept(lrc, Op.SAMPLE_PATTERN))
    if len(places) > 1 and not flag(raster, 1, 12) and bits(raster, 1, 23, 22) != _DX10_1:
        return np.full_like(places, _CENTRE)
    return places
