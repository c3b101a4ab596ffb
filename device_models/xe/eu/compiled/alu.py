"""`Alu` instructions as ops: integers here, floats in `alu_float.py`.

Integers are computed in 32 bits where the result is the same modulo 2**32 (d, ud), else in 64 (q, uq), where it is exact;
what would need more is interpreted (semantics.py).
"""

from __future__ import annotations

from dataclasses import replace

from vfio_user_xe.device_models.xe.eu.compiled.alu_float import as_integers, translate_float
from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, NotHere, Op
from vfio_user_xe.device_models.xe.eu.compiled.layout import SCRATCH, SCRATCH_BYTES, Modified
from vfio_user_xe.device_models.xe.eu.compiled.operands import (
    CLASS_SIZE,
    Fetched,
    fetch,
    finish,
    modifiers,
    narrow,
    place,
)
from vfio_user_xe.device_models.xe.eu.compiled.shared import UNSIGNED, choose_by_predicate, finish_compare, operation
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.opcodes import LOGIC, Condition, Opcode
from vfio_user_xe.device_models.xe.eu.semantics import is_float_operation

_BITWISE = frozenset({Opcode.AND, Opcode.OR, Opcode.XOR, Opcode.NOT, Opcode.BFN})
_MODULAR = {
    Opcode.MOV: "mov",
    Opcode.ADD: "add",
    Opcode.MUL: "mul",
    Opcode.MACL: "mul",
    Opcode.ADD3: "add3",
    Opcode.MAD: "mad",
    Opcode.AND: "and",
    Opcode.OR: "or",
    Opcode.XOR: "xor",
    Opcode.NOT: "not",
    Opcode.BFN: "bfn",
    Opcode.SHL: "shl",
}
_WORDS = {
    Opcode.LZD: "lzd",
    Opcode.FBH: "fbh",
    Opcode.FBL: "fbl",
    Opcode.CBIT: "cbit",
    Opcode.BFREV: "bfrev",
    Opcode.BFE: "bfe",
    Opcode.BFI1: "bfi1",
    Opcode.BFI2: "bfi2",
    Opcode.DP4A: "dp4a",
}

_COUNT_BITS = (31).to_bytes(8, "little")


def translate_alu(instruction: Alu, constants: Constants) -> list[Op]:
    """The ops of one instruction.

    Raises:
        NotHere: it is for the interpreter.
    """
    if instruction.condition is Condition.OV:
        raise NotHere
    if is_float_operation(instruction):
        integers = as_integers(instruction)
        if integers is None:
            return translate_float(instruction, constants)
        instruction = integers
    if instruction.opcode in _BITWISE:
        instruction = _without_floats(instruction)
    if instruction.destination.type.is_float:
        raise NotHere
    match instruction.opcode:
        case Opcode.CMP:
            return _compare(instruction, constants)
        case Opcode.SEL:
            return _select(instruction, constants)
        case Opcode.CSEL if not instruction.saturate:
            kind = exact_class(instruction.sources)
            return _plain(instruction, f"csel_{kind}", kind, constants, tests=False, condition=True)
        case Opcode.SHR | Opcode.ASR | Opcode.ROL | Opcode.ROR:
            return _shift(instruction, constants)
        case Opcode.AVG | Opcode.MACH:
            kind = _wide_class(instruction)
            return _plain(instruction, f"{instruction.opcode.mnemonic}_{kind}", kind, constants)
        case Opcode.ADDC | Opcode.SUBB:
            return _carry(instruction, constants)
    if instruction.opcode in _WORDS:
        return _words(instruction, constants)
    if instruction.opcode in _MODULAR:
        return _modular(instruction, constants)
    raise NotHere


def exact_class(sources: tuple[Source, ...]) -> str:
    """The smallest class that has all values of these sources, modified.

    Raises:
        NotHere: none has.
    """
    smallest, largest = 0, 0
    for source in sources:
        low, high = _range(source)
        smallest, largest = min(smallest, low), max(largest, high)
    for kind, low, high in (
        ("d", -(1 << 31), (1 << 31) - 1),
        ("ud", 0, (1 << 32) - 1),
        ("q", -(1 << 63), (1 << 63) - 1),
        ("uq", 0, (1 << 64) - 1),
    ):
        if low <= smallest and largest <= high:
            return kind
    raise NotHere


