"""Float formats as numpy values: hf as f16, bf, bf8 and tf32 as f32, f as f32, df as f64; conversions with all roundings.

Nearest-even conversions are vectorised; the three directed modes go element by element through exact fractions.
"""

from __future__ import annotations

import math
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.semantics import CANONICAL_NAN

Array = NDArray[Any]


class Rounding(IntEnum):
    """cr0.0 5:4."""

    NEAREST = 0
    UP = 1
    DOWN = 2
    ZERO = 3


WORK: dict[DataType, type[np.floating[Any]]] = {
    DataType.BF8: np.float32,
    DataType.HF: np.float16,
    DataType.BF: np.float32,
    DataType.F: np.float32,
    DataType.TF32: np.float32,
    DataType.DF: np.float64,
}
"""The numpy type that holds values of a float type."""

# Bits of mantissa below the hidden one, smallest exponent of a normal number, largest exponent.
_FORMATS = {
    DataType.BF8: (2, -14, 15),
    DataType.HF: (10, -14, 15),
    DataType.BF: (7, -126, 127),
    DataType.F: (23, -126, 127),
    DataType.TF32: (23, -126, 127),
    DataType.DF: (52, -1022, 1023),
}


def to_values(bits: Array, kind: DataType) -> Array:
    """Bit patterns (unsigned, as wide as the type) as values of `WORK[kind]`."""
    match kind:
        case DataType.HF:
            return bits.astype(np.uint16).view(np.float16)
        case DataType.BF:
            return (bits.astype(np.uint32) << 16).view(np.float32)
        case DataType.BF8:
            return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
        case DataType.DF:
            return bits.astype(np.uint64).view(np.float64)
    return bits.astype(np.uint32).view(np.float32)


def to_bits(values: Array, kind: DataType, rounding: Rounding = Rounding.NEAREST) -> Array:
    """Values of any float type as bit patterns of `kind`; NaN becomes the canonical one."""
    with np.errstate(all="ignore"):
        if kind is DataType.BF8:
            rounding = Rounding.NEAREST
        if rounding is not Rounding.NEAREST and not _is_exact(values, kind):
            bits = _directed(values, kind, rounding)
        else:
            bits = _nearest(values, kind)
        nan = np.isnan(values)
        if nan.any():
            bits = np.where(nan, np.asarray(CANONICAL_NAN[kind], bits.dtype), bits)
    return bits


def _is_exact(values: Array, kind: DataType) -> bool:
    """No value can need rounding: the type that holds them is not wider."""
    return bool(values.dtype == WORK[kind] and kind in (DataType.HF, DataType.F, DataType.DF))


def _nearest(values: Array, kind: DataType) -> Array:
    match kind:
        case DataType.HF:
            return values.astype(np.float16).view(np.uint16)
        case DataType.DF:
            return values.astype(np.float64).view(np.uint64)
        case DataType.BF:
            return _drop_bits(odd_f32(values).view(np.uint32), 16).astype(np.uint16)
        case DataType.BF8:
            half = odd_f16(values).view(np.uint16).astype(np.uint32)
            return _drop_bits(half, 8).astype(np.uint8)
    return values.astype(np.float32).view(np.uint32)


def _drop_bits(bits: Array, count: int) -> Array:
    """Rounds a bit pattern to nearest even in its upper bits, which are returned; infinity stays."""
    half = np.uint32((1 << count - 1) - 1)
    return (bits + half + (bits >> count & 1)) >> count


def odd_f32(values: Array) -> Array:
    """Values as f32, rounded to odd: a further rounding to fewer bits is then as if there had been one."""
    if values.dtype != np.float64:
        return values.astype(np.float32)
    near = values.astype(np.float32)
    return _to_odd(near, values, near.view(np.uint32)).view(np.float32)


def odd_f16(values: Array) -> Array:
    """Values as f16, rounded to odd."""
    if values.dtype == np.float16:
        return values
    near = values.astype(np.float16)
    return _to_odd(near, values, near.view(np.uint16)).view(np.float16)


