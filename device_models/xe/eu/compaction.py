"""Compaction: instructions of 64 bits, whose fields index tables of native bit patterns (brw_eu_compact.c, Xe2 tables).

Each table has entries, and says where the bits of an entry go in the native instruction, lowest bit first.
"""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.eu import fields
from vfio_user_xe.device_models.xe.eu.fields import EncodingError, Field
from vfio_user_xe.device_models.xe.eu.opcodes import BY_NUMBER, Shape


@dataclass(frozen=True, slots=True)
class Table:
    """A compaction table: the compact field that indexes it, its entries, and where an entry's bits go."""

    index: Field
    target: Field
    entries: tuple[int, ...]

    def expand(self, compact: int) -> int:
        """The native bits that the index in `compact` stands for."""
        return self.target.put(self.entries[self.index.get(compact)])

    def shrink(self, native: int, ignored: int = 0) -> int | None:
        """The compact bits for what `native` has here, but for the bits `ignored`, or None if no entry fits."""
        unlike = self.target.get(ignored)
        wanted = self.target.get(native) | unlike
        for index, entry in enumerate(self.entries):
            if entry | unlike == wanted:
                return self.index.put(index)
        return None


def _table(name: str, index: tuple[tuple[int, int], ...], target: tuple[tuple[int, int], ...], entries: str) -> Table:
    return Table(
        Field(f"compact {name}", index), Field(name, target), tuple(int(entry, 16) for entry in entries.split())
    )


CONTROL = _table(
    "control",
    ((18, 5),),
    ((18, 3), (21, 3), (24, 2), (26, 2), (28, 1), (31, 1), (32, 1), (34, 1), (92, 4)),
    "4 800 84 0 804 10004 14004 802 5 803 c800 2004 4004 801 c004 4800 14802 10800 10802 14800 8004 124 14803 11c 10803"
    " 10c 114 134 13c 12c 104 14024",
)
DATA_TYPE = _table(
    "data type",
    ((26, 3), (30, 2)),
    ((35, 1), (36, 4), (40, 4), (46, 1), (47, 1), (48, 2), (50, 1), (66, 1), (88, 4), (98, 1)),
    "d6954 d4954 6954 6844 56d54 d2954 be8ee 800 56954 2a44 2eccc d0954 54954 54d54 2b54 68cc 2ecee 6866 50954 b68cc"
    " 52954 7044 36cce 2cccc de976 52d54 96844 2844 ec44 2aac 50d54 4844",
)
SUBREGISTER = _table(
    "subregister",
    ((48, 4),),
    ((33, 1), (51, 5), (67, 5), (87, 1)),
    "0 80 4 400 200 8 100 500 600 180 10 680 300 700 580 480",
)
SOURCE_0 = _table("source 0", ((23, 3),), ((44, 2), (64, 2), (80, 1), (81, 3), (84, 3)), "100 0 200 102 300 101 2 240")
SOURCE_1 = _table(
    "source 1",
    ((52, 4),),
    ((96, 2), (99, 5), (112, 1), (113, 3), (116, 3), (120, 2)),
    "800 0 8800 10 8 18 50 40 20 78 38 28 58 48 70 30",
)