def _range(source: Source) -> tuple[int, int]:
    data_type = source.type
    if data_type.is_float:
        raise NotHere
    low, high = (
        (-(1 << data_type.bits - 1), (1 << data_type.bits - 1) - 1)
        if data_type.is_signed
        else (0, (1 << data_type.bits) - 1)
    )
    how = modifiers(source)
    if not how or isinstance(source, Immediate | Vector):
        return low, high
    return -max(-low, high), max(-low, high)


def _without_floats(instruction: Alu) -> Alu:
    """Logic on floats is logic on their bits."""

    sources = tuple(
        replace(source, type=UNSIGNED[source.type.size])
        if source.type.is_float and not isinstance(source, Vector)
        else source
        for source in instruction.sources
    )
    destination = instruction.destination
    if destination.type.is_float:
        destination = replace(destination, type=UNSIGNED[destination.type.size])
    return replace(instruction, sources=sources, destination=destination)


def _sign(kind: str, data_type: DataType) -> str:
    """The class of the same size in which a result of this type is tested."""
    return kind if data_type.is_signed else {"d": "ud", "q": "uq"}[kind]


def _modular(instruction: Alu, constants: Constants) -> list[Op]:
    opcode = instruction.opcode
    size = instruction.destination.type.size
    kind = "q" if size == 8 else "d"
    if opcode is Opcode.SHL and instruction.sources[0].type.size == 8:
        kind = "q"
    if any(source.type.size == 8 and modifiers(source) & Modified.ABSOLUTE for source in instruction.sources):
        kind = "q"  # the sign is in the upper half
    if instruction.saturate:
        kind = "q"
        if not _fits(instruction):
            raise NotHere
    elif opcode is Opcode.MOV and kind == "d" and not modifiers(instruction.sources[0]):
        direct = _narrowing_move(instruction)
        if direct:
            return direct
    if opcode is Opcode.MOV and not instruction.saturate and instruction.condition is Condition.NONE:
        direct = _one_element(instruction)
        if direct:
            return direct
        direct = _widening_move(instruction, kind)
        if direct:
            return direct
    kind = _sign(kind, instruction.destination.type) if not instruction.saturate else kind
    return _plain(instruction, f"{_MODULAR[opcode]}_{kind}", kind, constants)


def _fits(instruction: Alu) -> bool:
    """Whether 64 bits hold the exact result."""
    ranges = [_range(source) for source in instruction.sources]
    match instruction.opcode:
        case Opcode.MOV | Opcode.ADD | Opcode.ADD3:
            terms = ranges
        case Opcode.MUL | Opcode.MACH:
            terms = [_product(*ranges)]
        case Opcode.MAD:
            terms = [ranges[0], _product(*ranges[1:])]
        case _:
            return False
    return sum(low for low, _ in terms) >= -(1 << 63) and sum(high for _, high in terms) < 1 << 63


