"""Where the fields of a native 128-bit instruction are (brw_eu_inst.h, checked against Intel's assembler library).

A field is read as an integer; its parts are given from the lowest bits of its value on, each as (lowest bit, width).
"""

from __future__ import annotations

from dataclasses import dataclass


class EncodingError(ValueError):
    """An instruction that cannot be encoded, or bits that mean no instruction."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an instruction."""

    name: str
    parts: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        return sum(width for _, width in self.parts)

    def get(self, bits: int) -> int:
        """The field's value in an instruction."""
        value = shift = 0
        for low, width in self.parts:
            value |= (bits >> low & (1 << width) - 1) << shift
            shift += width
        return value

    def put(self, value: int) -> int:
        """The instruction bits that hold `value`.

        Raises:
            EncodingError: it does not fit.
        """
        if not 0 <= value < 1 << self.width:
            raise EncodingError(f"{self.name} is {value}; it has {self.width} bits (0 to {(1 << self.width) - 1})")
        bits = 0
        for low, width in self.parts:
            bits |= (value & (1 << width) - 1) << low
            value >>= width
        return bits


def _field(name: str, *parts: tuple[int, int]) -> Field:
    return Field(name, parts)


OPCODE = _field("opcode", (0, 7))
SWSB = _field("scoreboard", (8, 10))
EXEC_SIZE = _field("execution size", (18, 3))
FLAG_HALF = _field("flag half", (21, 1))
FLAG_NUMBER = _field("flag register", (22, 2))
MASK_OFFSET = _field("mask offset", (24, 2))
PREDICATE = _field("predicate", (26, 2))
PREDICATE_INVERSE = _field("predicate inversion", (28, 1))
COMPACTED = _field("compacted", (29, 1))
BREAKPOINT = _field("breakpoint", (30, 1))
NO_MASK = _field("no mask", (31, 1))
ATOMIC = _field("atomic", (32, 1))
BRANCH_CONTROL = _field("branch control", (33, 1))
SATURATE = _field("saturate", (34, 1))
CONDITION = _field("condition modifier", (92, 4))
"""Also the function of math and sync, and the SFID of sends."""

IMMEDIATE_32 = _field("immediate", (96, 32))
IMMEDIATE_64 = _field("immediate", (96, 32), (64, 32))
"""Low half first."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The fields of a destination of instructions with one or two sources."""

    type: Field
    general: Field
    """1 GRF, 0 ARF."""
    number: Field
    byte: Field
    horizontal: Field
    indirect: Field
    pointer: Field
    displacement: Field


@dataclass(frozen=True, slots=True)
class SourceSlot(Slot):
    """The fields of a source of instructions with one or two sources."""

    width: Field
    vertical: Field
    absolute: Field
    negate: Field
    immediate: Field


DESTINATION = Slot(
    type=_field("destination type", (36, 4)),
    general=_field("destination file", (50, 1)),
    number=_field("destination register", (56, 8)),
    byte=_field("destination byte", (33, 1), (51, 5)),
    horizontal=_field("destination stride", (48, 2)),
    indirect=_field("destination indirect", (35, 1)),
    pointer=_field("destination a0", (60, 4)),
    displacement=_field("destination displacement", (33, 1), (50, 10)),
)
SOURCE_0 = SourceSlot(
    type=_field("source 0 type", (40, 4)),
    general=_field("source 0 file", (66, 1)),
    number=_field("source 0 register", (72, 8)),
    byte=_field("source 0 byte", (87, 1), (67, 5)),
    horizontal=_field("source 0 horizontal stride", (64, 2)),
    indirect=_field("source 0 indirect", (80, 1)),
    pointer=_field("source 0 a0", (76, 4)),
    displacement=_field("source 0 displacement", (87, 1), (66, 10)),
    width=_field("source 0 width", (81, 3)),
    vertical=_field("source 0 vertical stride", (84, 3)),
    absolute=_field("source 0 absolute", (44, 1)),
    negate=_field("source 0 negate", (45, 1)),
    immediate=_field("source 0 immediate", (46, 1)),
)
SOURCE_1 = SourceSlot(
    type=_field("source 1 type", (88, 4)),
    general=_field("source 1 file", (98, 1)),
    number=_field("source 1 register", (104, 8)),
    byte=_field("source 1 byte / 2", (99, 5)),
    horizontal=_field("source 1 horizontal stride", (96, 2)),
    indirect=_field("source 1 indirect", (112, 1)),
    pointer=_field("source 1 a0", (108, 4)),
    displacement=_field("source 1 displacement / 2", (98, 10)),
    width=_field("source 1 width", (113, 3)),
    vertical=_field("source 1 vertical stride", (116, 3)),
    absolute=_field("source 1 absolute", (120, 1)),
    negate=_field("source 1 negate", (121, 1)),
    immediate=_field("source 1 immediate", (47, 1)),
)


