"""Whole pages of many windows, copied by one call: memory that is scattered page by page.

A copy of 4 KiB costs less than the calls that lead to it. So pages are collected by their numbers in this process, and
numpy copies some hundreds of them at a time, without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.emulator.fabric.ledger import LedgerEntry
from vfio_user_xe.emulator.fabric.span import Window

PAGE_SHIFT: Final = 12
PAGE: Final = 1 << PAGE_SHIFT

PageNumbers = NDArray[np.intp]

_ADDRESS_BITS = 48
_EVERY_PAGE: Final = np.frombuffer(
    memoryview((ctypes.c_char * ((1 << _ADDRESS_BITS) - PAGE)).from_address(PAGE)).cast("B"), f"V{PAGE}"
)
"""What a process can address, as pages: `[n]` is the page at address `n + 1 << PAGE_SHIFT` (numpy refuses address 0)."""
_STEP: Final = 64
"""Pages that are collected before they are stored: they stay in the processor's second cache."""


class WindowPages:
    """Where the whole pages of a window are in this process. On the card's executor."""

    __slots__ = ("count", "first", "view", "window")

    def __init__(self, window: Window, *, write: bool) -> None:
        """The window's pages; `count` is 0 where it has none in place, or `write` asks for what is mapped read-only."""
        self.window = window
        self.view = view = window.view
        self.first = self.count = 0
        if view is None or (write and view.readonly):
            return
        address = np.frombuffer(view, np.uint8).ctypes.data if len(view) else 0
        if not address & PAGE - 1 and address + len(view) <= 1 << _ADDRESS_BITS:
            self.first, self.count = (address >> PAGE_SHIFT) - 1, len(view) >> PAGE_SHIFT

    @property
    def valid(self) -> bool:
        """Whether the window is not revoked."""
        return self.window.valid


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages in an order, of one or more windows. To be used at once: they outlive a revocation."""

    numbers: PageNumbers
    windows: list[WindowPages]
    which: PageNumbers
    """The index in `windows` of each page's window."""
    views: list[memoryview | None]
    """Of the windows: they keep the memory mapped."""

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> Pages:
        """The first `count` of them."""
        return Pages(self.numbers[:count], self.windows, self.which[:count], self.views)

    def shares(self) -> Iterator[tuple[LedgerEntry, int]]:
        """How many of them are of each window, for the ledger."""
        counts = np.bincount(self.which, minlength=len(self.windows)).tolist()
        return ((window.window.entry, count) for window, count in zip(self.windows, counts, strict=True) if count)


def copy_pages(source: Pages, target: Pages) -> None:
    """Copy all pages of `source` to those of `target`, counted in the entries of both. On the card's executor.

    Raises:
        ValueError: the numbers of pages differ.
    """
    if len(source) != len(target):
        raise ValueError(f"{len(source)} pages to {len(target)}")
    _count_reads(source)
    _count_writes(target)
    for start in range(0, len(source), _STEP):
        some = slice(start, start + _STEP)
        _EVERY_PAGE[target.numbers[some]] = _EVERY_PAGE[source.numbers[some]]


def read_pages(pages: Pages) -> bytes:
    """The bytes of `pages`, counted. On the card's executor."""
    _count_reads(pages)
    return _EVERY_PAGE[pages.numbers].tobytes()


def write_pages(pages: Pages, data: memoryview) -> None:
    """Store `data`, as many bytes as `pages` have, counted. On the card's executor."""
    _count_writes(pages)
    _EVERY_PAGE[pages.numbers] = np.frombuffer(data, _EVERY_PAGE.dtype)


def _count_reads(pages: Pages) -> None:
    for entry, count in pages.shares():
        entry.count_bulk(count, count << PAGE_SHIFT, 0, 0)


def _count_writes(pages: Pages) -> None:
    for entry, count in pages.shares():
        entry.count_bulk(0, 0, count, count << PAGE_SHIFT)
