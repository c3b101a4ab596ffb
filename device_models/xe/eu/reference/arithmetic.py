"""Float addition, multiplication and fused multiply-add with one rounding, in any mode."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from fractions import Fraction

import numpy as np

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.reference.floats import WORK, Array, Rounding, round_fraction, to_bits, to_values

_libm = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
_fma = _libm.fma
_fma.restype = ctypes.c_double
_fma.argtypes = [ctypes.c_double, ctypes.c_double, ctypes.c_double]


def add(a: Array, b: Array, kind: DataType, rounding: Rounding) -> Array:
    """`a + b` in `kind` (hf, f or df); all are values of `WORK[kind]`."""
    with np.errstate(all="ignore"):
        if rounding is Rounding.NEAREST:
            return a + b
        return _directed((a, np.ones_like(b), b), kind, rounding)


def multiply(a: Array, b: Array, kind: DataType, rounding: Rounding) -> Array:
    """`a · b` in `kind`."""
    with np.errstate(all="ignore"):
        if rounding is Rounding.NEAREST:
            return a * b
        return _directed((a, b, None), kind, rounding)


def fused(a: Array, b: Array, c: Array, kind: DataType, rounding: Rounding) -> Array:
    """`a · b + c`, rounded once."""
    with np.errstate(all="ignore"):
        if rounding is not Rounding.NEAREST:
            return _directed((a, b, c), kind, rounding)
        if kind is DataType.DF:
            a, b, c = np.broadcast_arrays(a, b, c)
            triples = zip(a.ravel().tolist(), b.ravel().tolist(), c.ravel().tolist(), strict=True)
            return np.array([_fma(x, y, z) for x, y, z in triples], dtype=np.float64).reshape(a.shape)
        product = a.astype(np.float64) * b.astype(np.float64)
        return _sum_to_odd(product, c.astype(np.float64)).astype(WORK[kind])


def _sum_to_odd(a: Array, b: Array) -> Array:
    """`a + b` in f64, rounded to odd, so that rounding it again to f or hf is rounding once (Boldo, Melquiond 2008)."""
    total = a + b
    shadow = total - a
    error = (a - (total - shadow)) + (b - shadow)
    bits = total.view(np.int64)
    away = (error > 0) == (total > 0)
    inexact = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    return np.where(inexact, bits + np.where(away, 1, -1), bits).view(np.float64)


def _directed(operands: tuple[Array, Array, Array | None], kind: DataType, rounding: Rounding) -> Array:
    """`a · b + c` (no `c`: the product) element by element with exact fractions."""
    a, b, c = operands
    shape = np.broadcast_shapes(a.shape, b.shape, *(() if c is None else (c.shape,)))
    columns = [np.broadcast_to(column, shape).ravel().tolist() for column in (a, b)]
    thirds = [None] * len(columns[0]) if c is None else np.broadcast_to(c, shape).ravel().tolist()
    unsigned = {2: np.uint16, 4: np.uint32, 8: np.uint64}[kind.size]
    bits = [_directed_bits(x, y, z, kind, rounding) for x, y, z in zip(*columns, thirds, strict=True)]
    return to_values(np.array(bits, dtype=unsigned).reshape(shape), kind)


def _directed_bits(a: float, b: float, c: float | None, kind: DataType, rounding: Rounding) -> int:
    if not all(math.isfinite(value) for value in (a, b, c or 0.0)):
        with np.errstate(all="ignore"):
            result = np.float64(a) * np.float64(b)
            result = result if c is None else result + np.float64(c)
        return int(to_bits(np.array([result]), kind)[0])
    value = Fraction(a) * Fraction(b) + Fraction(c or 0)
    if value:
        return round_fraction(value, kind, rounding)
    sign = kind.bits - 1
    product_negative = math.copysign(1, a) != math.copysign(1, b)
    if c is None or product_negative == (math.copysign(1, c) < 0):
        return int(product_negative) << sign
    # Unlike terms that cancel give +0, or -0 when rounding down.
    return int(rounding is Rounding.DOWN) << sign
