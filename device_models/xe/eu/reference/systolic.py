"""dpas over many threads (execution.md 1.7, visa DPAS.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Dpas, Register
from vfio_user_xe.device_models.xe.eu.reference.floats import Array, to_bits, to_values
from vfio_user_xe.device_models.xe.eu.reference.operands import UNSIGNED, Rows, Storage, predicate

COLUMNS = 16


class DpasStep:
    """A dpas made ready; called as `AluStep`. Lanes that are off keep their columns of the destination."""

    def __init__(self, instruction: Dpas) -> None:
        self.instruction = instruction

    def __call__(self, storage: Storage, rows: Rows, lanes: NDArray[np.bool_]) -> None:
        instruction = self.instruction
        holds = predicate(storage, rows, instruction)
        enabled = lanes if holds is None else lanes & holds
        is_float = instruction.destination.type.is_float
        total = self._accumulator(storage, rows, is_float)
        b = self._elements_b(storage, rows)
        a = self._elements_a(storage, rows)
        with np.errstate(all="ignore"):
            for step in range(instruction.depth):
                for op in range(a.shape[3]):
                    # a: [threads, repeat, depth, ops]; b: [threads, depth, column, ops]
                    product = a[:, :, step, op, None] * b[:, None, step, :, op]
                    total = total + product
        self._store(storage, rows, total, enabled)

    def _rows(self, storage: Storage, rows: Rows, operand: Register, count: int, size: int) -> Array:
        """`count` rows of 16 elements each, back to back from the operand on."""
        first, length = operand.offset, count * COLUMNS * size
        raw = np.ascontiguousarray(storage[rows, first : first + length])
        return raw.view(UNSIGNED[size]).reshape(len(rows), count, COLUMNS)

    def _accumulator(self, storage: Storage, rows: Rows, is_float: bool) -> Array:
        operand = self.instruction.sources[0]
        shape = (len(rows), self.instruction.repeat, COLUMNS)
        if operand.is_null:
            return np.zeros(shape, dtype=np.float32 if is_float else np.int64)
        bits = self._rows(storage, rows, operand, self.instruction.repeat, operand.type.size)
        if is_float:
            return to_values(bits, operand.type).astype(np.float32)
        return bits.view(np.int32).astype(np.int64) if operand.type.is_signed else bits.astype(np.int64)

    def _elements_b(self, storage: Storage, rows: Rows) -> Array:
        """[threads, depth, column, ops]: a column's dword holds the elements of one step, or of more if they are small."""
        instruction = self.instruction
        operand, ops = instruction.sources[1], self._ops()
        bits = _element_bits(operand.type, instruction.bits_b)
        steps = 32 // (ops * bits)
        words = self._rows(storage, rows, operand, -(-instruction.depth // steps), 4)
        elements = _split(words, operand.type, bits).reshape(*words.shape, steps, ops)
        # [threads, register, column, step in the dword, ops] to [threads, register · step, column, ops]
        return elements.transpose(0, 1, 3, 2, 4).reshape(len(rows), -1, COLUMNS, ops)[:, : instruction.depth]

    def _elements_a(self, storage: Storage, rows: Rows) -> Array:
        """[threads, repeat, depth, ops]: row after row, a step's elements together."""
        instruction = self.instruction
        operand = instruction.sources[2]
        ops = self._ops()
        bits = _element_bits(operand.type, instruction.bits_a)
        length = -(-instruction.repeat * instruction.depth * ops * bits // 8)
        first = operand.offset
        raw = storage[rows, first : first + length]
        count = instruction.repeat * instruction.depth * ops
        return _unpack(raw, operand.type, bits, count).reshape(len(rows), instruction.repeat, instruction.depth, ops)

    def _ops(self) -> int:
        """Elements of a step: of a dword, by the wider of both types; at most 8 of less than 8 bits."""
        instruction = self.instruction
        a, b = instruction.sources[2].type, instruction.sources[1].type
        if a.size > 1 or b.size > 1:
            return 4 // max(a.size, b.size)
        return 8 if instruction.bits_a < 8 and instruction.bits_b < 8 else 4

    def _store(self, storage: Storage, rows: Rows, total: Array, enabled: NDArray[np.bool_]) -> None:
        instruction = self.instruction
        kind = instruction.destination.type
        if kind.is_float:
            bits = to_bits(total, kind)
        else:
            bits = (total & 0xFFFF_FFFF).astype(np.uint32)
        mask = np.zeros((len(rows), COLUMNS), dtype=np.bool_)
        mask[:, : enabled.shape[1]] = enabled[:, :COLUMNS]
        old = self._rows(storage, rows, instruction.destination, instruction.repeat, kind.size)
        new = np.where(mask[:, None, :], bits.astype(UNSIGNED[kind.size]), old)
        first, length = instruction.destination.offset, instruction.repeat * COLUMNS * kind.size
        storage[rows, first : first + length] = np.ascontiguousarray(new.reshape(len(rows), -1)).view(np.uint8)


def _element_bits(kind: DataType, precision: int) -> int:
    return precision if kind.size == 1 else kind.bits


def _split(words: Array, kind: DataType, bits: int) -> Array:
    """The elements of dwords, along a new last index."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 4)
    return _unpack(raw, kind, bits, 32 // bits)


def _unpack(raw: Array, kind: DataType, bits: int, count: int) -> Array:
    """The first `count` elements of `bits` bits in rows of bytes, as numbers."""
    if bits >= 8:
        patterns = np.ascontiguousarray(raw[:, : count * bits // 8]).view(UNSIGNED[bits // 8])
        if kind is DataType.TF32:
            patterns = patterns & np.uint32(0xFFFF_E000)
        if kind.is_float:
            return to_values(patterns, kind).astype(np.float32)
        return patterns.view(np.int8).astype(np.int64) if kind.is_signed else patterns.astype(np.int64)
    per_byte = 8 // bits
    shifts = np.arange(per_byte) * bits
    numbers = (raw[:, :, None].astype(np.int64) >> shifts & (1 << bits) - 1).reshape(len(raw), -1)[:, :count]
    if kind.is_signed:
        sign = 1 << bits - 1
        numbers = (numbers ^ sign) - sign
    return numbers
