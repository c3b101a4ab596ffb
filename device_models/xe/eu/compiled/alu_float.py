"""Float operations as ops: computed in f or df; hf and bf are widened, and rounded at the end."""

from __future__ import annotations

from dataclasses import replace

from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, NotHere, Op
from vfio_user_xe.device_models.xe.eu.compiled.layout import CONSTANT, SCRATCH, SCRATCH_BYTES, Modified
from vfio_user_xe.device_models.xe.eu.compiled.operands import RESULT, Fetched, fetch, finish, modifiers, narrow
from vfio_user_xe.device_models.xe.eu.compiled.shared import UNSIGNED, choose_by_predicate, finish_compare, operation
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.ir import Alu, Immediate, Indirect, Register, Source, Vector
from vfio_user_xe.device_models.xe.eu.opcodes import Condition, MathFunction, Opcode
from vfio_user_xe.device_models.xe.eu.semantics import DENORMAL_BITS, execution_float, is_raw_move

_ROUNDING = 3 << 4
_KNOWN = frozenset({DataType.HF, DataType.BF, DataType.F, DataType.DF})
_PLAIN = frozenset(
    {
        Opcode.MOV,
        Opcode.ADD,
        Opcode.MUL,
        Opcode.MAD,
        Opcode.FRC,
        Opcode.RNDU,
        Opcode.RNDD,
        Opcode.RNDE,
        Opcode.RNDZ,
    }
)
_ORDERS = frozenset({Condition.GT, Condition.GE, Condition.LT, Condition.LE})
_OF_HALVES = frozenset({Opcode.ADD, Opcode.MUL, Opcode.MAD})
_MATH = frozenset(
    {
        MathFunction.INV,
        MathFunction.LOG,
        MathFunction.EXP,
        MathFunction.SQT,
        MathFunction.RSQT,
        MathFunction.SIN,
        MathFunction.COS,
        MathFunction.FDIV,
        MathFunction.POW,
        MathFunction.INVM,
        MathFunction.RSQTM,
    }
)
# Computed in f64 and rounded once, or (mad) not exact enough in f for hf.
_BY_F64 = frozenset(
    {
        MathFunction.LOG,
        MathFunction.EXP,
        MathFunction.RSQT,
        MathFunction.SIN,
        MathFunction.COS,
        MathFunction.POW,
    }
)


def translate_float(instruction: Alu, constants: Constants) -> list[Op]:
    """The ops of one float operation.

    Raises:
        NotHere: it is for the interpreter.
    """
    if instruction.opcode is Opcode.MADM:
        instruction = replace(instruction, opcode=Opcode.MAD)  # the same (`semantics.py`)
    destination = instruction.destination
    if not _known(instruction):
        raise NotHere
    if is_raw_move(instruction):
        return _raw(instruction, constants)
    if instruction.saturate and instruction.opcode in (Opcode.SEL, Opcode.CSEL):
        return _saturated_choice(instruction, constants)
    execution = execution_float(instruction)
    kind = "df" if execution is DataType.DF else "f"
    is_half = execution is DataType.HF
    if is_half and (instruction.opcode is Opcode.MAD or instruction.function in _BY_F64 or _has_integers(instruction)):
        kind = "df"
    if is_half and _has_integers(instruction) and instruction.opcode is not Opcode.MOV:
        raise NotHere  # rounded to hf before the operation
    if is_half and not destination.type.is_float and instruction.opcode not in (Opcode.MOV, Opcode.CMP):
        raise NotHere  # rounded to hf before it becomes an integer
    if is_half and instruction.opcode in _OF_HALVES:
        direct = _halves(instruction, constants)
        if direct:
            return direct
    guard = _guard(instruction, kind)
    if instruction.opcode is Opcode.CMP:
        return [*guard, *finish_compare(instruction, f"cmp_{kind}", kind, constants)]
    name = instruction.opcode.mnemonic
    if instruction.opcode is Opcode.MATH:
        if instruction.function not in _MATH or instruction.function is None:
            raise NotHere
        name = instruction.function.name.lower()
        ops = [*guard, *_operation(instruction, name, kind, constants)]
        if instruction.function in (MathFunction.INVM, MathFunction.RSQTM) and not ops[-1].handler.startswith(name):
            raise NotHere  # sets flags for the lanes that it writes
        return ops
    elif instruction.opcode not in _PLAIN:
        raise NotHere
    elif instruction.opcode is Opcode.MOV:
        return [*guard, *_move(instruction, kind, constants)]
    return [*guard, *_operation(instruction, name, kind, constants)]


