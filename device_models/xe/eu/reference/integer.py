"""Integer operations on exact values (int64, or Python integers in object arrays where 64 bits would not do)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode
from vfio_user_xe.device_models.xe.eu.reference.operands import UNSIGNED, Array

_WRAPPING = frozenset({Opcode.ADD, Opcode.ADD3, Opcode.MUL, Opcode.MAD, Opcode.MOV, Opcode.SHL, Opcode.MACL})
_BITWISE = frozenset({Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.NOT, Opcode.BFN, Opcode.ROL, Opcode.ROR, Opcode.SHR})
_PRODUCTS = frozenset({Opcode.MUL, Opcode.MAD, Opcode.MAC, Opcode.MACH, Opcode.MACL})


def needs_exact(instruction: Alu) -> bool:
    """Whether int64 that wrap could change the result: then operands must be Python integers."""
    wide = any(source.type.size == 8 for source in instruction.sources)
    unsigned = any(source.type is DataType.UD for source in instruction.sources)
    judged = instruction.saturate or instruction.condition is Condition.OV
    if instruction.opcode in _BITWISE:
        return False
    if instruction.opcode in _PRODUCTS:
        return (
            instruction.opcode is Opcode.MACH
            or ((wide or unsigned) and judged)
            or instruction.destination.type.is_float
        )
    if instruction.opcode in _WRAPPING:
        return wide and (judged or instruction.destination.type.is_float)
    if instruction.opcode is Opcode.MATH:
        return True
    return wide


def value_range(kind: DataType) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    if kind.is_signed:
        return -(1 << kind.bits - 1), (1 << kind.bits - 1) - 1
    return 0, (1 << kind.bits) - 1


def store(values: Array, kind: DataType, saturate: bool) -> tuple[Array, Array]:
    """Exact integers as bit patterns of a type, and where they did not fit."""
    low, high = value_range(kind)
    if values.dtype != object:
        low, high = max(low, -(1 << 63)), min(high, (1 << 63) - 1)
    outside = (values < low) | (values > high)
    if saturate:
        values = np.clip(values, low, high) if values.dtype != object else np.minimum(np.maximum(values, low), high)
    if values.dtype == object:
        mask = (1 << kind.bits) - 1
        bits = np.array([int(value) & mask for value in values.ravel()], dtype=UNSIGNED[kind.size])
        return bits.reshape(values.shape), outside.astype(np.bool_)
    return values.astype(np.int64).view(np.uint64).astype(UNSIGNED[kind.size]), outside


def compare(condition: Condition, a: Array, b: Array) -> Array:
    """`a condition b`; ov and un are never true of integers."""
    match condition:
        case Condition.EQ:
            result = a == b
        case Condition.NE:
            result = a != b
        case Condition.GT:
            result = a > b
        case Condition.GE:
            result = a >= b
        case Condition.LT:
            result = a < b
        case Condition.LE:
            result = a <= b
        case _:
            result = np.zeros(np.broadcast_shapes(a.shape, b.shape), dtype=np.bool_)
    return np.asarray(result).astype(np.bool_)


def _shift_count(instruction: Alu, count: Array) -> Array:
    wide = 8 in (instruction.destination.type.size, instruction.sources[0].type.size)
    return count & (63 if wide else 31)


def _shr(instruction: Alu, value: Array, count: Array) -> Array:
    size = max(2, *(source.type.size for source in instruction.sources), *_eight(instruction))
    bits = value.astype(np.int64).view(np.uint64)
    if size < 8:
        bits = bits & np.uint64((1 << 8 * size) - 1)
    return (bits >> _shift_count(instruction, count).astype(np.uint64)).view(np.int64)


def _eight(instruction: Alu) -> tuple[int, ...]:
    return (8,) if instruction.destination.type.size == 8 else ()


def _shl(instruction: Alu, value: Array, count: Array) -> Array:
    return value << _shift_count(instruction, count)


def _asr(instruction: Alu, value: Array, count: Array) -> Array:
    return value >> _shift_count(instruction, count)


def _rotate(instruction: Alu, value: Array, count: Array, left: bool) -> Array:
    width = instruction.destination.type.bits
    mask = np.uint64((1 << width) - 1)
    bits = value.astype(np.int64).view(np.uint64) & mask
    by = (count.astype(np.int64) % width).astype(np.uint64)
    back = (np.uint64(width) - by) % np.uint64(width)
    up, down = (by, back) if left else (back, by)
    return ((bits << up | bits >> down) & mask).view(np.int64)


def _word(value: Array) -> Array:
    return value.astype(np.int64) & 0xFFFF_FFFF


def _bit_length(value: Array) -> Array:
    """Bits of numbers of 32 bits: frexp of an f64 is exact."""
    return np.frexp(value.astype(np.float64))[1].astype(np.int64)


def _lzd(_: Alu, value: Array) -> Array:
    return 32 - _bit_length(_word(value))


def _fbh(instruction: Alu, value: Array) -> Array:
    word = _word(value)
    if instruction.sources[0].type.is_signed:
        word = np.where(word >> 31, ~word & 0xFFFF_FFFF, word)
    return np.where(word == 0, -1, 32 - _bit_length(word))


def _fbl(_: Alu, value: Array) -> Array:
    word = _word(value)
    return np.where(word == 0, -1, _bit_length(word & -word) - 1)


def _cbit(instruction: Alu, value: Array) -> Array:
    mask = (1 << instruction.sources[0].type.bits) - 1
    return np.bitwise_count((value.astype(np.int64) & mask).view(np.uint64)).astype(np.int64)


def _bfrev(_: Alu, value: Array) -> Array:
    word = _word(value)
    for shift, mask in ((1, 0x5555_5555), (2, 0x3333_3333), (4, 0x0F0F_0F0F), (8, 0x00FF_00FF), (16, 0x0000_FFFF)):
        word = (word >> shift & mask) | (word & mask) << shift
    return word


def _bfe(instruction: Alu, width: Array, offset: Array, value: Array) -> Array:
    width, offset = width & 31, offset & 31
    if not instruction.sources[2].type.is_signed:
        value = _word(value)
    field = value.astype(np.int64) >> offset
    low = field & (np.int64(1) << width) - 1
    negative = low >> np.maximum(width - 1, 0) & 1 if instruction.sources[2].type.is_signed else np.int64(0)
    extended = np.where(negative, low - (np.int64(1) << width), low)
    return np.where(width == 0, 0, np.where(width + offset >= 32, field, extended))


def _bfi1(_: Alu, width: Array, offset: Array) -> Array:
    return ((np.int64(1) << (width & 31)) - 1) << (offset & 31)


def _bfi2(_: Alu, mask: Array, inserted: Array, base: Array) -> Array:
    # The lowest bit of the mask, as a factor, moves what is inserted (Mesa nir_opcodes.py: bfi, which becomes a bfi2).
    moved: Array = inserted * (mask & -mask)
    return (mask & moved) | (~mask & base)


def _bfn(instruction: Alu, a: Array, b: Array, c: Array) -> Array:
    result = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), dtype=np.int64)
    for index in range(8):
        if instruction.truth >> index & 1:
            term = (a if index & 1 else ~a) & (b if index & 2 else ~b) & (c if index & 4 else ~c)
            result = result | term
    return result


def _dp4a(instruction: Alu, base: Array, a: Array, b: Array) -> Array:
    total = base.astype(np.int64)
    for shift in (0, 8, 16, 24):
        pair = []
        for value, source in ((a, instruction.sources[1]), (b, instruction.sources[2])):
            byte = value.astype(np.int64) >> shift & 0xFF
            pair.append((byte ^ 0x80) - 0x80 if source.type.is_signed else byte)
        total = total + pair[0] * pair[1]
    return total


def divide(function: MathFunction, a: Array, b: Array) -> tuple[Array, Array]:
    """Quotient and remainder of Python integers, both truncated; a divisor 0 gives all ones and the dividend."""
    pairs = zip(*(part.ravel() for part in np.broadcast_arrays(a, b)), strict=True)
    results = [_divide(int(x), int(y)) for x, y in pairs]
    shape = np.broadcast_shapes(a.shape, b.shape)
    quotient = np.array([pair[0] for pair in results], dtype=object).reshape(shape)
    remainder = np.array([pair[1] for pair in results], dtype=object).reshape(shape)
    return (remainder, remainder) if function is MathFunction.IREM else (quotient, remainder)


def _divide(x: int, y: int) -> tuple[int, int]:
    if y == 0:
        return -1, x
    quotient = abs(x) // abs(y)
    quotient = -quotient if (x < 0) != (y < 0) else quotient
    return quotient, x - quotient * y


OPERATIONS: dict[Opcode, Callable[..., Array]] = {
    Opcode.MOV: lambda _, a: a,
    Opcode.MOVI: lambda _, a: a,
    Opcode.NOT: lambda _, a: ~a,
    Opcode.AND: lambda _, a, b: a & b,
    Opcode.OR: lambda _, a, b: a | b,
    Opcode.XOR: lambda _, a, b: a ^ b,
    Opcode.SHR: _shr,
    Opcode.SHL: _shl,
    Opcode.ASR: _asr,
    Opcode.ROR: lambda instruction, a, b: _rotate(instruction, a, b, left=False),
    Opcode.ROL: lambda instruction, a, b: _rotate(instruction, a, b, left=True),
    Opcode.ADD: lambda _, a, b: a + b,
    Opcode.ADDC: lambda _, a, b: a + b,
    Opcode.SUBB: lambda _, a, b: a - b,
    Opcode.MUL: lambda _, a, b: a * b,
    Opcode.MACL: lambda _, a, b: a * b,
    Opcode.MACH: lambda _, a, b: a * b >> 32,
    Opcode.AVG: lambda _, a, b: a + b + 1 >> 1,
    Opcode.ADD3: lambda _, a, b, c: a + b + c,
    Opcode.MAD: lambda _, a, b, c: a + b * c,
    Opcode.LZD: _lzd,
    Opcode.FBH: _fbh,
    Opcode.FBL: _fbl,
    Opcode.CBIT: _cbit,
    Opcode.BFREV: _bfrev,
    Opcode.BFE: _bfe,
    Opcode.BFI1: _bfi1,
    Opcode.BFI2: _bfi2,
    Opcode.BFN: _bfn,
    Opcode.DP4A: _dp4a,
}
"""(instruction, exact sources) to the exact result. sel, csel, cmp, mac and math are elsewhere."""
