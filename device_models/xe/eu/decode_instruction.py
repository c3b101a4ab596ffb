"""One instruction from its native 128 bits."""

from __future__ import annotations

from typing import Any

from vfio_user_xe.device_models.xe.eu import fields
from vfio_user_xe.device_models.xe.eu.bounds import check_bounds
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import (
    ADDRESS_MASK,
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Immediate,
    Leavers,
    Link,
    Nop,
    Predicate,
    Register,
    Send,
    Source,
    Sync,
    Vector,
)
from vfio_user_xe.device_models.xe.eu.messages.decode import decode as decode_message
from vfio_user_xe.device_models.xe.eu.opcodes import (
    BY_NUMBER,
    Condition,
    MathFunction,
    Opcode,
    PredicateMode,
    Sfid,
    Shape,
    SyncFunction,
)
from vfio_user_xe.device_models.xe.eu.operand_codec import (
    check_register,
    data_type,
    decode_destination,
    decode_source,
    decode_ternary_source,
)

BFN_CONDITIONS = (Condition.NONE, Condition.EQ, Condition.GT, Condition.LT)
MATH_MACROS = frozenset({MathFunction.INVM, MathFunction.RSQTM})
PRECISIONS = (8, 4, 2)


def decode_instruction(bits: int, address: int, size: int) -> AnyInstruction:
    """The instruction with these native bits at `address`. What means nothing becomes `Illegal`, with a reason."""
    opcode = BY_NUMBER.get(bits & 0x7F)
    if opcode is None:
        return _illegal(bits, address, size, f"opcode 0x{bits & 0x7F:02x} does not exist")
    try:
        instruction = _decode(opcode, bits, address, size)
        check_bounds(instruction)
        return instruction
    except EncodingError as error:
        return _illegal(bits, address, size, str(error))


def _illegal(bits: int, address: int, size: int, reason: str) -> Illegal:
    return Illegal(
        opcode=Opcode.ILLEGAL,
        address=address,
        size=size,
        reason=reason,
        raw=bits,
        breakpoint=bool(fields.BREAKPOINT.get(bits)),
    )


def _decode(opcode: Opcode, bits: int, address: int, size: int) -> AnyInstruction:
    if opcode is Opcode.ILLEGAL:
        return _illegal(bits, address, size, "illegal")
    common = _common(opcode, bits, address, size)
    if not _uses_flags(opcode, bits, common["predicate"]):
        common["flag_number"] = common["flag_half"] = 0
    match opcode.shape:
        case Shape.NONE:
            return Nop(**common)
        case Shape.SYNC:
            return _sync(bits, common)
        case Shape.BRANCH:
            return _branch(opcode, bits, address, common)
        case Shape.SEND:
            return _send(bits, common)
        case Shape.DPAS:
            return _dpas(bits, common)
        case Shape.THREE:
            return _three(opcode, bits, common)
        case Shape.MATH:
            return _math(bits, common)
        case _:
            return _one_or_two(opcode, bits, common)


def _common(opcode: Opcode, bits: int, address: int, size: int) -> dict[str, Any]:
    exec_size = fields.EXEC_SIZE.get(bits)
    if exec_size > 5:
        raise EncodingError(f"execution size code {exec_size} is not used")
    mode = PredicateMode(fields.PREDICATE.get(bits))
    inverse = bool(fields.PREDICATE_INVERSE.get(bits))
    return {
        "address": address,
        "size": size,
        "opcode": opcode,
        "width": 1 << exec_size,
        "first_lane": 8 * fields.MASK_OFFSET.get(bits),
        "no_mask": bool(fields.NO_MASK.get(bits)),
        "predicate": None if mode is PredicateMode.NONE else Predicate(mode, inverse),
        "flag_number": fields.FLAG_NUMBER.get(bits),
        "flag_half": fields.FLAG_HALF.get(bits),
        "atomic": bool(fields.ATOMIC.get(bits)),
        "swsb": fields.SWSB.get(bits),
        "breakpoint": bool(fields.BREAKPOINT.get(bits)),
    }