@dataclass(frozen=True, slots=True)
class TernarySlot:
    """The fields of a source of instructions with three sources."""

    type: Field
    general: Field
    number: Field
    byte: Field
    horizontal: Field
    vertical: Field | None
    absolute: Field | None
    negate: Field | None
    immediate: Field | None = None
    immediate_bits: Field | None = None


TERNARY_FLOAT = _field("execution type", (39, 1))
TERNARY_DESTINATION_TYPE = _field("destination type", (36, 3))
TERNARY_DESTINATION_STRIDE = _field("destination stride", (48, 1))
TERNARY_SOURCES = (
    TernarySlot(
        type=_field("source 0 type", (40, 3)),
        general=_field("source 0 file", (66, 1)),
        number=_field("source 0 register", (72, 8)),
        byte=_field("source 0 byte / 2", (67, 5)),
        horizontal=_field("source 0 horizontal stride", (64, 2)),
        vertical=_field("source 0 vertical stride", (35, 1), (43, 1)),
        absolute=_field("source 0 absolute", (44, 1)),
        negate=_field("source 0 negate", (45, 1)),
        immediate=_field("source 0 immediate", (46, 1)),
        immediate_bits=_field("source 0 immediate value", (64, 16)),
    ),
    TernarySlot(
        type=_field("source 1 type", (88, 3)),
        general=_field("source 1 file", (98, 1)),
        number=_field("source 1 register", (104, 8)),
        byte=_field("source 1 byte / 2", (99, 5)),
        horizontal=_field("source 1 horizontal stride", (96, 2)),
        vertical=_field("source 1 vertical stride", (83, 1), (91, 1)),
        absolute=_field("source 1 absolute", (86, 1)),
        negate=_field("source 1 negate", (87, 1)),
    ),
    TernarySlot(
        type=_field("source 2 type", (80, 3)),
        general=_field("source 2 file", (114, 1)),
        number=_field("source 2 register", (120, 8)),
        byte=_field("source 2 byte / 2", (115, 5)),
        horizontal=_field("source 2 horizontal stride", (112, 2)),
        vertical=None,
        absolute=_field("source 2 absolute", (84, 1)),
        negate=_field("source 2 negate", (85, 1)),
        immediate=_field("source 2 immediate", (47, 1)),
        immediate_bits=_field("source 2 immediate value", (112, 16)),
    ),
)
BFN_TRUTH = _field("truth table", (84, 4), (92, 4))
BFN_CONDITION = _field("condition modifier of bfn", (44, 2))
"""1 eq, 2 gt, 3 lt. These bits are source 0's modifiers elsewhere; bfn has no source modifiers."""

DPAS_REPEAT = _field("repeat count - 1", (43, 3))
DPAS_DEPTH = _field("systolic depth", (48, 2))
DPAS_PRECISION_1 = _field("precision of source 1", (86, 2))
DPAS_PRECISION_2 = _field("precision of source 2", (84, 2))

JIP = _field("JIP", (96, 32))
UIP = _field("UIP", (64, 32))

SEND_DESCRIPTOR_POINTER = _field("descriptor is in a0.0", (48, 1))
SEND_EXTENDED_POINTER = _field("extended descriptor is in a0", (49, 1))
SEND_EXTENDED_WORD = _field("extended descriptor's a0 dword", (40, 3))
SEND_LENGTH_1 = _field("source 1 length", (99, 5))
SEND_EXTENDED_BSO = _field("ExBSO", (39, 1))
SEND_DESCRIPTOR = _field("descriptor", (81, 11), (113, 9), (51, 5), (67, 5), (122, 2))
SEND_EXTENDED = _field("extended descriptor / 2048", (35, 13), (64, 2), (96, 2), (124, 4))

STRIDES = (0, 1, 2, 4)
VERTICAL_STRIDES = (0, 1, 2, 4, 8, 16, 32)
ROW_POINTERS = 7
"""Vertical stride of Vx1 and VxH: each row has a pointer."""
WIDTHS = (1, 2, 4, 8, 16)
TERNARY_VERTICAL_STRIDES = (0, 1, 4, 8)
NO_MME = 8
"""Accumulator number of the macros that stands for none."""
