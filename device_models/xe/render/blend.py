"""Blending: BLEND_STATE, 3DSTATE_PS_BLEND, and what they do with source and destination colours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag, real
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Colours = NDArray[np.float64]
"""[pixels, 4]"""
_TARGETS = 8
_STATE_DWORDS = 1 + 2 * _TARGETS
_CALC_DWORDS = 6


class Factor(IntEnum):
    """Blend factors (genxml 3D_Color_Buffer_Blend_Factor); 16 more is one minus the factor."""

    ONE = 1
    SRC_COLOR = 2
    SRC_ALPHA = 3
    DST_ALPHA = 4
    DST_COLOR = 5
    SRC_ALPHA_SATURATE = 6
    CONST_COLOR = 7
    CONST_ALPHA = 8
    SRC1_COLOR = 9
    SRC1_ALPHA = 10
    ZERO = 17


_INVERSE = 16


@dataclass(frozen=True, slots=True)
class Equation:
    """source · factor ± destination · factor, or minimum or maximum of the two."""

    function: int
    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class TargetBlend:
    """A BLEND_STATE_ENTRY."""

    enabled: bool
    colour: Equation
    alpha: Equation
    write: tuple[bool, bool, bool, bool]
    """Channels that are written."""
    logic_op: int | None
    pre_clamp: bool
    post_clamp: bool
    clamp_range: int

    @property
    def is_copy(self) -> bool:
        """What is written does not depend on what is there."""
        return not self.enabled and self.logic_op is None and all(self.write)


@dataclass(frozen=True, slots=True)
class BlendState:
    """Of all targets."""

    targets: tuple[TargetBlend, ...]
    constant: tuple[float, float, float, float]
    alpha_to_coverage: bool
    alpha_to_one: bool
    alpha_test: tuple[int, float] | None
    """Compare function and reference."""

    @classmethod
    def of(cls, lrc: Lrc, dynamic: int, memory: UnitMemory) -> BlendState:
        """The context's state now, behind `dynamic` state base.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        pointer, calc = kept(lrc, Op.BLEND_STATE_POINTERS), kept(lrc, Op.CC_STATE_POINTERS)
        ps = kept(lrc, Op.PS_BLEND)
        words = _read(memory, dynamic, pointer, _STATE_DWORDS)
        colour = _read(memory, dynamic, calc, _CALC_DWORDS)
        return _of(tuple(words), tuple(colour), flag(ps, 1, 31))


@lru_cache(maxsize=256)
def _of(words: tuple[int, ...], colour: tuple[int, ...], to_coverage: bool) -> BlendState:
    """BLEND_STATE and COLOR_CALC_STATE, and what 3DSTATE_PS_BLEND says of alpha to coverage."""
    reference = real(colour, 1) if flag(colour, 0, 0) else bits(colour, 1, 7, 0) / 255
    independent = flag(words, 0, 30)
    return BlendState(
        targets=tuple(_target(words, 1 + 2 * number, independent) for number in range(_TARGETS)),
        constant=(real(colour, 2), real(colour, 3), real(colour, 4), real(colour, 5)),
        alpha_to_coverage=flag(words, 0, 31) or to_coverage,
        alpha_to_one=flag(words, 0, 29),
        alpha_test=(bits(words, 0, 26, 24), reference) if flag(words, 0, 27) else None,
    )


def _read(memory: UnitMemory, dynamic: int, pointer: Words, count: int) -> Words:
    if not flag(pointer, 1, 0):
        return [0] * count
    return memoryview(memory.read(dynamic + (bits(pointer, 1, 31, 6) << 6), 4 * count)).cast("I").tolist()


def _target(words: Words, at: int, independent: bool) -> TargetBlend:
    colour = Equation(bits(words, at, 20, 18), bits(words, at, 30, 26), bits(words, at, 25, 21))
    alpha = Equation(bits(words, at, 7, 5), bits(words, at, 17, 13), bits(words, at, 12, 8))
    return TargetBlend(
        enabled=flag(words, at, 31),
        colour=colour,
        alpha=alpha if independent else colour,
        write=(not flag(words, at, 2), not flag(words, at, 1), not flag(words, at, 0), not flag(words, at, 3)),
        logic_op=bits(words, at + 1, 30, 27) if flag(words, at + 1, 31) else None,
        pre_clamp=flag(words, at + 1, 1),
        post_clamp=flag(words, at + 1, 0),
        clamp_range=bits(words, at + 1, 3, 2),
    )


def blend(target: TargetBlend, constant: Colours, source: Colours, second: Colours, destination: Colours) -> Colours:
    """What blending makes of sources and what is there; masks and logic operations are not looked at."""
    if not target.enabled:
        return source
    result = np.empty_like(source)
    result[:, :3] = _combine(target.colour, constant, source, second, destination)[:, :3]
    result[:, 3] = _combine(target.alpha, constant, source, second, destination, alpha=True)[:, 3]
    return result


def _combine(
    equation: Equation,
    constant: Colours,
    source: Colours,
    second: Colours,
    destination: Colours,
    *,
    alpha: bool = False,
) -> Colours:
    if equation.function == 3:
        return np.minimum(source, destination)
    if equation.function == 4:
        return np.maximum(source, destination)
    left = source * _factor(equation.source, constant, source, second, destination, alpha)
    right = destination * _factor(equation.destination, constant, source, second, destination, alpha)
    match equation.function:
        case 1:
            return left - right
        case 2:
            return right - left
        case _:
            return left + right


def _factor(
    code: int, constant: Colours, source: Colours, second: Colours, destination: Colours, alpha: bool
) -> Colours:
    if code == Factor.ZERO:
        return np.zeros_like(source)
    if code > _INVERSE:
        return 1 - _factor(code - _INVERSE, constant, source, second, destination, alpha)
    match code:
        case Factor.SRC_COLOR:
            return source
        case Factor.SRC_ALPHA:
            return source[:, 3:]
        case Factor.DST_ALPHA:
            return destination[:, 3:]
        case Factor.DST_COLOR:
            return destination
        case Factor.SRC_ALPHA_SATURATE:
            return np.ones_like(source) if alpha else np.minimum(source[:, 3:], 1 - destination[:, 3:])
        case Factor.CONST_COLOR:
            return constant
        case Factor.CONST_ALPHA:
            return constant[:, 3:]
        case Factor.SRC1_COLOR:
            return second
        case Factor.SRC1_ALPHA:
            return second[:, 3:]
        case _:
            return np.ones_like(source)


def logic(operation: int, source: NDArray[np.uint8], destination: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Logic operations (genxml 3D_Logic_Op_Function) on bytes of texels: bit 3 of the number is the result for 1 and 1."""
    result = np.zeros_like(source)
    for bit, (s, d) in enumerate(
        ((~source, ~destination), (~source, destination), (source, ~destination), (source, destination))
    ):
        if operation >> bit & 1:
            result |= s & d
    return result
