"""Which operands stay inside the register file: others make an instruction illegal, so that back ends need no checks."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import LANES, Alu, AnyInstruction, Branch, Dpas, Register, Send
from vfio_user_xe.device_models.xe.eu.opcodes import MathFunction
from vfio_user_xe.device_models.xe.eu.registers import ARF_BASE, GRF_BYTES, GRF_COUNT, STORAGE_BYTES

DPAS_COLUMNS = 16


def check_bounds(instruction: AnyInstruction) -> None:
    """Check that operands lie inside of their register files. Indirect ones are checked when they run.

    Raises:
        EncodingError: one reaches beyond its file, or the instruction beyond the last lane, whose flags do not exist.
    """
    if instruction.first_lane + instruction.width > LANES:
        raise EncodingError(f"{instruction.width} lanes from lane {instruction.first_lane} on: there are {LANES}")
    match instruction:
        case Alu():
            _alu(instruction)
        case Dpas():
            _dpas(instruction)
        case Branch():
            for operand in (instruction.destination, instruction.source):
                if operand is not None:
                    _bytes(operand, 8, "operand")
        case Send():
            check_payload(instruction)


def _alu(instruction: Alu) -> None:
    width = instruction.width
    destination = instruction.destination
    if isinstance(destination, Register):
        last = (width - 1) * destination.horizontal * destination.type.size
        extra = 0
        if instruction.function is MathFunction.IDIV:
            extra = max(1, -(-width * destination.type.size // GRF_BYTES)) * GRF_BYTES
        _bytes(destination, last + destination.type.size + extra, "destination")
    for index, source in enumerate(instruction.sources):
        if isinstance(source, Register):
            last = max(source.element(k) for k in range(width)) - source.offset
            _bytes(source, last + source.type.size, f"source {index}")


def _dpas(instruction: Dpas) -> None:
    row = DPAS_COLUMNS * 4
    accumulator, b, a = instruction.sources
    _bytes(
        instruction.destination, instruction.repeat * DPAS_COLUMNS * instruction.destination.type.size, "destination"
    )
    _bytes(accumulator, instruction.repeat * DPAS_COLUMNS * accumulator.type.size, "source 0")
    _bytes(b, instruction.depth * row, "source 1")
    _bytes(a, instruction.repeat * instruction.depth * 4, "source 2")


def check_payload(send: Send) -> None:
    """Check that payload and response lie inside of the register file, as far as their lengths are in the instruction.

    Raises:
        EncodingError: one reaches beyond it.
    """
    length0 = send.message.length0 if send.message is not None else 0
    response = send.message.response_length if send.message is not None else 0
    length1 = 0 if send.length1_in_extended else send.length1
    for register, count, name in (
        (send.source0, length0, "source 0"),
        (send.source1, length1, "source 1"),
        (send.destination, response, "destination"),
    ):
        _bytes(register, count * GRF_BYTES, name)


def _bytes(register: Register, count: int, name: str) -> None:
    if register.is_null:
        return
    end = STORAGE_BYTES if register.arf else ARF_BASE
    if register.offset + count > end:
        where = f"architecture register 0x{register.number:02x}" if register.arf else f"r{register.number}"
        raise EncodingError(
            f"{name}: {count} bytes from byte {register.byte} of {where} leave the register file ({GRF_COUNT} registers)"
        )