_CONTROL_3 = (
    (18, 3),
    (21, 3),
    (24, 2),
    (26, 2),
    (28, 1),
    (31, 1),
    (32, 1),
    (34, 1),
    (36, 3),
    (39, 1),
    (40, 3),
    (48, 2),
    (50, 1),
    (80, 3),
    (88, 3),
    (92, 4),
)
_SOURCE_3 = (
    (35, 1),
    (43, 1),
    (44, 2),
    (46, 1),
    (47, 1),
    (64, 2),
    (66, 1),
    (83, 1),
    (84, 2),
    (86, 2),
    (91, 1),
    (96, 2),
    (98, 1),
    (112, 2),
    (114, 1),
)
CONTROL_3 = _table(
    "control of three sources",
    ((18, 4),),
    _CONTROL_3,
    "128a8004 120a8004 128a8804 120a8804 1b8ec004 1b8ec084 1b0ec004 128a8005 120a8005 120aa004 128aa004 1b0ec084"
    " 128a8800 12888004 36998005 1b0ec003",
)
CONTROL_DPAS = _table(
    "control of dpas",
    ((18, 4),),
    _CONTROL_3,
    "f99004 4f99004 20f99004 24f99004 f98004 24f98004 2dea9004 2df69004 2deb5004 2df75004 2dea8004 9ea9004 9e69004"
    " 9ea5004 9e65004 9ea8004",
)
SOURCE_3 = _table(
    "source of three sources",
    ((22, 4),),
    _SOURCE_3,
    "160301 160201 120300 120201 120301 100300 100301 160b01 140301 140201 100201 120100 120101 160a01 122301 122201",
)
SOURCE_DPAS = _table(
    "source of dpas",
    ((22, 4),),
    _SOURCE_3,
    "120100 120500 120900 121100 121500 121900 122100 122500 122900 120102 120502 121102 121502 122902 12010e 12150e",
)
SUBREGISTER_3 = _table(
    "subregister of three sources",
    ((26, 3), (30, 2)),
    ((51, 5), (67, 5), (99, 5), (115, 5)),
    "0 20000 80000 10000 e0000 50000 b0000 400c0 60000 a0000 c0000 40000 70180 a0240 d0300 70000 f0000 90000 30000"
    " 20080 10040 300c0 d0000 40 5800 4000 80 300 340 6800 200 3c0",
)

_SAME = (Field("opcode", ((0, 7),)), Field("scoreboard", ((8, 10),)))
_TWO = (CONTROL, DATA_TYPE, SUBREGISTER, SOURCE_0)
# (compact, native) fields that are copied
_REGISTERS_2 = (
    (Field("dst", ((32, 8),)), fields.DESTINATION.number),
    (Field("src0", ((40, 8),)), fields.SOURCE_0.number),
)
_REGISTER_1 = (Field("src1", ((56, 8),)), fields.SOURCE_1.number)
_REGISTERS_3 = (
    (Field("dst", ((32, 8),)), fields.DESTINATION.number),
    (Field("src0", ((40, 8),)), fields.TERNARY_SOURCES[0].number),
    (Field("src2", ((48, 8),)), fields.TERNARY_SOURCES[2].number),
    (Field("src1", ((56, 8),)), fields.TERNARY_SOURCES[1].number),
)
_COMPACT_IMMEDIATE = Field("compact immediate", ((52, 12),))
_BREAKPOINT = 1 << 7
"""Bit 7 of a compact instruction (native bit 30); bits 17:8 are the scoreboard in both forms."""

# Codes of immediate types: float, half, words, the others as they are.
_F, _HF, _UW, _W, _D = 10, 9, 1, 5, 6


def _three_source_tables(opcode: int) -> tuple[Table, Table, Table] | None:
    known = BY_NUMBER.get(opcode)
    if known is None or known.shape not in (Shape.THREE, Shape.DPAS):
        return None
    if known.shape is Shape.DPAS:
        return CONTROL_DPAS, SOURCE_DPAS, SUBREGISTER_3
    return CONTROL_3, SOURCE_3, SUBREGISTER_3


def _expand_immediate(value: int, type_code: int) -> int:
    signed = value - 0x1000 if value & 0x800 else value
    if type_code == _F:
        return value << 20
    if type_code == _HF:
        half = value << 4
        return half << 16 | half
    if type_code == _UW:
        return value << 16 | value
    if type_code == _W:
        return (signed & 0xFFFF) << 16 | signed & 0xFFFF
    if type_code == _D:
        return signed & 0xFFFF_FFFF
    return value


