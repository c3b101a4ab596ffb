"""Sources and destinations of instructions as an operation's class of values has them.

A class is what an operation computes in: d, ud, q, uq, f or df, named as the data types; hf is one for a few operations. A source that is not a vector or a
scalar of its class is fetched into scratch by an op of `runtime/convert.c` first; a destination that is not a vector of its
class is written by one afterwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, NotHere, Op
from vfio_user_xe.device_models.xe.eu.compiled.layout import SCRATCH, SCRATCH_BYTES, THREAD_BYTES, Modified
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Destination, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.registers import A0, CR0, STORAGE_BYTES, Arf

CLASS_SIZE = {"d": 4, "ud": 4, "q": 8, "uq": 8, "f": 4, "df": 8, "hf": 2}
FLOAT_CLASSES = frozenset({"f", "df", "hf"})
BASE = {"d": "d", "ud": "d", "q": "q", "uq": "q", "f": "f", "df": "df", "hf": "hf"}
"""The class's name in conversions, which see no signs."""

RESULT = SCRATCH + 3 * SCRATCH_BYTES
"""Where a result lies that is still to be converted."""

_FLOATS = {DataType.F: "<f", DataType.DF: "<d", DataType.HF: "<e"}


@dataclass
class Fetched:
    """A source as an operation has it."""

    offset: int
    how: int
    before: list[Op] = field(default_factory=list)


def fetch(source: Source, k: int, kind: str, width: int, constants: Constants, complement: bool = False) -> Fetched:
    """Source `k` of an operation in class `kind`, with `complement` meaning `negate` as logic does.

    Raises:
        NotHere: there is no conversion for it.
    """
    match source:
        case Immediate():
            return Fetched(constants.offset(_immediate(source.bits, source.type, kind)), Modified.SCALAR)
        case Vector():
            elements = [_immediate(source.element(lane), source.type, kind) for lane in range(32)]
            return Fetched(constants.offset(b"".join(elements)), Modified.CONSTANT)
        case Register():
            return _register(source, k, kind, width, constants, complement)
        case Indirect():
            gathered, plain = gather(source, k, width)
            fetched = _register(plain, k, kind, width, constants, complement, THREAD_BYTES)
            return Fetched(fetched.offset, fetched.how, [gathered, *fetched.before])
    raise NotHere


def gather(source: Indirect, k: int, width: int) -> tuple[Op, Register]:
    """The op that brings an indirect source's elements to scratch `k`, and what they are there."""
    place = SCRATCH + k * SCRATCH_BYTES
    op = Op(f"gather_{source.type.size}", place, (A0, source.displacement & 0xFFFF_FFFF, 0), width=width)
    op.modified = (source.pointer, int(source.vertical is None), 0)
    op.detail = source.width.bit_length() - 1
    op.strides = ((source.vertical or 0) * source.type.size, source.horizontal * source.type.size)
    plain = Register(
        source.type, 0, place, vertical=1, width=1, horizontal=0, negate=source.negate, absolute=source.absolute
    )
    return op, plain


def modifiers(source: Source, complement: bool = False) -> int:
    """`Modified` bits of a source's modifiers; an unsigned number is its own absolute value."""
    if not isinstance(source, Register | Indirect):
        return 0
    if complement:
        return Modified.COMPLEMENT if source.negate else 0
    how = 0
    if source.absolute and (source.type.is_signed or source.type.is_float):
        how |= Modified.ABSOLUTE
    if source.negate:
        how |= Modified.NEGATE
    return how


def _immediate(bits: int, kind: DataType, wanted: str) -> bytes:
    if wanted in FLOAT_CLASSES:
        return _float_immediate(bits, kind, wanted)
    if kind.is_float:
        raise NotHere
    value = bits & (1 << kind.bits) - 1
    if kind.is_signed and value >> kind.bits - 1:
        value -= 1 << kind.bits
    size = CLASS_SIZE[wanted]
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _float_immediate(bits: int, kind: DataType, wanted: str) -> bytes:
    if kind.label == wanted:
        return bits.to_bytes(kind.size, "little")
    if kind is DataType.BF:
        bits, kind = bits << 16, DataType.F
        if wanted == "f":
            return bits.to_bytes(4, "little")
    if kind in _FLOATS:
        value: float = struct.unpack(_FLOATS[kind], bits.to_bytes(kind.size, "little"))[0]
        if kind is DataType.DF or math.isnan(value):
            raise NotHere
    elif kind.is_float:
        raise NotHere
    else:
        number = bits - (1 << kind.bits) if kind.is_signed and bits >> kind.bits - 1 else bits
        if abs(number) >> 53:
            raise NotHere
        value = float(number)
    return struct.pack("<f" if wanted == "f" else "<d", value)


def _register(
    source: Register, k: int, kind: str, width: int, constants: Constants, complement: bool, end: int = STORAGE_BYTES
) -> Fetched:
    if source.is_null:
        return Fetched(constants.offset(bytes(8)), Modified.SCALAR)
    ends = source.element(width - 1) + source.type.size
    if _is_computed(source) or max(ends, source.element(0) + source.type.size) > end:
        raise NotHere
    how = modifiers(source, complement)
    if source.type.size == 8 and how & Modified.ABSOLUTE and CLASS_SIZE[kind] == 4:
        raise NotHere  # the sign is in the half that is dropped
    if source.type is DataType.UQ and source.absolute and not complement:
        raise NotHere
    is_scalar = width == 1 or all(source.element(lane) == source.offset for lane in range(width))
    if _is_of(source.type, kind):
        if is_scalar and width > 1:
            return Fetched(source.offset, how | Modified.SCALAR)
        if all(source.element(lane) == source.offset + lane * source.type.size for lane in range(width)):
            return Fetched(source.offset, how)
    if not how and kind in ("d", "ud") and (half := _half(source, width)):
        return Fetched(source.offset & ~3, half)
    label = source.type.label
    place = SCRATCH + k * SCRATCH_BYTES
    op = Op(f"widen_{label}_{BASE[kind]}", place, (source.offset, 0, 0), width=1 if is_scalar else width)
    op.detail, op.strides = _strides(source, width)
    if kind in FLOAT_CLASSES and not source.type.is_float:
        if source.type.size == 8 and how:
            raise NotHere  # the negative of the least q is no q
        op.modified, how = (how, 0, 0), 0
    return Fetched(place, how | (Modified.SCALAR if is_scalar and width > 1 else 0), [op])


