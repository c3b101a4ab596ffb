"""What an instruction is, without its registers: `describe_kind`. For counting which ones a back end has no handlers for."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from vfio_user_xe.device_models.xe.eu.disassembler import name_of
from vfio_user_xe.device_models.xe.eu.ir import Alu, AnyInstruction, Indirect, Send, Source
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage
from vfio_user_xe.device_models.xe.eu.messages.text import describe
from vfio_user_xe.device_models.xe.eu.opcodes import Condition


@lru_cache(maxsize=1024)
def describe_kind(instruction: AnyInstruction) -> str:
    """Its name, width and types, or what its message asks for: `add (16) q, d, ud sat`, `send (32) load.ugm.d32.a64`."""
    name = name_of(instruction)
    match instruction:
        case Alu():
            parts = [instruction.destination.type.label, *map(_source, instruction.sources)]
            text = f"{name} ({instruction.width}) {', '.join(parts)}"
            if instruction.saturate:
                text += " sat"
            if instruction.condition is not Condition.NONE:
                text += f" {instruction.condition.name.lower()}"
            if isinstance(instruction.destination, Indirect):
                text += " to a register in a0"
            return text
        case Send():
            message = instruction.message
            if isinstance(message, LscMessage):
                message = replace(message, offset=0)
            end = " EOT" if instruction.end_of_thread else ""
            return f"{instruction.opcode.mnemonic} ({instruction.width}) {describe(instruction.sfid, message)}{end}"
    return name


def _source(source: Source) -> str:
    return source.type.label + "[a0]" * isinstance(source, Indirect)
