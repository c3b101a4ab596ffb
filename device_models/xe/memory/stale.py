"""Stale translations: the PF reaches, through page tables that were written before, memory that has changed hands since.

LMTT gives VRAM to VFs in blocks; a driver of the PF that maps a VF's block by its DPA (a dma-buf imported over the IOV
link) must unmap it before the block goes to somebody else. So each PPGTT of the PF remembers which blocks of VFs it was
used for, and how often those had changed owner by then. A use of the same block later, with the translation never taken
back in between, is accounted as stale. Blocks that are the PF's own are not looked at: this costs nothing until VRAM of
VFs is mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vfio_user_xe.device_models.xe.memory.address_space import Extent
from vfio_user_xe.device_models.xe.memory.formats.lmtt import BLOCK_SHIFT
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram
from vfio_user_xe.emulator.fabric.ledger import STALE


class ForeignUses:
    """The blocks of VFs that one PPGTT was used for."""

    def __init__(self, vram: Vram, mapped: Callable[[], Iterable[tuple[int, int]]]) -> None:
        """`mapped()` gives what the page tables map of VRAM now: (DPA, size) in bytes."""
        self._vram = vram
        self._mapped = mapped
        self._seen: dict[int, int] = {}
        """DPA block -> how often it had changed its owner when it was first used."""

    def marked(self, extent: Extent) -> Extent:
        """`extent` of VRAM, cut where staleness changes, with the ledger's kind for it."""
        first = extent.address >> BLOCK_SHIFT
        last = extent.address + extent.length - 1 >> BLOCK_SHIFT
        stale = self._use(first)
        for block in range(first + 1, last + 1):
            if self._use(block) != stale:
                extent = extent._replace(length=(block << BLOCK_SHIFT) - extent.address)
                break
        return extent._replace(kind=STALE + extent.kind) if stale else extent

    def invalidated(self) -> None:
        """Translations were taken back: forget the blocks that the page tables do not map any more."""
        if not self._seen:
            return
        mapped: set[int] = set()
        for address, size in self._mapped():
            mapped.update(range(address >> BLOCK_SHIFT, address + size + BLOCK_SIZE - 1 >> BLOCK_SHIFT))
        self._seen = {block: changes for block, changes in self._seen.items() if block in mapped}

    def _use(self, block: int) -> bool:
        changes = self._vram.changes_of(block)
        seen = self._seen.get(block)
        if seen is None:
            if self._vram.is_foreign(block):
                self._seen[block] = changes
            return False
        return seen != changes
