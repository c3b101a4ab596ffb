"""LMTT: which DPA each 2 MiB block of a VF's device memory is at (`xe_lmtt.c`, `xe_lmtt_ml.c`).

Three levels, all in VRAM: a directory indexed by VFID (64 entries of 8 bytes), a table a VF indexed by GDPA bits
47:35 (8192 entries of 8 bytes), and leaf tables indexed by GDPA bits 34:21 (16384 entries of 4 bytes).
Directory and table entries are `address >> 12 | valid` with 64 KiB aligned addresses
(`xe_lmtt_ml.c:lmtt_ml_encode_pde`), leaf entries `dpa >> 16 | valid` with 2 MiB aligned ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

DIRECTORY_ENTRIES = 64
TABLE_ENTRIES = 8192
LEAF_ENTRIES = 16384

_VALID = 1
_LEAF_BLOCKS = LEAF_ENTRIES  # blocks of 2 MiB that one leaf table maps: 32 GiB

Read = Callable[[int, int], bytes]
"""Reads `(dpa, length)` of VRAM. Raises LookupError when that is outside."""


class LmttFault(Exception):
    """An LMTT entry that cannot be followed: which table, which entry, and why."""


@dataclass(slots=True)
class _Walked:
    """What a VF's tables were when they were last walked, to see cheaply that they have not changed."""

    tables: dict[int, bytes] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)


class Lmtt:
    """The walker of one card's LMTT."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._walked: dict[int, _Walked] = {}

    def blocks(self, root: int, vfid: int) -> dict[int, int]:
        """What the directory at DPA `root` gives VF `vfid`: GDPA block -> DPA block, in units of 2 MiB.

        Costs a comparison of the tables when they are as at the last call. Raises `LmttFault`.
        """
        if not 0 < vfid < DIRECTORY_ENTRIES:
            raise LmttFault(f"VFID {vfid} has no entry in the LMTT directory (1..{DIRECTORY_ENTRIES - 1} have)")
        entry = int.from_bytes(self._table(root + vfid * 8, 8, "directory", vfid), "little")
        if not entry & _VALID:
            self._walked.pop(vfid, None)
            return {}
        table = _address(entry)
        last = self._walked.get(vfid)
        if last is not None and table in last.tables and self._unchanged(last):
            return last.blocks
        walked = _Walked()
        walked.tables[table] = self._table(table, TABLE_ENTRIES * 8, "table of", vfid)
        for index, leaf_entry in _present(walked.tables[table], "Q"):
            leaf = _address(leaf_entry)
            walked.tables[leaf] = self._table(leaf, LEAF_ENTRIES * 4, "leaf table of", vfid)
            first = index * _LEAF_BLOCKS
            for block, pte in _present(walked.tables[leaf], "I"):
                walked.blocks[first + block] = pte >> 5
        self._walked[vfid] = walked
        return walked.blocks

    def _unchanged(self, walked: _Walked) -> bool:
        return all(self._read(address, len(data)) == data for address, data in walked.tables.items())

    def _table(self, address: int, length: int, what: str, vfid: int) -> bytes:
        try:
            return self._read(address, length)
        except LookupError:
            raise LmttFault(f"LMTT {what} VF {vfid}: DPA {address:#x} is outside of VRAM") from None


def _address(entry: int) -> int:
    return (entry & ~0xF) << 12


def _present(table: bytes, code: Literal["Q", "I"]) -> list[tuple[int, int]]:
    """(index, entry) of the valid entries; most tables are filled from their beginning and empty from there on."""
    used = len(table.rstrip(b"\0"))
    size = 8 if code == "Q" else 4
    entries = memoryview(table)[: -(-used // size) * size].cast(code)
    return [(index, entry) for index, entry in enumerate(entries) if entry & _VALID]
