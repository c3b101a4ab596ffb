"""The register storage of a thread: one array of bytes with the GRF first and the architecture registers behind it.

Both files share one numbering of bytes, so that an operand is one offset and regions run on across registers. Storage
always has 256 general registers; threads with 128 simply do not name the others. `ip`, `ce0`, `tm0` and `n0` are kept
in storage too, and are brought up to date before an instruction reads them (`ir.Register.is_live`).
"""

from __future__ import annotations

from enum import IntEnum

GRF_BYTES = 64
GRF_COUNT = 256
ARF_BASE = GRF_BYTES * GRF_COUNT
"""Offset of the first architecture register."""


class Arf(IntEnum):
    """Kind of an architecture register: high nibble of its number (iga `RegName`)."""

    NULL = 0x0
    A = 0x1
    ACC = 0x2
    F = 0x3
    CE = 0x4
    MSG = 0x5
    SR = 0x7
    CR = 0x8
    N = 0x9
    IP = 0xA
    TDR = 0xB
    TM = 0xC
    FC = 0xD
    DBG = 0xF


# Bytes of storage: (first number, how many registers, bytes of each). mme0-7 are numbers 8 to 15 of the accumulators.
_SIZES: dict[Arf, tuple[int, int]] = {
    Arf.NULL: (1, 64),
    Arf.A: (1, 64),
    Arf.ACC: (16, 64),
    Arf.F: (4, 4),
    Arf.CE: (1, 16),
    Arf.MSG: (1, 64),
    Arf.SR: (1, 64),
    Arf.CR: (1, 64),
    Arf.N: (1, 64),
    Arf.IP: (1, 16),
    Arf.TDR: (1, 64),
    Arf.TM: (1, 64),
    Arf.FC: (5, 64),
    Arf.DBG: (1, 64),
}


def _lay_out() -> tuple[dict[Arf, int], int]:
    offsets: dict[Arf, int] = {}
    at = ARF_BASE
    for kind, (count, size) in _SIZES.items():
        offsets[kind] = at
        at += count * size
    return offsets, -(-at // 64) * 64


_OFFSETS, _END = _lay_out()

STORAGE_BYTES = _END + 2 * 4 * GRF_BYTES
"""Bytes of a thread's storage. Behind the last register is slack, so that a region that runs on stays inside."""


def arf_offset(number: int) -> int:
    """Offset in storage of architecture register `number` (8 bits: kind, index).

    Raises:
        ValueError: there is no such register.
    """
    try:
        kind = Arf(number >> 4)
    except ValueError:
        raise ValueError(f"architecture register 0x{number:02x} does not exist") from None
    count, size = _SIZES[kind]
    if number & 0xF >= count:
        raise ValueError(f"architecture register {kind.name.lower()}{number & 0xF} does not exist (there are {count})")
    return _OFFSETS[kind] + (number & 0xF) * size


A0 = arf_offset(0x10)
ACC0 = arf_offset(0x20)
F0 = arf_offset(0x30)
CE0 = arf_offset(0x40)
SR0 = arf_offset(0x70)
DISPATCH_MASKS = SR0 + 8, SR0 + 12
"""sr0.2 and sr0.3: the dispatch mask and the vector mask (brw_reg.h: brw_dmask_reg, brw_vmask_reg); threads have one of them."""
CR0 = arf_offset(0x80)
N0 = arf_offset(0x90)
IP = arf_offset(0xA0)
TM0 = arf_offset(0xC0)

LIVE = frozenset({Arf.CE, Arf.IP, Arf.TM, Arf.N})
"""Registers whose value is computed when they are read."""
