"""MI_ATOMIC: read-modify-write of memory in 4, 8 or 16 bytes.

Opcodes are `operation | 0x20 for 8 bytes | 0x40 for 16 bytes`. Operands are in the command (inline data) or in
registers: R0 and R1, R2 and R3; the old value is returned in R4 and R5. Nothing else writes memory while the executor
does, so that is all that atomicity takes towards other engines; towards CPUs it is as good as on a bus without locks.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer

GLOBAL_GTT = 1 << 22
INLINE_DATA = 1 << 18
RETURN_DATA = 1 << 16

OPERATIONS = {
    0x1: "AND",
    0x2: "OR",
    0x3: "XOR",
    0x4: "MOVE",
    0x5: "INC",
    0x6: "DEC",
    0x7: "ADD",
    0x8: "SUB",
    0x9: "RSUB",
    0xA: "IMAX",
    0xB: "IMIN",
    0xC: "UMAX",
    0xD: "UMIN",
    0xE: "CMP_WR",
    0xF: "PREDEC",
}
_SIZES = {0: 4, 2: 8, 4: 16}
_R0, _R2, _R4 = 0, 4, 8  # dwords of the register file


def execute(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_ATOMIC."""
    header = words[index]
    address = (words[index + 1] & ~3) | (words[index + 2] & 0xFFFF) << 32
    operation, size = header >> 8 & 0xF, _SIZES.get(header >> 12 & 0xF, 0)
    if operation not in OPERATIONS or not size or (size == 16 and operation not in (0x4, 0xE)):
        streamer.engine.report(f"MI_ATOMIC has no opcode {header >> 8 & 0xFF:#x}")
        return None
    first, second = _operands(streamer, words, index, length, size // 4)
    space = streamer.address_space(header & GLOBAL_GTT)
    old = space.read32(address) if size == 4 else int.from_bytes(space.read(address, size), "little")
    new = _apply(operation, old, first, second, size * 8)
    if size == 4:
        space.write32(address, new)
    else:
        space.write(address, new.to_bytes(size, "little"))
    if header & RETURN_DATA:
        result = new if operation == 0xF else old
        for n in range(size // 4):
            streamer.lrc.gpr[_R4 + n] = result >> 32 * n & 0xFFFFFFFF
    return None


def _operands(streamer: CommandStreamer, words: memoryview, index: int, length: int, dwords: int) -> tuple[int, int]:
    if words[index] & INLINE_DATA:
        # Dwords of the two operands take turns.
        inline = words[index + 3 : index + length].tolist() + [0] * 8
        first, second = inline[0:8:2], inline[1:8:2]
    else:
        gpr = streamer.lrc.gpr
        first, second = gpr[_R0 : _R0 + 4], gpr[_R2 : _R2 + 4]
    return _join(first[:dwords]), _join(second[:dwords])


def _join(dwords: list[int]) -> int:
    if len(dwords) == 1:
        return dwords[0]
    return sum(dword << 32 * n for n, dword in enumerate(dwords))


def _apply(operation: int, old: int, first: int, second: int, bits: int) -> int:
    mask = (1 << bits) - 1
    sign = 1 << (bits - 1)
    if operation in (0xA, 0xB):
        pick = max if operation == 0xA else min
        return pick(old ^ sign, first ^ sign) ^ sign
    results = {
        0x1: old & first,
        0x2: old | first,
        0x3: old ^ first,
        0x4: first,
        0x5: old + 1,
        0x6: old - 1,
        0x7: old + first,
        0x8: old - first,
        0x9: first - old,
        0xC: max(old, first),
        0xD: min(old, first),
        0xE: second if old == first else old,
        0xF: old - 1,
    }
    return results[operation] & mask
