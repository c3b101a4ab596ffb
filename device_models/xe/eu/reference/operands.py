"""Reading and writing operands of many threads: bit patterns as [threads, lanes] arrays of unsigned numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Destination, Immediate, Indirect, Instruction, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, PredicateMode
from vfio_user_xe.device_models.xe.eu.registers import A0, ARF_BASE, F0, STORAGE_BYTES

Array = NDArray[Any]
Rows = NDArray[np.int64]
"""Which threads, as indices."""
Storage = NDArray[np.uint8]

UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

Reader = Callable[[Storage, Rows], Array]


def source_reader(source: Source, width: int, opcode: Opcode = Opcode.MOV) -> Reader:
    """A function that gives the source's elements, [threads or 1, width], without its modifiers."""
    kind = UNSIGNED[source.type.size]
    match source:
        case Immediate():
            constant = np.full((1, width), source.bits, dtype=kind)
            return lambda storage, rows: constant
        case Vector():
            elements = np.array([[source.element(index) for index in range(width)]], dtype=kind)
            return lambda storage, rows: elements
        case Register(is_null=True):
            zeros = np.zeros((1, width), dtype=kind)
            return lambda storage, rows: zeros
        case Register():
            return _direct(np.array([source.element(index) for index in range(width)]), source.type.size)
        case Indirect():
            return _indirect(source, width, opcode is Opcode.MOVI)


def _direct(starts: NDArray[np.int64], size: int) -> Reader:
    columns = (starts[:, None] + np.arange(size)).ravel() % STORAGE_BYTES
    kind = UNSIGNED[size]
    first = int(columns[0])
    if bool((np.diff(columns) == 1).all()):
        end = first + len(columns)
        return lambda storage, rows: np.ascontiguousarray(storage[rows, first:end]).view(kind)
    return lambda storage, rows: storage[rows[:, None], columns].view(kind)


def pointers(storage: Storage, rows: Rows, operand: Indirect, width: int) -> NDArray[np.int64]:
    """Byte offsets in the GRF of an indirect operand's elements: [threads, width]."""
    words = np.array([operand.pointer_of(index) & 0xF for index in range(width)])
    columns = (A0 + words[:, None] * 2 + np.arange(2)).ravel()
    base = storage[rows[:, None], columns].view(np.uint16).astype(np.int64)
    places = operand.displacement + np.array([operand.element(index) for index in range(width)], dtype=np.int64)
    starts: NDArray[np.int64] = base + places
    return starts


def _indirect(source: Indirect, width: int, is_movi: bool) -> Reader:
    size = source.type.size
    kind = UNSIGNED[size]

    def read(storage: Storage, rows: Rows) -> Array:
        starts = pointers(storage, rows, source, width)
        if is_movi:
            # All lanes share the register of the first pointer; each has its own byte in it.
            starts = (starts[:, :1] & ~63) | (starts & 63)
        inside = (starts >= 0) & (starts + size <= ARF_BASE)
        columns = (np.where(inside, starts, 0)[:, :, None] + np.arange(size)).reshape(len(rows), -1)
        values = storage[rows[:, None], columns].view(kind)
        return np.where(inside, values, kind(0))

    return read


def write(
    storage: Storage, rows: Rows, destination: Destination, width: int, bits: Array, lanes: NDArray[np.bool_]
) -> None:
    """Stores elements where `lanes` ([threads, width]) is set; `bits` are unsigned, as wide as the type."""
    if isinstance(destination, Register) and destination.is_null:
        return
    size = destination.type.size
    values = np.broadcast_to(bits.astype(UNSIGNED[size], copy=False), lanes.shape)
    step = destination.horizontal * size
    if isinstance(destination, Register):
        first = destination.offset
        if step == size and lanes.all():
            storage[rows, first : first + width * size] = np.ascontiguousarray(values).view(np.uint8)
            return
        starts = np.broadcast_to(first + np.arange(width) * step, lanes.shape)
        allowed = lanes & (starts + size <= STORAGE_BYTES)
    else:
        starts = pointers(storage, rows, destination, 1) + np.arange(width) * step
        allowed = lanes & (starts >= 0) & (starts + size <= ARF_BASE)
    thread, lane = np.nonzero(allowed)
    chosen = np.ascontiguousarray(values[thread, lane]).view(np.uint8).reshape(-1, size)
    storage[rows[thread][:, None], starts[thread, lane][:, None] + np.arange(size)] = chosen


def flags(storage: Storage, rows: Rows, instruction: Instruction) -> NDArray[np.bool_]:
    """The flag bits of an instruction's lanes: [threads, width]."""
    words = storage[rows, F0 : F0 + 16].view(np.uint32)
    positions = instruction.flag + np.arange(instruction.width)
    return (words[:, positions // 32] >> (positions % 32).astype(np.uint32) & 1).astype(np.bool_)


def write_flags(
    storage: Storage, rows: Rows, instruction: Instruction, values: NDArray[np.bool_], lanes: NDArray[np.bool_]
) -> None:
    """Sets the flag bits of an instruction's lanes where `lanes` is set."""
    words = storage[rows, F0 : F0 + 16].view(np.uint32).copy()
    register = instruction.flag // 32
    shifts = (instruction.flag % 32 + np.arange(instruction.width)).astype(np.uint32)
    bit = np.uint32(1) << shifts
    mask = (lanes * bit).sum(axis=1, dtype=np.uint64).astype(np.uint32)
    new = ((values & lanes) * bit).sum(axis=1, dtype=np.uint64).astype(np.uint32)
    words[:, register] = words[:, register] & ~mask | new
    storage[rows, F0 : F0 + 16] = words.view(np.uint8)


def predicate(storage: Storage, rows: Rows, instruction: Instruction) -> NDArray[np.bool_] | None:
    """Where the predicate holds, [threads, width], or None if there is none."""
    if instruction.predicate is None:
        return None
    values = flags(storage, rows, instruction)
    if instruction.predicate.mode is PredicateMode.ANY:
        values = np.broadcast_to(values.any(axis=1, keepdims=True), values.shape)
    elif instruction.predicate.mode is PredicateMode.ALL:
        values = np.broadcast_to(values.all(axis=1, keepdims=True), values.shape)
    return ~values if instruction.predicate.inverse else values


def modify_integer(values: Array, source: Source) -> Array:
    """Applies the modifiers of a source to exact integers, or to int64 that wrap."""
    if isinstance(source, Register | Indirect):
        if source.absolute and source.type.is_signed:
            values = np.abs(values)
        if source.negate:
            values = -values
    return values


def modify_float(bits: Array, source: Source) -> Array:
    """Applies the modifiers of a source to the sign bits of floats."""
    if isinstance(source, Register | Indirect):
        sign = UNSIGNED[source.type.size](1 << source.type.bits - 1)
        if source.absolute:
            bits = bits & ~sign
        if source.negate:
            bits = bits ^ sign
    return bits


def integers(bits: Array, kind: DataType, exact: bool) -> Array:
    """Bit patterns as int64; with `exact` those of 64 bits as Python integers, else as int64 that wrap."""
    if kind.is_signed:
        values = bits.view(f"i{kind.size}")
    else:
        values = bits
    if exact and kind.size == 8:
        return values.astype(object)
    return values.astype(np.int64)
