"""Packed 4:2:2 surface formats: two texels in four bytes, each with its luma, both with the same chroma.

Codes as in Mesa `isl.h` (ISL_FORMAT_YCRCB_*). The sampler returns Cr, Y and Cb as red, green and blue
(`anv_formats.c`: VK_FORMAT_G8B8G8R8_422_UNORM is YCRCB_NORMAL, VK_FORMAT_B8G8R8G8_422_UNORM is YCRCB_SWAPY); a shader makes colours of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.formats import Channels, Format, Kind

FORM = Format(2, Kind.UNORM, ((0, 0, 1), (1, 1, 1), (2, 2, 1)))
"""What can be said of them as of other formats: a texel has two bytes, and there is no alpha."""


@dataclass(frozen=True, slots=True)
class PackedYuv:
    """Which of four bytes is what."""

    luma: tuple[int, int]
    """Of the first and the second texel."""
    cb: int
    cr: int

    def decode(self, pairs: NDArray[np.uint8], second: NDArray[np.bool_]) -> Channels:
        """[texels, 4] of the pairs [texels, bytes] that they are in; `second` says which of the two each is."""
        found = np.ones((len(pairs), 4))
        found[:, 0] = pairs[:, self.cr] / 255
        found[:, 1] = np.where(second, pairs[:, self.luma[1]], pairs[:, self.luma[0]]) / 255
        found[:, 2] = pairs[:, self.cb] / 255
        return found


FORMATS: dict[int, PackedYuv] = {
    0x182: PackedYuv((0, 2), cb=1, cr=3),
    0x183: PackedYuv((1, 3), cb=2, cr=0),
    0x18F: PackedYuv((0, 2), cb=3, cr=1),
    0x190: PackedYuv((1, 3), cb=0, cr=2),
}
"""YCRCB_NORMAL (Y, Cb, Y, Cr in memory), SWAPUVY, SWAPUV, SWAPY."""
PAIR = 4
"""Bytes of two texels."""
