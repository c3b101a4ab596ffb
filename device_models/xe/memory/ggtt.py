"""Global GTT: 4 GiB of address space, whose entries the driver writes at BAR0 + 8 MiB (`xe_ggtt.c`).

Each function has a window of its own. In the PF's, an entry's VFID field names the function that it belongs to, and
entries of others do not translate. In a VF's, every entry is the VF's, but only its provisioned range counts.
"""

from __future__ import annotations

from functools import lru_cache

from vfio_user_xe.device_models.xe.memory.formats.ggtt import (
    ADDRESS_MASK,
    DEVICE_MEMORY,
    GGTT_SIZE,
    PRESENT,
    PTES_SIZE,
    VFID_MASK,
    VFID_SHIFT,
    vfid_of,
)
from vfio_user_xe.emulator.fabric.interconnect import Space

VRAM_KIND = "ggtt-vram"
SYSTEM_KIND = "ggtt-system"
"""How the ledger tells accesses through the GGTT from those through a PPGTT."""

_PAGES = GGTT_SIZE >> 12


class TranslationFault(Exception):
    """An address that does not translate: which one, for what access, and which entry of which level said so.

    `asid` is the PPGTT's, None for a GGTT, whose faults cannot be served.
    """

    def __init__(
        self,
        function: str,
        space: str,
        address: int,
        *,
        level: int,
        entry: int,
        write: bool,
        reason: str,
        asid: int | None = None,
    ) -> None:
        super().__init__(
            f"{function}: {space} address {address:#x} ({'write' if write else 'read'}): "
            f"level {level} entry {entry:#x}: {reason}"
        )
        self.function = function
        self.space = space
        self.address = address
        self.level = level
        self.entry = entry
        self.write = write
        self.reason = reason
        self.asid = asid


class Ggtt:
    """The GGTT of function `index` (0 = PF) whose entries are in `ptes`, 8 MiB of them."""

    def __init__(self, index: int, ptes: memoryview) -> None:
        """A VF (`index` > 0) starts with nothing provisioned."""
        if ptes.nbytes != PTES_SIZE:
            raise ValueError(f"GGTT of function {index}: {ptes.nbytes:#x} bytes of entries, not {PTES_SIZE:#x}")
        self.index = index
        self.first = 0
        self.end = 0 if index else _PAGES
        """Pages `[first, end)` count."""
        self.entries = ptes.cast("B").cast("Q")
        """All entries by page number."""

    @property
    def name(self) -> str:
        """ "pf", "vf1", ..."""
        return f"vf{self.index}" if self.index else "pf"

    def provision(self, start: int, size: int) -> None:
        """Only `[start, start + size)` counts from now on (VF configuration KLVs GGTT_START and GGTT_SIZE)."""
        if start < 0 or size < 0 or start + size > GGTT_SIZE or (start | size) & 0xFFF:
            raise ValueError(f"{self.name}: GGTT range [{start:#x}, +{size:#x}) is not of whole pages inside 4 GiB")
        self.first, self.end = start >> 12, (start + size) >> 12

    def entry(self, address: int, write: bool = False) -> int:
        """The present entry of `address`, this function's own.

        Raises:
            TranslationFault: it is not present, another function's, or outside of what the function has.
        """
        page = address >> 12
        if not self.first <= page < self.end:
            where = "the provisioned range" if self.index else "the GGTT"
            raise self._fault(address, 0, write, f"outside of {where} [{self.first << 12:#x}, {self.end << 12:#x})")
        entry = self.entries[page]
        if not entry & PRESENT:
            raise self._fault(address, entry, write, "not present")
        # A VF's window is its own, whatever it writes into the field.
        if entry & VFID_MASK and not self.index:
            raise self._fault(address, entry, write, f"belongs to VF {vfid_of(entry)}")
        return entry

    def translate(self, address: int, write: bool = False) -> tuple[str, int, str]:
        """`(Space.DEVICE | Space.SYSTEM, address there, ledger kind)` of a GGTT address; valid to the end of its page.

        Raises:
            TranslationFault: says what was wrong with which entry.
        """
        entry = self.entry(address, write)
        target = entry & ADDRESS_MASK | address & 0xFFF
        if entry & DEVICE_MEMORY:
            return Space.DEVICE, target, VRAM_KIND
        return Space.SYSTEM, target, SYSTEM_KIND

    def read_entries(self, start: int, size: int, vfid: int = 0) -> bytes:
        """The entries of the pages `[start, start + size)` with their VFID field set to `vfid`.

        For what the PF may see of a VF's window: pause, save (xe_ggtt.c:xe_ggtt_node_save checks the field), FLR.
        """
        raw = self.entries[start >> 12 : (start + size) >> 12]
        return _with_vfid(raw.tobytes(), vfid)

    def write_entries(self, start: int, entries: bytes | memoryview, vfid: int | None = 0) -> None:
        """Store `entries` from GGTT address `start` on, with their VFID field set to `vfid`; None: as they are."""
        data = bytes(entries) if vfid is None else _with_vfid(bytes(entries), vfid)
        first = start >> 12
        self.entries[first : first + len(data) // 8] = memoryview(data).cast("Q")

    def _fault(self, address: int, entry: int, write: bool, reason: str) -> TranslationFault:
        return TranslationFault(self.name, "GGTT", address, level=0, entry=entry, write=write, reason=reason)


def _with_vfid(entries: bytes, vfid: int) -> bytes:
    """One operation on one big number: a VF may have hundreds of thousands of entries."""
    count = len(entries) // 8
    changed = int.from_bytes(entries, "little") & _repeated(~VFID_MASK & (1 << 64) - 1, count)
    if vfid:
        changed |= _repeated(vfid << VFID_SHIFT, count)
    return changed.to_bytes(count * 8, "little")


@lru_cache(maxsize=4)
def _repeated(entry: int, count: int) -> int:
    """VFs of a card mostly have ranges of one size."""
    return int.from_bytes(entry.to_bytes(8, "little") * count, "little")
