"""Operands from text (the inverse of `operand_text.py`)."""

from __future__ import annotations

import re

from vfio_user_xe.device_models.xe.eu import fields
from vfio_user_xe.device_models.xe.eu.data_types import BY_LABEL, PACKED_BY_LABEL, DataType
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import Destination, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.operand_text import parse_float
from vfio_user_xe.device_models.xe.eu.registers import Arf

_SUB_BYTE_TYPES = {"u4": (DataType.UB, 4), "s4": (DataType.B, 4), "u2": (DataType.UB, 2), "s2": (DataType.B, 2)}

_NAME = r"(?P<name>null|ip|ce|[a-z]+\d+)"
_SUB = r"(?:\.(?P<sub>\d+b?|mme\d|nomme))?"
_REGISTER = re.compile(rf"^(?P<mods>(?:[-~]|\(abs\)|\(sat\))*){_NAME}{_SUB}(?P<region><[^>]*>)?(?::(?P<type>\w+))?$")
_INDIRECT = re.compile(
    r"^(?P<mods>(?:[-~]|\(abs\)|\(sat\))*)r\[a0\.(?P<pointer>\d+)(?:,(?P<displacement>-?\d+))?\]"
    r"(?P<region><[^>]*>):(?P<type>\w+)$"
)
_IMMEDIATE = re.compile(r"^(?P<value>[-+]?(?:0x[0-9a-fA-F]+|[0-9.]+(?:e[-+]?\d+)?|inf|nan)):(?P<type>\w+)$")
_REGION = re.compile(r"^<(?:(\d+);)?(\d+)(?:,(\d+))?>$")
_KINDS = {kind.name.lower(): kind for kind in Arf if kind is not Arf.NULL}


def register_number(name: str) -> tuple[int, bool]:
    """Number of a named register, and whether it is an architecture register.

    Raises:
        EncodingError: there is no such register.
    """
    if name == "null":
        return 0, True
    found = re.fullmatch(r"([a-z]+)(\d*)", name)
    if found and found[1] == "r" and found[2] and int(found[2]) < 256:
        return int(found[2]), False
    if found and found[1] in _KINDS and int(found[2] or 0) < 16:
        return _KINDS[found[1]] << 4 | int(found[2] or 0), True
    raise EncodingError(f"register {name} does not exist")


def parse_type(label: str | None, what: str) -> DataType:
    """The type of an operand."""
    if label not in BY_LABEL:
        raise EncodingError(f"{what}: type {label} does not exist (allowed: {', '.join(BY_LABEL)})")
    return BY_LABEL[label]


def _region(text: str | None, default: tuple[int | None, int, int]) -> tuple[int | None, int, int]:
    """`<v;w,h>`, `<v;h>` of three sources, `<w,h>` with a pointer a row, `<h>`: (vertical, width, horizontal)."""
    if text is None:
        return default
    found = _REGION.match(text)
    if found is None:
        raise EncodingError(f"region {text} is malformed")
    first, second, third = (int(part) if part is not None else None for part in found.groups())
    assert second is not None
    if third is not None:
        return first, second, third
    if first is not None:
        return first, max(1, first // second) if first and second else 1, second
    return second, 1, 0


def _byte(sub: str | None, size: int) -> int:
    if sub is None:
        return 0
    return int(sub[:-1]) if sub.endswith("b") else int(sub) * size


def parse_macro(text: str) -> int | None:
    """The accumulator number of a macro's operand, or None if it has none."""
    found = re.search(r"\.(?:mme(\d)|(nomme))\b", text)
    if found is None:
        return None
    return fields.NO_MME if found[2] else int(found[1])


def parse_destination(text: str) -> Destination:
    """`r5.0<1>:f`, `r[a0.2,16]<1>:f`, `null:f`; `(sat)` in front is the caller's."""
    if found := _INDIRECT.match(text):
        kind = parse_type(found["type"], text)
        horizontal = _region(found["region"], (1, 1, 0))[0]
        return Indirect(kind, int(found["pointer"]), int(found["displacement"] or 0), horizontal=horizontal or 0)
    found = _REGISTER.match(text)
    if found is None:
        raise EncodingError(f"destination {text} is malformed")
    kind = parse_type(found["type"], text)
    number, arf = register_number(found["name"])
    horizontal = _region(found["region"], (1, 1, 0))[0]
    sub = None if parse_macro(text) is not None else found["sub"]
    return Register(kind, number, _byte(sub, kind.size), arf, horizontal=horizontal or 0)


def parse_source(text: str, rows: bool = False) -> Source:
    """A source of any instruction but dpas and branches; `rows`: what a macro's operand without region has."""
    if found := _IMMEDIATE.match(text):
        return _immediate(found["value"], found["type"], text)
    if found := _INDIRECT.match(text):
        kind = parse_type(found["type"], text)
        vertical, width, horizontal = _region(found["region"], (1, 1, 0))
        negate, absolute = _modifiers(found["mods"])
        displacement = int(found["displacement"] or 0)
        return Indirect(kind, int(found["pointer"]), displacement, vertical, width, horizontal, negate, absolute)
    found = _REGISTER.match(text)
    if found is None:
        raise EncodingError(f"source {text} is malformed")
    kind = parse_type(found["type"], text)
    number, arf = register_number(found["name"])
    macro = parse_macro(text) is not None
    default = (4, 4, 1) if rows and macro else (1, 1, 0)
    vertical, width, horizontal = _region(found["region"], default)
    negate, absolute = _modifiers(found["mods"])
    byte = 0 if macro else _byte(found["sub"], kind.size)
    return Register(kind, number, byte, arf, vertical or 0, width, horizontal, negate, absolute)


def _modifiers(text: str) -> tuple[bool, bool]:
    return "-" in text or "~" in text, "(abs)" in text


def _immediate(value: str, label: str, text: str) -> Immediate | Vector:
    if label in PACKED_BY_LABEL:
        return Vector(PACKED_BY_LABEL[label], int(value, 0))
    kind = parse_type(label, text)
    if kind.is_float and not value.startswith("0x"):
        return Immediate(kind, parse_float(value, kind))
    try:
        number = int(value, 0)
    except ValueError:
        raise EncodingError(f"{text}: {value} is no integer") from None
    if not -(1 << kind.bits - 1) <= number < 1 << kind.bits:
        raise EncodingError(f"{text}: {value} does not fit {label}")
    return Immediate(kind, number & (1 << kind.bits) - 1)


def parse_dpas_operand(text: str) -> tuple[Register, int]:
    """An operand of dpas, and the bits of its elements (8 if the type says all)."""
    found = _REGISTER.match(text)
    if found is None:
        raise EncodingError(f"operand {text} is malformed")
    label = found["type"]
    kind, bits = _SUB_BYTE_TYPES[label] if label in _SUB_BYTE_TYPES else (parse_type(label, text), 8)
    number, arf = register_number(found["name"])
    return Register(kind, number, _byte(found["sub"], kind.size), arf, 1, 1, 0), bits


def parse_plain(text: str) -> Register | None:
    """A register of a branch (`r5.2`, dwords), or None if the text is something else."""
    found = _REGISTER.match(text)
    if found is None or found["type"] not in (None, "ud", "d"):
        return None
    try:
        number, arf = register_number(found["name"])
    except EncodingError:
        return None
    return Register(DataType.UD, number, _byte(found["sub"], 4), arf, 0)
