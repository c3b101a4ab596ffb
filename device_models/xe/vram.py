"""Device memory of a card: sparse, and in 2 MiB blocks either the PF's or, by LMTT, a VF's.

The PF addresses it by DPA (offset in VRAM), a VF by GDPA, which LMTT maps to DPA in blocks of 2 MiB. A client maps a
VF's BAR2 when it connects, long before LMTT gives the VF any memory, so every VF has a memory of its own, indexed by
GDPA: while a block belongs to a VF, its bytes live there, and accesses by DPA find them through the reverse map.
"""

from __future__ import annotations

from collections.abc import Mapping

from emulator.interconnect import Fabric, Initiator
from emulator.memory import Memory

BLOCK_SHIFT = 21
BLOCK_SIZE = 1 << BLOCK_SHIFT
"""The unit in which LMTT gives VRAM to VFs (xe_lmtt_ml.c: leaf entries are DPA / 2 MiB)."""


class Vram:
    """`size` bytes of VRAM; implements `emulator.card.DeviceMemory`. Used on the card's executor only."""

    def __init__(self, size: int, *, fabric: Fabric | None = None) -> None:
        """`size` in bytes, a positive multiple of 2 MiB. Windows of `fabric` are revoked when blocks change owner."""
        raise NotImplementedError

    size: int
    memory: Memory
    """The PF's memory (its BAR2), indexed by DPA. Blocks that a VF has are holes in it."""

    def vf_memory(self, vfid: int) -> Memory:
        """The memory of VF `vfid` (its BAR2 maps the beginning), indexed by GDPA, as large as all VRAM, sparse."""
        raise NotImplementedError

    def resolve(self, initiator: Initiator, address: int, length: int, write: bool) -> tuple[str, memoryview] | None:
        """The owner's name ("pf", "vf1", ...) and a view of the first contiguous bytes of `[address, +length)`.

        `address` is a DPA for the PF and a GDPA for a VF. None when it is outside of VRAM altogether. Raises
        `AccessFault` when LMTT gives a VF nothing there.
        """
        raise NotImplementedError

    def assign(self, vfid: int, blocks: Mapping[int, int]) -> int:
        """Make `blocks` (GDPA block number -> DPA block number, in units of 2 MiB) all that VF `vfid` has.

        The content of blocks that change owner moves along, both ways, and windows on them are revoked. Nothing
        happens to blocks that stay: calling this with the same mapping is free of effects. Returns how many changed.
        """
        raise NotImplementedError

    def blocks(self, vfid: int) -> dict[int, int]:
        """What VF `vfid` has now: GDPA block -> DPA block."""
        raise NotImplementedError

    def update(self, root: int | None, vfids: range) -> int:
        """Follow LMTT: walk the directory at DPA `root` (None: LMTT is off) for `vfids` and assign what it says.

        Call it on TLB_INVALIDATION_ALL and when LMEM_CFG is written; idempotent and cheap when nothing changed.
        Returns how many blocks changed owner.
        """
        raise NotImplementedError

    def provision(self, vfid: int, size: int) -> None:
        """Give VF `vfid` `size` bytes at GDPA 0 from free blocks at the top of VRAM: cards without a PF driver.

        `size` is a multiple of 2 MiB; 0 takes everything back. Raises ValueError when it does not fit.
        """
        raise NotImplementedError

    def owner(self, dpa: int) -> int:
        """VFID of the function that has the block at `dpa`, 0 for the PF."""
        raise NotImplementedError

    def clear(self, vfid: int) -> None:
        """Zero all that VF `vfid` has."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back all memory."""
        raise NotImplementedError