def _uses_flags(opcode: Opcode, bits: int, predicate: Predicate | None) -> bool:
    if predicate is not None:
        return True
    if opcode is Opcode.MATH:
        return fields.CONDITION.get(bits) in MATH_MACROS
    if opcode is Opcode.BFN:
        return bool(fields.BFN_CONDITION.get(bits))
    if opcode.shape not in (Shape.ONE, Shape.TWO, Shape.THREE):
        return False
    is_64 = fields.SOURCE_0.immediate.get(bits) and fields.SOURCE_0.type.get(bits) & 3 == 3
    return bool(fields.CONDITION.get(bits)) and not (is_64 and opcode.shape is Shape.ONE)


def _condition(bits: int) -> Condition:
    code = fields.CONDITION.get(bits)
    try:
        return Condition(code)
    except ValueError:
        raise EncodingError(f"condition modifier {code} is not used") from None


def _one_or_two(opcode: Opcode, bits: int, common: dict[str, Any]) -> Alu:
    first = decode_source(bits, fields.SOURCE_0)
    sources: tuple[Source, ...] = (first,)
    condition = Condition.NONE
    if not (isinstance(first, Immediate) and first.type.size == 8):
        condition = _condition(bits)
    if opcode.shape is Shape.TWO and opcode is not Opcode.MOVI:
        if isinstance(first, Immediate | Vector):
            raise EncodingError("source 0 of two cannot be an immediate")
        second = decode_source(bits, fields.SOURCE_1)
        if second.type.size == 8 and isinstance(second, Immediate):
            raise EncodingError("source 1 cannot be an immediate of 64 bits")
        sources = (first, second)
    return Alu(
        destination=decode_destination(bits),
        sources=sources,
        condition=condition,
        saturate=bool(fields.SATURATE.get(bits)),
        **common,
    )


def _math(bits: int, common: dict[str, Any]) -> Alu:
    code = fields.CONDITION.get(bits)
    try:
        function = MathFunction(code)
    except ValueError:
        raise EncodingError(f"math function {code} is not used") from None
    if fields.SOURCE_0.immediate.get(bits) and fields.SOURCE_0.type.get(bits) & 3 == 3:
        raise EncodingError("math cannot have an immediate of 64 bits")
    macro = function in MATH_MACROS
    slots = (fields.SOURCE_0, fields.SOURCE_1)[: function.sources]
    accumulators: tuple[int, ...] = ()
    if macro:
        accumulators = (_accumulator(bits, 51), *(_accumulator(bits, low) for low in (67, 99)[: function.sources]))
    return Alu(
        destination=decode_destination(bits, macro),
        sources=tuple(decode_source(bits, slot, macro) for slot in slots),
        saturate=bool(fields.SATURATE.get(bits)),
        function=function,
        macro=accumulators,
        **common,
    )


def _accumulator(bits: int, low: int) -> int:
    number = bits >> low & 0xF
    if number > fields.NO_MME:
        raise EncodingError(f"accumulator {number} of a math macro does not exist")
    return number


def _three(opcode: Opcode, bits: int, common: dict[str, Any]) -> Alu:
    is_float = fields.TERNARY_FLOAT.get(bits)
    is_bfn, is_macro = opcode is Opcode.BFN, opcode is Opcode.MADM
    sources = tuple(decode_ternary_source(bits, slot, is_float, is_bfn, is_macro) for slot in fields.TERNARY_SOURCES)
    slot = fields.DESTINATION
    arf = not slot.general.get(bits)
    number = slot.number.get(bits)
    check_register(number, arf)
    destination = Register(
        data_type(fields.TERNARY_DESTINATION_TYPE.get(bits) | is_float << 3),
        number,
        0 if is_macro else slot.byte.get(bits),
        arf,
        horizontal=1 + fields.TERNARY_DESTINATION_STRIDE.get(bits),
    )
    return Alu(
        destination=destination,
        sources=sources,
        condition=BFN_CONDITIONS[fields.BFN_CONDITION.get(bits)] if is_bfn else _condition(bits),
        saturate=bool(fields.SATURATE.get(bits)),
        truth=fields.BFN_TRUTH.get(bits) if is_bfn else 0,
        macro=tuple(_accumulator(bits, low) for low in (51, 67, 99, 115)) if is_macro else (),
        **common,
    )


