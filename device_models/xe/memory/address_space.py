"""Address spaces: what an engine or the GuC sees memory through. Every one belongs to a function.

An `AddressSpace` translates addresses (GGTT or PPGTT), opens windows through the card's fabric, keeps them by page as
spans, and gives plain reads and writes by address. All of it runs on the card's executor; only `flush` comes from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vfio_user_xe.device_models.xe.memory.contiguity import contiguous
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt, TranslationFault
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator, LedgerEntry, Window
from vfio_user_xe.emulator.fabric.pages import PAGE, Pages, read_pages, write_pages
from vfio_user_xe.emulator.fabric.span import Revoked, Span

__all__ = [
    "AccessFault",
    "AddressSpace",
    "DeviceView",
    "Extent",
    "Fault",
    "FunctionView",
    "GgttSpace",
    "Registry",
    "TranslationFault",
]

Fault = TranslationFault | AccessFault
"""The errors of any access: an address that does not translate, or one that no path reaches."""


class Registry(Protocol):
    """The list of a card's address spaces; `memory/spaces.py` has it."""

    def add(self, space: AddressSpace, /) -> None:
        """Invalidate `space` with the others, as long as it lives."""
        ...


class DeviceView(Protocol):
    """What an address space needs of a card; `memory/function.py:Device` is one."""

    @property
    def fabric(self) -> Fabric:
        """Opens windows."""
        ...

    @property
    def vram(self) -> Vram:
        """Holds the page tables."""
        ...

    @property
    def spaces(self) -> Registry:
        """All address spaces."""
        ...


class FunctionView(Protocol):
    """What an address space needs of a function; `vfio_user_xe.device_models.xe.memory.function.XeFunction` is one."""

    @property
    def vfid(self) -> int:
        """0 for the PF."""
        ...

    @property
    def pci(self) -> Initiator:
        """The initiator of the accesses."""
        ...

    @property
    def ggtt(self) -> Ggtt:
        """Its own."""
        ...

    @property
    def gpu(self) -> DeviceView:
        """Its card."""
        ...


class Extent(NamedTuple):
    """Where an address leads: `length` contiguous bytes from `address` of `space` on."""

    space: str | None
    """One of `vfio_user_xe.emulator.fabric.interconnect.Space`; None for a NULL page, which reads zero and drops writes."""
    address: int
    length: int
    kind: str
    """The ledger's column for it."""
    compressed: bool = False
    """Whether the PAT entry of these pages lets the memory behind them be compressed (cards with flat CCS only)."""


CHUNK_SHIFT = 21
CHUNK_SIZE = 1 << CHUNK_SHIFT
"""A window that is kept spans no more than this, and no more than its page-table entry."""

_SMALL = 0x1000
"""Reads and writes up to this size go through what is kept of pages; larger ones open windows of their own."""
_PIECE, _LONG = 0x2000, 0x8000
"""Accesses from the second size on look for many pages at once, where a window is no longer than the first."""
_MOST_PAGES = 1 << 16
_MOST_REGIONS = 1 << 12
"""How much a space keeps before it begins anew."""

_ZEROS = memoryview(bytes(CHUNK_SIZE))
_NOBODY = LedgerEntry("none", "none", "none", "null")


