"""Random arithmetic instructions whose operands are laid out as compilers lay them out, and in other ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.eu.data_types import DataType, Packed
from vfio_user_xe.device_models.xe.eu.ir import Alu, Dpas, Immediate, Indirect, Predicate, Register, Vector
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode, PredicateMode, Shape

INTEGERS = [DataType.UB, DataType.UW, DataType.UD, DataType.UQ, DataType.B, DataType.W, DataType.D, DataType.Q]
FLOATS = [DataType.HF, DataType.BF, DataType.F, DataType.DF]
INTEGER_OPCODES = [
    Opcode[name]
    for name in [
        "MOV",
        "ADD",
        "MUL",
        "MAD",
        "ADD3",
        "AND",
        "OR",
        "XOR",
        "NOT",
        "SHL",
        "SHR",
        "ASR",
        "ROL",
        "ROR",
        "CMP",
        "SEL",
        "CSEL",
        "BFN",
        "AVG",
        "MACH",
        "MACL",
        "LZD",
        "FBH",
        "FBL",
        "CBIT",
        "BFREV",
        "BFE",
        "BFI1",
        "BFI2",
        "DP4A",
        "ADDC",
        "SUBB",
    ]
]
FLOAT_OPCODES = [
    Opcode[name]
    for name in ["MOV", "ADD", "MUL", "MAD", "CMP", "SEL", "CSEL", "FRC", "RNDU", "RNDD", "RNDE", "RNDZ", "MATH"]
]
_CONDITIONS = [
    Condition.EQ,
    Condition.NE,
    Condition.GT,
    Condition.GE,
    Condition.LT,
    Condition.LE,
    Condition.UN,
]
_INTEGER_MATH = (MathFunction.IDIV, MathFunction.IQOT, MathFunction.IREM)
_REGIONS = [
    (1, 1, 0),
    (1, 1, 0),
    (0, 1, 0),
    (2, 1, 0),
    (4, 4, 1),
    (8, 4, 2),
    (8, 8, 1),
    (4, 1, 0),
    (1, 4, 0),
    (0, 4, 1),
]
_PACKED = {DataType.UW: Packed.UV, DataType.W: Packed.V, DataType.F: Packed.VF}
_COUNTS = {Shape.ONE: 1, Shape.TWO: 2, Shape.THREE: 3}


@st.composite
def _source(draw: Any, kind: DataType, plain: bool) -> Any:
    choice = draw(st.integers(0, 11))
    if choice == 0 and kind in _PACKED:
        return Vector(_PACKED[kind], draw(st.integers(0, 0xFFFF_FFFF)))
    if choice in (1, 2):
        ends = st.sampled_from([0, 1, (1 << kind.bits) - 1, 1 << kind.bits - 1, (1 << kind.bits - 1) - 1])
        return Immediate(kind, draw(st.one_of(ends, st.integers(0, (1 << kind.bits) - 1))))
    if choice == 3:
        return Register(kind, 0, arf=True)
    vertical, width, horizontal = draw(st.sampled_from(_REGIONS))
    return Register(
        kind,
        draw(st.integers(8, 40)),
        draw(st.sampled_from([0, 0, 1, 2, 4])) * kind.size,
        False,
        vertical,
        width,
        horizontal,
        negate=not plain and draw(st.integers(0, 5)) == 0,
        absolute=not plain and draw(st.integers(0, 7)) == 0,
    )


@st.composite
def indirect(draw: Any, kind: DataType) -> Indirect:
    """A source whose place is in a0: with one pointer, or one for each row."""
    vertical, width, horizontal = draw(st.sampled_from([*_REGIONS, (None, 1, 0), (None, 4, 1), (None, 8, 2)]))
    return Indirect(
        kind,
        draw(st.integers(0, 15)),
        draw(st.sampled_from([0, 0, 8, -16, 64, -512, 511])),
        vertical,
        width,
        horizontal,
        negate=draw(st.integers(0, 5)) == 0,
        absolute=draw(st.integers(0, 7)) == 0,
    )


@st.composite
def _destination(draw: Any, kind: DataType) -> Register:
    if draw(st.integers(0, 11)) == 0:
        return Register(kind, 0, arf=True, horizontal=1)
    horizontal = draw(st.sampled_from([1, 1, 1, 2, 4]))
    return Register(
        kind, draw(st.integers(8, 40)), draw(st.sampled_from([0, 0, 1, 2])) * kind.size, horizontal=horizontal
    )


@st.composite
def alu(draw: Any, kinds: list[DataType], opcodes: list[Opcode]) -> Alu:
    """An instruction of `opcodes`, most operands of which are of one of `kinds`."""
    opcode = draw(st.sampled_from(opcodes))
    function = None
    if opcode is Opcode.MATH:
        function = draw(st.sampled_from([each for each in MathFunction if each not in _INTEGER_MATH]))
    count = function.sources if function is not None else _COUNTS[opcode.shape]
    width = draw(st.sampled_from([1, 1, 2, 4, 8, 16, 16, 16, 32, 32]))
    mode = draw(st.sampled_from([None, None, None, *list(PredicateMode)[1:]]))
    predicate = None if mode is None else Predicate(mode, draw(st.booleans()))
    main = draw(st.sampled_from(kinds))
    kind = st.one_of(st.just(main), st.just(main), st.sampled_from(kinds if main in FLOATS else INTEGERS))
    if main in FLOATS:
        kind = st.one_of(kind, kind, kind, st.sampled_from(INTEGERS))
    if opcode is Opcode.SEL:
        tests = predicate is None
    else:
        tests = opcode in (Opcode.CMP, Opcode.CSEL) or (opcode is not Opcode.BFN and draw(st.integers(0, 4)) == 0)
    return Alu(
        opcode=opcode,
        destination=draw(_destination(draw(kind))),
        sources=tuple(draw(_source(draw(kind), opcode is Opcode.BFN)) for _ in range(count)),
        condition=draw(st.sampled_from(_CONDITIONS)) if tests else Condition.NONE,
        saturate=opcode is not Opcode.CMP and draw(st.integers(0, 7)) == 0,
        function=function,
        truth=draw(st.integers(0, 255)) if opcode is Opcode.BFN else 0,
        width=width,
        first_lane=draw(st.sampled_from([0, 8, 16, 24] if width <= 8 else [0, 16] if width == 16 else [0])),
        no_mask=draw(st.booleans()),
        predicate=predicate,
        flag_number=draw(st.integers(0, 3)),
        flag_half=draw(st.integers(0, 1)),
    )


def active_lanes() -> st.SearchStrategy[int]:
    """Masks of the lanes that are active; at least one is."""
    return st.one_of(
        st.sampled_from([0xFFFF_FFFF, 0xFFFF, 0xFFFF_0000, 1, 1 << 31, 0x5555_5555]), st.integers(1, 0xFFFF_FFFF)
    )


@st.composite
def with_indirect(draw: Any, instructions: st.SearchStrategy[Alu]) -> Alu:
    """One of `instructions` in which a source or the destination, or both, are found through a0."""
    instruction = draw(instructions)
    which = draw(st.integers(0, len(instruction.sources)))
    sources = list(instruction.sources)
    if which < len(sources):
        source = draw(indirect(sources[which].type))
        if instruction.opcode is Opcode.BFN:  # its sources have no modifiers
            source = replace(source, negate=False, absolute=False)
        sources[which] = source
    destination = instruction.destination
    if which == len(sources) or draw(st.integers(0, 3)) == 0:
        horizontal = draw(st.sampled_from([1, 1, 2, 4]))
        pointer, displacement = draw(st.integers(0, 15)), draw(st.sampled_from([0, 0, 8, -16, 64, 511]))
        destination = Indirect(destination.type, pointer, displacement, horizontal=horizontal)
    return replace(instruction, sources=tuple(sources), destination=destination)


_SYSTOLIC_FLOATS = [DataType.HF, DataType.BF, DataType.TF32]


@st.composite
def dpas(draw: Any) -> Dpas:
    """A dpas of types that have products."""
    mode = draw(st.sampled_from([None, None, *list(PredicateMode)[1:]]))
    is_float = draw(st.booleans())
    sums = [DataType.F, DataType.HF, DataType.BF] if is_float else [DataType.D, DataType.UD]
    elements = st.sampled_from(_SYSTOLIC_FLOATS if is_float else [DataType.B, DataType.UB])
    bits = st.just(8) if is_float else st.sampled_from([8, 8, 4, 2])
    null = Register(draw(st.sampled_from(sums)), 0, arf=True)
    accumulator = Register(draw(st.sampled_from(sums)), draw(st.integers(8, 40)))
    return Dpas(
        opcode=Opcode.DPAS,
        width=16,
        destination=Register(draw(st.sampled_from(sums)), draw(st.integers(8, 40)), horizontal=1),
        sources=(
            draw(st.sampled_from([accumulator, accumulator, null])),
            Register(draw(elements), draw(st.integers(8, 40))),
            Register(draw(elements), draw(st.integers(8, 40)), draw(st.sampled_from([0, 32]))),
        ),
        repeat=draw(st.integers(1, 8)),
        depth=8,
        bits_b=draw(bits),
        bits_a=draw(bits),
        no_mask=draw(st.booleans()),
        first_lane=draw(st.sampled_from([0, 16])),
        predicate=None if mode is None else Predicate(mode, draw(st.booleans())),
        flag_number=draw(st.integers(0, 3)),
        flag_half=draw(st.integers(0, 1)),
    )