def _halves(instruction: Alu, constants: Constants) -> list[Op]:
    """One op, where all operands are halves one behind the other, or one for all lanes; none otherwise (halves.c)."""
    operands = (*instruction.sources, instruction.destination)
    if instruction.saturate or instruction.condition is not Condition.NONE or instruction.width not in (1, 16, 32):
        return []
    if any(operand.type is not DataType.HF for operand in operands) or not _is_vector(instruction):
        return []
    fetched = [fetch(source, k, "hf", instruction.width, constants) for k, source in enumerate(instruction.sources)]
    if any(source.before for source in fetched):
        return []
    return finish(instruction, operation(f"{instruction.opcode.mnemonic}_hf", instruction.width, fetched), "hf")


def _known(instruction: Alu) -> bool:
    """All of its float types have conversions."""
    types = [operand.type for operand in (*instruction.sources, instruction.destination)]
    return all(data_type in _KNOWN for data_type in types if data_type.is_float)


def _is(data_type: DataType, kind: str) -> bool:
    return data_type.label == kind


def _has_integers(instruction: Alu) -> bool:
    return any(not source.type.is_float for source in instruction.sources)


def _guard(instruction: Alu, kind: str) -> list[Op]:
    """What conversions before and after the operation take for granted of cr0: mostly rounding to nearest."""
    keep = 0
    rounds = False
    for source in instruction.sources:
        if not source.type.is_float:
            # An immediate was rounded when it was translated.
            wide = source.type.size * 8 > (53 if kind == "df" else 24)
            rounds = rounds or (wide and isinstance(source, Immediate))
        elif not _is(source.type, kind) and isinstance(source, Immediate):
            # It was converted when it was translated, and a denormal was kept.
            keep |= 1 << DENORMAL_BITS[source.type]
    target = instruction.destination.type
    if target.is_float and not _is(target, kind) and instruction.opcode is not Opcode.CMP:
        # These round in every mode (`convert.c:narrow_f_hf`, `narrow_df_f`); math rounds to nearest whatever cr0 says.
        moved = instruction.opcode is Opcode.MOV and target is DataType.HF and _is(instruction.sources[0].type, "f")
        single = kind == "df" and target is DataType.F and instruction.opcode is not Opcode.MATH
        rounds = not moved and not single
    if not keep and not rounds:
        return []
    mask = keep | (_ROUNDING if rounds else 0)
    return [Op("float_guard", strides=(mask, keep))]


def _operation(instruction: Alu, name: str, kind: str, constants: Constants) -> list[Op]:
    fetched = [fetch(source, k, kind, instruction.width, constants) for k, source in enumerate(instruction.sources)]
    op = operation(f"{name}_{kind}", instruction.width, fetched)
    before = [one for source in fetched for one in source.before]
    return [*before, *finish(instruction, op, kind)]


def _move(instruction: Alu, kind: str, constants: Constants) -> list[Op]:
    """A conversion: the values of the class, as they are, to the destination."""
    source = instruction.sources[0]
    fetched = fetch(source, 0, kind, instruction.width, constants)
    in_storage = not fetched.offset & CONSTANT and isinstance(instruction.destination, Register)
    if not _is(instruction.destination.type, kind) and not fetched.how and in_storage:
        return [*fetched.before, narrow(instruction, fetched.offset, kind, int(instruction.condition))]
    return _operation(instruction, "mov", kind, constants)


