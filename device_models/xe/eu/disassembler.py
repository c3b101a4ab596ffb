"""Instructions and programs as text, close to the syntax of Intel's assembler.

    (W&f0.0) add (16|M0)  (ge)f0.0  r5.0<1>:d  r6.0<1;1,0>:d  -r8.0<1;1,0>:d  {F@1}

Branch distances are bytes from the branch; in the text of a program they are labels. `assembler.py` reads both back.
"""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.eu.ir import (
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Instruction,
    Program,
    Send,
    Sync,
)
from vfio_user_xe.device_models.xe.eu.messages.text import describe
from vfio_user_xe.device_models.xe.eu.opcodes import (
    LOGIC,
    Condition,
    MathFunction,
    Opcode,
    PredicateMode,
    Shape,
    SyncFunction,
)
from vfio_user_xe.device_models.xe.eu.operand_text import (
    format_destination,
    format_dpas_operand,
    format_plain,
    format_source,
    format_ternary_source,
    register_name,
)
from vfio_user_xe.device_models.xe.eu.swsb import format_swsb

_PREDICATE_SUFFIX = {PredicateMode.LANE: "", PredicateMode.ANY: ".any", PredicateMode.ALL: ".all"}

Labels = Callable[[int], str | None]
"""Gives the label of an address, or None."""


def disassemble(instruction: AnyInstruction, labels: Labels = lambda address: None) -> str:
    """One instruction, without its address."""
    head = _predicate(instruction) + name_of(instruction)
    operands: list[str] = []
    match instruction:
        case Illegal():
            return f"illegal  // {instruction.reason}: 0x{instruction.raw:032x}" if instruction.raw else "illegal"
        case Alu():
            operands = _alu(instruction)
        case Dpas():
            operands = [
                format_dpas_operand(instruction.destination),
                format_dpas_operand(instruction.sources[0]),
                format_dpas_operand(instruction.sources[1], instruction.bits_b),
                format_dpas_operand(instruction.sources[2], instruction.bits_a, always=True),
            ]
        case Branch():
            operands = _branch(instruction, labels)
        case Send():
            operands = _send(instruction)
        case Sync():
            operands = [format_source(instruction.source) if instruction.source is not None else "null"]
    if _shows_width(instruction):
        head += f" ({instruction.width}|M{instruction.first_lane})"
    text = "  ".join([head, *operands, *_options(instruction)])
    if isinstance(instruction, Send):
        text += f"  // {describe(instruction.sfid, instruction.message)}"
    return text


def disassemble_program(program: Program) -> str:
    """All instructions with their addresses as comments; branch targets are labels."""
    lines = []

    def label(address: int) -> str | None:
        return f"L{address:04x}" if address in program.by_address else None

    for instruction in program.instructions:
        if instruction.address in program.labels:
            lines.append(f"L{instruction.address:04x}:")
        lines.append(f"    /* {instruction.address:06x} */  {disassemble(instruction, label)}")
    return "\n".join(lines) + "\n"


def _predicate(instruction: Instruction) -> str:
    parts = ["W"] if instruction.no_mask else []
    if instruction.predicate is not None:
        inverse = "~" if instruction.predicate.inverse else ""
        parts.append(f"{inverse}{_flag(instruction)}{_PREDICATE_SUFFIX[instruction.predicate.mode]}")
    return f"({'&'.join(parts)}) " if parts else ""


def _flag(instruction: Instruction) -> str:
    return f"f{instruction.flag_number}.{instruction.flag_half}"


def name_of(instruction: AnyInstruction) -> str:
    """The mnemonic with what belongs to it: `math.inv`, `send.ugm`."""
    name = instruction.opcode.mnemonic
    match instruction:
        case Alu(opcode=Opcode.BFN):
            return f"{name}.0x{instruction.truth:02X}"
        case Alu(function=MathFunction() as function):
            return f"{name}.{function.name.lower()}"
        case Dpas():
            return f"{name}.{instruction.depth}x{instruction.repeat}"
        case Sync():
            return f"{name}.{SyncFunction(instruction.function).name.lower()}"
        case Send():
            return f"{name}.{instruction.sfid.name.lower()}"
        case Branch(backward=True):
            return f"{name}.b"
    return name


def _shows_width(instruction: AnyInstruction) -> bool:
    if instruction.opcode.shape in (Shape.NONE, Shape.SYNC) or instruction.opcode is Opcode.JMPI:
        return instruction.width != 1 or instruction.first_lane != 0
    return True


def _alu(instruction: Alu) -> list[str]:
    operands = []
    macro: tuple[int | None, ...] = instruction.macro or (None,) * 4
    if instruction.macro and instruction.function is not None:
        operands.append(f"(eo){_flag(instruction)}")
    if instruction.condition is not Condition.NONE:
        operands.append(f"({instruction.condition.name.lower()}){_flag(instruction)}")
    saturate = "(sat)" if instruction.saturate else ""
    if instruction.opcode.shape is Shape.THREE:
        destination = format_destination(instruction.destination, macro[0])
        sources = [
            format_ternary_source(source, index == 2, macro[index + 1])
            for index, source in enumerate(instruction.sources)
        ]
    else:
        logic = instruction.opcode in LOGIC
        destination = format_destination(instruction.destination, macro[0])
        sources = [format_source(source, logic, macro[index + 1]) for index, source in enumerate(instruction.sources)]
    return [*operands, saturate + destination, *sources]


def _branch(instruction: Branch, labels: Labels) -> list[str]:
    operands = [format_plain(instruction.destination)] if instruction.destination is not None else []
    if instruction.source is not None:
        return [*operands, format_plain(instruction.source)]
    base = 0 if instruction.opcode is Opcode.CALLA else instruction.address
    for distance in (instruction.jip, instruction.uip):
        if distance is not None:
            operands.append(labels(base + distance) or str(distance))
    return operands


def _send(instruction: Send) -> list[str]:
    operands = [
        register_name(register.number, register.arf)
        for register in (instruction.destination, instruction.source0, instruction.source1)
    ]
    if instruction.length1 or not instruction.length1_in_extended:
        operands[2] += f":{instruction.length1}"
    if instruction.extended_pointer is None:
        operands.append(f"0x{instruction.extended:08X}")
    else:
        offset = f"+0x{instruction.extended:X}" if instruction.extended else ""
        operands.append(f"a0.{instruction.extended_pointer}{offset}")
    operands.append("a0.0" if instruction.descriptor is None else f"0x{instruction.descriptor:08X}")
    return operands


def _options(instruction: AnyInstruction) -> list[str]:
    options = format_swsb(instruction.opcode, instruction.swsb)
    if isinstance(instruction, Send):
        options += ["EOT"] * instruction.end_of_thread + ["ExBSO"] * instruction.extended_bso
    options += ["Atomic"] * instruction.atomic + ["Breakpoint"] * instruction.breakpoint
    options += ["Compacted"] * (instruction.size == 8)
    return [f"{{{','.join(options)}}}"] if options else []