def _to_odd(near: Array, exact: Array, bits: Array) -> Array:
    wide = near.astype(np.float64)
    step = np.where(np.abs(wide) < np.abs(exact.astype(np.float64)), 1, -1).astype(bits.dtype)
    inexact = (wide != exact) & np.isfinite(exact) & (bits & 1 == 0)
    return np.where(inexact, bits + step, bits).astype(bits.dtype)


def _directed(values: Array, kind: DataType, rounding: Rounding) -> Array:
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[kind.size]
    flat = [_directed_bits(float(value), kind, rounding) for value in values.ravel()]
    return np.array(flat, dtype=unsigned).reshape(values.shape)


def _directed_bits(value: float, kind: DataType, rounding: Rounding) -> int:
    if math.isnan(value):
        return CANONICAL_NAN[kind]
    if math.isinf(value) or value == 0:
        return _special_bits(value, kind)
    return round_fraction(Fraction(value), kind, rounding)


def _special_bits(value: float, kind: DataType) -> int:
    mantissa, _, largest = _FORMATS[kind]
    sign = int(math.copysign(1, value) < 0) << (kind.bits - 1)
    return sign | ((2 * largest + 1) << mantissa if math.isinf(value) else 0)


def round_fraction(value: Fraction, kind: DataType, rounding: Rounding) -> int:
    """The bits of an exact non-zero value in a format, with denormals."""
    mantissa, smallest, largest = _FORMATS[kind]
    negative = value < 0
    magnitude = abs(value)
    exponent = max(smallest, _floor_log2(magnitude))
    scaled = magnitude / Fraction(2) ** (exponent - mantissa)
    kept = scaled.numerator // scaled.denominator
    rest = scaled - kept
    up = {
        Rounding.NEAREST: rest > Fraction(1, 2) or (rest == Fraction(1, 2) and kept & 1 == 1),
        Rounding.UP: rest > 0 and not negative,
        Rounding.DOWN: rest > 0 and negative,
        Rounding.ZERO: False,
    }[rounding]
    kept += up
    sign = int(negative) << (kind.bits - 1)
    # The hidden bit of a normal number adds one to the exponent field, and so does a carry out of the mantissa.
    field = (exponent - smallest << mantissa) + kept
    infinity = 2 * largest + 1 << mantissa
    if field >= infinity:
        away = rounding is Rounding.NEAREST or (rounding is Rounding.UP and not negative)
        away = away or (rounding is Rounding.DOWN and negative)
        field = infinity if away else infinity - 1
    return sign | field


def _floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def flush(values: Array, kind: DataType) -> Array:
    """Denormals of `kind` as zeros of their sign."""
    smallest = 2.0 ** _FORMATS[kind][1]
    with np.errstate(all="ignore"):
        tiny = (np.abs(values.astype(np.float64)) < smallest) & (values != 0)
    return np.where(tiny, np.copysign(values.dtype.type(0), values), values)


def from_integers(values: Array, kind: DataType, rounding: Rounding) -> Array:
    """Exact integers (int64, or Python integers in an object array) as values of `WORK[kind]`, rounded once."""
    if values.dtype != object and not (np.abs(values) >> 53).any():
        return to_values(to_bits(values.astype(np.float64), kind, rounding), kind)
    bits = [round_fraction(Fraction(int(value)), kind, rounding) if value else 0 for value in values.ravel()]
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[kind.size]
    return to_values(np.array(bits, dtype=unsigned).reshape(values.shape), kind)


def to_integers(values: Array) -> tuple[Array, Array]:
    """Truncated values as exact integers, and where they were too large for int64: (int64 clamped, object exact or same)."""
    with np.errstate(all="ignore"):
        wide = np.trunc(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=2.0**80, neginf=-(2.0**80)))
    limit = 2.0**63
    if (np.abs(wide) < limit).all():
        exact = wide.astype(np.int64)
        return exact, exact
    objects = np.array([int(value) for value in wide.ravel()], dtype=object).reshape(wide.shape)
    return np.clip(wide, -limit, limit - 1024).astype(np.int64), objects
