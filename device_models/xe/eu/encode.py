"""Instructions into their native 128 bits, and compact 64 bits."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu import compaction, fields
from vfio_user_xe.device_models.xe.eu.bounds import check_bounds
from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.decode_instruction import BFN_CONDITIONS, PRECISIONS, has_two_distances
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import (
    LANES,
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Immediate,
    Indirect,
    Instruction,
    Link,
    Register,
    Send,
    Source,
    Sync,
    Vector,
)
from vfio_user_xe.device_models.xe.eu.opcodes import (
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
    encode_destination,
    encode_source,
    encode_ternary_source,
)


def encode(instruction: AnyInstruction) -> bytes:
    """The bytes of an instruction: 8 if its `size` says that it is compact, else 16.

    Raises:
        EncodingError: it has no such form; the message says which part.
    """
    bits = encode_native(instruction)
    if instruction.size == 8:
        compact = compaction.shrink(bits)
        if compact is None:
            raise EncodingError(f"{instruction.opcode.mnemonic} with these operands has no compact form")
        return compact.to_bytes(8, "little")
    return bits.to_bytes(16, "little")


def encode_native(instruction: AnyInstruction) -> int:
    """The native bits of an instruction.

    Raises:
        EncodingError: as `encode`.
    """
    if isinstance(instruction, Illegal):
        return instruction.raw
    check_bounds(instruction)
    bits = _common(instruction)
    match instruction:
        case Alu():
            return bits | _alu(instruction)
        case Dpas():
            return bits | _dpas(instruction)
        case Branch():
            return bits | _branch(instruction)
        case Send():
            return bits | _send(instruction)
        case Sync():
            return bits | _sync(instruction)
    return bits


def _common(instruction: Instruction) -> int:
    width = instruction.width
    if width not in (1, 2, 4, 8, 16, 32):
        raise EncodingError(f"execution size {width} cannot be encoded (allowed: 1, 2, 4, 8, 16, 32)")
    if instruction.first_lane % 8 or not 0 <= instruction.first_lane < LANES:
        raise EncodingError(f"mask offset {instruction.first_lane} cannot be encoded (allowed: 0, 8, 16, 24)")
    bits = fields.OPCODE.put(instruction.opcode.number)
    bits |= fields.SWSB.put(instruction.swsb)
    bits |= fields.EXEC_SIZE.put(width.bit_length() - 1)
    bits |= fields.FLAG_HALF.put(instruction.flag_half) | fields.FLAG_NUMBER.put(instruction.flag_number)
    bits |= fields.MASK_OFFSET.put(instruction.first_lane // 8)
    bits |= fields.NO_MASK.put(instruction.no_mask) | fields.ATOMIC.put(instruction.atomic)
    bits |= fields.BREAKPOINT.put(instruction.breakpoint)
    if instruction.predicate is not None:
        if instruction.predicate.mode is PredicateMode.NONE:
            raise EncodingError("a predicate needs a mode")
        bits |= fields.PREDICATE.put(instruction.predicate.mode)
        bits |= fields.PREDICATE_INVERSE.put(instruction.predicate.inverse)
    return bits


def _alu(instruction: Alu) -> int:
    bits = fields.SATURATE.put(instruction.saturate)
    if instruction.opcode.shape is Shape.THREE:
        return bits | _three(instruction)
    macro = instruction.macro
    wanted = 2 if instruction.opcode.shape is Shape.TWO and instruction.opcode is not Opcode.MOVI else 1
    if instruction.opcode.shape is Shape.MATH:
        if instruction.function is None:
            raise EncodingError("math needs a function")
        wanted = instruction.function.sources
        bits |= fields.CONDITION.put(instruction.function)
        needs = 1 + wanted if instruction.function in (MathFunction.INVM, MathFunction.RSQTM) else 0
        if len(macro) != needs:
            raise EncodingError(f"math.{instruction.function.name.lower()} has {len(macro)} accumulators, not {needs}")
    elif instruction.condition is not Condition.NONE:
        bits |= fields.CONDITION.put(instruction.condition)
    if len(instruction.sources) != wanted:
        raise EncodingError(f"{instruction.opcode.mnemonic} has {wanted} sources, not {len(instruction.sources)}")
    bits |= encode_destination(instruction.destination, macro[0] if macro else None)
    slots = (fields.SOURCE_0, fields.SOURCE_1)
    for index, (source, slot) in enumerate(zip(instruction.sources, slots, strict=False)):
        if isinstance(source, Immediate | Vector):
            _check_immediate(instruction, source, index, wanted)
        bits |= encode_source(source, slot, macro[index + 1] if macro else None)
    return bits


def _check_immediate(instruction: Alu, source: Source, index: int, count: int) -> None:
    if index == 0 and count == 2:
        raise EncodingError(f"{instruction.opcode.mnemonic}: source 0 of two cannot be an immediate")
    if isinstance(source, Immediate) and source.type.size == 8:
        if index == 1:
            raise EncodingError(f"{instruction.opcode.mnemonic}: source 1 cannot be an immediate of 64 bits")
        if instruction.condition is not Condition.NONE or instruction.function is not None:
            raise EncodingError("an immediate of 64 bits leaves no place for a condition modifier or a math function")


def _ternary_destination(destination: Register, byte: int) -> int:
    slot = fields.DESTINATION
    check_register(destination.number, destination.arf)
    bits = fields.TERNARY_DESTINATION_TYPE.put(destination.type.code & 7)
    bits |= slot.general.put(not destination.arf) | slot.number.put(destination.number)
    return bits | slot.byte.put(byte) | fields.TERNARY_FLOAT.put(destination.type.is_float)


def _same_kind(types: list[DataType]) -> None:
    if len({kind.is_float for kind in types}) > 1:
        raise EncodingError(f"three sources cannot mix integers and floats: {[kind.label for kind in types]}")


def _three(instruction: Alu) -> int:
    destination = instruction.destination
    if isinstance(destination, Indirect):
        raise EncodingError(f"{instruction.opcode.mnemonic} cannot have an indirect destination")
    if len(instruction.sources) != 3:
        raise EncodingError(f"{instruction.opcode.mnemonic} has 3 sources, not {len(instruction.sources)}")
    if destination.horizontal not in (1, 2):
        raise EncodingError(f"destination stride {destination.horizontal} cannot be encoded (allowed: 1, 2)")
    _same_kind([destination.type, *(source.type for source in instruction.sources)])
    macro = instruction.macro
    if len(macro) != (4 if instruction.opcode is Opcode.MADM else 0):
        raise EncodingError(f"{instruction.opcode.mnemonic} has {len(macro)} accumulators")
    bits = _ternary_destination(destination, macro[0] * 2 if macro else destination.byte)
    bits |= fields.TERNARY_DESTINATION_STRIDE.put(destination.horizontal - 1)
    is_bfn = instruction.opcode is Opcode.BFN
    for index, (source, slot) in enumerate(zip(instruction.sources, fields.TERNARY_SOURCES, strict=True)):
        bits |= encode_ternary_source(source, slot, is_bfn, macro[index + 1] if macro else None)
    if is_bfn:
        if instruction.condition not in BFN_CONDITIONS:
            raise EncodingError(f"bfn cannot have condition {instruction.condition.name.lower()} (allowed: eq, gt, lt)")
        bits |= fields.BFN_TRUTH.put(instruction.truth)
        return bits | fields.BFN_CONDITION.put(BFN_CONDITIONS.index(instruction.condition))
    return bits | fields.CONDITION.put(instruction.condition)


def _dpas(instruction: Dpas) -> int:
    destination = instruction.destination
    _same_kind([destination.type, *(source.type for source in instruction.sources)])
    bits = _ternary_destination(destination, destination.byte)
    for source, slot in zip(instruction.sources, fields.TERNARY_SOURCES, strict=True):
        check_register(source.number, source.arf)
        bits |= slot.type.put(source.type.code & 7) | slot.general.put(not source.arf)
        if source.byte % 2:
            raise EncodingError(f"{slot.byte.name}: {source.byte} is odd")
        bits |= slot.number.put(source.number) | slot.byte.put(source.byte // 2)
    if instruction.depth not in (1, 2, 4, 8):
        raise EncodingError(f"systolic depth {instruction.depth} cannot be encoded (allowed: 1, 2, 4, 8)")
    bits |= fields.DPAS_REPEAT.put(instruction.repeat - 1) | fields.DPAS_DEPTH.put(instruction.depth.bit_length() - 1)
    for count, field in ((instruction.bits_b, fields.DPAS_PRECISION_1), (instruction.bits_a, fields.DPAS_PRECISION_2)):
        if count not in PRECISIONS:
            raise EncodingError(f"{field.name}: {count} bits cannot be encoded (allowed: 8, 4, 2)")
        bits |= field.put(PRECISIONS.index(count))
    return bits


def _branch(instruction: Branch) -> int:
    bits = fields.BRANCH_CONTROL.put(instruction.backward)
    if instruction.jip is not None:
        bits |= fields.SOURCE_0.immediate.put(1) | fields.JIP.put(instruction.jip & 0xFFFF_FFFF)
        if has_two_distances(instruction.opcode):
            if instruction.uip is None:
                raise EncodingError(f"{instruction.opcode.mnemonic} needs a UIP")
            bits |= fields.SOURCE_1.immediate.put(1) | fields.UIP.put(instruction.uip & 0xFFFF_FFFF)
    elif instruction.source is not None:
        bits |= _plain(instruction.source, fields.SOURCE_0)
    else:
        raise EncodingError(f"{instruction.opcode.mnemonic} has no target")
    if instruction.link is Link.CALL:
        if instruction.destination is None:
            raise EncodingError(f"{instruction.opcode.mnemonic} needs a destination")
        bits |= _plain(instruction.destination, fields.DESTINATION)
    return bits


def _plain(register: Register, slot: fields.Slot) -> int:
    check_register(register.number, register.arf)
    if register.byte % 2:
        raise EncodingError(f"{slot.byte.name}: {register.byte} is odd")
    return slot.general.put(not register.arf) | slot.number.put(register.number) | slot.byte.put(register.byte)


def _sync(instruction: Sync) -> int:
    bits = fields.CONDITION.put(SyncFunction(instruction.function)) | fields.DESTINATION.horizontal.put(1)
    if instruction.source is not None:
        bits |= encode_source(instruction.source, fields.SOURCE_0)
    return bits


def _send(instruction: Send) -> int:
    bits = fields.CONDITION.put(instruction.sfid) | fields.SATURATE.put(instruction.end_of_thread)
    slots = (fields.DESTINATION, fields.SOURCE_0, fields.SOURCE_1)
    for register, slot in zip((instruction.destination, instruction.source0, instruction.source1), slots, strict=True):
        check_register(register.number, register.arf)
        bits |= slot.general.put(not register.arf) | slot.number.put(register.number)
    bits |= fields.SEND_LENGTH_1.put(instruction.length1)
    if instruction.descriptor is None:
        bits |= fields.SEND_DESCRIPTOR_POINTER.put(1)
    else:
        bits |= fields.SEND_DESCRIPTOR.put(instruction.descriptor)
    if instruction.extended & 0x7FF:
        raise EncodingError(f"extended descriptor 0x{instruction.extended:x}: bits 10:0 cannot be encoded")
    bits |= fields.SEND_EXTENDED.put(instruction.extended >> 11)
    if instruction.extended_pointer is None:
        if instruction.extended_bso:
            raise EncodingError("ExBSO needs an extended descriptor in a0")
        return bits
    if instruction.extended & 7 << 16 or (instruction.sfid is not Sfid.UGM and instruction.extended & 1 << 15):
        raise EncodingError(f"immediate offset 0x{instruction.extended:x} uses bits of the a0 form")
    if instruction.extended_bso and instruction.sfid is Sfid.UGM:
        raise EncodingError("ugm has no ExBSO")
    bits |= fields.SEND_EXTENDED_POINTER.put(1) | fields.SEND_EXTENDED_WORD.put(instruction.extended_pointer)
    return bits | fields.SEND_EXTENDED_BSO.put(instruction.extended_bso)
