"""Per-process GTT: five levels of 8-byte entries in VRAM, 57 bits of which the driver uses 48 (`xe_pt.c`, `xe_vm.c`).

Level 4 is the root, level 0 maps pages of 4 KiB, or of 64 KiB where the entry above says so (32 entries then). Level 1
entries may map 2 MiB, level 2 entries 1 GiB. Page tables are always in VRAM, as the function addresses it (a DPA of
the PF, a GDPA of a VF); what leaves map is VRAM or system memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, Extent, FunctionView, contiguous, runs
from vfio_user_xe.device_models.xe.memory.ggtt import ADDRESS_MASK, TranslationFault
from vfio_user_xe.device_models.xe.memory.stale import ForeignUses
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space, Window
from vfio_user_xe.emulator.fabric.ledger import KERNEL

PRESENT = 1 << 0
WRITABLE = 1 << 1
COMPACT_64K = 1 << 6
LARGE = 1 << 7
PS64 = 1 << 8
NULL = 1 << 9
ATOMIC_ENABLE = 1 << 10
DEVICE_MEMORY = 1 << 11
"""regs/xe_gtt_defs.h: XE_PAGE_PRESENT, XE_PAGE_RW, XE_PDE_64K, XE_PDE_PS_2M and XE_PDPE_PS_1G, XE_PTE_PS64,
XE_PTE_NULL, XE_USM_PPGTT_PTE_AE, XE_PPGTT_PTE_DM. PS64 is a hint: 16 entries that map 64 KiB in a row."""

_PAT_BITS = ((1 << 3, 1), (1 << 4, 2), (1 << 62, 8), (1 << 61, 16))
_PAT2_SMALL, _PAT2_LARGE = 1 << 7, 1 << 12
"""Bits of the PAT index; bit 2 is elsewhere in entries that map 2 MiB and more (`xe_pt.c`, `xe_bo.h`:
XE_PPGTT_PTE_PAT0 and 1, XE_PPGTT_PTE_PAT2, XE_PPGTT_PDE_PDPE_PAT2, XELPG_PPGTT_PTE_PAT3, XE2_PPGTT_PTE_PAT4)."""

ROOT_LEVEL = 4
VA_BITS = 48
VA_MASK = (1 << VA_BITS) - 1
"""Addresses are cut to 48 bits: the driver binds canonical addresses (0xffff8000... too)."""

VRAM_KIND = "vram"
SYSTEM_KIND = "system"
NULL_KIND = "null"

_LONGEST = 16 << 20
"""Pieces are put together up to about this size."""

_SHIFTS = (12, 21, 30, 39, 48)
_LARGEST_LEAF = 2

Leaf = tuple[int, int, int]
"""Virtual address, entry, and how many bits of address it maps."""

Table = tuple[memoryview, int]
"""Entries of a last table, and how many bits of address each maps."""


class PpgttSpace(AddressSpace):
    """The address space of `function` whose level 4 table is at `root`, known to the TLB as `asid`."""

    def __init__(self, function: FunctionView, root: int, asid: int) -> None:
        """`root` is the root descriptor of a context image (PDP0): only its address bits count."""
        super().__init__(function)
        self._vram = function.gpu.vram
        self.root = root & ADDRESS_MASK
        self.asid = asid
        self.name = f"PPGTT {self.root:#x}"
        self._tables: dict[int, Table] = {}
        """Level 0 tables by address >> 21: what a page walk mostly needs."""
        self._directories: dict[int, memoryview] = {}
        """Level 1 tables by address >> 30."""
        # A space that the last context gave up is gone at once, not when a cycle of references is found.
        leaves = weakref.WeakMethod(self._vram_leaves)
        self._uses = (
            ForeignUses(function.gpu.vram, lambda: found() if (found := leaves()) is not None else ())
            if not function.vfid and asid
            else None
        )

    def flush(self) -> None:
        """Forget every translation kept."""
        self._tables.clear()
        self._directories.clear()
        super().flush()

    def invalidated(self) -> None:
        self.flush()
        if self._uses is not None:
            self._uses.invalidated()

    def open(self, extent: Extent, write: bool) -> Window:
        """A window on the first bytes of `extent`, accounted with what the ledger distinguishes.

        A VM without an ASID is the driver's own (`xe_vm.c:xe_vm_create`): it clears and moves memory with it.
        """
        if not self.asid:
            extent = extent._replace(kind=KERNEL + extent.kind)
        elif self._uses is not None and extent.space == Space.DEVICE:
            extent = self._uses.marked(extent)
        return super().open(extent, write)

    def extent(self, address: int, length: int, write: bool) -> Extent:
        address &= VA_MASK
        table, index, shift, entry, _ = self._walk(address, write)
        size = 1 << shift
        low = address & (size - 1)
        count = size - low
        if length > count:
            last = min(len(table), index + (low + length + size - 1 >> shift))
            entries = table[index:last]
            run = contiguous(entries, size) if not entry & NULL else _nulls(entries)
            count = (run << shift) - low
        count = min(count, length)
        if entry & NULL:
            return Extent(None, 0, min(count, 1 << 21), NULL_KIND)
        target = (entry & ADDRESS_MASK & -size) | low
        return self._extent(entry, shift, target, count)

    def _extent(self, entry: int, shift: int, target: int, count: int) -> Extent:
        if not entry & DEVICE_MEMORY:
            return Extent(Space.SYSTEM, target, count, SYSTEM_KIND)
        compressed = self._vram.flat_ccs is not None and self._vram.compressing(pat_index(entry, shift))
        return Extent(Space.DEVICE, target, count, VRAM_KIND, compressed)

    def extents(self, address: int, length: int, write: bool) -> Iterator[Extent]:
        """As of `AddressSpace`, but each page table is looked at once, and pieces may reach across tables."""
        pieces = self._pieces(address & VA_MASK, length, write)
        held = None
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                break
            except TranslationFault:
                if held is not None:
                    yield held
                raise
            if held is not None:
                if (
                    piece.address == held.address + held.length
                    and piece.space == held.space
                    and piece.compressed == held.compressed
                    and piece.space is not None
                    and held.length < _LONGEST
                ):
                    held = held._replace(length=held.length + piece.length)
                    continue
                yield held
            held = piece
        if held is not None:
            yield held

    def _pieces(self, address: int, length: int, write: bool) -> Iterator[Extent]:
        """The contiguous pieces within each page table."""
        needed = PRESENT | (WRITABLE if write else 0)
        while length > 0:
            table, index, shift, _, _ = self._walk(address, write)
            size = 1 << shift
            low = address & (size - 1)
            last = min(len(table), index + (low + length + size - 1 >> shift))
            entries = table[index:last]
            for start, number in runs(entries, size):
                entry = entries[start]
                if shift >= _SHIFTS[1] and entry & PRESENT and not entry & LARGE:
                    # A table of smaller pages: to be walked.
                    break
                if entry & needed != needed or entry & NULL:
                    # It faults with all that is to be said, or is a page of zeros.
                    extent = self.extent(address, length, write)
                else:
                    target = (entry & ADDRESS_MASK & -size) | low
                    count = min((number << shift) - low, length)
                    extent = self._extent(entry, shift, target, count)
                yield extent
                address += extent.length
                length -= extent.length
                low = 0
                if extent.space is None:
                    break

    def leaf(self, address: int, write: bool) -> tuple[int, int]:
        address &= VA_MASK
        _, _, shift, _, _ = self._walk(address, write)
        return address & -(1 << shift), 1 << shift

    def leaves(self, start: int = 0, end: int = 1 << VA_BITS) -> Iterator[Leaf]:
        """What the page tables map in `[start, end)`, in order; tables that cannot be reached map nothing."""
        yield from self._leaves_of(self.root, ROOT_LEVEL, 0, False, start, end)

    def _leaves_of(self, table: int, level: int, base: int, compact: bool, start: int, end: int) -> Iterator[Leaf]:
        try:
            entries = self._entries(table, base, level, False)
        except TranslationFault:
            return
        shift = 16 if compact else _SHIFTS[level]
        for index in range(max(0, start - base) >> shift, 32 if compact else 512):
            address, entry = base + (index << shift), entries[index]
            if address >= end:
                return
            if not entry & PRESENT:
                continue
            if not level or (entry & LARGE and level <= _LARGEST_LEAF):
                yield address, entry, shift
            else:
                below = level == 1 and bool(entry & COMPACT_64K)
                yield from self._leaves_of(entry & ADDRESS_MASK, level - 1, address, below, start, end)

    def _vram_leaves(self) -> Iterator[tuple[int, int]]:
        for _, entry, shift in self.leaves():
            if entry & DEVICE_MEMORY and not entry & NULL:
                yield entry & ADDRESS_MASK & -(1 << shift), 1 << shift

    def describe(self, address: int) -> list[tuple[int, int]]:
        """(level, entry) of every step of the walk of `address`, as far as it gets: for `inspect` and reports."""
        steps: list[tuple[int, int]] = []
        table = self.root
        for level in range(ROOT_LEVEL, -1, -1):
            view = self._entries(table, address, level, False)
            entry = view[(address & VA_MASK) >> _SHIFTS[level] & 0x1FF]
            steps.append((level, entry))
            if not entry & PRESENT or not level or (entry & LARGE and level <= _LARGEST_LEAF):
                break
            table = entry & ADDRESS_MASK
        return steps

    def _walk(self, address: int, write: bool) -> tuple[memoryview, int, int, int, int]:
        """(table, index, shift, entry, level) of the leaf of `address`. Raises `TranslationFault`."""
        kept = self._tables.get(address >> 21)
        if kept is None:
            view = self._directories.get(address >> 30)
            if view is None:
                table = self.root
                for level in (4, 3, 2):
                    view = self._entries(table, address, level, write)
                    index = address >> _SHIFTS[level] & 0x1FF
                    entry = view[index]
                    if not entry & PRESENT:
                        raise self._fault(address, level, entry, write, "not present")
                    if entry & LARGE and level == _LARGEST_LEAF:
                        return self._leaf(view, index, _SHIFTS[level], address, level, write)
                    table = entry & ADDRESS_MASK
                view = self._directories[address >> 30] = self._entries(table, address, 1, write)
            index = address >> 21 & 0x1FF
            entry = view[index]
            if not entry & PRESENT:
                raise self._fault(address, 1, entry, write, "not present")
            if entry & LARGE:
                return self._leaf(view, index, 21, address, 1, write)
            view = self._entries(entry & ADDRESS_MASK, address, 0, write)
            kept = self._tables[address >> 21] = (view[:32], 16) if entry & COMPACT_64K else (view, 12)
        view, shift = kept
        return self._leaf(view, (address & 0x1FFFFF) >> shift, shift, address, 0, write)

    def _leaf(
        self, view: memoryview, index: int, shift: int, address: int, level: int, write: bool
    ) -> tuple[memoryview, int, int, int, int]:
        entry = view[index]
        if not entry & PRESENT:
            raise self._fault(address, level, entry, write, "not present")
        if write and not entry & WRITABLE:
            raise self._fault(address, level, entry, write, "read-only")
        return view, index, shift, entry, level

    def _entries(self, table: int, address: int, level: int, write: bool) -> memoryview:
        """The 512 entries of the table at device address `table`."""
        try:
            found = self.function.gpu.vram.resolve(self._initiator, table, 0x1000, False)
        except AccessFault as fault:
            raise self._fault(address, level, table, write, f"page table at {table:#x}: {fault.reason}") from fault
        if found is None or len(found[1]) < 0x1000:
            raise self._fault(address, level, table, write, f"page table at {table:#x} is outside of VRAM")
        return found[1].cast("Q")

    def _fault(self, address: int, level: int, entry: int, write: bool, reason: str) -> TranslationFault:
        return TranslationFault(
            self.function.ggtt.name,
            self.name,
            address,
            level=level,
            entry=entry,
            write=write,
            reason=reason,
            asid=self.asid,
        )


def pat_index(entry: int, shift: int) -> int:
    """The PAT index in a leaf that maps `1 << shift` bytes."""
    index = sum(value for bit, value in _PAT_BITS if entry & bit)
    return index | 4 if entry & (_PAT2_SMALL if shift < _SHIFTS[1] else _PAT2_LARGE) else index


def _nulls(entries: memoryview) -> int:
    """How many NULL entries there are from the first on: their address bits mean nothing."""
    return next((index for index, entry in enumerate(entries) if not entry & NULL), len(entries))
