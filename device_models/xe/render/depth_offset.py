"""Depth offsets of triangles: 3DSTATE_RASTER's constant, scale and clamp, in the units of the depth buffer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.depth_stencil import DepthFormat
from vfio_user_xe.device_models.xe.render.fields import flag, real
from vfio_user_xe.device_models.xe.render.outlines import FillMode
from vfio_user_xe.device_models.xe.render.setup import SUBPIXELS, Setup
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_SMALLEST = {DepthFormat.D24_UNORM_X8: 2.0**-24, DepthFormat.D16_UNORM: 2.0**-16}
"""Smallest depth above zero of the formats that are not floats."""
_MANTISSA = 23
"""Bits of a float's: the unit is that of the primitive's largest depth."""
_ENABLES = {FillMode.SOLID: 9, FillMode.WIREFRAME: 8, FillMode.POINT: 7}
"""Bits of 3DSTATE_RASTER dword 1, by how a triangle is filled."""


@dataclass(frozen=True, slots=True)
class DepthOffset:
    """What is added to depths of a triangle (PRM, Depth Offset; `genX_gfx_state.c` cites it)."""

    constant: float
    scale: float
    clamp: float
    unit: float | None
    """What the constant counts; None: the last place of each primitive's largest depth."""
    modes: frozenset[FillMode]
    """Of triangles that are filled so, and of no other primitives."""

    @classmethod
    def of(cls, lrc: Lrc, form: DepthFormat | None) -> DepthOffset:
        """The context's state now, for a depth buffer of this format (None: there is none)."""
        sf, raster = kept(lrc, Op.SF), kept(lrc, Op.RASTER)
        unit = None if form is DepthFormat.D32_FLOAT else _SMALLEST[form or DepthFormat.D24_UNORM_X8]
        if flag(sf, 1, 11):  # "legacy global depth bias"
            unit = 1.0
        modes = frozenset(mode for mode, bit in _ENABLES.items() if flag(raster, 1, bit))
        return cls(real(raster, 2), real(raster, 3), real(raster, 4), unit, modes)

    def offsets(self, setup: Setup) -> Floats:
        """[primitives]: to be added to depths."""
        with np.errstate(all="ignore"):
            z = (setup.edges * setup.depth[:, :, None]).sum(axis=1)
            n = (setup.edges * setup.screen[:, :, None]).sum(axis=1)
            slope = np.abs(z[:, :2]).max(axis=1) * SUBPIXELS / np.abs(n[:, 2])
            unit: Floats | float
            if self.unit is None:
                largest = np.nan_to_num(np.abs(setup.depth / setup.screen).max(axis=1))
                unit = np.ldexp(1.0, np.frexp(largest)[1] - 1 - _MANTISSA)
            else:
                unit = self.unit
            found = np.nan_to_num(self.constant * unit + self.scale * slope)
        if self.clamp > 0:
            return np.asarray(np.minimum(found, self.clamp))
        return np.asarray(np.maximum(found, self.clamp) if self.clamp < 0 else found)
