"""Random instructions that have an encoding, for round trips."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.eu.bounds import check_bounds
from vfio_user_xe.device_models.xe.eu.data_types import DataType, Packed
from vfio_user_xe.device_models.xe.eu.decode_instruction import branch_kind, branch_target, has_two_distances
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import (
    Alu,
    Branch,
    Dpas,
    Immediate,
    Indirect,
    Link,
    Nop,
    Predicate,
    Register,
    Send,
    Sync,
    Vector,
)
from vfio_user_xe.device_models.xe.eu.messages.decode import decode as decode_message
from vfio_user_xe.device_models.xe.eu.opcodes import (
    Condition,
    MathFunction,
    Opcode,
    PredicateMode,
    Sfid,
    Shape,
    SyncFunction,
)
from vfio_user_xe.device_models.xe.eu.operand_types import check_types

ADDRESS = 0x1000
INTEGERS = [kind for kind in DataType if not kind.is_float]
FLOATS = [kind for kind in DataType if kind.is_float]
_ARFS = [0x10, 0x20, 0x23, 0x2F, 0x30, 0x33, 0x40, 0x70, 0x80, 0x90, 0xA0, 0xC0]


def of_shape(shape: Shape) -> list[Opcode]:
    return [opcode for opcode in Opcode if opcode.shape is shape]


@st.composite
def registers(draw: Any, kind: DataType, step: int = 1, arf: bool = True) -> dict[str, Any]:
    """Number, byte and file of a register, aligned to its type, such that a small region stays inside."""
    if arf and draw(st.booleans()) and draw(st.booleans()):
        return {"type": kind, "number": draw(st.sampled_from(_ARFS)), "byte": 0, "arf": True}
    size = max(kind.size, step)
    return {
        "type": kind,
        "number": draw(st.integers(0, 200)),
        "byte": draw(st.integers(0, 64 // size - 1)) * size,
        "arf": False,
    }


@st.composite
def destinations(draw: Any, kind: DataType) -> Register | Indirect:
    horizontal = draw(st.sampled_from([1, 2, 4]))
    if draw(st.integers(0, 5)) == 0:
        return Indirect(kind, draw(st.integers(0, 15)), draw(st.integers(-1024, 1023)), horizontal=horizontal)
    return Register(**draw(registers(kind)), horizontal=horizontal)


@st.composite
def sources(draw: Any, kinds: list[DataType], second: bool = False, immediate: bool = True) -> Any:
    choice = draw(st.integers(0, 9))
    kind = draw(st.sampled_from(kinds))
    if immediate and choice == 0:
        packed = draw(st.sampled_from(list(Packed)))
        return Vector(packed, draw(st.integers(0, 0xFFFF_FFFF)))
    if immediate and choice in (1, 2) and kind.size > 1 and not (second and kind.size == 8):
        return Immediate(kind, draw(st.integers(0, (1 << kind.bits) - 1)))
    region = {
        "vertical": draw(st.sampled_from([0, 1, 2, 4, 8, 16, 32])),
        "width": draw(st.sampled_from([1, 2, 4, 8, 16])),
        "horizontal": draw(st.sampled_from([0, 1, 2, 4])),
        "negate": draw(st.booleans()),
        "absolute": draw(st.booleans()),
    }
    if choice == 3:
        if draw(st.booleans()):
            region["vertical"] = None
        displacement = draw(st.integers(-512, 511)) * 2
        return Indirect(kind, draw(st.integers(0, 15)), displacement, **region)
    return Register(**draw(registers(kind, step=2 if second else 1)), **region)


@st.composite
def ternary_sources(draw: Any, kinds: list[DataType], last: bool, immediate: bool, plain: bool) -> Any:
    kind = draw(st.sampled_from(kinds))
    if immediate and kind.size == 2 and draw(st.integers(0, 3)) == 0:
        return Immediate(kind, draw(st.integers(0, 0xFFFF)))
    modifiers = {} if plain else {"negate": draw(st.booleans()), "absolute": draw(st.booleans())}
    where = draw(registers(kind, step=2))
    if last:
        return Register(**where, vertical=draw(st.sampled_from([0, 1, 2, 4])), width=1, horizontal=0, **modifiers)
    vertical, horizontal = draw(st.sampled_from([0, 1, 4, 8])), draw(st.sampled_from([0, 1, 2, 4]))
    width = max(1, vertical // horizontal) if vertical and horizontal else 1
    return Register(**where, vertical=vertical, width=width, horizontal=horizontal, **modifiers)


@st.composite
def common(draw: Any, opcode: Opcode, uses_flag: bool = False) -> dict[str, Any]:
    mode = draw(st.sampled_from([None, PredicateMode.LANE, PredicateMode.ANY, PredicateMode.ALL]))
    predicate = None if mode is None else Predicate(mode, draw(st.booleans()))
    flagged = uses_flag or predicate is not None
    return {
        "opcode": opcode,
        "address": ADDRESS,
        "width": draw(st.sampled_from([1, 2, 4, 8, 16, 32])),
        "first_lane": draw(st.sampled_from([0, 8, 16, 24])),
        "no_mask": draw(st.booleans()),
        "predicate": predicate,
        "flag_number": draw(st.integers(0, 3)) if flagged else 0,
        "flag_half": draw(st.integers(0, 1)) if flagged else 0,
        "atomic": draw(st.booleans()),
        "breakpoint": draw(st.booleans()),
        "swsb": draw(st.integers(0, 0x3FF)),
    }


@st.composite
def one_or_two(draw: Any) -> Alu:
    opcode = draw(st.sampled_from(of_shape(Shape.ONE) + of_shape(Shape.TWO)))
    kinds = list(DataType)
    binary = opcode.shape is Shape.TWO and opcode is not Opcode.MOVI
    first = draw(sources(kinds, immediate=not binary))
    operands = [first]
    if binary:
        operands.append(draw(sources(kinds, second=True)))
    condition = draw(st.sampled_from(Condition))
    if isinstance(first, Immediate) and first.type.size == 8:
        condition = Condition.NONE
    return Alu(
        destination=draw(destinations(draw(st.sampled_from(kinds)))),
        sources=tuple(operands),
        condition=condition,
        saturate=draw(st.booleans()),
        **draw(common(opcode, condition is not Condition.NONE)),
    )


@st.composite
def math(draw: Any) -> Alu:
    function = draw(st.sampled_from(MathFunction))
    macro = function in (MathFunction.INVM, MathFunction.RSQTM)
    kinds = [DataType.F, DataType.HF, DataType.DF, DataType.D, DataType.UD]
    operands = []
    for index in range(function.sources):
        operand = draw(sources(kinds, second=index == 1, immediate=not macro and function.sources == 1))
        if macro:
            while not isinstance(operand, Register):
                operand = draw(sources(kinds, second=index == 1, immediate=False))
            operand = Register(
                operand.type,
                operand.number,
                0,
                operand.arf,
                operand.vertical,
                operand.width,
                operand.horizontal,
                operand.negate,
                operand.absolute,
            )
        if isinstance(operand, Immediate) and operand.type.size == 8:
            operand = Immediate(DataType.F, operand.bits & 0xFFFF_FFFF)
        operands.append(operand)
    destination = draw(destinations(draw(st.sampled_from(kinds))))
    numbers: tuple[int, ...] = ()
    if macro:
        destination = Register(destination.type, draw(st.integers(0, 200)), horizontal=1)
        numbers = tuple(draw(st.integers(0, 8)) for _ in range(1 + function.sources))
    return Alu(
        destination=destination,
        sources=tuple(operands),
        function=function,
        saturate=draw(st.booleans()),
        macro=numbers,
        **draw(common(Opcode.MATH, macro)),
    )


@st.composite
def three(draw: Any) -> Alu:
    opcode = draw(st.sampled_from(of_shape(Shape.THREE)))
    kinds = draw(st.sampled_from([INTEGERS, FLOATS]))
    bfn, madm = opcode is Opcode.BFN, opcode is Opcode.MADM
    conditions = [Condition.NONE, Condition.EQ, Condition.GT, Condition.LT] if bfn else list(Condition)
    condition = draw(st.sampled_from(conditions))
    kind = draw(st.sampled_from(kinds))
    where = draw(registers(kind))
    operands = [draw(ternary_sources(kinds, i == 2, i != 1 and not madm, bfn)) for i in range(3)]
    if madm:
        where["byte"] = 0
        plain = [(4, 4, 1), (4, 4, 1), (1, 1, 0)]
        operands = [
            Register(o.type, o.number, 0, o.arf, *region, negate=o.negate, absolute=o.absolute)
            for o, region in zip(operands, plain, strict=True)
        ]
    return Alu(
        destination=Register(**where, horizontal=1 if madm else draw(st.sampled_from([1, 2]))),
        sources=tuple(operands),
        condition=condition,
        saturate=draw(st.booleans()),
        truth=draw(st.integers(0, 255)) if bfn else 0,
        macro=tuple(draw(st.integers(0, 8)) for _ in range(4)) if madm else (),
        **draw(common(opcode, condition is not Condition.NONE)),
    )


@st.composite
def dpas(draw: Any) -> Dpas:
    kinds = draw(st.sampled_from([[DataType.D, DataType.UD], [DataType.F, DataType.BF, DataType.HF]]))
    elements = [DataType.UB, DataType.B] if kinds[0] is DataType.D else [DataType.BF, DataType.HF, DataType.TF32]

    def operand(choices: list[DataType]) -> Register:
        return Register(draw(st.sampled_from(choices)), draw(st.integers(0, 200)), 0, False, 1, 1, 0)

    bits = [8, 4, 2] if kinds[0] is DataType.D else [8]
    accumulator = operand(kinds)
    if draw(st.booleans()):
        accumulator = Register(accumulator.type, 0, 0, True, 1, 1, 0)
    return Dpas(
        destination=Register(draw(st.sampled_from(kinds)), draw(st.integers(0, 200)), horizontal=1),
        sources=(accumulator, operand(elements), operand(elements)),
        repeat=draw(st.integers(1, 8)),
        depth=8,
        bits_b=draw(st.sampled_from(bits)),
        bits_a=draw(st.sampled_from(bits)),
        **draw(common(Opcode.DPAS)),
    )


@st.composite
def branches(draw: Any) -> Branch:
    opcode = draw(st.sampled_from(of_shape(Shape.BRANCH)))
    leavers, link = branch_kind(opcode)
    distances = st.integers(-(1 << 20), 1 << 20).map(lambda n: n * 8)
    jip = uip = source = None

    def plain() -> Register:
        return Register(DataType.UD, draw(st.integers(0, 255)), draw(st.integers(0, 13)) * 4, False, 0)

    by_register = opcode in (Opcode.BRD, Opcode.BRC, Opcode.CALL, Opcode.CALLA, Opcode.JMPI) and draw(st.booleans())
    if by_register or opcode is Opcode.RET:
        source = plain()
    else:
        jip = draw(distances)
        uip = draw(distances) if has_two_distances(opcode) else None
    shared = draw(common(opcode))
    if opcode is Opcode.JMPI:
        shared["no_mask"] = True
    return Branch(
        leavers=leavers,
        link=link,
        target=branch_target(opcode, ADDRESS, jip, uip),
        source=source,
        destination=plain() if link is Link.CALL else None,
        backward=draw(st.booleans()),
        jip=jip,
        uip=uip,
        **shared,
    )


@st.composite
def sends(draw: Any) -> Send:
    sfid = draw(st.sampled_from(Sfid))
    pointer = draw(st.one_of(st.none(), st.integers(0, 7)))
    extended = draw(st.integers(0, 0x1FFFFF)) << 11
    bso = False
    if pointer is not None:
        extended &= ~(7 << 16)
        if sfid is not Sfid.UGM:
            extended &= ~(1 << 15)
            bso = draw(st.booleans())
    descriptor = draw(st.one_of(st.none(), st.integers(0, 0xFFFF_FFFF)))
    shared = draw(common(draw(st.sampled_from([Opcode.SEND, Opcode.SENDC]))))
    message = None
    if descriptor is not None:
        descriptor &= ~(0xF << 25 | 0x1F << 20)
        descriptor |= draw(st.integers(0, 15)) << 25 | draw(st.integers(0, 31)) << 20
        message = decode_message(sfid, descriptor, extended, shared["width"], pointer is not None)
    numbers = [draw(st.integers(0, 220)) for _ in range(3)]
    return Send(
        sfid=sfid,
        destination=Register(DataType.UD, numbers[0], 0, False),
        source0=Register(DataType.UD, numbers[1], 0, False),
        source1=Register(DataType.UD, numbers[2], 0, False),
        length1=draw(st.integers(0, 31)),
        descriptor=descriptor,
        extended=extended,
        extended_pointer=pointer,
        end_of_thread=draw(st.booleans()),
        extended_bso=bso,
        message=message,
        **shared,
    )


@st.composite
def syncs(draw: Any) -> Sync:
    source = draw(st.one_of(st.none(), st.integers(0, 0xFFFF_FFFF).map(lambda bits: Immediate(DataType.UD, bits))))
    return Sync(function=draw(st.sampled_from(SyncFunction)), source=source, **draw(common(Opcode.SYNC)))


@st.composite
def nops(draw: Any) -> Nop:
    return Nop(**draw(common(Opcode.NOP)))


def _fits(instruction: Any) -> bool:
    try:
        check_types(instruction)
        check_bounds(instruction)
    except EncodingError:
        return False
    return True


def instructions() -> st.SearchStrategy[Any]:
    """Any instruction whose operands are inside the register file."""
    kinds = st.one_of(one_or_two(), math(), three(), dpas(), branches(), sends(), syncs(), nops())
    return kinds.filter(_fits)
