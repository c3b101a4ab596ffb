"""Data types of operands, with their codes in an instruction (iga `Type`, brw_reg_type.c).

A code has four bits: 1:0 the size (1 << n bytes), 2 signed integer, 3 floating point. Three-source instructions keep
bit 3 once for all operands and the other bits by operand.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """How the bits of an element are read."""

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    FLOAT = "float"


class DataType(Enum):
    """A type of elements: `(name, code, bytes, kind)`."""

    UB = ("ub", 0, 1, Kind.UNSIGNED)
    UW = ("uw", 1, 2, Kind.UNSIGNED)
    UD = ("ud", 2, 4, Kind.UNSIGNED)
    UQ = ("uq", 3, 8, Kind.UNSIGNED)
    B = ("b", 4, 1, Kind.SIGNED)
    W = ("w", 5, 2, Kind.SIGNED)
    D = ("d", 6, 4, Kind.SIGNED)
    Q = ("q", 7, 8, Kind.SIGNED)
    BF8 = ("bf8", 8, 1, Kind.FLOAT)
    """Sign, 5 bits of exponent, 2 of mantissa."""
    HF = ("hf", 9, 2, Kind.FLOAT)
    F = ("f", 10, 4, Kind.FLOAT)
    DF = ("df", 11, 8, Kind.FLOAT)
    BF = ("bf", 13, 2, Kind.FLOAT)
    """bfloat16: the upper half of an f."""
    TF32 = ("tf32", 14, 4, Kind.FLOAT)
    """An f of which dpas uses 10 bits of mantissa."""

    def __init__(self, label: str, code: int, size: int, kind: Kind) -> None:
        self.label = label
        self.code = code
        self.size = size
        """Bytes of an element."""
        self.kind = kind

    @property
    def is_float(self) -> bool:
        return self.kind is Kind.FLOAT

    @property
    def is_signed(self) -> bool:
        """A signed integer."""
        return self.kind is Kind.SIGNED

    @property
    def bits(self) -> int:
        return self.size * 8


class Packed(Enum):
    """A 32-bit immediate that holds an element for each lane, repeated: `(name, code, elements, type of an element)`."""

    UV = ("uv", 0, 8, DataType.UW)
    """Eight unsigned nibbles, lowest first."""
    V = ("v", 4, 8, DataType.W)
    """Eight signed nibbles."""
    VF = ("vf", 8, 4, DataType.F)
    """Four restricted floats: sign, 3 bits of exponent with bias 3, 4 bits of mantissa; 0x00 and 0x80 are zeros."""

    def __init__(self, label: str, code: int, count: int, element: DataType) -> None:
        self.label = label
        self.code = code
        self.count = count
        self.element = element

    def unpack(self, bits: int) -> tuple[int, ...]:
        """The elements as bit patterns of type `element`."""
        if self is Packed.VF:
            return tuple(_restricted_float(bits >> 8 * index & 0xFF) for index in range(4))
        nibbles = [bits >> 4 * index & 0xF for index in range(8)]
        if self is Packed.V:
            return tuple((nibble ^ 8) - 8 & 0xFFFF for nibble in nibbles)
        return tuple(nibbles)


def _restricted_float(byte: int) -> int:
    sign = (byte & 0x80) << 24
    if byte & 0x7F == 0:
        return sign
    return sign | ((byte >> 4 & 7) - 3 + 127) << 23 | (byte & 0xF) << 19


BY_CODE: dict[int, DataType] = {data_type.code: data_type for data_type in DataType}
BY_LABEL: dict[str, DataType] = {data_type.label: data_type for data_type in DataType}
PACKED_BY_CODE: dict[int, Packed] = {packed.code: packed for packed in Packed}
PACKED_BY_LABEL: dict[str, Packed] = {packed.label: packed for packed in Packed}
