"""Device memory of a card: sparse, and in 2 MiB blocks either the PF's or, by LMTT, a VF's.

The PF addresses it by DPA (offset in VRAM), a VF by GDPA, which LMTT maps to DPA in blocks of 2 MiB. A client maps a
VF's BAR2 when it connects, long before LMTT gives the VF any memory, so every VF has a memory of its own, indexed by
GDPA: while a block belongs to a VF, its bytes live there, and accesses by DPA find them through the reverse map.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping

from vfio_user_xe.device_models.xe.memory.formats.lmtt import BLOCK_SHIFT, LmttFault
from vfio_user_xe.device_models.xe.memory.lmtt import Lmtt
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator, Space
from vfio_user_xe.emulator.fabric.leases import Shared
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory

log = logging.getLogger(__name__)

BLOCK_SIZE = 1 << BLOCK_SHIFT
"""The unit in which LMTT gives VRAM to VFs (xe_lmtt_ml.c: leaf entries are DPA / 2 MiB)."""
_BLOCK_MASK = BLOCK_SIZE - 1

_MOVE_CHUNK = 1 << 20
_ZERO_CHUNK = 256 << 10
_GIVE_BACK = 64 << 20
_ZEROS = bytes(_MOVE_CHUNK)

Home = tuple[int, int]
"""Where a block's bytes live: VFID and GDPA block."""


