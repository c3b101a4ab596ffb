"""Fields of commands and structures by dword and bits, numbered as Mesa's genxml numbers them: dword 0 is the header."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK

Words = Sequence[int]
_FLOAT = struct.Struct("<f")
_DWORD = struct.Struct("<I")


def bits(words: Words, dword: int, high: int, low: int) -> int:
    """Bits `high`:`low` of a dword; a dword that is not there is zero."""
    return words[dword] >> low & (1 << high - low + 1) - 1 if dword < len(words) else 0


def flag(words: Words, dword: int, bit: int) -> bool:
    """One bit."""
    return bool(bits(words, dword, bit, bit))


def address(words: Words, dword: int, low: int = 0) -> int:
    """A 48-bit address or offset in two dwords, from bit `low` on."""
    value = bits(words, dword, 31, 0) | bits(words, dword + 1, 31, 0) << 32
    return value & VA_MASK & -(1 << low)


def real(words: Words, dword: int) -> float:
    """A float."""
    return float(_FLOAT.unpack(_DWORD.pack(bits(words, dword, 31, 0)))[0])


def signed(value: int, width: int = 32) -> int:
    """A number of `width` bits in two's complement."""
    return value - (1 << width) if value >> width - 1 & 1 else value
