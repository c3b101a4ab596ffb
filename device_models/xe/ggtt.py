"""Global GTT: one level of 8-byte entries for 4 GiB, written by the driver at BAR0 + 8 MiB (xe_ggtt.c).

Each function has a window of its own. In the PF's, an entry's VFID field names the function that it belongs to, and
entries of others do not translate. In a VF's, every entry is the VF's, but only its provisioned range counts.
"""

from __future__ import annotations

GGTT_SIZE = 1 << 32
GGTT_PTES_SIZE = GGTT_SIZE // 4096 * 8
"""Bytes of a full window of entries: 8 MiB."""


class Ggtt:
    """The GGTT of function `index` (0 = PF) whose entries are in `ptes`, 8 MiB of them."""

    def __init__(self, index: int, ptes: memoryview) -> None:
        """A VF (`index` > 0) starts with nothing provisioned."""
        raise NotImplementedError

    index: int

    def provision(self, start: int, size: int) -> None:
        """Only `[start, start + size)` counts from now on (VF configuration KLVs GGTT_START and GGTT_SIZE)."""
        raise NotImplementedError

    def translate(self, address: int, write: bool = False) -> tuple[str, int, str]:
        """`(Space.DEVICE | Space.SYSTEM, address there, ledger kind)` of a GGTT address; valid to the end of its page.

        Raises `TranslationFault` which says what was wrong with which entry.
        """
        raise NotImplementedError

    def entries(self, start: int, size: int, vfid: int = 0) -> bytes:
        """The entries of `[start, start + size)` with their VFID field set to `vfid`."""
        raise NotImplementedError

    def load(self, start: int, entries: bytes | memoryview, vfid: int = 0) -> None:
        """Store `entries` from GGTT address `start` on, with their VFID field set to `vfid`."""
        raise NotImplementedError
