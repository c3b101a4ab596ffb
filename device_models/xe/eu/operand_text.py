"""Operands as text, in the syntax of Intel's assembler (iga Formatter.cpp)."""

from __future__ import annotations

import struct

from vfio_user_xe.device_models.xe.eu import fields
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Destination, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.registers import Arf

_NICE_DIGITS = 8
_SUB_BYTE = {4: ("u4", "s4"), 2: ("u2", "s2")}


def register_name(number: int, arf: bool) -> str:
    """`r5`, `acc2`, `null`."""
    if not arf:
        return f"r{number}"
    kind = Arf(number >> 4)
    if kind is Arf.NULL:
        return "null"
    return "ip" if kind is Arf.IP else f"{kind.name.lower()}{number & 0xF}"


def _sub(register: Register, always: bool = True) -> str:
    if register.is_null and not register.byte:
        return ""
    if register.arf and register.number >> 4 == Arf.IP and not register.byte:
        return ""
    if not register.byte and not always:
        return ""
    index, rest = divmod(register.byte, register.type.size)
    return f".{register.byte}b" if rest else f".{index}"


def _macro(number: int) -> str:
    return ".nomme" if number == fields.NO_MME else f".mme{number}"


def _modifiers(source: Register | Indirect, logic: bool) -> str:
    return ("~" if logic else "-") * source.negate + "(abs)" * source.absolute


def _indirect(operand: Indirect) -> str:
    return f"r[a0.{operand.pointer}{f',{operand.displacement}' if operand.displacement else ''}]"


def format_destination(destination: Destination, macro: int | None = None) -> str:
    """A destination: `r5.0<1>:f`."""
    label = destination.type.label
    if isinstance(destination, Indirect):
        return f"{_indirect(destination)}<{destination.horizontal}>:{label}"
    name = register_name(destination.number, destination.arf)
    if macro is not None:
        return f"{name}{_macro(macro)}:{label}"
    return f"{name}{_sub(destination)}<{destination.horizontal}>:{label}"


def format_source(source: Source, logic: bool = False, macro: int | None = None) -> str:
    """A source of an instruction with one or two: `-r6.0<1;1,0>:f`."""
    if isinstance(source, Immediate | Vector):
        return format_immediate(source)
    region = f"<{source.width},{source.horizontal}>"
    if source.vertical is not None:
        region = f"<{source.vertical};{source.width},{source.horizontal}>"
    if isinstance(source, Indirect):
        return f"{_modifiers(source, logic)}{_indirect(source)}{region}:{source.type.label}"
    sub = _sub(source) if macro is None else _macro(macro)
    name = register_name(source.number, source.arf)
    return f"{_modifiers(source, logic)}{name}{sub}{region}:{source.type.label}"


def format_ternary_source(source: Source, last: bool, macro: int | None = None) -> str:
    """A source of an instruction with three: `r6.0<1;0>:f`, the last `r8.0<1>:f`."""
    if not isinstance(source, Register):
        return format_source(source)
    name = _modifiers(source, logic=False) + register_name(source.number, source.arf)
    if macro is not None:
        return f"{name}{_macro(macro)}:{source.type.label}"
    region = f"<{source.vertical}>" if last else f"<{source.vertical};{source.horizontal}>"
    return f"{name}{_sub(source)}{region}:{source.type.label}"


def format_dpas_operand(operand: Register, bits: int = 8, always: bool = False) -> str:
    """An operand of dpas: `r20:bf`, `r30.0:s4`."""
    label = operand.type.label
    if bits in _SUB_BYTE:
        label = _SUB_BYTE[bits][operand.type.is_signed]
    return f"{register_name(operand.number, operand.arf)}{_sub(operand, always)}:{label}"


def format_plain(register: Register) -> str:
    """A register without region or type, of branches: `r5.2` counts dwords."""
    return f"{register_name(register.number, register.arf)}{_sub(register)}"


def format_immediate(source: Immediate | Vector) -> str:
    """An immediate: `-5:d`, `0xFF:ud`, `1.5:f`, `0x76543210:uv`."""
    if isinstance(source, Vector):
        return f"0x{source.bits:08X}:{source.packed.label}"
    kind = source.type
    if kind.is_signed:
        return f"{source.bits - (source.bits >> kind.bits - 1 << kind.bits)}:{kind.label}"
    nice = _nice_float(source) if kind.is_float else None
    return f"{nice or f'0x{source.bits:X}'}:{kind.label}"


_FLOAT_CODES = {DataType.HF: ("<H", "<e"), DataType.F: ("<I", "<f"), DataType.DF: ("<Q", "<d")}


def _nice_float(source: Immediate) -> str | None:
    """A short decimal that is exactly the value, if there is one."""
    if source.type not in _FLOAT_CODES:
        return None
    integer, real = _FLOAT_CODES[source.type]
    text = repr(struct.unpack(real, struct.pack(integer, source.bits))[0])
    if len(text) > _NICE_DIGITS or not text.lstrip("-")[0].isdigit() or "e" in text:
        return None
    return text


def parse_float(text: str, kind: DataType) -> int:
    """The bits of a decimal number in a type; bf takes the upper half of an f."""
    value = float(text)
    if kind is DataType.BF:
        return int(struct.unpack("<I", struct.pack("<f", value))[0]) >> 16
    integer, real = _FLOAT_CODES[kind]
    return int(struct.unpack(integer, struct.pack(real, value))[0])