def _product(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The least and the largest product of numbers of two ranges."""
    corners = [a * b for a in one for b in other]
    return min(corners), max(corners)


def _narrowing_move(instruction: Alu) -> list[Op]:
    """A mov from consecutive dwords to smaller elements, or to dwords that are not consecutive, is one conversion."""
    source, destination = instruction.sources[0], instruction.destination
    if not isinstance(source, Register) or source.type.size != 4:
        return []
    if destination.type.size == 4 and (
        isinstance(destination, Indirect) or instruction.width == 1 or destination.horizontal == 1
    ):
        return []
    fetched = fetch(source, 0, "d", instruction.width, Constants())
    if fetched.before or fetched.how:
        return []
    return [narrow(instruction, fetched.offset, "d", int(instruction.condition))]


def _one_element(instruction: Alu) -> list[Op]:
    """A mov of one byte or word is a copy."""
    source, destination = instruction.sources[0], instruction.destination
    size = destination.type.size
    if instruction.width != 1 or size > 2 or source.type.size != size or not isinstance(source, Register):
        return []
    fetched = fetch(source, 0, "d", 1, Constants())
    if modifiers(source) or not fetched.before:
        return []
    op = Op(f"move_{UNSIGNED[size].label}", place(destination, 1), (source.offset, 0, 0)).masked(instruction)
    return [op]


def _widening_move(instruction: Alu, kind: str) -> list[Op]:
    """A mov to consecutive elements of the class is one conversion, if there is anything to convert."""
    destination = instruction.destination
    if destination.type.size != CLASS_SIZE[kind] or not isinstance(destination, Register):
        return []
    if destination.is_null or (instruction.width > 1 and destination.horizontal != 1):
        return []
    if isinstance(instruction.sources[0], Indirect):
        return []
    fetched = fetch(instruction.sources[0], 0, kind, instruction.width, Constants())
    if not fetched.before or fetched.how:
        return []
    (op,) = fetched.before
    op.masked(instruction)
    op.destination = place(destination, instruction.width)
    op.final = 1
    return [op]


def _plain(
    instruction: Alu, handler: str, kind: str, constants: Constants, tests: bool = True, condition: bool = False
) -> list[Op]:
    """Fetch the sources, compute, bring the result away; with `condition` the condition is part of the operation."""
    logic = instruction.opcode in LOGIC
    if len(instruction.sources) == 2 and instruction.opcode is Opcode.BFN:
        raise NotHere
    fetched = [
        fetch(source, k, kind, instruction.width, constants, complement=logic)
        for k, source in enumerate(instruction.sources)
    ]
    op = operation(handler, instruction.width, fetched)
    op.detail = instruction.truth if instruction.opcode is Opcode.BFN else 0
    if condition:
        op.condition = int(instruction.condition)
    before = [one for source in fetched for one in source.before]
    return [*before, *finish(instruction, op, kind, tests)]


def _wide_class(instruction: Alu) -> str:
    if any(source.type.size == 8 for source in instruction.sources) or instruction.saturate:
        raise NotHere
    ranges = [_range(source) for source in instruction.sources]
    if all(low >= 0 for low, _ in ranges):
        return "uq"
    if instruction.opcode is Opcode.MACH and not _fits(instruction):
        raise NotHere
    return "q"


def _shift(instruction: Alu, constants: Constants) -> list[Op]:
    value, count = instruction.sources
    wide = 8 in (value.type.size, instruction.destination.type.size)
    if instruction.saturate:
        raise NotHere
    if instruction.opcode in (Opcode.ROL, Opcode.ROR):
        if instruction.destination.type.size < 4:
            return _rotate_narrow(instruction, constants)
        kind = "uq" if instruction.destination.type.size == 8 else "ud"
        return _plain(instruction, f"{instruction.opcode.mnemonic}_{kind}", kind, constants)
    if instruction.opcode is Opcode.SHR:
        size = max(value.type.size, count.type.size, 8 if wide else 2)
        if size == 8 and not wide:
            raise NotHere
        if size < 4 and _range(value)[0] < 0:
            raise NotHere
        kind = "uq" if wide else "ud"
        return _plain(instruction, f"shr_{kind}", kind, constants)
    kind = exact_class((value,))
    if wide:
        kind = {"d": "q", "ud": "q"}.get(kind, kind)
    elif kind not in ("d", "ud"):
        return _shift_exactly(instruction, constants)
    return _plain(instruction, f"shr_{kind}", kind, constants)


def _rotate_narrow(instruction: Alu, constants: Constants) -> list[Op]:
    """Bytes or words rotate in a dword that is full of them."""
    width, bits = instruction.width, instruction.destination.type.bits
    copies = sum(1 << place for place in range(0, 32, bits))

    def constant(value: int) -> Fetched:
        return Fetched(constants.offset(value.to_bytes(8, "little")), Modified.SCALAR)

    value, count = (fetch(source, k, "ud", width, constants) for k, source in enumerate(instruction.sources))
    mask, number = constant((1 << bits) - 1), Fetched(SCRATCH, 0)
    steps = [
        operation("and_ud", width, [value, mask]),
        operation("mul_ud", width, [number, constant(copies)]),
        operation(f"{instruction.opcode.mnemonic}_ud", width, [number, count]),
    ]
    for step in steps:
        step.destination, step.width = SCRATCH, width
    last = operation("and_ud", width, [number, mask])
    return [*value.before, *count.before, *steps, *finish(instruction, last, "ud")]


def _shift_exactly(instruction: Alu, constants: Constants) -> list[Op]:
    """An asr of 32 bits whose value has 33: the negative of a d, or a ud with a sign. Its count is modulo 32."""
    value, count = (fetch(source, k, "q", instruction.width, constants) for k, source in enumerate(instruction.sources))
    modulo = operation("and_q", instruction.width, [count, Fetched(constants.offset(_COUNT_BITS), Modified.SCALAR)])
    modulo.destination, modulo.width = SCRATCH + SCRATCH_BYTES, instruction.width
    op = operation("shr_q", instruction.width, [value, Fetched(modulo.destination, 0)])
    return [*value.before, *count.before, modulo, *finish(instruction, op, "q")]


def _compare(instruction: Alu, constants: Constants) -> list[Op]:
    """Flags, and all ones or zeros in the destination."""
    kind = exact_class(instruction.sources)
    return finish_compare(instruction, f"cmp_{kind}", kind, constants)


def _select(instruction: Alu, constants: Constants) -> list[Op]:
    if instruction.saturate:
        raise NotHere
    if instruction.predicate is None:
        if instruction.condition not in (Condition.GT, Condition.GE, Condition.LT, Condition.LE):
            raise NotHere
        kind = exact_class(instruction.sources)
        return _plain(instruction, f"minmax_{kind}", kind, constants, tests=False, condition=True)
    kind = "q" if instruction.destination.type.size == 8 else "d"
    ops = _plain(instruction, f"sel_{kind}", kind, constants, tests=False)
    return choose_by_predicate(instruction, ops)


def _words(instruction: Alu, constants: Constants) -> list[Op]:
    if instruction.saturate:
        raise NotHere
    opcode = instruction.opcode
    sources = instruction.sources
    judged = sources[2] if opcode is Opcode.BFE else sources[0]
    kind = "d" if judged.type.is_signed and opcode in (Opcode.BFE, Opcode.FBH) else "ud"
    if any(source.type.size == 8 for source in sources):
        raise NotHere
    if opcode in (Opcode.BFE, Opcode.CBIT, Opcode.FBH) and modifiers(judged):
        raise NotHere
    if opcode is Opcode.CBIT:
        if isinstance(judged, Vector):
            raise NotHere
        sources = (replace(judged, type=UNSIGNED[judged.type.size]),)
        instruction = replace(instruction, sources=sources)
    if instruction.destination.type.size == 8:
        raise NotHere
    ops = _plain(instruction, f"{_WORDS[opcode]}_{kind}", kind, constants)
    if opcode is Opcode.DP4A:
        for op in ops:
            if op.handler.startswith("dp4a"):
                op.detail = int(sources[1].type.is_signed) | int(sources[2].type.is_signed) << 1
    return ops


def _carry(instruction: Alu, constants: Constants) -> list[Op]:
    plain = all(source.type is DataType.UD and not modifiers(source) for source in instruction.sources)
    destination = instruction.destination
    if not plain or instruction.condition is not Condition.NONE or instruction.saturate or destination.type.size != 4:
        raise NotHere
    if not isinstance(destination, Register):
        raise NotHere
    if not destination.is_null and instruction.width > 1 and destination.horizontal != 1:
        raise NotHere
    return _plain(instruction, f"{instruction.opcode.mnemonic}_ud", "ud", constants)
