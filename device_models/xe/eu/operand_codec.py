"""Operands from and to the fields of an instruction."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu import fields
from vfio_user_xe.device_models.xe.eu.data_types import BY_CODE, PACKED_BY_CODE, DataType
from vfio_user_xe.device_models.xe.eu.fields import EncodingError, Field, SourceSlot, TernarySlot
from vfio_user_xe.device_models.xe.eu.ir import Destination, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.registers import arf_offset

DISPLACEMENT_BITS = 11


def data_type(code: int) -> DataType:
    """The type with this code of four bits.

    Raises:
        EncodingError: the code is not used.
    """
    try:
        return BY_CODE[code]
    except KeyError:
        raise EncodingError(f"type code {code} is not used") from None


def _lookup(table: tuple[int, ...], code: int, name: str) -> int:
    if code >= len(table):
        raise EncodingError(f"{name} code {code} is not used")
    return table[code]


def _code(table: tuple[int, ...], value: int, name: str) -> int:
    try:
        return table.index(value)
    except ValueError:
        raise EncodingError(f"{name} {value} cannot be encoded (allowed: {table})") from None


def _get_byte(field: Field, bits: int) -> int:
    """Bytes; a field of five bits counts in units of two."""
    return field.get(bits) << (6 - field.width)


def _put_byte(field: Field, byte: int) -> int:
    unit = 1 << (6 - field.width)
    if byte % unit:
        raise EncodingError(f"{field.name}: {byte} is odd")
    return field.put(byte // unit)


def _get_displacement(field: Field, bits: int) -> int:
    value = field.get(bits) << (DISPLACEMENT_BITS - field.width)
    return value - (1 << DISPLACEMENT_BITS) if value >> (DISPLACEMENT_BITS - 1) else value


def _put_displacement(field: Field, displacement: int) -> int:
    limit = 1 << (DISPLACEMENT_BITS - 1)
    unit = 1 << (DISPLACEMENT_BITS - field.width)
    if not -limit <= displacement < limit or displacement % unit:
        raise EncodingError(f"{field.name} is {displacement} (allowed: {-limit} to {limit - 1}, multiples of {unit})")
    return field.put((displacement & 2 * limit - 1) // unit)


def check_register(number: int, arf: bool) -> None:
    """Check that an architecture register exists.

    Raises:
        EncodingError: it does not.
    """
    if arf:
        try:
            arf_offset(number)
        except ValueError as error:
            raise EncodingError(str(error)) from None


def decode_destination(bits: int, macro: bool = False) -> Destination:
    """The destination of an instruction with one or two sources."""
    slot = fields.DESTINATION
    kind = data_type(slot.type.get(bits))
    horizontal = fields.STRIDES[slot.horizontal.get(bits)]
    if slot.indirect.get(bits):
        displacement = _get_displacement(slot.displacement, bits)
        return Indirect(kind, slot.pointer.get(bits), displacement, horizontal=horizontal)
    arf = not slot.general.get(bits)
    number = slot.number.get(bits)
    check_register(number, arf)
    return Register(kind, number, 0 if macro else _get_byte(slot.byte, bits), arf, horizontal=horizontal)


def encode_destination(destination: Destination, macro: int | None = None) -> int:
    """The bits of a destination; `macro` is the accumulator of a math macro."""
    slot = fields.DESTINATION
    bits = slot.type.put(destination.type.code)
    bits |= slot.horizontal.put(_code(fields.STRIDES, destination.horizontal, slot.horizontal.name))
    if isinstance(destination, Indirect):
        bits |= slot.indirect.put(1) | slot.pointer.put(destination.pointer)
        return bits | _put_displacement(slot.displacement, destination.displacement)
    check_register(destination.number, destination.arf)
    bits |= slot.general.put(not destination.arf) | slot.number.put(destination.number)
    return bits | _put_byte(slot.byte, destination.byte if macro is None else macro * 2)


def _decode_immediate(bits: int, code: int) -> Immediate | Vector:
    value = fields.IMMEDIATE_32.get(bits)
    if code in PACKED_BY_CODE:
        return Vector(PACKED_BY_CODE[code], value)
    kind = data_type(code)
    if kind.size == 8:
        return Immediate(kind, fields.IMMEDIATE_64.get(bits))
    if kind.size == 1:
        raise EncodingError(f"an immediate cannot have type {kind.label}")
    return Immediate(kind, value & (1 << kind.bits) - 1)


def encode_immediate(source: Immediate | Vector) -> int:
    """The bits of an immediate; one of 16 bits is there twice."""
    if isinstance(source, Vector):
        return fields.IMMEDIATE_32.put(source.bits)
    if source.type.size == 1:
        raise EncodingError(f"an immediate cannot have type {source.type.label}")
    if not 0 <= source.bits < 1 << source.type.bits:
        raise EncodingError(f"0x{source.bits:x} does not fit type {source.type.label}")
    if source.type.size == 8:
        return fields.IMMEDIATE_64.put(source.bits)
    value = source.bits | source.bits << 16 if source.type.size == 2 else source.bits
    return fields.IMMEDIATE_32.put(value)


def decode_source(bits: int, slot: SourceSlot, macro: bool = False) -> Source:
    """A source of an instruction with one or two sources."""
    if slot.immediate.get(bits):
        return _decode_immediate(bits, slot.type.get(bits))
    kind = data_type(slot.type.get(bits))
    horizontal = fields.STRIDES[slot.horizontal.get(bits)]
    width = _lookup(fields.WIDTHS, slot.width.get(bits), slot.width.name)
    vertical_code = slot.vertical.get(bits)
    negate, absolute = bool(slot.negate.get(bits)), bool(slot.absolute.get(bits))
    if slot.indirect.get(bits):
        vertical = None if vertical_code == fields.ROW_POINTERS else fields.VERTICAL_STRIDES[vertical_code]
        displacement = _get_displacement(slot.displacement, bits)
        pointer = slot.pointer.get(bits)
        return Indirect(kind, pointer, displacement, vertical, width, horizontal, negate, absolute)
    vertical = _lookup(fields.VERTICAL_STRIDES, vertical_code, slot.vertical.name)
    arf = not slot.general.get(bits)
    number = slot.number.get(bits)
    check_register(number, arf)
    byte = 0 if macro else _get_byte(slot.byte, bits)
    return Register(kind, number, byte, arf, vertical, width, horizontal, negate, absolute)


def encode_source(source: Source, slot: SourceSlot, macro: int | None = None) -> int:
    """The bits of a source of an instruction with one or two sources."""
    if isinstance(source, Immediate | Vector):
        code = source.packed.code if isinstance(source, Vector) else source.type.code
        return slot.immediate.put(1) | slot.type.put(code) | encode_immediate(source)
    bits = slot.type.put(source.type.code) | slot.negate.put(source.negate) | slot.absolute.put(source.absolute)
    bits |= slot.horizontal.put(_code(fields.STRIDES, source.horizontal, slot.horizontal.name))
    bits |= slot.width.put(_code(fields.WIDTHS, source.width, slot.width.name))
    if source.vertical is None:
        bits |= slot.vertical.put(fields.ROW_POINTERS)
    else:
        bits |= slot.vertical.put(_code(fields.VERTICAL_STRIDES, source.vertical, slot.vertical.name))
    if isinstance(source, Indirect):
        bits |= slot.indirect.put(1) | slot.pointer.put(source.pointer)
        return bits | _put_displacement(slot.displacement, source.displacement)
    check_register(source.number, source.arf)
    bits |= slot.general.put(not source.arf) | slot.number.put(source.number)
    byte = source.byte if macro is None else macro << 1
    return bits | _put_byte(slot.byte, byte)


def decode_ternary_source(bits: int, slot: TernarySlot, is_float: int, plain: bool, macro: bool = False) -> Source:
    """A source of an instruction with three; `plain`: the bits of modifiers mean something else."""
    kind = data_type(slot.type.get(bits) | is_float << 3)
    if slot.immediate is not None and slot.immediate_bits is not None and slot.immediate.get(bits):
        if kind.size != 2:
            raise EncodingError(f"an immediate of three sources cannot have type {kind.label}")
        return Immediate(kind, slot.immediate_bits.get(bits))
    horizontal = fields.STRIDES[slot.horizontal.get(bits)]
    if slot.vertical is None:
        vertical, width, horizontal = horizontal, 1, 0
    else:
        vertical = fields.TERNARY_VERTICAL_STRIDES[slot.vertical.get(bits)]
        width = vertical // horizontal if vertical and horizontal else 1
    arf = not slot.general.get(bits)
    number = slot.number.get(bits)
    check_register(number, arf)
    negate = not plain and slot.negate is not None and bool(slot.negate.get(bits))
    absolute = not plain and slot.absolute is not None and bool(slot.absolute.get(bits))
    byte = 0 if macro else _get_byte(slot.byte, bits)
    return Register(kind, number, byte, arf, vertical, max(1, width), horizontal, negate, absolute)


def encode_ternary_source(source: Source, slot: TernarySlot, plain: bool, macro: int | None = None) -> int:
    """The bits of a source of an instruction with three."""
    if isinstance(source, Immediate) and slot.immediate is not None and slot.immediate_bits is not None:
        if source.type.size != 2:
            raise EncodingError(f"an immediate of three sources cannot have type {source.type.label}")
        bits = slot.type.put(source.type.code & 7) | slot.immediate.put(1)
        return bits | slot.immediate_bits.put(source.bits)
    if not isinstance(source, Register):
        raise EncodingError(f"{slot.number.name} cannot be {type(source).__name__.lower()}")
    check_register(source.number, source.arf)
    bits = slot.type.put(source.type.code & 7) | slot.general.put(not source.arf) | slot.number.put(source.number)
    bits |= _put_byte(slot.byte, source.byte if macro is None else macro << 1)
    if plain:
        if source.negate or source.absolute:
            raise EncodingError(f"{slot.number.name} cannot have modifiers")
    elif slot.negate is not None and slot.absolute is not None:
        bits |= slot.negate.put(source.negate) | slot.absolute.put(source.absolute)
    if slot.vertical is None:
        if source.width != 1 or source.horizontal:
            raise EncodingError(f"{slot.number.name} can only have a stride")
        return bits | slot.horizontal.put(_code(fields.STRIDES, source.vertical, slot.horizontal.name))
    wanted = max(1, source.vertical // source.horizontal) if source.vertical and source.horizontal else 1
    if source.width != wanted:
        raise EncodingError(f"{slot.number.name}: width is {source.width}, its strides need {wanted}")
    bits |= slot.horizontal.put(_code(fields.STRIDES, source.horizontal, slot.horizontal.name))
    return bits | slot.vertical.put(_code(fields.TERNARY_VERTICAL_STRIDES, source.vertical, slot.vertical.name))
