"""Float operations on values of the execution type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode
from vfio_user_xe.device_models.xe.eu.reference import transcendental
from vfio_user_xe.device_models.xe.eu.reference.arithmetic import add, fused, multiply
from vfio_user_xe.device_models.xe.eu.reference.floats import WORK, Array, to_values
from vfio_user_xe.device_models.xe.eu.semantics import CANONICAL_NAN

ARITHMETIC: dict[Opcode, Callable[..., Array]] = {
    Opcode.ADD: lambda kind, rounding, a, b: add(a, b, kind, rounding),
    Opcode.MUL: lambda kind, rounding, a, b: multiply(a, b, kind, rounding),
    Opcode.MAD: lambda kind, rounding, a, b, c: fused(b, c, a, kind, rounding),
    Opcode.MADM: lambda kind, rounding, a, b, c: fused(b, c, a, kind, rounding),
    Opcode.MOV: lambda kind, rounding, a: a,
    Opcode.FRC: lambda kind, rounding, a: a - np.floor(a),
    Opcode.RNDU: lambda kind, rounding, a: np.ceil(a),
    Opcode.RNDD: lambda kind, rounding, a: np.floor(a),
    Opcode.RNDE: lambda kind, rounding, a: np.rint(a),
    Opcode.RNDZ: lambda kind, rounding, a: np.trunc(a),
}
"""(execution type, rounding, sources) to the result."""

_BY_F64: dict[MathFunction, Callable[..., Array]] = {
    MathFunction.LOG: transcendental.log2,
    MathFunction.EXP: transcendental.exp2,
    MathFunction.SIN: transcendental.sin,
    MathFunction.COS: transcendental.cos,
    MathFunction.RSQT: lambda x: 1.0 / np.sqrt(x),
    MathFunction.POW: transcendental.power,
}


def math(function: MathFunction, kind: DataType, sources: list[Array]) -> Array:
    """A math function of floats; see `semantics.py` for the precision of each."""
    work = WORK[kind]
    with np.errstate(all="ignore"):
        if function in _BY_F64:
            wide: Array = _BY_F64[function](*(source.astype(np.float64) for source in sources))
            return wide.astype(work)
        match function:
            case MathFunction.INV:
                return np.asarray(np.ones_like(sources[0]) / sources[0])
            case MathFunction.SQT | MathFunction.RSQTM:
                return np.asarray(np.sqrt(sources[0]))
            case MathFunction.FDIV | MathFunction.INVM:
                return np.asarray(sources[0] / sources[1])
    raise ValueError(f"math function {function.name.lower()} has no floats")


def compare(condition: Condition, a: Array, b: Array) -> Array:
    """`a condition b`: false with NaN but for ne, un."""
    return np.asarray(_compare(condition, a, b))


def _compare(condition: Condition, a: Array, b: Array) -> Any:
    with np.errstate(all="ignore"):
        match condition:
            case Condition.EQ:
                return a == b
            case Condition.NE:
                return a != b
            case Condition.GT:
                return a > b
            case Condition.GE:
                return a >= b
            case Condition.LT:
                return a < b
            case Condition.LE:
                return a <= b
            case Condition.UN:
                return np.isnan(a) | np.isnan(b)
    return np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=np.bool_)


def compare_nan(condition: Condition, a: Array, b: Array) -> Array:
    """cmpn: true where `b` is NaN, else false where `a` is."""
    return np.isnan(b) | (compare(condition, a, b) & ~np.isnan(a))


def choose_first(condition: Condition, a: Array, b: Array) -> Array:
    """Where sel takes the first source; of ge, gt, lt and le a NaN loses."""
    first = compare(condition, a, b)
    if condition in (Condition.GE, Condition.GT, Condition.LT, Condition.LE):
        return np.isnan(b) | (first & ~np.isnan(a))
    return first


def canonical(kind: DataType) -> Array:
    """The NaN of a type, as a value."""
    bits = np.array([CANONICAL_NAN[kind]], dtype=np.uint64)
    return to_values(bits, kind)


def clamp(values: Array) -> Array:
    """Saturation of floats: 0 … 1, NaN is 0, and -0 is 0."""
    one = values.dtype.type(1)
    zero = values.dtype.type(0)
    with np.errstate(all="ignore"):
        return np.where(values > one, one, np.where(values > zero, values, zero))


def stochastic(values: Array, random: Array, kind: DataType) -> Array:
    """srnd: bit patterns of `kind` from f (to hf) or hf (to bf8), with random bits added below the last one kept."""
    if kind is DataType.BF8:
        half = values.astype(np.float16).view(np.uint16).astype(np.uint32)
        rounded = half + (random.astype(np.uint32) & 0xFF) >> 8
        return np.where(half & 0x7C00 == 0x7C00, half >> 8, rounded).astype(np.uint8)
    word = values.astype(np.float32).view(np.uint32)
    with np.errstate(all="ignore"):
        finite = np.isfinite(values)
        moved = (word + (random.astype(np.uint32) & 0x1FFF)) & ~np.uint32(0x1FFF)
        near = np.where(finite, moved, word).view(np.float32)
        # Every denormal hf is a multiple of 2**-24: what is left below is cut off towards zero.
        tiny = np.abs(near) < 2.0**-14
        cut = np.where(tiny, np.trunc(near * np.float32(2.0**24)) * np.float32(2.0**-24), near)
    return cut.astype(np.float16).view(np.uint16)
