"""LMTT's entries and levels (`xe_lmtt_ml.c`).

Three levels, all in VRAM: a directory indexed by VFID (64 entries of 8 bytes), a table for each VF indexed by GDPA bits
47:35 (8192 entries of 8 bytes), and leaf tables indexed by GDPA bits 34:21 (16384 entries of 4 bytes). Directory and table
entries hold the 64 KiB aligned DPA of a table (`lmtt_ml_encode_pde`), leaf entries the 2 MiB aligned DPA of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

DIRECTORY_ENTRIES = 64
TABLE_ENTRIES = 8192
LEAF_ENTRIES = 16384
TABLE_SIZE = 0x10000
"""Bytes of a table and of a leaf table, and what both are aligned to."""
BLOCK_SHIFT = 21
"""A leaf entry maps a block of 2 MiB."""

VALID = 1
PDE_SIZE: Literal[8] = 8
LEAF_SIZE: Literal[4] = 4
"""Bytes of an entry of directory and table, and of a leaf table."""


class LmttFault(Exception):
    """An LMTT entry that cannot be followed: which table, which entry, and why."""


class Step(NamedTuple):
    """One level of a walk."""

    level: int
    """2: directory, 1: table, 0: leaf table."""
    place: int
    """DPA of the entry."""
    slot: int
    """Index of the entry in its table."""
    entry: int


def encode_pde(table: int) -> int:
    """An entry of the directory or a table, which points to the table at DPA `table`.

    Raises:
        ValueError: `table` is not aligned to 64 KiB.
    """
    if table % TABLE_SIZE:
        raise ValueError(f"LMTT: a table at DPA {table:#x}, which is not aligned to {TABLE_SIZE:#x}")
    return table >> 12 | VALID


def encode_leaf(block: int) -> int:
    """An entry of a leaf table, which maps the 2 MiB at `block << 21`."""
    return block << 5 | VALID


def table_of(entry: int) -> int:
    """The DPA of the table that an entry of directory or table points to."""
    return (entry & ~0xF) << 12


def block_of(entry: int) -> int:
    """The block that a leaf entry maps: a DPA in units of 2 MiB."""
    return entry >> 5


def valid_entries(table: bytes, size: Literal[8, 4]) -> list[tuple[int, int]]:
    """(index, entry) of the valid entries, `size` bytes each; most tables are filled from their beginning and empty from there on."""
    used = len(table.rstrip(b"\0"))
    entries = memoryview(table)[: -(-used // size) * size].cast("Q" if size == PDE_SIZE else "I")
    return [(index, entry) for index, entry in enumerate(entries) if entry & VALID]


def walk(read: Callable[[int, int], int], root: int, vfid: int, gdpa: int) -> Iterator[Step]:
    """Every level from the directory at DPA `root` to the block of `gdpa`; `read(dpa, size)` gives an entry.

    Raises:
        LmttFault: an entry is not valid, or `gdpa` is beyond what LMTT maps. The steps before were given.
    """
    place = root + PDE_SIZE * vfid
    entry = read(place, PDE_SIZE)
    yield Step(2, place, vfid, entry)
    if not entry & VALID:
        raise LmttFault(f"VF {vfid} has no LMTT table")
    index = gdpa // (LEAF_ENTRIES << BLOCK_SHIFT)
    if index >= TABLE_ENTRIES:
        raise LmttFault(f"GDPA {gdpa:#x} is beyond what LMTT can map")
    place = table_of(entry) + PDE_SIZE * index
    entry = read(place, PDE_SIZE)
    yield Step(1, place, index, entry)
    if not entry & VALID:
        raise LmttFault(f"VF {vfid}: LMTT maps nothing around GDPA {gdpa:#x}")
    index = gdpa >> BLOCK_SHIFT & LEAF_ENTRIES - 1
    place = table_of(entry) + LEAF_SIZE * index
    entry = read(place, LEAF_SIZE)
    yield Step(0, place, index, entry)
    if not entry & VALID:
        raise LmttFault(f"VF {vfid}: LMTT maps nothing at GDPA {gdpa:#x}")


def meaning(step: Step) -> str:
    """The meaning of the entry of `step` in words."""
    if not step.entry & VALID:
        return "not valid"
    if step.level:
        return f"table at DPA {table_of(step.entry):#x}"
    return f"2 MiB at DPA {block_of(step.entry) << BLOCK_SHIFT:#x}"