def _raw(instruction: Alu, constants: Constants) -> list[Op]:
    """mov, sel and csel of bits."""
    label = instruction.destination.type.label
    opcode = instruction.opcode
    if any(source.type is not instruction.destination.type for source in instruction.sources):
        raise NotHere
    if opcode is Opcode.MOV:
        return _operation(instruction, "raw", label, constants)
    if opcode is Opcode.CSEL:
        if _is_vector(instruction) and label in ("f", "df"):
            return _with_condition(instruction, "csel", label, constants)
        return _chosen_bits(instruction, constants)
    if instruction.predicate is None:
        return _extreme(instruction, constants)
    if label not in ("f", "df") or not _is_vector(instruction):
        return _choice_of_bits(instruction, constants)
    return choose_by_predicate(instruction, _with_condition(instruction, "sel", label, constants, 0))


def _extreme(instruction: Alu, constants: Constants) -> list[Op]:
    """The greater or the smaller one. Halves are widened and narrowed again, which changes none of them where denormals are kept."""
    if instruction.condition not in _ORDERS:
        raise NotHere
    kind, guard = _class_of(instruction.destination.type)
    return [*guard, *_with_condition(instruction, "minmax", kind, constants)]


def _chosen_bits(instruction: Alu, constants: Constants) -> list[Op]:
    """csel of halves, or to elements with gaps: of dwords that have the bits, by a number in f. No number's bits change so."""
    *choices, decides = instruction.sources
    kind = instruction.destination.type
    if kind.size > 4 or decides.type is not kind:
        raise NotHere
    _, guard = _class_of(kind)
    width = instruction.width
    fetched = [_bits(source, k, width, constants) for k, source in enumerate(choices)]
    fetched.append(fetch(decides, 2, "f", width, constants))
    choice = operation("csel_f", width, fetched)
    moved = replace(instruction, destination=replace(instruction.destination, type=UNSIGNED[kind.size]))
    ops = finish(moved, choice, "ud", tests=False)
    choice.condition = int(instruction.condition)
    return [*guard, *(op for source in fetched for op in source.before), *ops]


def _choice_of_bits(instruction: Alu, constants: Constants) -> list[Op]:
    """A sel by a predicate of halves, or to elements with gaps: of integers that have the bits."""
    kind, width = instruction.destination.type, instruction.width
    fetched = [_bits(source, k, width, constants) for k, source in enumerate(instruction.sources)]
    label = "q" if kind.size == 8 else "d"
    moved = replace(
        instruction,
        destination=replace(instruction.destination, type=UNSIGNED[kind.size]),
        condition=Condition.NONE,
    )
    ops = finish(moved, operation(f"sel_{label}", width, fetched), label, tests=False)
    return [*(op for source in fetched for op in source.before), *choose_by_predicate(moved, ops)]


def _bits(source: Source, k: int, width: int, constants: Constants) -> Fetched:
    """Source `k`'s bits as an unsigned integer, the sign as its modifiers have it."""
    if isinstance(source, Vector):
        raise NotHere
    label = "uq" if source.type.size == 8 else "ud"
    how, plain = modifiers(source), replace(source, type=UNSIGNED[source.type.size])
    if not how or not isinstance(plain, Register | Indirect):
        return fetch(plain, k, label, width, constants)
    fetched = fetch(replace(plain, negate=False, absolute=False), k, label, width, constants)
    opcode, mask = _of_sign(how, source.type)
    held = Fetched(constants.offset(mask.to_bytes(8, "little")), Modified.SCALAR)
    step = operation(f"{opcode.mnemonic}_{label}", width, [fetched, held])
    step.destination, step.width = SCRATCH + k * SCRATCH_BYTES, width
    return Fetched(step.destination, 0, [*fetched.before, step])


def _class_of(kind: DataType) -> tuple[str, list[Op]]:
    """The class that has all values of a float type, and what makes sure that conversions keep them."""
    if kind in (DataType.F, DataType.DF):
        return kind.label, []
    kept = 1 << DENORMAL_BITS[kind]
    return "f", [Op("float_guard", strides=(kept, kept))]


