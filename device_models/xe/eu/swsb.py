"""Text of the scoreboard field (iga_types_swsb.cpp, four distance pipes): `@1`, `F@2`, `$3`, `$3.dst`, `A@1,$2`.

Back ends ignore it, since they complete each instruction before the next; the disassembler and the assembler keep it.
"""

from __future__ import annotations

import re

from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, Shape

_PIPES = ("", "A", "F", "I", "L", "M")
_TOKENS = {0x80: ".dst", 0xA0: ".src", 0xC0: ""}
_NO_ACCUMULATOR = 0xF0
# With both: the pipe of the distance and the suffix of the token, by bits 9:8 and what the instruction is.
_BOTH_SEND = {1: ("A", ""), 2: ("F", ""), 3: ("I", "")}
_BOTH_DPAS = {1: ("", ""), 2: ("", ".src"), 3: ("", ".dst")}
_BOTH_OTHER = {1: ("", ".dst"), 2: ("", ".src"), 3: ("A", ".dst")}

_DISTANCE = re.compile(r"^([AFILM]?)@([1-7])$")
_TOKEN = re.compile(r"^\$(\d+)(\.dst|\.src|)$")


def _both(opcode: Opcode) -> dict[int, tuple[str, str]]:
    if opcode.shape is Shape.SEND:
        return _BOTH_SEND
    return _BOTH_DPAS if opcode.shape is Shape.DPAS else _BOTH_OTHER


def format_swsb(opcode: Opcode, value: int) -> list[str]:
    """The field as options of an instruction."""
    if value == 0:
        return []
    if value == _NO_ACCUMULATOR:
        return ["NoAccSBSet"]
    if value >> 8:
        pipe, suffix = _both(opcode)[value >> 8]
        return [f"{pipe}@{value >> 5 & 7}", f"${value & 0x1F}{suffix}"] if value >> 5 & 7 else [f"SWSB=0x{value:x}"]
    if value < len(_PIPES) * 8 and value & 7:
        return [f"{_PIPES[value >> 3]}@{value & 7}"]
    if value & 0xE0 in _TOKENS:
        return [f"${value & 0x1F}{_TOKENS[value & 0xE0]}"]
    return [f"SWSB=0x{value:x}"]


def parse_swsb(opcode: Opcode, options: list[str]) -> int:
    """The field from the options that are of it.

    Raises:
        EncodingError: they cannot be encoded together.
    """
    distance = token = None
    for option in options:
        if option.startswith("SWSB="):
            return int(option[5:], 0)
        if option == "NoAccSBSet":
            return _NO_ACCUMULATOR
        if found := _DISTANCE.match(option):
            distance = (found[1], int(found[2]))
        elif found := _TOKEN.match(option):
            token = (int(found[1]), found[2])
        else:
            raise EncodingError(f"{option} is no scoreboard option")
    if distance is None and token is None:
        return 0
    if token is None and distance is not None:
        return _PIPES.index(distance[0]) << 3 | distance[1]
    assert token is not None
    if token[0] > 31:
        raise EncodingError(f"scoreboard token ${token[0]} does not exist (0 to 31)")
    if distance is None:
        return next(code for code, suffix in _TOKENS.items() if suffix == token[1]) | token[0]
    for code, combination in _both(opcode).items():
        if combination == (distance[0], token[1]):
            return code << 8 | distance[1] << 5 | token[0]
    raise EncodingError(f"{opcode.mnemonic} cannot have {{{','.join(options)}}}")


def is_swsb(option: str) -> bool:
    """Whether an option belongs to the scoreboard."""
    return bool(option.startswith("SWSB=") or option == "NoAccSBSet" or _DISTANCE.match(option) or _TOKEN.match(option))