class AddressSpace(ABC):
    """Reads, writes and windows by address.

    `readable` and `writable` keep spans by page number (address >> 12); hot code looks there first and asks `span`
    for what is missing. Addresses for these, and for single values, are already cut to what the space has. Every access
    may raise what is listed.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """

    name = "address space"

    def __init__(self, function: FunctionView) -> None:
        self.function = function
        self.readable: dict[int, Span] = {}
        self.writable: dict[int, Span] = {}
        self._readable_chunks: dict[int, Span] = {}
        self._writable_chunks: dict[int, Span] = {}
        self._regions: dict[tuple[str, int, bool], Window] = {}
        self._fabric = function.gpu.fabric
        self._initiator = function.pci
        function.gpu.spaces.add(self)

    @abstractmethod
    def extent(self, address: int, length: int, write: bool) -> Extent:
        """Where the first contiguous bytes of `[address, address + length)` are.

        Raises:
            TranslationFault: `address` is not mapped.
        """

    def extents(self, address: int, length: int, write: bool) -> Iterator[Extent]:
        """Where `[address, address + length)` is, piece by contiguous piece.

        Raises:
            TranslationFault: there is a hole.
        """
        while length > 0:
            extent = self.extent(address, length, write)
            yield extent
            address += extent.length
            length -= extent.length

    @abstractmethod
    def leaf(self, address: int, write: bool) -> tuple[int, int]:
        """(first address, size) of what the page-table entry of `address` maps.

        Raises:
            TranslationFault: `address` is not mapped.
        """

    def flush(self) -> None:
        """Forget every translation kept."""
        self.readable.clear()
        self.writable.clear()
        self._readable_chunks.clear()
        self._writable_chunks.clear()

    def invalidated(self) -> None:
        """The driver took translations back: forget all that is kept."""
        self.flush()

    # Bulk access.

    def window(self, address: int, length: int, write: bool) -> Window:
        """A window on the first contiguous bytes of `[address, address + length)`."""
        return self.open(self.extent(address, length, write), write)

    def open(self, extent: Extent, write: bool) -> Window:
        """A window on the first bytes of `extent`."""
        if extent.space is None:
            return _null_window(self._initiator, extent.length, write)
        return self._fabric.window(
            self._initiator, extent.space, extent.address, extent.length, write=write, kind=extent.kind
        )

    def locate(self, extent: Extent, write: bool) -> tuple[Window, int]:
        """A window that holds the first bytes of `extent`, and where in it they are.

        Small pieces of memory that is scattered share windows on the 2 MiB around them: opening one for each would
        cost more than copying them.
        """
        if extent.space is None or extent.length > CHUNK_SIZE // 2:
            return self.open(extent, write), 0
        offset = extent.address & CHUNK_SIZE - 1
        key = (extent.space, extent.address - offset, write)
        window = self._regions.get(key)
        if window is None:
            try:
                window = self.open(extent._replace(address=key[1], length=CHUNK_SIZE), write)
            except AccessFault:
                return self.open(extent, write), 0
            if len(self._regions) >= _MOST_REGIONS:
                self._regions.clear()
            self._regions[key] = window
        if offset >= window.length or not window.valid:
            return self.open(extent, write), 0
        return window, offset

    def pages(self, address: int, most: int, write: bool) -> Pages | None:
        """The first pages from `address` (a page's) on that are found together; None: accesses one by one say why."""
        return None

    def spans(self, address: int, length: int, write: bool) -> Iterator[Window]:
        """Windows that cover `[address, address + length)` in order, as few as contiguity allows."""
        while length > 0:
            window = self.window(address, length, write)
            yield window
            address += window.length
            length -= window.length

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`."""
        if length <= _SMALL:
            span = self.span(address, False)
            if span is not None and address + length <= span.end:
                try:
                    return span.load(address, length)
                except Revoked:
                    return self.read(address, length)
        parts = []
        while length > 0:
            window = self.window(address, length, False)
            pages = self._scattered(window, address, length, write=False)
            parts.append(window.read(0, window.length) if pages is None else read_pages(pages))
            address += len(parts[-1])
            length -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store `data` at `address`."""
        rest = memoryview(data).cast("B")
        if len(rest) <= _SMALL:
            span = self.span(address, True)
            if span is not None and address + len(rest) <= span.end:
                try:
                    span.store(address, rest)
                except Revoked:
                    self.write(address, rest)
                return
        while rest:
            window = self.window(address, len(rest), True)
            pages = self._scattered(window, address, len(rest), write=True)
            if pages is None:
                count = window.length
                window.write(0, rest[:count])
            else:
                count = len(pages) * PAGE
                write_pages(pages, rest[:count])
            address += count
            rest = rest[count:]

    def _scattered(self, window: Window, address: int, length: int, *, write: bool) -> Pages | None:
        """Pages from `address` on, where `window`, which is there, is only a small piece of a long access."""
        if address & PAGE - 1 or window.length > _PIECE or length < _LONG:
            return None
        return self.pages(address, length // PAGE, write)

    # Single values, little endian. A value that crosses a page is put together from two.

    def read32(self, address: int) -> int:
        """The dword at `address`."""
        span = self.span(address, False) if not address & 3 else None
        if span is None:
            return int.from_bytes(self.read(address, 4), "little")
        try:
            return span.load32(address)
        except Revoked:
            return self.read32(address)

    def read64(self, address: int) -> int:
        """The qword at `address`."""
        span = self.span(address, False) if not address & 7 else None
        if span is None:
            return int.from_bytes(self.read(address, 8), "little")
        try:
            return span.load64(address)
        except Revoked:
            return self.read64(address)

    def write32(self, address: int, value: int) -> None:
        """Store a dword at `address`."""
        span = self.span(address, True) if not address & 3 else None
        if span is None:
            self.write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))
            return
        try:
            span.store32(address, value & 0xFFFFFFFF)
        except Revoked:
            self.write32(address, value)

    def write64(self, address: int, value: int) -> None:
        """Store a qword at `address`."""
        span = self.span(address, True) if not address & 7 else None
        if span is None:
            self.write(address, (value & (1 << 64) - 1).to_bytes(8, "little"))
            return
        try:
            span.store64(address, value & (1 << 64) - 1)
        except Revoked:
            self.write64(address, value)

    def span(self, address: int, write: bool) -> Span | None:
        """The span that is kept of the page of `address`, opened if needed. None when it is reached by messages only."""
        kept = self.writable if write else self.readable
        span = kept.get(address >> 12)
        if span is not None and span.window.valid:
            return span
        chunks = self._writable_chunks if write else self._readable_chunks
        span = chunks.get(address >> CHUNK_SHIFT)
        if span is None or not span.window.valid:
            base, size = self.leaf(address, write)
            if size > CHUNK_SIZE:
                base, size = address & -CHUNK_SIZE, CHUNK_SIZE
            span = self._open(base, size, write)
            if span is None or address >= span.end:
                span = self._open(address & -0x1000, 0x1000, write)
            if span is None:
                kept.pop(address >> 12, None)
                return None
            if span.end - span.base == CHUNK_SIZE:
                chunks[address >> CHUNK_SHIFT] = span
        if len(kept) >= _MOST_PAGES:
            kept.clear()
        kept[address >> 12] = span
        return span

    def _open(self, base: int, size: int, write: bool, mark: int = 0) -> Span | None:
        """Only whole pages are kept. Memory beyond them is opened for each access."""
        span = Span(self.window(base, size, write), base, mark)
        return span if span.end > base else None


class GgttSpace(AddressSpace):
    """A function's GGTT. Entries are looked at on every access: it needs no invalidation.

    (A VF's driver changes entries before it has any way to invalidate them: xe_guc_tlb_inval.c:send_tlb_inval_ggtt.)
    """

    name = "GGTT"

    def extent(self, address: int, length: int, write: bool) -> Extent:
        ggtt = self.function.ggtt
        space, target, kind = ggtt.translate(address, write)
        count = 0x1000 - (address & 0xFFF)
        page = address >> 12
        pages = min(ggtt.end - page, (address + length + 0xFFF >> 12) - page)
        if pages > 1:
            run = contiguous(ggtt.entries[page : page + pages], 0x1000)
            count = run * 0x1000 - (address & 0xFFF)
        return Extent(space, target, min(length, count), kind)

    def leaf(self, address: int, write: bool) -> tuple[int, int]:
        return address & -0x1000, 0x1000

    def span(self, address: int, write: bool) -> Span | None:
        ggtt, page = self.function.ggtt, address >> 12
        kept = self.writable if write else self.readable
        span = kept.get(page)
        # The entry that the span was opened for translates as long as its page counts.
        if span is not None and ggtt.first <= page < ggtt.end and span.mark == ggtt.entries[page] and span.window.valid:
            return span
        span = self._open(address & -0x1000, 0x1000, write, ggtt.entry(address, write))
        if span is not None:
            kept[page] = span
        return span


def _null_window(initiator: Initiator, length: int, write: bool) -> Window:
    length = min(length, CHUNK_SIZE)
    view = memoryview(bytearray(length)) if write else _ZEROS[:length]
    window = Window(0, length, view, "none", _NOBODY)
    window.initiator, window.space = initiator, "null"
    return window
