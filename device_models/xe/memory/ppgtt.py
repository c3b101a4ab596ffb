"""Per-process GTT: an address space of a function that page tables in its VRAM describe (`xe_pt.c`, `xe_vm.c`).

`formats/ppgtt.py` has the format. Page tables are always in VRAM, as the function addresses it (a DPA of the PF, a GDPA of
a VF); what leaves map is VRAM or system memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, Extent, FunctionView
from vfio_user_xe.device_models.xe.memory.contiguity import contiguous, runs
from vfio_user_xe.device_models.xe.memory.formats import ppgtt as fmt
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import (
    DEVICE_MEMORY,
    LARGE,
    NULL,
    PRESENT,
    SHIFTS,
    VA_BITS,
    VA_MASK,
    WRITABLE,
)
from vfio_user_xe.device_models.xe.memory.ggtt import TranslationFault
from vfio_user_xe.device_models.xe.memory.scattered import PageFinder
from vfio_user_xe.device_models.xe.memory.stale import ForeignUses
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space, Window
from vfio_user_xe.emulator.fabric.ledger import KERNEL
from vfio_user_xe.emulator.fabric.pages import Pages

VRAM_KIND = "vram"
SYSTEM_KIND = "system"
NULL_KIND = "null"
EXECUTION_UNITS = "eu "
"""Prefix of the kind of accesses that threads of the execution units make."""
FIXED_FUNCTIONS = "3d "
"""Prefix of the kind of accesses that the 3-D pipeline's fixed functions make: vertices, depth, render targets."""

_LONGEST = 16 << 20
"""Pieces are put together up to about this size."""

_LARGE_LEAF = PRESENT | LARGE

Table = tuple[memoryview, int]
"""Entries of a last table, and how many bits of address each maps."""


