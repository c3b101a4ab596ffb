"""SAMPLER_STATE (Mesa `gen200.xml`): how texels are addressed and filtered, and by which level of detail."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory

STATE_BYTES = 16
_NEAREST, _LINEAR, _ANISOTROPIC = range(3)
_FRACTION = 256
"""Levels of detail have eight bits behind the point."""


class AddressMode(IntEnum):
    """What coordinates outside of the texture mean."""

    WRAP = 0
    MIRROR = 1
    CLAMP = 2
    CUBE = 3
    BORDER = 4
    MIRROR_ONCE = 5
    HALF_BORDER = 6


class MipFilter(IntEnum):
    """How mip levels are chosen."""

    NONE = 0
    NEAREST = 1
    LINEAR = 3


class Reduction(IntEnum):
    """What becomes of the texels that a filter looks at."""

    STANDARD = 0
    """Their weighted mean, or that of their comparisons."""
    MINIMUM = 2
    MAXIMUM = 3


@dataclass(frozen=True, slots=True)
class SamplerState:
    """A SAMPLER_STATE."""

    linear: bool
    """Filter of what is magnified."""
    linear_min: bool
    """Filter of what is made smaller."""
    rounds: tuple[bool, bool, bool]
    """Coordinates of what is magnified are rounded to the nearest 256th of a texel, otherwise to the one below."""
    rounds_min: tuple[bool, bool, bool]
    """The same of what is made smaller."""
    mip: MipFilter
    anisotropy: int
    """Most samples along the longer axis of a pixel's footprint; 1 without anisotropic filtering."""
    bias: float
    least: float
    most: float
    """Levels of detail are clamped to these."""
    shadow: int
    """Compare function: a texel for which it holds, with the reference behind it, counts as 0, others as 1."""
    modes: tuple[int, int, int]
    texel_coordinates: bool
    """Not normalised."""
    seamless: bool
    """At a cube's edges texels of the neighbouring face are looked at; otherwise each face is a texture of its own."""
    reduction: Reduction
    border: tuple[float, float, float, float]
    border_bits: tuple[int, int, int, int]
    """The same as integers, for formats of integers."""

    @classmethod
    def of(cls, memory: UnitMemory, address: int, dynamic: int) -> SamplerState:
        """The state at `address`; border colours are behind `dynamic` state base.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        data = memory.read(address, STATE_BYTES)
        border = int.from_bytes(data[8:12], "little") & 0xFFFF_FFC0
        return _state(data, memory.read(dynamic + border, STATE_BYTES))

    @classmethod
    def parsed(cls, data: bytes, colour: bytes) -> SamplerState:
        """Of the state's bytes and those of its border colour."""
        words = memoryview(data).cast("I")
        red, green, blue, alpha = np.frombuffer(colour, dtype=np.float32).tolist()
        bits = np.frombuffer(colour, dtype=np.int32).tolist()
        minify, magnify, mip = words[0] >> 14 & 7, words[0] >> 17 & 7, words[0] >> 20 & 3
        bias = words[0] >> 1 & 0x1FFF
        return cls(
            linear=magnify in (_LINEAR, _ANISOTROPIC),
            linear_min=minify in (_LINEAR, _ANISOTROPIC),
            rounds=_rounding(words[3] >> 14),
            rounds_min=_rounding(words[3] >> 13),
            mip=MipFilter(mip) if mip != 2 else MipFilter.NONE,
            anisotropy=2 * (words[3] >> 19 & 7) + 2 if minify == _ANISOTROPIC else 1,
            bias=(bias - 0x2000 if bias & 0x1000 else bias) / _FRACTION,
            least=(words[1] >> 20 & 0xFFF) / _FRACTION,
            most=(words[1] >> 8 & 0xFFF) / _FRACTION,
            shadow=words[1] >> 1 & 7,
            modes=(words[3] >> 6 & 7, words[3] >> 3 & 7, words[3] & 7),
            texel_coordinates=bool(words[3] >> 10 & 1),
            seamless=bool(words[1] & 1) or words[3] >> 6 & 7 == AddressMode.CUBE,
            reduction=_reduction(words[3]),
            border=(red, green, blue, alpha),
            border_bits=(bits[0], bits[1], bits[2], bits[3]),
        )


@lru_cache(maxsize=256)
def _state(data: bytes, colour: bytes) -> SamplerState:
    """Most draws and walkers name the samplers of those before."""
    return SamplerState.parsed(data, colour)


def _rounding(bits: int) -> tuple[bool, bool, bool]:
    """Of u, v and r, two bits each: r's are the lowest."""
    return bool(bits >> 4 & 1), bool(bits >> 2 & 1), bool(bits & 1)


def _reduction(word: int) -> Reduction:
    kind = word >> 22 & 3
    return Reduction(kind) if word >> 9 & 1 and kind in list(Reduction) else Reduction.STANDARD
