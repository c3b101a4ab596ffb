"""LMTT: which DPA each 2 MiB block of a VF's device memory is at (`xe_lmtt.c`, `xe_lmtt_ml.c`).

`formats/lmtt.py` has the format of the tables, which are in VRAM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vfio_user_xe.device_models.xe.memory.formats import lmtt as fmt
from vfio_user_xe.device_models.xe.memory.formats.lmtt import DIRECTORY_ENTRIES, LEAF_ENTRIES, VALID, LmttFault

Read = Callable[[int, int], bytes]
"""Reads `(dpa, length)` of VRAM. Raises LookupError when that is outside."""


@dataclass(slots=True)
class _Walked:
    """The content of a VF's tables at their last walk: a comparison shows cheaply that they have not changed."""

    tables: dict[int, bytes] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)


class Lmtt:
    """The walker of one card's LMTT."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._walked: dict[int, _Walked] = {}

    def blocks(self, root: int, vfid: int) -> dict[int, int]:
        """The blocks that the directory at DPA `root` gives to VF `vfid`: GDPA block -> DPA block, in units of 2 MiB.

        Costs a comparison of the tables when they are as at the last call.

        Raises:
            LmttFault: the directory has no such VFID, or a table lies outside of VRAM.
        """
        if not 0 < vfid < DIRECTORY_ENTRIES:
            raise LmttFault(f"VFID {vfid} has no entry in the LMTT directory (1..{DIRECTORY_ENTRIES - 1} have)")
        entry = int.from_bytes(self._table(root + vfid * fmt.PDE_SIZE, fmt.PDE_SIZE, "directory", vfid), "little")
        if not entry & VALID:
            self._walked.pop(vfid, None)
            return {}
        table = fmt.table_of(entry)
        last = self._walked.get(vfid)
        if last is not None and table in last.tables and self._unchanged(last):
            return last.blocks
        walked = _Walked()
        walked.tables[table] = self._table(table, fmt.TABLE_SIZE, "table of", vfid)
        for index, leaf_entry in fmt.valid_entries(walked.tables[table], fmt.PDE_SIZE):
            leaf = fmt.table_of(leaf_entry)
            walked.tables[leaf] = self._table(leaf, fmt.TABLE_SIZE, "leaf table of", vfid)
            first = index * LEAF_ENTRIES
            for block, pte in fmt.valid_entries(walked.tables[leaf], fmt.LEAF_SIZE):
                walked.blocks[first + block] = fmt.block_of(pte)
        self._walked[vfid] = walked
        return walked.blocks

    def _unchanged(self, walked: _Walked) -> bool:
        return all(self._read(address, len(data)) == data for address, data in walked.tables.items())

    def _table(self, address: int, length: int, what: str, vfid: int) -> bytes:
        try:
            return self._read(address, length)
        except LookupError:
            raise LmttFault(f"LMTT {what} VF {vfid}: DPA {address:#x} is outside of VRAM") from None
