"""Commands as text: for traces, `inspect` and tests. Everything it knows is in the declarations (`commands.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vfio_user_xe.device_models.xe.engines import commands, mi_atomic, mi_math


def fields(words: memoryview | list[int]) -> dict[str, Any]:
    """The fields of the command that `words` is, by name; numbers, or text where that says more."""
    command = commands.find(words[0])
    if command is None:
        return {"dwords": " ".join(f"{word:08x}" for word in list(words)[:8])}
    found: dict[str, Any] = {field.name: field.of(words) for field in command.fields if field.dword < len(words)}
    if command.name == "MI_MATH":
        found["alu"] = ", ".join(_alu(word) for word in list(words)[1:])
    elif command.name == "MI_ATOMIC":
        found["opcode"] = _atomic(found["opcode"])
    elif command.name == "MI_LOAD_REGISTER_IMM":
        found["registers"] = (len(words) - 1) // 2
    elif command.name == "MI_STORE_DATA_IMM":
        found["dwords"] = len(words) - 3
    return found


def line(words: memoryview | list[int]) -> str:
    """One command: its name and those of its fields that are not 0."""
    text = commands.name_of(words[0])
    for name, value in fields(words).items():
        if value:
            text += f" {name}={value:#x}" if isinstance(value, int) else f" {name}={value}"
    return text


def disassemble(words: memoryview | list[int], address: int = 0) -> Iterator[tuple[int, str]]:
    """(address, line) of each command in `words`, up to the end or the end of the batch."""
    index = 0
    while index < len(words):
        length = commands.length_of(words[index])
        command = words[index : index + length]
        yield address + 4 * index, line(command)
        if commands.name_of(words[index]) == "MI_BATCH_BUFFER_END":
            return
        index += length


def _alu(word: int) -> str:
    opcode = mi_math.OPCODES.get(word >> 20, f"{word >> 20:#x}")
    operands = [_operand(word >> 10 & 0x3FF), _operand(word & 0x3FF)]
    arity: Mapping[str, int] = {"LOAD": 2, "LOADINV": 2, "STORE": 2, "STOREINV": 2, "LOADIND": 2, "STOREIND": 2}
    count = arity.get(opcode, 1 if opcode in ("LOAD0", "LOAD1") else 0)
    return " ".join([opcode, *operands[:count]])


def _operand(number: int) -> str:
    named = {
        mi_math.SRCA: "SRCA",
        mi_math.SRCB: "SRCB",
        mi_math.ACCU: "ACCU",
        mi_math.ZF: "ZF",
        mi_math.CF: "CF",
    }
    return named.get(number, f"R{number}")


def _atomic(opcode: int) -> str:
    size = {0: 4, 2: 8, 4: 16}.get(opcode >> 4)
    name = mi_atomic.OPERATIONS.get(opcode & 0xF)
    return f"{name}{8 * size}" if name and size else f"{opcode:#x}"
