"""The per-process GTT's entries and levels (`xe_pt.c`, `xe_vm.c`, `regs/xe_gtt_defs.h`).

Five levels of 8-byte entries, 57 bits of address of which the driver uses 48. Level 4 is the root; level 0 maps pages of
4 KiB, or of 64 KiB where the level 1 entry says so (the table has 32 entries then). Level 1 entries may map 2 MiB, level 2
entries 1 GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

PRESENT = 1 << 0
WRITABLE = 1 << 1
COMPACT_64K = 1 << 6
LARGE = 1 << 7
PS64 = 1 << 8
NULL = 1 << 9
ATOMIC_ENABLE = 1 << 10
DEVICE_MEMORY = 1 << 11
ADDRESS_MASK = (1 << 52) - (1 << 12)
"""regs/xe_gtt_defs.h: XE_PAGE_PRESENT, XE_PAGE_RW, XE_PDE_64K, XE_PDE_PS_2M and XE_PDPE_PS_1G, XE_PTE_PS64,
XE_PTE_NULL, XE_USM_PPGTT_PTE_AE, XE_PPGTT_PTE_DM, XE_PAGE_ADDR_MASK. PS64 is a hint: 16 entries that map 64 KiB in a row."""

_PAT_BITS = ((1 << 3, 1), (1 << 4, 2), (1 << 62, 8), (1 << 61, 16))
_PAT2_SMALL, _PAT2_LARGE = 1 << 7, 1 << 12
"""Bits of the PAT index; bit 2 is elsewhere in entries that map 2 MiB and more (`xe_pt.c`, `xe_bo.h`:
XE_PPGTT_PTE_PAT0 and 1, XE_PPGTT_PTE_PAT2, XE_PPGTT_PDE_PDPE_PAT2, XELPG_PPGTT_PTE_PAT3, XE2_PPGTT_PTE_PAT4)."""

ROOT_LEVEL = 4
SHIFTS = (12, 21, 30, 39, 48)
"""Bits of address that an entry of each level maps."""
COMPACT_SHIFT = 16
"""The same of level 0 below a COMPACT_64K entry."""
VA_BITS = 48
VA_MASK = (1 << VA_BITS) - 1
"""Addresses are cut to 48 bits: the driver binds canonical addresses (0xffff8000... too)."""
TABLE_SIZE = 0x1000
"""Bytes of every table."""

_LARGEST_LEAF = 2
_SIZES = {12: "4 KiB", 16: "64 KiB", 21: "2 MiB", 30: "1 GiB"}


class Step(NamedTuple):
    """One level of a walk."""

    level: int
    table: int
    """Device address of the table."""
    entries: memoryview
    """Its entries: 512, or 32 of 64 KiB."""
    slot: int
    """Index of the entry in its table."""
    shift: int
    """Bits of address that `entry` maps."""
    entry: int


Leaf = tuple[int, int, int]
"""Virtual address, entry, and how many bits of address it maps."""

ReadTable = Callable[[int, int], memoryview]
"""(device address, level) of a table -> its 512 entries as qwords."""


def is_leaf(entry: int, level: int) -> bool:
    """Whether a present `entry` of `level` maps memory; else it points to a table."""
    return not level or bool(entry & LARGE and level <= _LARGEST_LEAF)


def is_compact(entry: int, level: int) -> bool:
    """Whether the table that `entry` points to has 32 entries of 64 KiB."""
    return level == 1 and bool(entry & COMPACT_64K)


def target(entry: int, shift: int) -> int:
    """The address that a leaf maps, which is that of a piece of `1 << shift` bytes."""
    return entry & target_mask(shift)


def target_mask(shift: int) -> int:
    """The bits of a leaf that are the address, of one that maps `1 << shift` bytes: for loops over a table."""
    return ADDRESS_MASK & -(1 << shift)


def table_of(entry: int) -> int:
    """The device address of the table that `entry` points to."""
    return entry & ADDRESS_MASK


def encode_table(address: int, *, compact: bool = False) -> int:
    """An entry that points to the table at device address `address` (`xe_pt.c`, `xelp_pde_encode_bo`)."""
    return address | PRESENT | WRITABLE | (COMPACT_64K if compact else 0)


def encode_leaf(address: int, shift: int, *, vram: bool, writable: bool = True, pat: int = 0) -> int:
    """An entry that maps `1 << shift` bytes at `address`: of VRAM, or of system memory (`xelp_pte_encode_bo`).

    Raises:
        ValueError: `address` is not aligned to what the entry maps, or no entry maps so many bytes.
    """
    if shift not in _SIZES or target(address, shift) != address:
        raise ValueError(
            f"PPGTT leaf: {address:#x} for {1 << shift:#x} bytes (allowed: aligned, {', '.join(_SIZES.values())})"
        )
    entry = address | PRESENT | (WRITABLE if writable else 0) | (DEVICE_MEMORY if vram else 0)
    entry |= sum(bit for bit, value in _PAT_BITS if pat & value)
    if pat & 4:
        entry |= _PAT2_SMALL if shift < SHIFTS[1] else _PAT2_LARGE
    return entry | (LARGE if shift >= SHIFTS[1] else 0)


def pat_index(entry: int, shift: int) -> int:
    """The PAT index in a leaf that maps `1 << shift` bytes."""
    index = sum(value for bit, value in _PAT_BITS if entry & bit)
    return index | 4 if entry & (_PAT2_SMALL if shift < SHIFTS[1] else _PAT2_LARGE) else index


def walk(read: ReadTable, table: int, address: int, level: int = ROOT_LEVEL) -> Iterator[Step]:
    """Every level from the table of `level` at `table` towards the leaf of `address`; the last step is a leaf, or not present."""
    shift = SHIFTS[level]
    while True:
        entries = read(table, level)
        if shift == COMPACT_SHIFT:
            entries = entries[:32]
        index = (address >> shift) & (len(entries) - 1)
        entry = entries[index]
        yield Step(level, table, entries, index, shift, entry)
        if not entry & PRESENT or is_leaf(entry, level):
            return
        table = table_of(entry)
        shift = COMPACT_SHIFT if is_compact(entry, level) else SHIFTS[level - 1]
        level -= 1


def leaves(
    read: Callable[[int, int], memoryview | None], table: int, start: int = 0, end: int = 1 << VA_BITS
) -> Iterator[Leaf]:
    """What the tables below the root `table` map in `[start, end)`, in order; a table that `read` has not maps nothing."""
    yield from _leaves(read, table, ROOT_LEVEL, 0, SHIFTS[ROOT_LEVEL], start, end)


def _leaves(
    read: Callable[[int, int], memoryview | None], table: int, level: int, base: int, shift: int, start: int, end: int
) -> Iterator[Leaf]:
    entries = read(table, level)
    if entries is None:
        return
    for index in range(max(0, start - base) >> shift, 32 if shift == COMPACT_SHIFT else 512):
        address, entry = base + (index << shift), entries[index]
        if address >= end:
            return
        if not entry & PRESENT:
            continue
        if is_leaf(entry, level):
            yield address, entry, shift
        else:
            below = COMPACT_SHIFT if is_compact(entry, level) else SHIFTS[level - 1]
            yield from _leaves(read, table_of(entry), level - 1, address, below, start, end)


def meaning(step: Step) -> str:
    """The meaning of the entry of `step` in words."""
    entry, shift = step.entry, step.shift
    if not entry & PRESENT:
        return "not present"
    if not is_leaf(entry, step.level):
        return f"table at {table_of(entry):#x}{', of 64 KiB pages' if is_compact(entry, step.level) else ''}"
    if entry & NULL:
        return "null: reads zero, drops writes"
    memory = "VRAM" if entry & DEVICE_MEMORY else "system memory"
    flags = "" if entry & WRITABLE else ", read-only"
    flags += ", atomics" if entry & ATOMIC_ENABLE else ""
    return f"{_SIZES[shift]} in {memory} at {target(entry, shift):#x}{flags}"
