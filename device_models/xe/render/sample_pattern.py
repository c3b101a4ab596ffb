"""3DSTATE_MULTISAMPLE: where samples are in a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CENTRE = 128.0
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


def sample_places(exponent: int) -> NDArray[np.float64]:
    """[samples, 2]: places of samples in a pixel, in subpixels."""
    pattern = _PATTERNS.get(exponent)
    if pattern is None:
        return np.array([[_CENTRE, _CENTRE]])
    return np.array(pattern, dtype=np.float64) * 16
