"""Programs into ops: what each instruction becomes, in the order of addresses, with an op at each label."""

from __future__ import annotations

from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.eu.compiled.accumulators import unread_products
from vfio_user_xe.device_models.xe.eu.compiled.alu import translate_alu
from vfio_user_xe.device_models.xe.eu.compiled.emit import Constants, Handlers, NotHere, Op
from vfio_user_xe.device_models.xe.eu.compiled.messages import plain_send
from vfio_user_xe.device_models.xe.eu.compiled.systolic import translate_dpas
from vfio_user_xe.device_models.xe.eu.ir import (
    Alu,
    AnyInstruction,
    Branch,
    Dpas,
    Illegal,
    Leavers,
    Link,
    Nop,
    Program,
    Register,
    Send,
    Sync,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Opcode, SyncFunction
from vfio_user_xe.device_models.xe.eu.registers import Arf

_STRAY = "flow_stray"
_INTERPRET = "flow_interpret"


@dataclass
class Translation:
    """Ops of a program, with the address of each and whether an instruction begins there."""

    ops: list[tuple[Op, int, bool]] = field(default_factory=list)
    messages: bytearray = field(default_factory=bytearray)
    constants: Constants = field(default_factory=Constants)
    interpreted: list[AnyInstruction] = field(default_factory=list)
    """Instructions that have no handlers."""
    skipped: dict[int, int] = field(default_factory=dict)
    """Addresses of instructions without ops, and which op is the next."""

    def add(self, ops: list[Op], address: int) -> None:
        """Ops of one instruction, with that of its label first: a thread stops before the first, or behind the last."""
        self.ops.extend((op, address, index == 0) for index, op in enumerate(ops))

    def skip(self, label: list[Op], address: int) -> None:
        """An instruction that needs nothing but its label: a thread that is there goes on with the next op."""
        if not label:
            self.skipped[address] = len(self.ops)
        self.add(label, address)


def translate(program: Program, handler: Handlers) -> Translation:
    """All instructions of a program; those without handlers become a return to the interpreter."""
    result = Translation()
    unread = unread_products(program)
    expected: int | None = None
    for instruction in program.instructions:
        if expected is not None and expected != instruction.address:
            result.add([Op(_STRAY)], expected)
        label = [Op("flow_label")] if instruction.address in program.labels else []
        expected = instruction.next
        if instruction.address in unread:
            result.skip(label, instruction.address)
            continue
        try:
            ops = _instruction(instruction, result)
            if any(handler(op.handler) is None for op in ops):
                raise NotHere
        except NotHere:
            result.interpreted.append(instruction)
            ops = [Op(_INTERPRET)]
        result.add([*label, *ops], instruction.address)
    result.add([Op(_STRAY)], expected or 0)
    return result


def _instruction(instruction: AnyInstruction, result: Translation) -> list[Op]:
    if instruction.breakpoint:
        raise NotHere
    match instruction:
        case Alu():
            ops = translate_alu(instruction, result.constants)
            return [Op("flow_enables"), *ops] if _reads_enables(instruction) else ops
        case Dpas():
            return [translate_dpas(instruction, result.constants)]
        case Branch():
            return [_branch(instruction)]
        case Send():
            return [_send(instruction, result)]
        case Sync(function=SyncFunction.BAR):
            return [Op("sync_barrier")]
        case Sync() | Nop():
            return [Op("flow_nop")]
        case Illegal():
            raise NotHere
    raise NotHere


def _reads_enables(instruction: Alu) -> bool:
    return any(isinstance(one, Register) and one.arf and one.number >> 4 == Arf.CE for one in instruction.sources)


# How `flow_far` finds its target, op->detail: flow.c.
_DIRECT, _DISTANCE, _ABSOLUTE = range(3)


def _branch(branch: Branch) -> Op:
    if branch.link is not Link.NONE or (branch.target is None and branch.leavers is not Leavers.NONE):
        return _far(branch)
    if branch.leavers is Leavers.NONE or (branch.leavers is Leavers.FALSE and branch.predicate is None):
        return Op("flow_nop")
    handler = {
        Leavers.TRUE: "flow_true",
        Leavers.FALSE: "flow_false",
        Leavers.ALL: "flow_all",
        Leavers.UNIFORM: "flow_uniform",
    }[branch.leavers]
    if branch.predicate is None:
        handler = "flow_all"
    op = Op(handler).masked(branch)
    op.target = branch.target
    return op


def _far(branch: Branch) -> Op:
    """Calls, returns, and branches whose target is in a register."""
    if branch.leavers not in (Leavers.TRUE, Leavers.UNIFORM):
        raise NotHere
    op = Op("flow_far").masked(branch)
    op.final = int(branch.leavers is Leavers.UNIFORM)
    op.condition = {Link.NONE: 0, Link.CALL: 1, Link.RETURN: 2}[branch.link]
    op.target = branch.target
    if branch.target is None:
        source = branch.source
        if source is None or source.is_live:
            raise NotHere
        first = 4 if branch.opcode is Opcode.BRC else 0
        op.sources = (source.offset + first, 0, 0)
        op.detail = _ABSOLUTE if branch.link is Link.RETURN or branch.opcode is Opcode.CALLA else _DISTANCE
    destination = branch.destination
    if branch.link is Link.CALL and destination is not None and not destination.is_null:
        op.saturate = True  # there is a destination
        op.destination = destination.offset
    return op


def _send(send: Send, result: Translation) -> Op:
    plain = plain_send(send)
    if plain is None:
        raise NotHere
    op = Op(plain.handler).masked(send)
    op.sources = (plain.payload.offset if not plain.payload.is_null else 0, 0, 0)
    if not send.destination.is_null:
        op.destination = send.destination.offset
    if plain.message:
        op.message = len(result.messages)
        result.messages.extend(plain.message)
    return op