def _dpas(bits: int, common: dict[str, Any]) -> Dpas:
    is_float = fields.TERNARY_FLOAT.get(bits)
    slot = fields.DESTINATION
    check_register(slot.number.get(bits), arf=not slot.general.get(bits))
    destination = Register(
        data_type(fields.TERNARY_DESTINATION_TYPE.get(bits) | is_float << 3),
        slot.number.get(bits),
        slot.byte.get(bits),
        not slot.general.get(bits),
        horizontal=1,
    )
    operands = []
    for source in fields.TERNARY_SOURCES:
        arf = not source.general.get(bits)
        check_register(source.number.get(bits), arf)
        kind = data_type(source.type.get(bits) | is_float << 3)
        operands.append(Register(kind, source.number.get(bits), source.byte.get(bits) * 2, arf, 1, 1, 0))
    precisions = (fields.DPAS_PRECISION_1.get(bits), fields.DPAS_PRECISION_2.get(bits))
    if max(precisions) >= len(PRECISIONS):
        raise EncodingError(f"dpas precision codes {precisions} are not used")
    return Dpas(
        destination=destination,
        sources=(operands[0], operands[1], operands[2]),
        repeat=1 + fields.DPAS_REPEAT.get(bits),
        depth=1 << fields.DPAS_DEPTH.get(bits),
        bits_b=PRECISIONS[precisions[0]],
        bits_a=PRECISIONS[precisions[1]],
        **common,
    )


# Who leaves, what it does to the call depth, and which distance is the target. `break` names the while, whose lanes go on
# behind it; that is 16 bytes further, since a while is never compacted.
_BRANCHES: dict[Opcode, tuple[Leavers, Link, str, int]] = {
    Opcode.JMPI: (Leavers.UNIFORM, Link.NONE, "jip", 0),
    Opcode.BRD: (Leavers.TRUE, Link.NONE, "jip", 0),
    Opcode.BRC: (Leavers.TRUE, Link.NONE, "uip", 0),
    Opcode.IF: (Leavers.FALSE, Link.NONE, "jip", 0),
    Opcode.ELSE: (Leavers.ALL, Link.NONE, "uip", 0),
    Opcode.ENDIF: (Leavers.NONE, Link.NONE, "jip", 0),
    Opcode.JOIN: (Leavers.NONE, Link.NONE, "jip", 0),
    Opcode.WHILE: (Leavers.TRUE, Link.NONE, "jip", 0),
    Opcode.BREAK: (Leavers.TRUE, Link.NONE, "uip", 16),
    Opcode.CONT: (Leavers.TRUE, Link.NONE, "uip", 0),
    Opcode.HALT: (Leavers.TRUE, Link.NONE, "uip", 0),
    Opcode.GOTO: (Leavers.TRUE, Link.NONE, "uip", 0),
    Opcode.CALL: (Leavers.TRUE, Link.CALL, "jip", 0),
    Opcode.CALLA: (Leavers.TRUE, Link.CALL, "absolute", 0),
    Opcode.RET: (Leavers.TRUE, Link.RETURN, "register", 0),
}
_BOTH_DISTANCES = frozenset({Opcode.IF, Opcode.ELSE, Opcode.BREAK, Opcode.CONT, Opcode.HALT, Opcode.GOTO, Opcode.BRC})
_CAN_USE_REGISTER = frozenset({Opcode.JMPI, Opcode.BRD, Opcode.BRC, Opcode.CALL, Opcode.CALLA, Opcode.RET})


def has_two_distances(opcode: Opcode) -> bool:
    """A branch with JIP and UIP, not JIP alone."""
    return opcode in _BOTH_DISTANCES


