"""The functions' parts of the GGTT (`xe_ggtt.c:xe_ggtt_assign`): the PF's window shows all of it, a VF's its own range.

On hardware the entries are one array, each marked with the VFID of its owner, and a VF sees those marked with its own.
Here a VF's window is memory of its own, which its guest has mapped, so entries live with whoever may change them: a
running VF's in its window, those of a VF that is paused or being reset in the PF's, with the VFID in place. They move
when that changes, or when the VF's range does.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.memory.formats.ggtt import GGTT_SIZE, PTES_SIZE, VFID_MASK, VFID_SHIFT
from vfio_user_xe.device_models.xe.memory.function import Device

_PTE_SIZE = 8


class GgttSharing:
    """The ranges of all VFs of a card. Used on the executor."""

    def __init__(self, gpu: Device) -> None:
        self._gpu = gpu
        self._shown: set[int] = set()

    def is_shown(self, vfid: int) -> bool:
        """Whether the VF's entries are in the PF's window now."""
        return vfid in self._shown

    def provision(self, vfid: int, start: int, size: int) -> None:
        """VF `vfid` has `[start, start + size)` from now on, and nothing else. The same again changes nothing.

        What it has no longer is the PF's to clear; what is new holds what the PF left there.

        Raises:
            ValueError: the range is not one of whole pages inside of the GGTT.
        """
        ggtt = self._gpu.functions[vfid].ggtt
        old, new = range(ggtt.first, ggtt.end), range(start >> 12, (start + size) >> 12)
        if old == new:
            return
        if start < 0 or size < 0 or start + size > GGTT_SIZE or (start | size) & 0xFFF:
            raise ValueError(f"VF {vfid}: GGTT range [{start:#x}, +{size:#x}) is not of whole pages inside 4 GiB")
        shown = vfid in self._shown
        for pages in _without(old, new):
            if not shown:
                self._to_pf(vfid, pages)
            _clear(ggtt.entries, pages)
        ggtt.provision(start, size)
        if not shown:
            for pages in _without(new, old):
                self._from_pf(vfid, pages)
        self._gpu.functions[vfid].ggtt_space.flush()

    def show(self, vfid: int) -> None:
        """The VF does not run: the PF sees its entries, VFID in place, and may change them (`xe_ggtt_node_save`)."""
        if vfid not in self._shown:
            self._to_pf(vfid, self._pages(vfid))
            self._shown.add(vfid)

    def take(self, vfid: int) -> None:
        """The VF runs again, with the entries that the PF's window has."""
        if vfid in self._shown:
            self._from_pf(vfid, self._pages(vfid))
            self._shown.discard(vfid)
            self._gpu.functions[vfid].ggtt_space.flush()

    def reset(self) -> None:
        """The PF was reset: no VF has anything."""
        self._shown.clear()
        for function in self._gpu.functions[1:]:
            function.ggtt.provision(0, 0)
            function.ggtt_space.flush()

    def _pages(self, vfid: int) -> range:
        ggtt = self._gpu.functions[vfid].ggtt
        return range(ggtt.first, ggtt.end)

    def _to_pf(self, vfid: int, pages: range) -> None:
        start, size = pages.start << 12, len(pages) << 12
        if size:
            entries = self._gpu.functions[vfid].ggtt.read_entries(start, size, vfid)
            self._gpu.pf.ggtt.write_entries(start, entries, None)

    def _from_pf(self, vfid: int, pages: range) -> None:
        start, size = pages.start << 12, len(pages) << 12
        if size:
            entries = self._gpu.pf.ggtt.read_entries(start, size, 0)
            self._gpu.functions[vfid].ggtt.write_entries(start, entries, None)


class TrappedGgtt:
    """A VF's GGTT window that is trapped, entry by entry: exact where the mapped one is memory of the VF's own.

    Entries outside of the VF's range read 0 and are not written; the VFID field reads 0 and stays the VF's.
    `vfio_user_xe.emulator.pci.transport.AccessHandler`, for offsets in the window.
    """

    def __init__(self, gpu: Device, vfid: int, sharing: GgttSharing) -> None:
        self._gpu = gpu
        self._vfid = vfid
        self._sharing = sharing

    def read(self, offset: int, size: int) -> int:
        """The entry at `offset`, or half of it."""
        entries = self._entries(offset)
        if entries is None:
            return 0
        return (entries[offset >> 3] & ~VFID_MASK) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Store an entry, or half of it."""
        entries = self._entries(offset)
        if entries is None:
            return
        shift = 8 * (offset & 7)
        mask = ((1 << 8 * size) - 1) << shift
        entry = entries[offset >> 3] & ~mask | value << shift & mask
        vfid = self._vfid if self._sharing.is_shown(self._vfid) else 0
        entries[offset >> 3] = entry & ~VFID_MASK | vfid << VFID_SHIFT

    def _entries(self, offset: int) -> memoryview | None:
        ggtt = self._gpu.functions[self._vfid].ggtt
        if not 0 <= offset < PTES_SIZE or not ggtt.first <= offset >> 3 < ggtt.end:
            return None
        return self._gpu.pf.ggtt.entries if self._sharing.is_shown(self._vfid) else ggtt.entries


def _without(pages: range, others: range) -> list[range]:
    """The parts of `pages` that are not in `others`."""
    if not others:
        return [pages] if pages else []
    before = range(pages.start, min(pages.stop, others.start))
    behind = range(max(pages.start, others.stop), pages.stop)
    return [part for part in (before, behind) if part]


def _clear(entries: memoryview, pages: range) -> None:
    entries[pages.start : pages.stop] = memoryview(bytes(_PTE_SIZE * len(pages))).cast("Q")
