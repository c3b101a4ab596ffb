"""dpas as one op of `runtime/systolic.c`."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, NotHere, Op
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Dpas, Register

_COLUMNS, _ROWS, _DEPTH = 16, 8, 8
_ACCUMULATED = frozenset({DataType.F, DataType.HF, DataType.BF})
_FLOATS = frozenset({DataType.HF, DataType.BF, DataType.TF32})
_DWORDS = frozenset({DataType.D, DataType.UD})
_BYTES = frozenset({DataType.B, DataType.UB})


def translate_dpas(instruction: Dpas, constants: Constants) -> Op:
    """The op of a dpas.

    Raises:
        NotHere: its types are none of those that multiply, or there are more steps than hardware has.
    """
    accumulator, b, a = instruction.sources
    is_float = instruction.destination.type.is_float
    sums, elements = (_ACCUMULATED, _FLOATS) if is_float else (_DWORDS, _BYTES)
    if not {instruction.destination.type, accumulator.type} <= sums or not {a.type, b.type} <= elements:
        raise NotHere
    if instruction.depth > _DEPTH or instruction.repeat > _ROWS:
        raise NotHere
    op = Op("dpas_float" if is_float else "dpas_integer").masked(instruction)
    op.destination = _offset(instruction.destination, constants)
    op.sources = (_offset(accumulator, constants), _offset(b, constants), _offset(a, constants))
    op.detail, op.final = instruction.repeat, instruction.depth
    if is_float:
        ops, bits_b, bits_a = 4 // max(a.type.size, b.type.size), b.type.bits, a.type.bits
        op.modified = (accumulator.type.code, b.type.code, a.type.code)
    else:
        ops = 8 if instruction.bits_a < 8 and instruction.bits_b < 8 else 4
        bits_b, bits_a = instruction.bits_b, instruction.bits_a
        op.modified = (0, int(b.type.is_signed), int(a.type.is_signed))
    op.condition = instruction.destination.type.code
    op.strides = (bits_b | ops << 8, bits_a)
    return op


def _offset(operand: Register, constants: Constants) -> int:
    """Where rows begin; those of null are zeros."""
    if operand.is_null:
        return constants.offset(bytes(_ROWS * _COLUMNS * 4))
    return operand.offset