class Vram:
    """`size` bytes of VRAM; implements `vfio_user_xe.emulator.model.card.DeviceMemory`. Used on the card's executor only."""

    def __init__(self, size: int, *, fabric: Fabric | None = None) -> None:
        """`size` in bytes, a positive multiple of 2 MiB. Windows of `fabric` are revoked when blocks change owner."""
        if size <= 0 or size & _BLOCK_MASK:
            raise ValueError(f"VRAM of {size:#x} bytes: it must be a positive multiple of {BLOCK_SIZE:#x} (2 MiB)")
        self.size = size
        self.memory = Memory(size, "vram")
        """The PF's memory (its BAR2), indexed by DPA. Blocks that a VF has by an LMTT are holes in it."""
        self.fabric = fabric
        self.flat_ccs: int | None = None
        """DPA where compression metadata starts (1 byte for 512), None when the card has none."""
        self.compressing: Callable[[int], bool] = lambda index: False
        """Whether a PAT entry, by index, lets VRAM be compressed; asked only on a card with `flat_ccs`."""
        self._homes: list[Home | None] = [None] * (size >> BLOCK_SHIFT)
        self._changes = [0] * (size >> BLOCK_SHIFT)
        """How often each block has changed its owner."""
        self._blocks: dict[int, dict[int, int]] = {}
        self._memories: dict[int, Memory] = {0: self.memory}
        self._names = {0: "pf"}
        self._lmtt = Lmtt(self._read)
        self._problems: dict[int, str] = {}

    def vf_memory(self, vfid: int) -> Memory:
        """The memory of VF `vfid` (its BAR2 maps the beginning), indexed by GDPA, as large as all VRAM, sparse."""
        if vfid <= 0:
            raise ValueError(f"VFID {vfid} is not a VF's")
        memory = self._memories.get(vfid)
        if memory is None:
            memory = self._memories[vfid] = Memory(self.size, f"vf{vfid}-vram")
        return memory

    # What the interconnects ask.

    def resolve(self, initiator: Initiator, address: int, length: int, write: bool) -> tuple[str, memoryview] | None:
        """The owner's name ("pf", "vf1", ...) and a view of the first contiguous bytes of `[address, +length)`.

        `address` is a DPA for the PF and a GDPA for a VF. None when it is outside of VRAM altogether.

        Raises:
            AccessFault: LMTT gives a VF nothing there.
        """
        found = self._find(initiator, address, length)
        if found is None:
            return None
        owner, memory, offset, span = found
        return self._name(owner), memory.view[offset : offset + span]

    def share(self, initiator: Initiator, address: int, length: int) -> Shared | None:
        """As `resolve`, for use outside of this process (`vfio_user_xe.emulator.fabric.leases`). From any thread.

        What is found while blocks change hands is out of date when the windows on them are revoked.
        """
        found = self._find(initiator, address, length)
        if found is None:
            return None
        owner, memory, offset, span = found
        blocks = [self.to_dpa(initiator, at) for at in range(address & ~_BLOCK_MASK, address + span, BLOCK_SIZE)]
        stamp = tuple((dpa, self.changes_of(dpa >> BLOCK_SHIFT)) for dpa in blocks if dpa is not None)
        return Shared(self._name(owner), memory, offset, span, stamp)

    def owner(self, dpa: int) -> int:
        """VFID of the function that has the block at `dpa`, 0 for the PF.

        Raises:
            ValueError: `dpa` is outside of VRAM.
        """
        if not 0 <= dpa < self.size:
            raise ValueError(f"DPA {dpa:#x} is outside of VRAM ({self.size:#x} bytes)")
        home = self._homes[dpa >> BLOCK_SHIFT]
        return home[0] if home else 0

    def changes_of(self, block: int) -> int:
        """How often DPA block `block` has changed its owner; 0 outside of VRAM."""
        return self._changes[block] if 0 <= block < len(self._changes) else 0

    def is_foreign(self, block: int) -> bool:
        """Whether a VF has DPA block `block`."""
        return 0 <= block < len(self._homes) and self._homes[block] is not None

    def to_dpa(self, initiator: Initiator, address: int) -> int | None:
        """The DPA of a function's device address; None when it has none."""
        if not initiator.index:
            return address if 0 <= address < self.size else None
        block = self._blocks.get(initiator.index, {}).get(address >> BLOCK_SHIFT)
        return None if block is None else block << BLOCK_SHIFT | address & _BLOCK_MASK

    def zero(self, view: memoryview) -> bool:
        """Zero `view` as cheaply as it can be. False, and nothing done, when it is no view of whole pages of VRAM.

        Pages that were never touched stay so. Others are zeroed in place, which is cheaper than giving them back to
        the host and touching them anew; only large pieces are given back.
        """
        if view.readonly or view.nbytes == 0:
            return False
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        if (start | view.nbytes) % PAGE_SIZE:
            return False
        for memory in self._memories.values():
            base = ctypes.addressof(ctypes.c_char.from_buffer(memory.view))
            if base <= start and start + view.nbytes <= base + memory.size:
                if view.nbytes >= _GIVE_BACK:
                    memory.discard(start - base, view.nbytes)
                else:
                    _zero_in_place(memory, start - base, view.nbytes)
                return True
        return False

    # Block ownership.

    def blocks(self, vfid: int) -> dict[int, int]:
        """The blocks that VF `vfid` has now: GDPA block -> DPA block."""
        return dict(self._blocks.get(vfid, {}))

    def assign(self, vfid: int, blocks: Mapping[int, int]) -> int:
        """Make `blocks` (GDPA block number -> DPA block number, in units of 2 MiB) all that VF `vfid` has.

        The content of blocks that change owner moves along, both ways, and windows on them are revoked. Nothing
        happens to blocks that stay: calling this with the same mapping is free of effects. Returns how many changed.

        Raises:
            ValueError: a block is outside of VRAM.
        """
        return self._change({vfid: dict(blocks)})

    def update(self, root: int | None, vfids: range) -> int:
        """Follow LMTT: walk the directory at DPA `root` (None: LMTT is off) for `vfids` and assign what it says.

        Call it on TLB_INVALIDATION_ALL and when LMEM_CFG is written; idempotent and cheap when nothing changed. Tables
        that cannot be followed give their VF nothing. Returns how many blocks changed owner.
        """
        wanted: dict[int, dict[int, int]] = {}
        for vfid in vfids:
            blocks = {} if root is None else self._walk(root, vfid)
            if blocks is not self._blocks.get(vfid) and blocks != self._blocks.get(vfid, {}):
                wanted[vfid] = blocks
        return self._change(wanted) if wanted else 0

    def provision(self, vfid: int, size: int) -> None:
        """Give VF `vfid` `size` bytes at GDPA 0 in place of free blocks at the top of VRAM: cards without a PF driver.

        `size` is a multiple of 2 MiB; 0 takes everything back. They come zeroed. What the PF's memory has at those blocks stays in it,
        and is there again afterwards: a driver of the PF that comes meanwhile writes its VRAM without asking (BAR2 is not trapped).

        Raises:
            ValueError: the size does not fit.
        """
        if size < 0 or size & _BLOCK_MASK:
            raise ValueError(f"VF {vfid}: {size:#x} bytes of VRAM is not a multiple of {BLOCK_SIZE:#x} (2 MiB)")
        count = size >> BLOCK_SHIFT
        kept = dict(sorted(self._blocks.get(vfid, {}).items())[:count])
        taken = {dpa for blocks in self._blocks.values() for dpa in blocks.values()}
        free = (dpa for dpa in range(len(self._homes) - 1, -1, -1) if dpa not in taken)
        chosen = sorted(set(kept.values()) | {dpa for dpa, _ in zip(free, range(count - len(kept)), strict=False)})
        if len(chosen) < count:
            left = (len(self._homes) - len(taken)) << BLOCK_SHIFT
            raise ValueError(f"VF {vfid}: {size:#x} bytes of VRAM do not fit, {left:#x} are free")
        fresh = iter(dpa for dpa in chosen if dpa not in kept.values())
        self._change({vfid: kept | {gdpa: next(fresh) for gdpa in range(count) if gdpa not in kept}}, moved=False)

    def clear(self, vfid: int) -> None:
        """Zero all that VF `vfid` has."""
        for gdpa, dpa in self._blocks.get(vfid, {}).items():
            if self._homes[dpa] == (vfid, gdpa):
                self._memories[vfid].discard(gdpa << BLOCK_SHIFT, BLOCK_SIZE)

    def close(self) -> None:
        """Give back all memory."""
        for memory in self._memories.values():
            memory.close()

    def _find(self, initiator: Initiator, address: int, length: int) -> tuple[int, Memory, int, int] | None:
        """Owner, memory, offset and length of the first contiguous bytes of `[address, +length)`; see `resolve`."""
        vfid = initiator.index
        if not vfid and not 0 <= address < self.size:
            return None
        found = self._locate(vfid, address)
        if found is None:
            raise AccessFault(initiator, Space.DEVICE, address, f"LMTT gives {initiator.name} nothing there")
        owner, memory, offset = found
        span = BLOCK_SIZE - (address & _BLOCK_MASK)
        while span < length:
            following = self._locate(vfid, address + span)
            if following is None or following[1] is not memory or following[2] != offset + span:
                break
            span += BLOCK_SIZE
        return owner, memory, offset, min(span, length)

    def _locate(self, vfid: int, address: int) -> tuple[int, Memory, int] | None:
        """Owner, memory and offset of the bytes at a device address of `vfid`; None where it has none."""
        if vfid:
            blocks = self._blocks.get(vfid)
            block = None if blocks is None else blocks.get(address >> BLOCK_SHIFT)
            if block is None:
                return None
        else:
            block = address >> BLOCK_SHIFT
            if block >= len(self._homes):
                return None
        home = self._homes[block]
        low = address & _BLOCK_MASK
        if home is None:
            return 0, self.memory, block << BLOCK_SHIFT | low
        owner, gdpa = home
        return owner, self._memories[owner], gdpa << BLOCK_SHIFT | low

    def _name(self, vfid: int) -> str:
        return self._names.get(vfid) or self._names.setdefault(vfid, f"vf{vfid}")

    def _read(self, dpa: int, length: int) -> bytes:
        parts = []
        while length:
            found = self._locate(0, dpa)
            if found is None:
                raise LookupError(dpa)
            _, memory, offset = found
            count = min(length, BLOCK_SIZE - (dpa & _BLOCK_MASK))
            parts.append(bytes(memory.view[offset : offset + count]))
            dpa += count
            length -= count
        return b"".join(parts)

    def _walk(self, root: int, vfid: int) -> dict[int, int]:
        try:
            blocks = self._lmtt.blocks(root, vfid)
            for gdpa, dpa in blocks.items():
                self._check(vfid, gdpa, dpa)
        except (LmttFault, ValueError) as fault:
            if self._problems.get(vfid) != str(fault):
                self._problems[vfid] = str(fault)
                log.warning("LMTT is not usable, VF %d gets no memory: %s", vfid, fault)
            return {}
        self._problems.pop(vfid, None)
        return blocks

    def _check(self, vfid: int, gdpa: int, dpa: int) -> None:
        if not 0 <= dpa < len(self._homes) or not 0 <= gdpa < len(self._homes):
            raise ValueError(
                f"VF {vfid}: GDPA {gdpa << BLOCK_SHIFT:#x} -> DPA {dpa << BLOCK_SHIFT:#x} is outside of VRAM"
                f" ({self.size:#x} bytes)"
            )

    def _change(self, wanted: Mapping[int, dict[int, int]], *, moved: bool = True) -> int:
        """Give each VF of `wanted` the blocks it is to have; others keep theirs. Unless `moved`, the PF's memory is left alone."""
        for vfid, blocks in wanted.items():
            for gdpa, dpa in blocks.items():
                self._check(vfid, gdpa, dpa)
        owners_before = dict(enumerate(self._homes))
        self._blocks.update(wanted)
        claims: dict[int, Home] = {}
        for vfid in sorted(self._blocks):
            for gdpa, dpa in self._blocks[vfid].items():
                # A block that two VFs (or two GDPAs) map keeps the home it has: moving it would change nothing.
                if dpa not in claims or self._homes[dpa] == (vfid, gdpa):
                    claims[dpa] = (vfid, gdpa)
        changed = [dpa for dpa, home in owners_before.items() if home != claims.get(dpa)]
        if not changed:
            return 0
        # By way of the PF's memory, where a block's own place is always free: places at a VF may not be free yet.
        leaving = [(dpa, home) for dpa in changed if (home := self._homes[dpa]) is not None]
        coming = [(dpa, claims[dpa]) for dpa in changed if dpa in claims]
        if moved:
            for dpa, count, (vfid, gdpa) in _runs(leaving):
                _move(self._memories[vfid], gdpa, self.memory, dpa, count)
            for dpa, count, (vfid, gdpa) in _runs(coming):
                _move(self.memory, dpa, self.vf_memory(vfid), gdpa, count)
        else:
            for _, count, (vfid, gdpa) in _runs(leaving + coming):
                self.vf_memory(vfid).discard(gdpa << BLOCK_SHIFT, count << BLOCK_SHIFT)
        for dpa in changed:
            self._homes[dpa] = claims.get(dpa)
            self._changes[dpa] += 1
        self._note(leaving, coming)
        self._revoke({self._name(vfid) for _, (vfid, _) in leaving + coming} | {self._name(0)})
        return len(changed)

    def _note(self, leaving: list[tuple[int, Home]], coming: list[tuple[int, Home]]) -> None:
        """Tell the ledger who loses what to whom, in stretches of DPA."""
        if self.fabric is None:
            return
        old, new = ({dpa: home[0] for dpa, home in blocks} for blocks in (leaving, coming))
        run: tuple[int, int, int, int] | None = None
        for dpa in [*sorted(old.keys() | new.keys()), -1]:
            pair = old.get(dpa, 0), new.get(dpa, 0)
            if run is not None and (dpa != run[1] or pair != run[2:]):
                first, end, loser, winner = run
                self.fabric.ledger.ownership.changed(
                    first << BLOCK_SHIFT, (end - first) << BLOCK_SHIFT, self._name(loser), self._name(winner)
                )
                run = None
            run = (dpa if run is None else run[0], dpa + 1, *pair)

    def _revoke(self, owners: set[str]) -> None:
        if self.fabric is not None:
            self.fabric.revoke_owners(owners)