def expand(compact: int) -> int:
    """The native 128 bits of a compact instruction of 64 bits."""
    opcode = compact & 0x7F
    native = compact & 0x3FF7F
    if compact & _BREAKPOINT:
        native |= fields.BREAKPOINT.put(1)
    three = _three_source_tables(opcode)
    if three is not None:
        for table in three:
            native |= table.expand(compact)
        for source, target in _REGISTERS_3:
            native |= target.put(source.get(compact))
        return native
    for table in _TWO:
        native |= table.expand(compact)
    for source, target in _REGISTERS_2:
        native |= target.put(source.get(compact))
    first, second = (slot.immediate.get(native) for slot in _SOURCES)
    if first or second:
        type_code = _SOURCES[1 if second else 0].type.get(native)
        value = _expand_immediate(_COMPACT_IMMEDIATE.get(compact), type_code)
        return native & ~fields.IMMEDIATE_32.put(0xFFFF_FFFF) | fields.IMMEDIATE_32.put(value)
    return native | SOURCE_1.expand(compact) | _REGISTER_1[1].put(_REGISTER_1[0].get(compact))


_SOURCES = (fields.SOURCE_0, fields.SOURCE_1)


def shrink(native: int) -> int | None:
    """The compact form of a native instruction, or None if it has none."""
    opcode = native & 0x7F
    known = BY_NUMBER.get(opcode)
    if known is None or known.shape not in (Shape.ONE, Shape.TWO, Shape.THREE, Shape.DPAS, Shape.MATH):
        return None
    compact = native & 0x3FF7F | fields.COMPACTED.put(1)
    if fields.BREAKPOINT.get(native):
        compact |= _BREAKPOINT
    three = _three_source_tables(opcode)
    immediate = three is None and any(slot.immediate.get(native) for slot in _SOURCES)
    ignored = fields.IMMEDIATE_32.put(0xFFFF_FFFF) if immediate else 0
    parts = [table.shrink(native, ignored) for table in (three if three is not None else _TWO)]
    registers: tuple[tuple[Field, Field], ...] = _REGISTERS_3 if three is not None else _REGISTERS_2
    if three is None:
        if immediate:
            value = fields.IMMEDIATE_32.get(native)
            parts += [
                _COMPACT_IMMEDIATE.put(candidate) for candidate in (value & 0xFFF, value >> 20, value >> 4 & 0xFFF)
            ]
            return _first_that_expands(compact, parts, registers, native)
        parts.append(SOURCE_1.shrink(native))
        registers = (*registers, _REGISTER_1)
    if any(part is None for part in parts):
        return None
    for part in parts:
        compact |= part or 0
    for source, target in registers:
        compact |= source.put(target.get(native))
    return compact if expand(compact) == native else None


def _first_that_expands(
    compact: int, parts: list[int | None], registers: tuple[tuple[Field, Field], ...], native: int
) -> int | None:
    """Of an instruction with an immediate: the last three parts are what its twelve bits may be."""
    if any(part is None for part in parts):
        return None
    for part in parts[:-3]:
        compact |= part or 0
    for source, target in registers:
        compact |= source.put(target.get(native))
    for candidate in parts[-3:]:
        if expand(compact | (candidate or 0)) == native:
            return compact | (candidate or 0)
    return None


def native_bits(read: bytes | memoryview) -> tuple[int, int]:
    """The native form and the size in bytes of the instruction that `read` (8 or 16 bytes) begins with.

    Raises:
        EncodingError: there are too few bytes.
    """
    if len(read) < 8:
        raise EncodingError(f"an instruction has 8 or 16 bytes, not {len(read)}")
    first = int.from_bytes(read[:8], "little")
    if fields.COMPACTED.get(first):
        return expand(first), 8
    if len(read) < 16:
        raise EncodingError(f"a native instruction has 16 bytes, not {len(read)}")
    return int.from_bytes(read[:16], "little"), 16
