"""Commands of the engines as dwords, with the names of the PRM."""

from __future__ import annotations

END = 0x0500_0000
NOOP = 0
ARB_CHECK = 0x0280_0000
USER_INTERRUPT = 0x0100_0000


GGTT = 1 << 22
"""Flag of MI_STORE_DATA_IMM and its like: the address is a GGTT address."""


def sdi(address: int, *values: int, flags: int = 0) -> tuple[int, ...]:
    """MI_STORE_DATA_IMM of dwords."""
    return 0x1000_0000 | flags | (len(values) + 1), address & 0xFFFFFFFF, address >> 32, *values


def lri(*pairs: int, flags: int = 1 << 19) -> tuple[int, ...]:
    """MI_LOAD_REGISTER_IMM of (register, value) pairs, relative to the engine unless `flags` say otherwise."""
    return 0x1100_0000 | flags | (len(pairs) - 1), *pairs


def srm(register: int, address: int, flags: int = 1 << 19) -> tuple[int, ...]:
    """MI_STORE_REGISTER_MEM."""
    return 0x1200_0002 | flags, register, address & 0xFFFFFFFF, address >> 32


def lrm(register: int, address: int, flags: int = 1 << 19) -> tuple[int, ...]:
    """MI_LOAD_REGISTER_MEM."""
    return 0x1480_0002 | flags, register, address & 0xFFFFFFFF, address >> 32


def semaphore(address: int, value: int, compare: int, flags: int = 1 << 15) -> tuple[int, ...]:
    """MI_SEMAPHORE_WAIT, polling memory."""
    return 0x0E00_0003 | flags | compare << 12, value, address & 0xFFFFFFFF, address >> 32, 0


def conditional_end(address: int, value: int, compare: int, flags: int = 0) -> tuple[int, ...]:
    """MI_CONDITIONAL_BATCH_BUFFER_END."""
    return 0x1B20_0002 | flags | compare << 12, value, address & 0xFFFFFFFF, address >> 32


GPR = 0x600


def gpr(number: int) -> int:
    """Offset of general-purpose register `number` from the engine's base."""
    return GPR + 8 * number


SOURCE_VA, TARGET_VA = 0x10_0000_0000, 0x20_0000_0000
"""Where tests of copies map what they copy."""


def address(va: int) -> tuple[int, int]:
    return va & 0xFFFFFFFF, va >> 32


def mem_copy(
    width: int,
    height: int = 1,
    pitches: tuple[int, int] = (1, 1),
    flags: int = 0,
    source: int = SOURCE_VA,
    target: int = TARGET_VA,
    mocs: int = 0,
) -> tuple[int, ...]:
    """MEM_COPY; bytes unless `flags` say that the width is in units of 256."""
    return (
        0x5680_0008 | flags, width - 1, height - 1, pitches[0] - 1, pitches[1] - 1, *address(source),
        *address(target), mocs,
    )  # fmt: skip