def branch_target(opcode: Opcode, address: int, jip: int | None, uip: int | None) -> int | None:
    """The address that lanes which leave go to, if it is in the instruction."""
    leavers, _, source, beyond = _BRANCHES[opcode]
    distance = {"jip": jip, "uip": uip, "absolute": jip, "register": None}[source]
    if distance is None or leavers is Leavers.NONE:
        return None
    return (distance if source == "absolute" else address + distance + beyond) & ADDRESS_MASK


def branch_kind(opcode: Opcode) -> tuple[Leavers, Link]:
    """Which lanes a branch moves, and what becomes of their call depth."""
    return _BRANCHES[opcode][:2]


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _branch(opcode: Opcode, bits: int, address: int, common: dict[str, Any]) -> Branch:
    immediate = bool(fields.SOURCE_0.immediate.get(bits))
    jip = uip = None
    source = destination = None
    if immediate and opcode is not Opcode.RET:
        jip = _signed(fields.JIP.get(bits))
        uip = _signed(fields.UIP.get(bits)) if has_two_distances(opcode) else None
    else:
        if opcode not in _CAN_USE_REGISTER:
            raise EncodingError(f"{opcode.mnemonic} needs distances in the instruction")
        source = _plain_register(bits, fields.SOURCE_0)
    leavers, link = branch_kind(opcode)
    if link is Link.CALL:
        destination = _plain_register(bits, fields.DESTINATION)
    if opcode is Opcode.JMPI:
        common["no_mask"] = True
    return Branch(
        leavers=leavers,
        link=link,
        target=branch_target(opcode, address, jip, uip),
        source=source,
        destination=destination,
        backward=bool(fields.BRANCH_CONTROL.get(bits)),
        jip=jip,
        uip=uip,
        **common,
    )


def _plain_register(bits: int, slot: fields.Slot) -> Register:
    arf = not slot.general.get(bits)
    number = slot.number.get(bits)
    check_register(number, arf)
    return Register(DataType.UD, number, slot.byte.get(bits) & ~1, arf, 0)


def _sync(bits: int, common: dict[str, Any]) -> Sync:
    code = fields.CONDITION.get(bits)
    try:
        function = SyncFunction(code)
    except ValueError:
        raise EncodingError(f"sync function {code} is not used") from None
    source = None
    if fields.SOURCE_0.immediate.get(bits):
        source = decode_source(bits, fields.SOURCE_0)
    return Sync(function=function, source=source, **common)


def _send(bits: int, common: dict[str, Any]) -> Send:
    sfid = Sfid(fields.CONDITION.get(bits))
    extended_in_a0 = bool(fields.SEND_EXTENDED_POINTER.get(bits))
    extended = fields.SEND_EXTENDED.get(bits) << 11
    bso = False
    if extended_in_a0:
        extended &= ~(7 << 16)
        if sfid is not Sfid.UGM:
            bso = bool(fields.SEND_EXTENDED_BSO.get(bits))
            extended &= ~(1 << 15)
    descriptor = None if fields.SEND_DESCRIPTOR_POINTER.get(bits) else fields.SEND_DESCRIPTOR.get(bits)
    registers = []
    for slot in (fields.DESTINATION, fields.SOURCE_0, fields.SOURCE_1):
        arf = not slot.general.get(bits)
        check_register(slot.number.get(bits), arf)
        registers.append(Register(DataType.UD, slot.number.get(bits), 0, arf))
    message = None
    if descriptor is not None:
        message = decode_message(sfid, descriptor, extended, common["width"], extended_in_a0)
    return Send(
        sfid=sfid,
        destination=registers[0],
        source0=registers[1],
        source1=registers[2],
        length1=fields.SEND_LENGTH_1.get(bits),
        descriptor=descriptor,
        extended=extended,
        extended_pointer=fields.SEND_EXTENDED_WORD.get(bits) if extended_in_a0 else None,
        end_of_thread=bool(fields.SATURATE.get(bits)),
        extended_bso=bso,
        message=message,
        **common,
    )