def _saturated_choice(instruction: Alu, constants: Constants) -> list[Op]:
    """sel and csel that saturate: the choice goes to scratch, and from there by a mov, which flushes denormals.

    That they are not flushed before does not matter to the greater and the smaller one: the result is none below zero.
    """
    kind = instruction.destination.type
    if any(source.type is not kind for source in instruction.sources):
        raise NotHere
    label, guard = _class_of(kind)
    width = instruction.width
    fetched = [fetch(source, k, label, width, constants) for k, source in enumerate(instruction.sources)]
    before = [one for source in fetched for one in source.before]
    if instruction.opcode is Opcode.CSEL:
        kept = 1 << DENORMAL_BITS[kind]
        before.insert(0, Op("float_guard", strides=(kept, kept)))
        name = "csel"
    elif instruction.predicate is not None:
        name = "sel"
    elif instruction.condition in _ORDERS:
        name = "minmax"
    else:
        raise NotHere
    choice = operation(f"{name}_{label}", width, fetched)
    choice.destination, choice.width = RESULT, width
    if name == "sel":
        choice.masked(instruction)
    else:
        choice.condition = int(instruction.condition)
    masked = instruction
    if instruction.opcode is Opcode.SEL:
        masked = replace(instruction, predicate=None)
    moved = replace(masked, condition=Condition.NONE)
    return [*guard, *before, choice, *finish(moved, operation(f"mov_{label}", width, [Fetched(RESULT, 0)]), label)]


def _is_vector(instruction: Alu) -> bool:
    """The destination's elements are one behind the other."""
    destination = instruction.destination
    if isinstance(destination, Indirect):
        return False
    if destination.is_null:
        return True
    return instruction.width == 1 or destination.horizontal == 1


def _with_condition(
    instruction: Alu, name: str, kind: str, constants: Constants, condition: int | None = None
) -> list[Op]:
    ops = _operation(replace(instruction, condition=Condition.NONE), name, kind, constants)
    for op in ops:
        if op.handler.startswith(f"{name}_"):
            op.condition = int(instruction.condition) if condition is None else condition
    return ops


def as_integers(instruction: Alu) -> Alu | None:
    """A move of bits whose operands are no vectors of f or df, as one of integers; None if it is none.

    Raises:
        NotHere: it is one, and tests or changes the numbers.
    """
    if not is_raw_move(instruction) or not _known(instruction):
        return None
    if _is_vector(instruction) and instruction.destination.type in (DataType.F, DataType.DF):
        return None
    if instruction.opcode is Opcode.CSEL or (instruction.opcode is Opcode.SEL and instruction.predicate is None):
        return None  # it compares
    plain = instruction.opcode is Opcode.MOV and instruction.condition is Condition.NONE
    predicated = instruction.opcode is Opcode.SEL
    if not (plain or predicated):
        raise NotHere
    if predicated and any(modifiers(source) for source in instruction.sources):
        return None  # `_choice_of_bits` minds signs
    integer = UNSIGNED[instruction.destination.type.size]
    sources: list[Source] = []
    for source in instruction.sources:
        if isinstance(source, Vector) or source.type is not instruction.destination.type:
            raise NotHere
        sources.append(replace(source, type=integer))
    moved = replace(instruction, sources=tuple(sources), destination=replace(instruction.destination, type=integer))
    return _of_signs(moved, sources[0], modifiers(instruction.sources[0])) if plain else moved


def _of_signs(moved: Alu, source: Source, how: int) -> Alu:
    """A move of a float's bits whose modifiers, `how`, are about its sign, as logic."""
    if not how or isinstance(source, Immediate | Vector):
        return moved
    opcode, mask = _of_sign(how, source.type)
    bits = replace(source, negate=False, absolute=False)
    return replace(moved, opcode=opcode, sources=(bits, Immediate(source.type, mask)))


def _of_sign(how: int, kind: DataType) -> tuple[Opcode, int]:
    """The logic that modifiers, `how`, of a number of this size are, and its other operand."""
    sign = 1 << kind.bits - 1
    if how & Modified.ABSOLUTE:
        return (Opcode.OR, sign) if how & Modified.NEGATE else (Opcode.AND, sign - 1)
    return Opcode.XOR, sign
