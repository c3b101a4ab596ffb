"""Anisotropic filtering: several samples along the longer axis of a pixel's footprint."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.cubes import QUAD, Floats
from vfio_user_xe.device_models.xe.compute.filtering import Mips, Places, filtered
from vfio_user_xe.device_models.xe.compute.sampler_state import SamplerState
from vfio_user_xe.device_models.xe.compute.texels import Image


@dataclass(frozen=True)
class Stretch:
    """By lane: the longer axis of a pixel's footprint, and how many samples are taken along it."""

    count: NDArray[np.int64]
    u: Floats
    v: Floats

    @classmethod
    def of(cls, image: Image, anisotropy: int, right: tuple[Floats, Floats], down: tuple[Floats, Floats]) -> Stretch:
        """From how much u and v change to the right and down."""
        sizes = image.width, image.height
        with np.errstate(over="ignore"):
            lengths = [np.sqrt((du * sizes[0]) ** 2 + (dv * sizes[1]) ** 2) for du, dv in (right, down)]
        longer = lengths[0] >= lengths[1]
        most, least = np.maximum(*lengths), np.minimum(*lengths)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            ratio = np.nan_to_num(np.ceil(most / np.maximum(least, 1e-30)), nan=1.0, posinf=anisotropy)
        count = np.where(most > 1, np.clip(ratio, 1, anisotropy), 1).astype(np.int64)
        u, v = (np.nan_to_num(np.where(longer, one, other)) for one, other in zip(right, down, strict=True))
        return cls(count, u, v)

    @classmethod
    def of_quads(cls, image: Image, anisotropy: int, places: Places) -> Stretch:
        """From the differences between the lanes of each quad."""
        u, v = (np.nan_to_num(axis).reshape(-1, QUAD) for axis in (places.u, places.v))
        right, down = (
            (np.repeat(u[:, lane] - u[:, 0], QUAD), np.repeat(v[:, lane] - v[:, 0], QUAD)) for lane in (1, 2)
        )
        return cls.of(image, anisotropy, right, down)

    def of_lanes(self, chosen: NDArray[np.bool_]) -> Stretch:
        """Some lanes."""
        return Stretch(self.count[chosen], self.u[chosen], self.v[chosen])


def stretched(
    mips: Mips, state: SamplerState, places: Places, lod: Floats, stretch: Stretch, reference: Floats | None = None
) -> Floats:
    """As `filtered`, the mean of samples along the footprint's longer axis.

    Raises:
        UnknownImage: the surface's format or layout is not emulated.
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    total = np.zeros((len(lod), 4))
    for number in range(int(stretch.count.max()) if len(lod) else 0):
        chosen = np.nonzero(stretch.count > number)[0]
        along = (number + 0.5) / stretch.count[chosen] - 0.5
        some = places.of(chosen)
        moved = replace(some, u=some.u + along * stretch.u[chosen], v=some.v + along * stretch.v[chosen])
        colours = filtered(mips, state, moved, lod[chosen], None if reference is None else reference[chosen])
        total[chosen] += colours / stretch.count[chosen][:, None]
    return total