def _half(source: Register, width: int) -> int:
    """Which half of consecutive dwords a source of words is (Mesa multiplies dwords by these); 0: it is no such source."""
    if source.type is not DataType.UW or width == 1 or source.offset & 1:
        return 0
    if any(source.element(lane) != source.offset + 4 * lane for lane in range(width)):
        return 0
    return Modified.HIGH_HALF if source.offset & 2 else Modified.LOW_HALF


def _strides(source: Register, width: int) -> tuple[int, tuple[int, int]]:
    """log2 of a row's elements, and bytes between rows and between elements of a row; even regions have one distance."""
    places = [source.element(lane) - source.offset for lane in range(width)]
    step = places[1] if width > 1 else 0
    if all(place == lane * step for lane, place in enumerate(places)):
        return 0, (step, step)
    return source.width.bit_length() - 1, (source.vertical * source.type.size, source.horizontal * source.type.size)


def _is_of(data_type: DataType, kind: str) -> bool:
    if kind in FLOAT_CLASSES:
        return data_type.label == kind
    return not data_type.is_float and data_type.size == CLASS_SIZE[kind]


def finish(instruction: Alu, op: Op, kind: str, tests: bool = True) -> list[Op]:
    """`op`, which computes in class `kind`, and what brings its result to the instruction's destination.

    With `tests` the instruction's condition modifier is one on the result.

    Raises:
        NotHere: there is no conversion for it.
    """
    destination = instruction.destination
    condition = int(instruction.condition) if tests else 0
    if isinstance(destination, Indirect):
        return _finish_indirect(instruction, destination, op, kind, condition)
    offset = place(destination, instruction.width)
    if _is_direct(destination, kind, instruction.width, bool(condition)) and not (
        instruction.saturate and kind not in FLOAT_CLASSES
    ):
        op.destination = offset
        op.masked(instruction)
        if tests:
            op.condition = condition
        op.saturate = instruction.saturate
        return [op]
    op.destination = RESULT
    op.width = instruction.width
    return [op, narrow(instruction, RESULT, kind, condition)]


def _finish_indirect(instruction: Alu, destination: Indirect, op: Op, kind: str, condition: int) -> list[Op]:
    """The result as elements of the destination in scratch, and then to where a0 says."""
    if condition and instruction.predicate is not None:
        raise NotHere  # the flags that mask the second op are not those that masked the first any more
    op.destination = RESULT
    op.width = instruction.width
    size = destination.type.size
    converted = Op(f"narrow_{BASE[kind]}_{destination.type.label}", RESULT, (RESULT, 0, 0)).masked(instruction)
    converted.condition = condition
    converted.saturate = instruction.saturate
    converted.strides = (0, size)
    scattered = Op(f"scatter_{size}").masked(instruction)
    scattered.sources = (RESULT, A0, destination.displacement & 0xFFFF_FFFF)
    scattered.modified = (destination.pointer & 0xF, 0, 0)
    scattered.strides = (0, destination.horizontal * size)
    return [op, converted, scattered]


def narrow(instruction: Alu, source: int, kind: str, condition: int) -> Op:
    """The op that converts values of class `kind` at `source` and writes them to the destination."""
    destination = instruction.destination
    label = destination.type.label
    op = Op(f"narrow_{BASE[kind]}_{label}", place(destination, instruction.width), (source, 0, 0)).masked(instruction)
    op.condition = condition
    op.saturate = instruction.saturate
    to_scratch = isinstance(destination, Register) and destination.is_null  # which has no place for elements with gaps
    apart = 1 if to_scratch else max(destination.horizontal, 1)
    op.strides = (0, apart * destination.type.size)
    return op


def place(destination: Destination, width: int) -> int:
    """Offset of a destination in storage; what goes to null goes to scratch.

    Raises:
        NotHere: it is indirect, beyond storage, or a register whose value is computed.
    """
    if not isinstance(destination, Register):
        raise NotHere
    if destination.is_null:
        return RESULT
    last = destination.offset + (width - 1) * destination.horizontal * destination.type.size
    if (
        _is_computed(destination)
        or _raises(destination, width)
        or last + destination.type.size > STORAGE_BYTES
        or (width > 1 and not destination.horizontal)
    ):
        raise NotHere
    return destination.offset


def _is_direct(destination: Destination, kind: str, width: int, tested: bool) -> bool:
    if not _is_of(destination.type, kind):
        return False
    if tested and kind not in FLOAT_CLASSES and destination.type.is_signed == kind.startswith("u"):
        return False
    return width == 1 or destination.horizontal == 1


def _raises(destination: Register, width: int) -> bool:
    """It has cr0.1, where a software exception is raised, or AIP; cr0.0 alone does nothing outside of the system routine."""
    last = destination.offset + ((width - 1) * destination.horizontal + 1) * destination.type.size
    return destination.arf and destination.offset < CR0 + 64 and last > CR0 + 4


def _is_computed(register: Register) -> bool:
    """Its value must be found when it is read; of ce0 an op before has done that (`flow.c:flow_enables`)."""
    return register.is_live and register.number >> 4 != Arf.CE
