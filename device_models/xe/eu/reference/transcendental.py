"""log2, exp2, sin, cos and pow in f64 by fixed steps of +, -, · and /, so that other back ends can give the same bits.

No step may be fused or reordered. Relative error is below 2**-45, far below half a unit of an f. Each function takes and gives f64
arrays; rounding to the result's type is the caller's.
"""

from __future__ import annotations

import math

import numpy as np

from vfio_user_xe.device_models.xe.eu.reference.floats import Array

LN2 = math.log(2.0)
EXP_TERMS = tuple(1.0 / math.factorial(n) for n in range(14))
"""Of e**t for |t| <= ln(2)/2, in Horner's order from the last one."""
LOG_TERMS = tuple(2.0 / (2 * n + 1) / LN2 for n in range(12))
"""Of log2((1 + s) / (1 - s)) = s · sum(term · s**(2n))."""
SIN_TERMS = tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(9))
COS_TERMS = tuple((-1) ** n / math.factorial(2 * n) for n in range(9))

TWO_OVER_PI = 2.0 / math.pi
HALF_PI_PARTS = (1.5707963109016418, 1.5893254712295857e-08, 6.123233995736766e-17)
"""pi/2 in three parts; the first two have 25 bits, so that products with quadrants up to 2**20 are exact."""
LARGEST_ANGLE = 2.0**20
"""Angles beyond are first taken modulo the f64 nearest to 2 pi (fmod, exact)."""
SQRT_HALF = math.sqrt(0.5)


def _horner(terms: tuple[float, ...], x: Array) -> Array:
    result = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        result = result * x + term
    return result


def exp2(x: Array) -> Array:
    """2**x: `n = rint(x)`, then e**((x - n) · ln 2) scaled by 2**n. Below -2000 is 0, above 2000 infinite."""
    with np.errstate(all="ignore"):
        bounded = np.clip(np.nan_to_num(x, nan=0.0), -2000.0, 2000.0)
        whole = np.rint(bounded)
        value = np.ldexp(_horner(EXP_TERMS, (bounded - whole) * LN2), whole.astype(np.int32))
    return np.where(np.isnan(x), np.nan, value)


def log2(x: Array) -> Array:
    """log2: exponent plus the series of the mantissa, taken into sqrt(1/2) … sqrt(2). Zero gives -inf, negative NaN."""
    with np.errstate(all="ignore"):
        usable = (x > 0) & np.isfinite(x)
        mantissa, exponent = np.frexp(np.where(usable, x, 1.0))
        low = mantissa < SQRT_HALF
        mantissa = np.where(low, mantissa * 2.0, mantissa)
        exponent = exponent - low
        s = (mantissa - 1.0) / (mantissa + 1.0)
        value = exponent + s * _horner(LOG_TERMS, s * s)
        value = np.where(x == 0, -np.inf, np.where(x < 0, np.nan, value))
    return np.where(np.isnan(x), np.nan, np.where(np.isposinf(x), np.inf, value))


def _reduce(x: Array) -> tuple[Array, Array]:
    """The quadrant modulo 4, and the rest in -pi/4 … pi/4."""
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(x), x, 0.0)
        finite = np.where(np.abs(finite) > LARGEST_ANGLE, np.fmod(finite, 2.0 * math.pi), finite)
    quadrant = np.rint(finite * TWO_OVER_PI)
    rest = ((finite - quadrant * HALF_PI_PARTS[0]) - quadrant * HALF_PI_PARTS[1]) - quadrant * HALF_PI_PARTS[2]
    return quadrant.astype(np.int64) & 3, rest


def _sine_of(quadrant: Array, rest: Array) -> Array:
    square = rest * rest
    sine = rest * _horner(SIN_TERMS, square)
    cosine = _horner(COS_TERMS, square)
    value = np.where(quadrant & 1, cosine, sine)
    return np.where(quadrant & 2, -value, value)


def sin(x: Array) -> Array:
    """Sine; infinite and NaN give NaN, -0 gives -0."""
    quadrant, rest = _reduce(x)
    value = np.where(x == 0, x, _sine_of(quadrant, rest))
    return np.where(np.isfinite(x), value, np.nan)


def cos(x: Array) -> Array:
    """Cosine."""
    quadrant, rest = _reduce(x)
    return np.where(np.isfinite(x), _sine_of(quadrant + 1 & 3, rest), np.nan)


def power(x: Array, y: Array) -> Array:
    """`exp2(y · log2(|x|))`; anything to the power 0 is 1."""
    with np.errstate(all="ignore"):
        return np.where(y == 0, 1.0, exp2(y * log2(np.abs(x))))
