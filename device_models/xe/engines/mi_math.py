"""MI_MATH: a 64-bit ALU on the sixteen general-purpose registers (instructions/xe_alu_commands.h).

Each dword is `opcode 31:20 | operand1 19:10 | operand2 9:0`. Flags are stored and loaded as all ones or zero.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer

NOOP, FENCE_RD, FENCE_WR = 0x000, 0x001, 0x002
LOAD, LOAD0, LOAD1, LOADIND, LOADINV = 0x080, 0x081, 0x481, 0x082, 0x480
ADD, SUB, AND, OR, XOR, SHL, SHR, SAR = range(0x100, 0x108)
STORE, STOREIND, STOREINV = 0x180, 0x181, 0x580
SRCA, SRCB, ACCU, ZF, CF = 0x20, 0x21, 0x31, 0x32, 0x33

OPCODES = {
    NOOP: "NOOP",
    FENCE_RD: "FENCE_RD",
    FENCE_WR: "FENCE_WR",
    LOAD: "LOAD",
    LOAD0: "LOAD0",
    LOAD1: "LOAD1",
    LOADIND: "LOADIND",
    LOADINV: "LOADINV",
    ADD: "ADD",
    SUB: "SUB",
    AND: "AND",
    OR: "OR",
    XOR: "XOR",
    SHL: "SHL",
    SHR: "SHR",
    SAR: "SAR",
    STORE: "STORE",
    STOREIND: "STOREIND",
    STOREINV: "STOREINV",
}

_ALL = (1 << 64) - 1


def execute(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_MATH."""
    gpr = streamer.lrc.gpr
    a = b = accu = zf = cf = 0
    for dword in words[index + 1 : index + length]:
        opcode, first, second = dword >> 20, dword >> 10 & 0x3FF, dword & 0x3FF
        if ADD <= opcode <= SAR:
            accu, zf, cf = _compute(opcode, a, b)
            continue
        if opcode in (LOAD, LOADINV, STORE, STOREINV, STOREIND):
            value = _operand(gpr, second, a, b, accu, zf, cf)
            if opcode in (LOADINV, STOREINV):
                value ^= _ALL
        if opcode in (LOAD, LOADINV, LOAD0, LOAD1):
            if opcode in (LOAD0, LOAD1):
                value = _ALL if opcode == LOAD1 else 0
            if first == SRCA:
                a = value
            elif first == SRCB:
                b = value
            else:
                streamer.engine.report(f"MI_MATH loads operand {first:#x}, not SRCA or SRCB")
        elif opcode in (STORE, STOREINV):
            _set_register(streamer, first, value)
        elif opcode == LOADIND:
            place = _operand(gpr, second, a, b, accu, zf, cf)
            _set_register(streamer, first, streamer.space.read64(place & (1 << 48) - 8))
        elif opcode == STOREIND:
            place = _operand(gpr, first, a, b, accu, zf, cf)
            streamer.space.write64(place & (1 << 48) - 8, value)
        elif opcode not in (NOOP, FENCE_RD, FENCE_WR):
            streamer.engine.report(f"MI_MATH has no opcode {opcode:#x}")
    return None


def _compute(opcode: int, a: int, b: int) -> tuple[int, int, int]:
    """(accumulator, zero flag, carry flag)."""
    carry = 0
    if opcode == ADD:
        result = a + b
        carry = result >> 64
    elif opcode == SUB:
        result = a - b
        carry = a < b
    elif opcode == AND:
        result = a & b
    elif opcode == OR:
        result = a | b
    elif opcode == XOR:
        result = a ^ b
    elif opcode == SHL:
        result = a << (b & 63)
    elif opcode == SHR:
        result = a >> (b & 63)
    else:
        result = (a - (1 << 64) if a >> 63 else a) >> (b & 63)
    result &= _ALL
    return result, 0 if result else _ALL, _ALL if carry else 0


def _operand(gpr: list[int], operand: int, a: int, b: int, accu: int, zf: int, cf: int) -> int:
    if operand < 16:
        return gpr[2 * operand] | gpr[2 * operand + 1] << 32
    return {SRCA: a, SRCB: b, ACCU: accu, ZF: zf, CF: cf}.get(operand, 0)


def _set_register(streamer: CommandStreamer, operand: int, value: int) -> None:
    if operand < 16:
        gpr = streamer.lrc.gpr
        gpr[2 * operand], gpr[2 * operand + 1] = value & 0xFFFFFFFF, value >> 32
    else:
        streamer.engine.report(f"MI_MATH stores to operand {operand:#x}, not a register")
