"""Atomic operations of load/store messages on one element, as functions of the old value and two operands."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from vfio_user_xe.device_models.xe.eu.messages.message import LscOp

Atomic = Callable[[int, int, int, int], int]
"""(old, first operand, second operand, size in bytes) to the new value: unsigned bit patterns."""

_FLOATS = {2: struct.Struct("<e"), 4: struct.Struct("<f"), 8: struct.Struct("<d")}


def _signed(value: int, size: int) -> int:
    top = 1 << 8 * size - 1
    return (value ^ top) - top


def _mask(size: int) -> int:
    return (1 << 8 * size) - 1


def _float(bits: int, size: int) -> float:
    value: float = _FLOATS[size].unpack(bits.to_bytes(size, "little"))[0]
    return value


def _bits(value: float, size: int) -> int:
    try:
        return int.from_bytes(_FLOATS[size].pack(value), "little")
    except OverflowError:
        # Rounded to infinity, as arithmetic of that size does.
        return int.from_bytes(_FLOATS[size].pack(float("inf") if value > 0 else float("-inf")), "little")


def _float_min(old: int, a: int, b: int, size: int) -> int:
    x, y = _float(old, size), _float(a, size)
    if math.isnan(x):
        return a
    return a if y < x else old


def _float_max(old: int, a: int, b: int, size: int) -> int:
    x, y = _float(old, size), _float(a, size)
    if math.isnan(x):
        return a
    return a if y > x else old


OPERATIONS: dict[LscOp, Atomic] = {
    LscOp.ATOMIC_INC: lambda old, a, b, size: old + 1 & _mask(size),
    LscOp.ATOMIC_DEC: lambda old, a, b, size: old - 1 & _mask(size),
    LscOp.ATOMIC_LOAD: lambda old, a, b, size: old,
    LscOp.ATOMIC_STORE: lambda old, a, b, size: a,
    LscOp.ATOMIC_ADD: lambda old, a, b, size: old + a & _mask(size),
    LscOp.ATOMIC_SUB: lambda old, a, b, size: old - a & _mask(size),
    LscOp.ATOMIC_SMIN: lambda old, a, b, size: min(old, a, key=lambda x: _signed(x, size)),
    LscOp.ATOMIC_SMAX: lambda old, a, b, size: max(old, a, key=lambda x: _signed(x, size)),
    LscOp.ATOMIC_UMIN: lambda old, a, b, size: min(old, a),
    LscOp.ATOMIC_UMAX: lambda old, a, b, size: max(old, a),
    LscOp.ATOMIC_CAS: lambda old, a, b, size: b if old == a else old,
    LscOp.ATOMIC_FADD: lambda old, a, b, size: _bits(_float(old, size) + _float(a, size), size),
    LscOp.ATOMIC_FSUB: lambda old, a, b, size: _bits(_float(old, size) - _float(a, size), size),
    LscOp.ATOMIC_FMIN: _float_min,
    LscOp.ATOMIC_FMAX: _float_max,
    LscOp.ATOMIC_FCAS: lambda old, a, b, size: b if _float(old, size) == _float(a, size) else old,
    LscOp.ATOMIC_AND: lambda old, a, b, size: old & a,
    LscOp.ATOMIC_OR: lambda old, a, b, size: old | a,
    LscOp.ATOMIC_XOR: lambda old, a, b, size: old ^ a,
}

OPERANDS: dict[LscOp, int] = {
    LscOp.ATOMIC_INC: 0,
    LscOp.ATOMIC_DEC: 0,
    LscOp.ATOMIC_LOAD: 0,
    LscOp.ATOMIC_CAS: 2,
    LscOp.ATOMIC_FCAS: 2,
}
"""How many an operation takes; one where it is not listed."""