def _runs(blocks: list[tuple[int, Home]]) -> list[tuple[int, int, Home]]:
    """(first DPA block, how many, home of the first) of stretches that are contiguous on both sides."""
    runs: list[tuple[int, int, Home]] = []
    for dpa, home in sorted(blocks):
        if runs:
            first, count, (vfid, gdpa) = runs[-1]
            if dpa == first + count and home == (vfid, gdpa + count):
                runs[-1] = (first, count + 1, (vfid, gdpa))
                continue
        runs.append((dpa, 1, home))
    return runs


def _move(source: Memory, source_block: int, target: Memory, target_block: int, count: int) -> None:
    """Move `count` blocks: only pages that were ever touched cost anything, and what was at the target is gone."""
    start, end = source_block << BLOCK_SHIFT, (source_block + count) << BLOCK_SHIFT
    shift = (target_block - source_block) << BLOCK_SHIFT
    target.discard(start + shift, end - start)
    position = start
    while (data := _next_data(source, position, end)) < end:
        length = min(_MOVE_CHUNK, end - data)
        chunk = os.pread(source.fd, length, data)
        if chunk != _ZEROS[:length]:
            os.pwrite(target.fd, chunk, data + shift)
        position = data + length
    source.discard(start, end - start)


def _zero_in_place(memory: Memory, offset: int, length: int) -> None:
    end = offset + length
    while (offset := _next_data(memory, offset, end)) < end:
        # By descriptor: pages that a guest touched may not be mapped here, and mapping them costs more.
        offset += os.pwrite(memory.fd, _ZEROS[: min(_ZERO_CHUNK, end - offset)], offset)


def _next_data(memory: Memory, offset: int, end: int) -> int:
    """Where the first page that was ever touched is, from `offset` on; `end` if there is none."""
    if offset >= end:
        return end
    try:
        return min(os.lseek(memory.fd, offset, os.SEEK_DATA), end)
    except OSError:  # ENXIO: nothing but holes from here on
        return end
