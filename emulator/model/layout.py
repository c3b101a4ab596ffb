"""Binary formats off the access path, described with `construct`: the few things that this project adds to it.

A format that is read or written in every access or message keeps a precompiled `struct.Struct` instead: construct takes
some 20 µs for a structure, a precompiled struct 0.2 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from construct import BitsInteger, BitStruct, ByteSwapped, Construct, EnumIntegerString, Padding, Struct


def word(*fields: tuple[str, int], size: int = 4) -> Construct:
    """A little-endian word of `size` bytes: its bit fields as (name, bits), from bit 0 up; "" names reserved bits.

    What the fields leave free at the top is reserved. Reserved bits are 0 when built, and ignored when parsed.

    Raises:
        ValueError: The fields have more bits than the word.
    """
    free = 8 * size - sum(bits for _, bits in fields)
    if free < 0:
        raise ValueError(f"the fields have {8 * size - free} bits, the word {8 * size}")
    parts = [name / BitsInteger(bits) if name else Padding(bits) for name, bits in fields]
    return ByteSwapped(BitStruct(*([Padding(free)] if free else []), *reversed(parts)))


def offset_of(layout: Struct, field: str) -> int:
    """Where `field` begins in `layout`, in bytes: for a writer that may store one field only.

    Raises:
        KeyError: There is no such field.
    """
    offset = 0
    for part in layout.subcons:
        if part.name == field:
            return offset
        offset += part.sizeof()
    raise KeyError(f"{field!r} is none of {', '.join(part.name for part in layout.subcons if part.name)}")


def plain(value: Any) -> Any:
    """What construct parsed, as data that JSON can carry: numbers, text, lists and dictionaries; bytes as hexadecimal."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if not str(key).startswith("_")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, EnumIntegerString) else value
