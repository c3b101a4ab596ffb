"""A small assembler: the disassembler's text back into instructions and bytes.

    code = assemble('''
        loop:
            (W) add (1|M0)  r10.0<1>:d  r10.0<0;1,0>:d  -1:d
            (W) cmp (1|M0)  (gt)f0.0  null<1>:d  r10.0<0;1,0>:d  0:d
            (f0.0) goto (16|M0)  loop loop
            (W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}
    ''')

One instruction a line; `//` and `/* */` are comments; a name with a colon is a label. Branches take labels, or distances in
bytes from the branch (calla: addresses). An instruction with `{Compacted}` is encoded in 8 bytes, others in 16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from vfio_user_xe.device_models.xe.eu.data_types import DataType
from vfio_user_xe.device_models.xe.eu.decode_instruction import branch_kind, branch_target, has_two_distances
from vfio_user_xe.device_models.xe.eu.encode import encode
from vfio_user_xe.device_models.xe.eu.fields import EncodingError
from vfio_user_xe.device_models.xe.eu.ir import (
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Link,
    Nop,
    Predicate,
    Register,
    Send,
    Sync,
)
from vfio_user_xe.device_models.xe.eu.messages.decode import decode as decode_message
from vfio_user_xe.device_models.xe.eu.opcodes import (
    BY_MNEMONIC,
    Condition,
    MathFunction,
    Opcode,
    PredicateMode,
    Sfid,
    Shape,
    SyncFunction,
)
from vfio_user_xe.device_models.xe.eu.operand_parser import (
    parse_destination,
    parse_dpas_operand,
    parse_macro,
    parse_plain,
    parse_source,
    register_number,
)
from vfio_user_xe.device_models.xe.eu.swsb import is_swsb, parse_swsb

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_LABEL = re.compile(r"^\s*([A-Za-z_]\w*):(?=\s|$)")
_LINE = re.compile(
    r"^(?:\((?P<predicate>[^)]*)\)\s*)?(?P<name>[a-z]\w*)(?P<sub>(?:\.\w+)*)"
    r"\s*(?:\((?P<width>\d+)\|M(?P<lane>\d+)\))?\s*(?P<rest>[^{]*?)\s*(?:\{(?P<options>[^}]*)\})?$"
)
_FLAG = re.compile(r"^f([0-3])\.([01])(\.any|\.all)?$")
_MODIFIER = re.compile(r"^\((eo|eq|ne|gt|ge|lt|le|ov|un|z|nz)\)f([0-3])\.([01])$")
_MODES = {None: PredicateMode.LANE, ".any": PredicateMode.ANY, ".all": PredicateMode.ALL}
_SYNONYMS = {"z": "eq", "nz": "ne"}


class AssemblyError(ValueError):
    """Text that is no program; the message names the line."""


@dataclass(frozen=True)
class _Statement:
    line: int
    address: int
    text: str
    size: int


def assemble(text: str, base: int = 0) -> bytes:
    """The bytes of a program that lies at `base` bytes from the instruction base.

    Raises:
        AssemblyError: a line is malformed, cannot be encoded, or names no label.
    """
    return b"".join(encode(instruction) for instruction in parse_program(text, base))


def parse_program(text: str, base: int = 0) -> list[AnyInstruction]:
    """The instructions of a program that lies at `base`.

    Raises:
        AssemblyError: as `assemble`.
    """
    statements, labels = _split(text, base)
    instructions = []
    for statement in statements:
        try:
            instruction = _parse(statement.text, statement.address, statement.size, labels)
            encode(instruction)
        except (EncodingError, ValueError, KeyError) as error:
            raise AssemblyError(f"line {statement.line}: {statement.text.strip()}: {error}") from error
        instructions.append(instruction)
    return instructions


def parse_instruction(text: str, address: int = 0) -> AnyInstruction:
    """One instruction without labels.

    Raises:
        AssemblyError: as `assemble`.
    """
    (instruction,) = parse_program(text, address)
    return instruction


def _split(text: str, base: int) -> tuple[list[_Statement], dict[str, int]]:
    clean = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    statements: list[_Statement] = []
    labels: dict[str, int] = {}
    address = base
    for number, whole in enumerate(clean.splitlines(), 1):
        line = whole
        while found := _LABEL.match(line):
            if found[1] in labels:
                raise AssemblyError(f"line {number}: label {found[1]} is there twice")
            labels[found[1]] = address
            line = line[found.end() :]
        if line.strip():
            size = 8 if re.search(r"\{[^}]*\bCompacted\b", line) else 16
            statements.append(_Statement(number, address, line.strip(), size))
            address += size
    return statements, labels


def _parse(text: str, address: int, size: int, labels: dict[str, int]) -> AnyInstruction:
    found = _LINE.match(text)
    if found is None:
        raise EncodingError("malformed")
    name = found["name"]
    if name not in BY_MNEMONIC:
        raise EncodingError(f"no instruction is called {name}")
    opcode = BY_MNEMONIC[name]
    subs = found["sub"].split(".")[1:]
    operands = found["rest"].split()
    options = [option.strip() for option in (found["options"] or "").split(",") if option.strip()]
    common = _common(opcode, found, address, size, options)
    match opcode.shape:
        case Shape.NONE:
            return Illegal(opcode=opcode, address=address) if opcode is Opcode.ILLEGAL else Nop(**common)
        case Shape.SYNC:
            (operand,) = operands
            source = None if operand == "null" else parse_source(operand)
            return Sync(function=SyncFunction[subs[0].upper()], source=source, **common)
        case Shape.BRANCH:
            return _branch(opcode, "b" in subs, operands, labels, common)
        case Shape.SEND:
            return _send(Sfid[subs[0].upper()], operands, options, common)
        case Shape.DPAS:
            return _dpas(subs[0], operands, common)
    return _alu(opcode, subs, operands, common)


def _common(opcode: Opcode, found: re.Match[str], address: int, size: int, options: list[str]) -> dict[str, Any]:
    common: dict[str, Any] = {
        "opcode": opcode,
        "address": address,
        "size": size,
        "width": int(found["width"] or 1),
        "first_lane": int(found["lane"] or 0),
        "atomic": "Atomic" in options,
        "breakpoint": "Breakpoint" in options,
        "swsb": parse_swsb(opcode, [option for option in options if is_swsb(option)]),
    }
    unknown = [o for o in options if o not in ("Atomic", "Breakpoint", "Compacted", "EOT", "ExBSO") and not is_swsb(o)]
    if unknown:
        raise EncodingError(f"option {unknown[0]} does not exist")
    for part in (found["predicate"] or "").split("&"):
        if part == "W":
            common["no_mask"] = True
        elif part:
            flag = _FLAG.match(part.lstrip("~"))
            if flag is None:
                raise EncodingError(f"predicate {part} is malformed")
            common["predicate"] = Predicate(_MODES[flag[3]], part.startswith("~"))
            common["flag_number"], common["flag_half"] = int(flag[1]), int(flag[2])
    return common


def _alu(opcode: Opcode, subs: list[str], operands: list[str], common: dict[str, Any]) -> Alu:
    if found := _MODIFIER.match(operands[0]):
        operands = operands[1:]
        flag = (int(found[2]), int(found[3]))
        if "predicate" in common and flag != (common["flag_number"], common["flag_half"]):
            raise EncodingError("the condition modifier must use the flag of the predicate")
        common["flag_number"], common["flag_half"] = flag
        if found[1] != "eo":
            common["condition"] = Condition[_SYNONYMS.get(found[1], found[1]).upper()]
    macro = tuple(number for number in map(parse_macro, operands) if number is not None)
    if operands[0].startswith("(sat)"):
        common["saturate"] = True
        operands[0] = operands[0].removeprefix("(sat)")
    if opcode is Opcode.MATH:
        common["function"] = MathFunction[subs[0].upper()]
    if opcode is Opcode.BFN:
        common["truth"] = int(subs[0], 16)
    ternary = opcode.shape is Shape.THREE
    return Alu(
        destination=parse_destination(operands[0]),
        sources=tuple(parse_source(operand, rows=ternary and index < 2) for index, operand in enumerate(operands[1:])),
        macro=macro,
        **common,
    )


def _dpas(sub: str, operands: list[str], common: dict[str, Any]) -> Dpas:
    depth, repeat = (int(number) for number in sub.split("x"))
    destination, accumulator, b, a = (parse_dpas_operand(operand) for operand in operands)
    return Dpas(
        destination=replace(destination[0], horizontal=1),
        sources=(accumulator[0], b[0], a[0]),
        repeat=repeat,
        depth=depth,
        bits_b=b[1],
        bits_a=a[1],
        **common,
    )


def _branch(
    opcode: Opcode, backward: bool, operands: list[str], labels: dict[str, int], common: dict[str, Any]
) -> Branch:
    leavers, link = branch_kind(opcode)
    address = common["address"]
    destination = source = jip = uip = None
    if link is Link.CALL:
        destination = parse_plain(operands[0])
        operands = operands[1:]
    if operands and operands[0] not in labels and (source := parse_plain(operands[0])) is not None:
        operands = []
    base = 0 if opcode is Opcode.CALLA else address
    distances = [labels[text] - base if text in labels else _distance(text) for text in operands]
    if source is None:
        wanted = 2 if has_two_distances(opcode) else 1
        if len(distances) == 1 and wanted == 2:
            distances *= 2
        if len(distances) != wanted:
            raise EncodingError(f"{opcode.mnemonic} has {wanted} targets, not {len(distances)}")
        jip, uip = distances[0], distances[1] if wanted == 2 else None
    if opcode is Opcode.JMPI:
        common["no_mask"] = True
    return Branch(
        leavers=leavers,
        link=link,
        target=branch_target(opcode, address, jip, uip),
        source=source,
        destination=destination,
        backward=backward,
        jip=jip,
        uip=uip,
        **common,
    )


def _distance(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise EncodingError(f"label {text} does not exist") from None


def _send(sfid: Sfid, operands: list[str], options: list[str], common: dict[str, Any]) -> Send:
    destination, source0, source1, extended, descriptor = operands
    name1, _, length1 = source1.partition(":")
    registers = [
        Register(DataType.UD, number, 0, arf) for number, arf in map(register_number, (destination, source0, name1))
    ]
    pointer = None
    if extended.startswith("a0."):
        word, _, offset = extended[3:].partition("+")
        pointer, extended = int(word), offset or "0"
    number = int(extended, 0)
    value = None if descriptor.startswith("a0.") else int(descriptor, 0)
    message = None if value is None else decode_message(sfid, value, number, common["width"], pointer is not None)
    return Send(
        sfid=sfid,
        destination=registers[0],
        source0=registers[1],
        source1=registers[2],
        length1=int(length1 or 0),
        descriptor=value,
        extended=number,
        extended_pointer=pointer,
        end_of_thread="EOT" in options,
        extended_bso="ExBSO" in options,
        message=message,
        **common,
    )