class PpgttSpace(AddressSpace):
    """The address space of `function` whose level 4 table is at `root`, known to the TLB as `asid`."""

    _units: ExecutionUnitSpace | None = None
    _fixed: FixedFunctionSpace | None = None
    _system_kind = SYSTEM_KIND
    """The ledger's column for system memory."""

    def __init__(self, function: FunctionView, root: int, asid: int) -> None:
        """`root` is the root descriptor of a context image (PDP0): only its address bits count."""
        super().__init__(function)
        self._vram = function.gpu.vram
        self.root = fmt.table_of(root)
        self.asid = asid
        self.name = f"PPGTT {self.root:#x}"
        self._tables: dict[int, Table] = {}
        """Level 0 tables by address >> 21: what a page walk mostly needs."""
        self._directories: dict[int, memoryview] = {}
        """Level 1 tables by address >> 30."""
        self._pointers: dict[int, memoryview] = {}
        """Tables of level 2, whose leaves are of 1 GiB, by address >> 39."""
        self._readable_pages = PageFinder(write=False)
        self._writable_pages = PageFinder(write=True)
        self._tables_epoch = self._fabric.epoch(function.pci.name)
        self._tables_of = self._tables_epoch.value
        """The epoch of the function's memory that the tables kept are of."""
        # A space that the last context gave up is gone at once, not when a cycle of references is found.
        leaves = weakref.WeakMethod(self._vram_leaves)
        self._uses = (
            ForeignUses(function.gpu.vram, lambda: found() if (found := leaves()) is not None else ())
            if not function.vfid and asid
            else None
        )

    @property
    def execution_units(self) -> ExecutionUnitSpace:
        """The same address space as threads of the execution units see it. On the card's executor."""
        if self._units is None:
            self._units = ExecutionUnitSpace(self.function, self.root, self.asid)
        return self._units

    @property
    def fixed_functions(self) -> FixedFunctionSpace:
        """The same address space as the 3-D pipeline's fixed functions see it. On the card's executor."""
        if self._fixed is None:
            self._fixed = FixedFunctionSpace(self.function, self.root, self.asid)
        return self._fixed

    def flush(self) -> None:
        """Forget every translation kept."""
        for other in (self._units, self._fixed):
            if other is not None:
                other.flush()
        self._tables_of = self._tables_epoch.value
        self._tables.clear()
        self._directories.clear()
        self._pointers.clear()
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
        target = fmt.target(entry, shift) | low
        return self._extent(entry, shift, target, count)

    def _extent(self, entry: int, shift: int, target: int, count: int) -> Extent:
        if not entry & DEVICE_MEMORY:
            return Extent(Space.SYSTEM, target, count, SYSTEM_KIND)
        compressed = self._vram.flat_ccs is not None and self._vram.compressing(fmt.pat_index(entry, shift))
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
            target_mask = fmt.target_mask(shift)
            for start, number in runs(entries, size):
                entry = entries[start]
                if shift >= SHIFTS[1] and entry & PRESENT and not entry & LARGE:
                    # A table of smaller pages: to be walked.
                    break
                if entry & needed != needed or entry & NULL:
                    # It faults with all that is to be said, or is a page of zeros.
                    extent = self.extent(address, length, write)
                else:
                    target = entry & target_mask | low
                    count = (number << shift) - low
                    count = min(count, length)
                    if entry & DEVICE_MEMORY:
                        extent = self._extent(entry, shift, target, count)
                    else:
                        extent = Extent(Space.SYSTEM, target, count, self._system_kind)
                yield extent
                address += extent.length
                length -= extent.length
                low = 0
                if extent.space is None:
                    break

    def pages(self, address: int, most: int, write: bool) -> Pages | None:
        return (self._writable_pages if write else self._readable_pages).find(self, address, most)

    def targets(self, address: int, most: int, write: bool) -> tuple[Extent, NDArray[np.int64]]:
        """Where the first pages of 4 KiB from `address` on lead, `most` of them at most: the first's extent, each's address.

        Up to the end of a page table, or to the first page that is not in the same space for the same access.

        Raises:
            TranslationFault: `address` is not mapped.
        """
        table, index, shift, entry, _ = self._walk(address & VA_MASK, write)
        low = (address & (1 << shift) - 1) >> SHIFTS[0]
        each = 1 << shift - SHIFTS[0]
        extent = self._extent(entry, shift, fmt.target(entry, shift), 1 << shift)
        if entry & NULL:
            return extent, np.empty(0, np.int64)
        asked = PRESENT | NULL | DEVICE_MEMORY | (WRITABLE if write else 0) | (LARGE if shift >= SHIFTS[1] else 0)
        entries = np.frombuffer(table[index : index + -(-(low + most) // each)], np.int64)
        alike = entries & asked == entry & asked
        if not alike.all():
            entries = entries[: int(alike.argmin())]
        steps = np.arange(low, min(low + most, each)) if len(entries) == 1 else np.arange(each)
        targets = np.add.outer(entries & fmt.target_mask(shift), steps << SHIFTS[0]).ravel()
        return extent, targets[low if len(entries) > 1 else 0 :][:most]

    def leaf(self, address: int, write: bool) -> tuple[int, int]:
        address &= VA_MASK
        _, _, shift, _, _ = self._walk(address, write)
        return address & -(1 << shift), 1 << shift

    def leaves(self, start: int = 0, end: int = 1 << VA_BITS) -> Iterator[fmt.Leaf]:
        """What the page tables map in `[start, end)`, in order; tables that cannot be reached map nothing."""
        return fmt.leaves(self._table_or_none, self.root, start, end)

    def _vram_leaves(self) -> Iterator[tuple[int, int]]:
        for _, entry, shift in self.leaves():
            if entry & DEVICE_MEMORY and not entry & NULL:
                yield fmt.target(entry, shift), 1 << shift

    def describe(self, address: int) -> Iterator[fmt.Step]:
        """Every step of the walk of `address`, for `inspect` and reports.

        Raises:
            TranslationFault: a table is outside of VRAM; the steps before were given.
        """
        address &= VA_MASK
        return fmt.walk(lambda table, level: self._entries(table, address, level, False), self.root, address)

    def _walk(self, address: int, write: bool) -> tuple[memoryview, int, int, int, int]:
        """(table, index, shift, entry, level) of the leaf of `address`.

        Raises:
            TranslationFault: an entry on the way is not present, or refuses the access.
        """
        if self._tables_of != self._tables_epoch.value:
            # Blocks of the function's VRAM moved, and page tables may have been in them.
            self.flush()
        kept = self._tables.get(address >> 21)
        if kept is None:
            directory = self._directories.get(address >> 30)
            if directory is not None and directory[address >> 21 & 0x1FF] & _LARGE_LEAF == _LARGE_LEAF:
                # What most of VRAM is mapped with.
                return self._leaf(directory, address >> 21 & 0x1FF, SHIFTS[1], address, 1, write)
            pointers = self._pointers.get(address >> 39) if directory is None else None
            if pointers is not None and pointers[address >> 30 & 0x1FF] & _LARGE_LEAF == _LARGE_LEAF:
                return self._leaf(pointers, address >> 30 & 0x1FF, SHIFTS[2], address, 2, write)
            kept = self._walk_tables(address, write)
            if len(kept[0]) == 512 and kept[1] != SHIFTS[0]:
                # A leaf of 2 MiB or 1 GiB: its table is kept, if at all, as a directory.
                view, shift = kept
                level = SHIFTS.index(shift)
                return self._leaf(view, address >> shift & 0x1FF, shift, address, level, write)
        view, shift = kept
        return self._leaf(view, (address & 0x1FFFFF) >> shift, shift, address, 0, write)

    def _walk_tables(self, address: int, write: bool) -> Table:
        """The table with the leaf of `address`, from the root or the level 1 table that is kept.

        Raises:
            TranslationFault: an entry on the way is not present.
        """
        directory = self._directories.get(address >> 30)

        def read(table: int, level: int) -> memoryview:
            if level == 1 and directory is not None:
                return directory
            return self._entries(table, address, level, write)

        root, level = (self.root, fmt.ROOT_LEVEL) if directory is None else (0, 1)
        for step in fmt.walk(read, root, address, level):
            if step.level == 1:
                self._directories[address >> 30] = step.entries
            elif step.level == 2:
                self._pointers[address >> 39] = step.entries
            if step.level and not step.entry & PRESENT:
                raise self._fault(address, step.level, step.entry, write, "not present")
        if not step.level:
            self._tables[address >> 21] = step.entries, step.shift
        return step.entries, step.shift

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

    def _table_or_none(self, table: int, level: int) -> memoryview | None:
        try:
            return self._entries(table, 0, level, False)
        except TranslationFault:
            return None

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


class PointerSpace(PpgttSpace):
    """A PPGTT whose translations compiled code keeps as pointers."""

    generation = 0
    """Changes whenever translations are taken back: what compiled code keeps of them is out of date then."""

    def flush(self) -> None:
        """Forget every translation kept."""
        self.generation += 1
        super().flush()


class ExecutionUnitSpace(PointerSpace):
    """A PPGTT as the execution units see it: the ledger has kinds of their own for what threads access."""

    _system_kind = EXECUTION_UNITS + SYSTEM_KIND

    def _extent(self, entry: int, shift: int, target: int, count: int) -> Extent:
        extent = super()._extent(entry, shift, target, count)
        return extent._replace(kind=EXECUTION_UNITS + extent.kind)


class FixedFunctionSpace(PointerSpace):
    """A PPGTT as the 3-D pipeline's fixed functions see it: the ledger has kinds of their own for what they access."""

    _system_kind = FIXED_FUNCTIONS + SYSTEM_KIND

    def _extent(self, entry: int, shift: int, target: int, count: int) -> Extent:
        extent = super()._extent(entry, shift, target, count)
        return extent._replace(kind=FIXED_FUNCTIONS + extent.kind)


def _nulls(entries: memoryview) -> int:
    """How many NULL entries there are from the first on: their address bits mean nothing."""
    return next((index for index, entry in enumerate(entries) if not entry & NULL), len(entries))
