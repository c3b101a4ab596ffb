"""One `Alu` instruction over many threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu import registers
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Register
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode
from vfio_user_xe.device_models.xe.eu.reference import float_ops, integer
from vfio_user_xe.device_models.xe.eu.reference.floats import (
    WORK,
    Array,
    Rounding,
    flush,
    from_integers,
    to_bits,
    to_integers,
    to_values,
)
from vfio_user_xe.device_models.xe.eu.reference.operands import (
    UNSIGNED,
    Rows,
    Storage,
    integers,
    modify_float,
    modify_integer,
    predicate,
    source_reader,
    write,
    write_flags,
)
from vfio_user_xe.device_models.xe.eu.semantics import (
    CANONICAL_NAN,
    DENORMAL_BITS,
    ROUNDING_SHIFT,
    execution_float,
    is_float_operation,
    is_raw_move,
)

Lanes = NDArray[np.bool_]
_COMPARES = frozenset({Opcode.CMP, Opcode.CMPN})
_INTEGER_MATH = frozenset({MathFunction.IDIV, MathFunction.IQOT, MathFunction.IREM})


class AluStep:
    """An instruction made ready: `step(storage, rows, lanes)` executes it for threads `rows`.

    `lanes` are [threads, width]: active lanes, before the predicate.
    """

    def __init__(self, instruction: Alu) -> None:
        self.instruction = instruction
        self._width = instruction.width
        self._readers = [source_reader(source, instruction.width, instruction.opcode) for source in instruction.sources]
        self._by_mode = is_float_operation(instruction)
        self._exact = integer.needs_exact(instruction)
        if instruction.opcode is Opcode.MAC:
            accumulator = Register(instruction.destination.type, 0x20, 0, True, 1, 1, 0)
            self._accumulator = source_reader(accumulator, instruction.width)

    def __call__(self, storage: Storage, rows: Rows, lanes: Lanes) -> None:
        if not self._by_mode:
            self._integers(storage, rows, lanes)
            return
        modes = storage[rows, registers.CR0 : registers.CR0 + 4].view(np.uint32)[:, 0]
        for mode in np.unique(modes):
            chosen = modes == mode
            self._floats(storage, rows[chosen], lanes[chosen], int(mode))

    def _enabled(self, storage: Storage, rows: Rows, lanes: Lanes) -> Lanes:
        holds = predicate(storage, rows, self.instruction)
        return lanes if holds is None else lanes & holds

    # Integers

    def _integers(self, storage: Storage, rows: Rows, lanes: Lanes) -> None:
        instruction = self.instruction
        values = []
        for source, read in zip(instruction.sources, self._readers, strict=True):
            bits = read(storage, rows)
            raw = DataType.UD if source.type.size == 4 else source.type
            kind = raw if source.type.is_float else source.type
            value = integers(bits, kind, self._exact) if not kind.is_float else bits.astype(np.int64)
            if self._exact and value.dtype != object:
                value = value.astype(object)
            if instruction.opcode in _LOGIC_NEGATION:
                value = ~value if getattr(source, "negate", False) else value
            else:
                value = modify_integer(value, source)
            values.append(value)
        match instruction.opcode:
            case Opcode.CMP | Opcode.CMPN:
                self._finish_compare(storage, rows, lanes, integer.compare(instruction.condition, *values))
                return
            case Opcode.SEL:
                first = self._select(storage, rows, lanes, integer.compare, values)
                self._store_integers(storage, rows, lanes, np.where(first, values[0], values[1]))
                return
            case Opcode.CSEL:
                first = integer.compare(instruction.condition, values[2], np.zeros_like(values[2]))
                self._store_integers(storage, rows, lanes, np.where(first, values[0], values[1]))
                return
            case Opcode.MATH:
                self._divide(storage, rows, lanes, values)
                return
            case Opcode.MAC:
                accumulator = self._accumulator(storage, rows)
                third = integers(accumulator, instruction.destination.type, self._exact)
                result = values[0] * values[1] + third
            case _:
                result = integer.OPERATIONS[instruction.opcode](instruction, *values)
        enabled = self._store_integers(storage, rows, lanes, result)
        if instruction.opcode in (Opcode.ADDC, Opcode.SUBB):
            carry = (result >> 32 != 0).astype(np.uint32)
            write(storage, rows, _ACC0, self._width, carry, enabled)

    def _store_integers(self, storage: Storage, rows: Rows, lanes: Lanes, result: Array) -> Lanes:
        instruction = self.instruction
        enabled = self._enabled(storage, rows, lanes) if instruction.opcode is not Opcode.SEL else lanes
        kind = instruction.destination.type
        if kind.is_float and instruction.opcode in _LOGIC_NEGATION:
            bits, outside = result.astype(np.int64).view(np.uint64).astype(UNSIGNED[kind.size]), np.zeros(1, np.bool_)
        elif kind.is_float:
            self._store_floats(storage, rows, enabled, from_integers(result, kind, Rounding.NEAREST), kind, _KEEP_ALL)
            return enabled
        else:
            bits, outside = integer.store(result, kind, instruction.saturate)
        bits = np.broadcast_to(bits, lanes.shape)
        write(storage, rows, instruction.destination, self._width, bits, enabled)
        if instruction.condition is not Condition.NONE and instruction.opcode not in (Opcode.SEL, Opcode.CSEL):
            if instruction.condition is Condition.OV:
                hits = np.broadcast_to(outside, lanes.shape)
            else:
                written = integers(np.ascontiguousarray(bits), _integer_kind(kind), kind.size == 8)
                hits = integer.compare(instruction.condition, written, np.zeros_like(written))
            write_flags(storage, rows, instruction, hits, enabled)
        return enabled

    def _divide(self, storage: Storage, rows: Rows, lanes: Lanes, values: list[Array]) -> None:
        instruction = self.instruction
        assert instruction.function is not None
        quotient, remainder = integer.divide(instruction.function, *values)
        enabled = self._enabled(storage, rows, lanes)
        kind = instruction.destination.type
        results = [quotient, remainder] if instruction.function is MathFunction.IDIV else [quotient]
        bits = [
            np.broadcast_to(integer.store(result, kind, instruction.saturate)[0], lanes.shape) for result in results
        ]
        write(storage, rows, instruction.destination, self._width, bits[0], enabled)
        if len(bits) == 2 and isinstance(instruction.destination, Register):
            distance = max(1, -(-self._width * kind.size // registers.GRF_BYTES))
            second = Register(
                kind,
                instruction.destination.number + distance,
                instruction.destination.byte,
                horizontal=instruction.destination.horizontal,
            )
            write(storage, rows, second, self._width, bits[1], enabled)

    # Both

    def _select(
        self,
        storage: Storage,
        rows: Rows,
        lanes: Lanes,
        compare: Callable[[Condition, Array, Array], Array],
        values: list[Array],
    ) -> Array:
        """Where sel takes its first source: by the predicate, or by comparing."""
        holds = predicate(storage, rows, self.instruction)
        if holds is not None:
            return holds
        return np.broadcast_to(compare(self.instruction.condition, values[0], values[1]), lanes.shape)

    def _finish_compare(self, storage: Storage, rows: Rows, lanes: Lanes, hits: Array) -> None:
        instruction = self.instruction
        enabled = self._enabled(storage, rows, lanes)
        hits = np.broadcast_to(hits, lanes.shape)
        ones = UNSIGNED[instruction.destination.type.size]((1 << instruction.destination.type.bits) - 1)
        write(storage, rows, instruction.destination, self._width, np.where(hits, ones, ones.dtype.type(0)), enabled)
        write_flags(storage, rows, instruction, hits, enabled)

    # Floats

    def _floats(self, storage: Storage, rows: Rows, lanes: Lanes, mode: int) -> None:
        instruction = self.instruction
        rounding = Rounding(mode >> ROUNDING_SHIFT & 3)
        kind = execution_float(instruction)
        patterns = [
            modify_float(read(storage, rows), source) if source.type.is_float else read(storage, rows)
            for source, read in zip(instruction.sources, self._readers, strict=True)
        ]
        if is_raw_move(instruction):
            self._move_bits(storage, rows, lanes, patterns)
            return
        values = [self._value(index, bits, kind, rounding, mode) for index, bits in enumerate(patterns)]
        match instruction.opcode:
            case Opcode.CMP:
                self._finish_compare(storage, rows, lanes, float_ops.compare(instruction.condition, *values))
                return
            case Opcode.CMPN:
                self._finish_compare(storage, rows, lanes, float_ops.compare_nan(instruction.condition, *values))
                return
            case Opcode.SEL:
                first = self._select(storage, rows, lanes, float_ops.choose_first, values)
                result = np.where(first, values[0], values[1])
                self._store_floats(storage, rows, lanes, result, kind, mode)
                return
            case Opcode.CSEL:
                first = float_ops.compare(instruction.condition, values[2], np.zeros_like(values[2]))
                result = np.where(first, values[0], values[1])
            case Opcode.MATH:
                assert instruction.function is not None
                result = float_ops.math(instruction.function, kind, values)
            case Opcode.MAC:
                third = to_values(self._accumulator(storage, rows), instruction.destination.type)
                result = float_ops.ARITHMETIC[Opcode.MAD](kind, rounding, third.astype(WORK[kind]), *values)
            case Opcode.SRND:
                self._stochastic(storage, rows, lanes, patterns)
                return
            case _:
                with np.errstate(all="ignore"):
                    result = float_ops.ARITHMETIC[instruction.opcode](kind, rounding, *values)
        enabled = self._enabled(storage, rows, lanes)
        self._store_floats(storage, rows, enabled, result, kind, mode)
        if instruction.function in (MathFunction.INVM, MathFunction.RSQTM):
            write_flags(storage, rows, instruction, np.ones_like(enabled), enabled)

    def _value(self, index: int, bits: Array, kind: DataType, rounding: Rounding, mode: int) -> Array:
        """A source as a value of the execution type, with its denormals flushed if `mode` says so."""
        source = self.instruction.sources[index]
        if not source.type.is_float:
            exact = integers(bits, source.type, exact=True)
            return from_integers(modify_integer(exact, source), kind, rounding)
        value = to_values(bits, source.type)
        if not mode >> DENORMAL_BITS[source.type] & 1:
            value = flush(value, source.type)
        with np.errstate(all="ignore"):
            return value.astype(WORK[kind])

    def _move_bits(self, storage: Storage, rows: Rows, lanes: Lanes, patterns: list[Array]) -> None:
        instruction = self.instruction
        kind = instruction.destination.type
        enabled = lanes
        bits = patterns[0]
        if instruction.opcode is not Opcode.MOV:
            values = [
                to_values(pattern, source.type) for pattern, source in zip(patterns, instruction.sources, strict=True)
            ]
            if instruction.opcode is Opcode.SEL:
                first = self._select(storage, rows, lanes, float_ops.choose_first, values)
                bits = np.where(first, patterns[0], patterns[1])
                if instruction.predicate is None and instruction.condition > Condition.NE:
                    both = np.isnan(values[0]) & np.isnan(values[1])
                    bits = np.where(both, bits.dtype.type(CANONICAL_NAN[kind]), bits)
            else:
                first = float_ops.compare(instruction.condition, values[2], np.zeros_like(values[2]))
                bits = np.where(first, patterns[0], patterns[1])
        if instruction.opcode is not Opcode.SEL:
            enabled = self._enabled(storage, rows, lanes)
        write(storage, rows, instruction.destination, self._width, np.broadcast_to(bits, lanes.shape), enabled)
        if instruction.opcode is Opcode.MOV and instruction.condition is not Condition.NONE:
            self._test_floats(storage, rows, enabled, np.broadcast_to(bits, lanes.shape))

    def _store_floats(
        self, storage: Storage, rows: Rows, enabled: Lanes, result: Array, kind: DataType, mode: int
    ) -> None:
        """Writes values of the execution type, and flags where the instruction has a condition modifier."""
        instruction = self.instruction
        rounding = Rounding(mode >> ROUNDING_SHIFT & 3)
        if instruction.function is not None:
            rounding = Rounding.NEAREST
        target = instruction.destination.type
        if instruction.opcode is not Opcode.SEL and not mode >> DENORMAL_BITS[kind] & 1:
            result = flush(result, kind)
        if not target.is_float:
            values = to_integers(result)[1]
            bits, _ = integer.store(values, target, saturate=True)
        else:
            if instruction.saturate:
                result = float_ops.clamp(result)
            bits = to_bits(result, target, rounding)
            if target is not kind and not mode >> DENORMAL_BITS[target] & 1:
                bits = to_bits(flush(to_values(bits, target), target), target)
        bits = np.broadcast_to(bits, enabled.shape)
        write(storage, rows, instruction.destination, self._width, bits, enabled)
        if instruction.condition is not Condition.NONE and instruction.opcode not in (Opcode.SEL, Opcode.CSEL):
            self._test_floats(storage, rows, enabled, bits)

    def _test_floats(self, storage: Storage, rows: Rows, enabled: Lanes, bits: Array) -> None:
        """Sets flags by comparing written bits with zero."""
        instruction = self.instruction
        kind = instruction.destination.type
        bits = np.ascontiguousarray(bits)
        if kind.is_float:
            values = to_values(bits, kind)
            hits = float_ops.compare(instruction.condition, values, np.zeros_like(values))
        else:
            numbers = integers(bits, kind, kind.size == 8)
            hits = integer.compare(instruction.condition, numbers, np.zeros_like(numbers))
        write_flags(storage, rows, instruction, hits, enabled)

    def _stochastic(self, storage: Storage, rows: Rows, lanes: Lanes, patterns: list[Array]) -> None:
        instruction = self.instruction
        values = to_values(patterns[0], instruction.sources[0].type)
        bits = float_ops.stochastic(values, patterns[1], instruction.destination.type)
        nan = np.isnan(values)
        bits = np.where(nan, bits.dtype.type(CANONICAL_NAN[instruction.destination.type]), bits)
        enabled = self._enabled(storage, rows, lanes)
        write(storage, rows, instruction.destination, self._width, np.broadcast_to(bits, lanes.shape), enabled)


def _integer_kind(kind: DataType) -> DataType:
    """How written bits are compared with zero: floats that logic wrote count as integers of their size."""
    if not kind.is_float:
        return kind
    return {1: DataType.UB, 2: DataType.UW, 4: DataType.UD, 8: DataType.UQ}[kind.size]


_LOGIC_NEGATION = frozenset({Opcode.NOT, Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.BFN})
_ACC0 = Register(DataType.UD, 0x20, 0, True, horizontal=1)
_KEEP_ALL = 1 << 6 | 1 << 7 | 1 << 10
