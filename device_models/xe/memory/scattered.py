"""Pages of address spaces, hundreds at a time: what `bulk.py` copies where memory is scattered page by page."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.memory.address_space import (
    CHUNK_SHIFT,
    CHUNK_SIZE,
    AccessFault,
    Extent,
    TranslationFault,
)
from vfio_user_xe.emulator.fabric.ledger import LedgerEntry
from vfio_user_xe.emulator.fabric.pages import PAGE_SHIFT, Pages, WindowPages
from vfio_user_xe.emulator.fabric.span import Window

MOST = 512
"""Pages that are found at once: a page table's."""

_MOST_CHUNKS = 1 << 12
_IN_CHUNK = (CHUNK_SIZE >> PAGE_SHIFT) - 1


class PagedSpace(Protocol):
    """An address space that tells where many of its pages lead."""

    def targets(self, address: int, most: int, write: bool) -> tuple[Extent, NDArray[np.int64]]:
        """See `PpgttSpace.targets`."""
        ...

    def locate(self, extent: Extent, write: bool) -> tuple[Window, int]:
        """See `AddressSpace.locate`."""
        ...


class PageFinder:
    """Finds pages of one address space (each call names it: a cycle would outlive its last context), and keeps where 2 MiB that it looked for are. On the card's executor."""

    def __init__(self, *, write: bool) -> None:
        self._write = write
        self._chunks: dict[tuple[str | None, int], WindowPages] = {}

    def find(self, space: PagedSpace, address: int, most: int) -> Pages | None:
        """The first pages from `address` on, `most` or `MOST` at most; `address` is a multiple of the page size.

        None where the first is not there, or not in whole pages in place: accesses one by one say why.
        """
        try:
            extent, targets = space.targets(address, min(most, MOST), self._write)
        except TranslationFault:
            return None
        if not len(targets):
            return None
        numbers, which = np.unique(targets >> CHUNK_SHIFT, return_inverse=True)
        chunks = [self._chunk(space, extent, number) for number in numbers.tolist()]
        inside = targets >> PAGE_SHIFT & _IN_CHUNK
        there = inside < np.array([chunk.count for chunk in chunks])[which]
        if not there.all():
            count = int(there.argmin())
            if not count:
                return None
            which, inside = which[:count], inside[:count]
        pages = np.array([chunk.first for chunk in chunks])[which] + inside
        return Pages(pages, chunks, which, [chunk.view for chunk in chunks])

    def _chunk(self, space: PagedSpace, extent: Extent, number: int) -> WindowPages:
        """The pages of a window on 2 MiB; none where there is no such window."""
        key = (extent.space, number)
        found = self._chunks.get(key)
        if found is not None and found.valid:
            return found
        if len(self._chunks) >= _MOST_CHUNKS:
            self._chunks.clear()
        # Of half the size: it is what `locate` keeps a window on the whole for.
        whole = extent._replace(address=number << CHUNK_SHIFT, length=CHUNK_SIZE // 2)
        try:
            window, offset = space.locate(whole, self._write)
        except AccessFault:
            return _NONE
        if offset:
            return _NONE
        found = self._chunks[key] = WindowPages(window, write=self._write)
        return found


_NONE = WindowPages(Window(0, 0, None, "none", LedgerEntry("none", "none", "none", "none")), write=False)
