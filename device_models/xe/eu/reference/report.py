"""A thread in words, for error reports and `inspect`: where it is, what it is at, which lanes, what its operands hold."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.disassembler import disassemble
from vfio_user_xe.device_models.xe.eu.ir import (
    ENDED,
    LANES,
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Indirect,
    Register,
    Send,
)
from vfio_user_xe.device_models.xe.eu.operand_text import register_name
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads
from vfio_user_xe.device_models.xe.eu.registers import A0, CR0, F0, GRF_BYTES

_WORDS_A_LINE = 8


def describe_thread(interpreter: Interpreter, thread: int) -> str:
    """Several lines on one thread: status, instruction, places of lanes, flags, and the registers that its instruction names.

    Raises:
        What reading instruction memory raises.
    """
    threads = interpreter.threads
    status, cause = Status(int(threads.status[thread])), Cause(int(threads.cause[thread]))
    place = int(threads.current()[thread])
    why = f" ({cause.name.lower()})" if cause is not Cause.NONE else ""
    lines = [f"thread {thread}: {status.name.lower()}{why}, {int(threads.executed[thread])} instructions executed"]
    instruction = interpreter.instruction(thread)
    if instruction is None:
        return "\n".join([*lines, "no lane is left"])
    lines.append(f"at 0x{place:x}: {disassemble(instruction)}")
    lines.extend(_lanes(threads, thread))
    for name, offset, count in (("cr0", CR0, 3), ("f0-f3", F0, 4), ("a0", A0, 8)):
        lines.append(f"{name}: {_words(threads, thread, offset, count)}")
    for number in _named(instruction):
        words = GRF_BYTES // 4
        for first in range(0, words, _WORDS_A_LINE):
            text = _words(threads, thread, number * GRF_BYTES + first * 4, _WORDS_A_LINE)
            lines.append(f"{register_name(number, arf=False)}.{first}: {text}")
    return "\n".join(lines)


def _lanes(threads: Threads, thread: int) -> list[str]:
    """Lanes by their places, lowest first."""
    places: dict[tuple[int, int], int] = {}
    for lane in range(LANES):
        place = int(threads.place[thread, lane])
        if place != ENDED:
            key = (place, int(threads.depth[thread, lane]))
            places[key] = places.get(key, 0) | 1 << lane
    return [
        f"lanes 0x{mask:08x} at 0x{place:x}" + (f", {depth} calls deep" if depth else "")
        for (place, depth), mask in sorted(places.items())
    ]


def _words(threads: Threads, thread: int, offset: int, count: int) -> str:
    data = threads.registers[thread, offset : offset + 4 * count].tobytes()
    return " ".join(f"{int.from_bytes(data[at : at + 4], 'little'):08x}" for at in range(0, len(data), 4))


def _named(instruction: AnyInstruction) -> list[int]:
    """The general registers that operands begin in."""
    operands: list[Register | Indirect | object | None] = []
    match instruction:
        case Alu() | Dpas():
            operands = [instruction.destination, *instruction.sources]
        case Branch():
            operands = [instruction.destination, instruction.source]
        case Send():
            operands = [instruction.destination, instruction.source0, instruction.source1]
    return sorted({operand.number for operand in operands if isinstance(operand, Register) and not operand.arf})
