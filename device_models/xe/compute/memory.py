"""Elements in an address space, many at once: loads, stores and atomics of the lanes of many threads.

Addresses are 48-bit, in arrays of numpy. Bytes are reached through the spans of the threads' address space: counted in the
ledger once a message and span, and gone when the fabric revokes them. On the card's executor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.atomics import Atomic
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, Fault, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK
from vfio_user_xe.emulator.fabric.span import Revoked, Span

Numbers = NDArray[np.uint64]
Flags = NDArray[np.bool_]

_PAGE_SHIFT = 12
_PAGE = 1 << _PAGE_SHIFT
_NEAR = 1 << 16
"""Pages between the lowest and the highest up to which a table is faster than sorting."""
UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True)
class Reach:
    """Where elements are: found by `UnitMemory.reach`, good until the next change of translations."""

    spans: list[tuple[Span | None, int]]
    """A span, or None and the address of a page that is reached by messages only."""
    which: NDArray[np.int64]
    """[elements]: index into `spans`, -1 where there is a fault."""
    faults: list[Fault]

    @property
    def bad(self) -> Flags:
        """[elements]: those that cannot be reached."""
        return np.asarray(self.which < 0)

    def by_span(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Spans that have elements, and which these are, in their order."""
        order = np.argsort(self.which, kind="stable")
        ordered = self.which[order]
        first = np.searchsorted(ordered, np.arange(len(self.spans) + 1))
        for index, (begin, end) in enumerate(itertools.pairwise(first.tolist())):
            if end > begin:
                yield index, order[begin:end]


class UnitMemory:
    """The address space that threads of one context see."""

    def __init__(self, space: AddressSpace) -> None:
        self.space = space

    def faults(self, addresses: Numbers, size: int, write: bool) -> tuple[Flags, list[Fault]]:
        """[elements] that cannot be accessed, and why (one fault a page)."""
        addresses = addresses & np.uint64(VA_MASK)
        split = _crosses(addresses, size)
        reach = self._reach(_spread(addresses, size) if split else addresses, write)
        if not reach.faults:
            return np.zeros(len(addresses), dtype=np.bool_), []
        bad = reach.bad
        if split:
            bad = np.asarray(bad.reshape(-1, size).any(axis=1), dtype=np.bool_)
        return bad, reach.faults

    def load(self, addresses: Numbers, size: int) -> Numbers:
        """Elements of `size` bytes.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        addresses = addresses & np.uint64(VA_MASK)
        if _crosses(addresses, size):
            return numbers(self.load(_spread(addresses, size), 1).reshape(-1, size).astype(np.uint8), size)
        while True:
            try:
                return self._load(addresses, size)
            except Revoked:
                continue

    def store(self, addresses: Numbers, values: Numbers, size: int) -> None:
        """Store elements; of those at the same place the last stays.

        Raises:
            TranslationFault: an address is not mapped; nothing was stored.
            AccessFault: an address is refused, or leads nowhere; nothing was stored.
        """
        addresses = addresses & np.uint64(VA_MASK)
        if _crosses(addresses, size):
            self.store(_spread(addresses, size), parts(values, size).reshape(-1).astype(np.uint64), 1)
            return
        while True:
            try:
                self._store(addresses, values, size)
            except Revoked:
                continue
            return

    def atomic(self, operation: Atomic, addresses: Numbers, operands: list[list[int]], size: int) -> list[int]:
        """Read-modify-write of elements, one after the other in their order; returns what was there before each.

        Addresses are aligned to `size`: lower bits are ignored.

        Raises:
            TranslationFault: an address is not mapped; nothing was changed.
            AccessFault: an address is refused, or leads nowhere; nothing was changed.
        """
        addresses = addresses & np.uint64(VA_MASK & -size)
        reach = self._reached(addresses, True)
        cells: list[memoryview | None] = []
        counts = np.bincount(reach.which, minlength=len(reach.spans))
        try:
            for (span, _), count in zip(reach.spans, counts.tolist(), strict=True):
                cells.append(_cells(span, size, count))
        except Revoked:
            return self.atomic(operation, addresses, operands, size)
        old: list[int] = []
        which, places = reach.which.tolist(), addresses.tolist()
        for index, address in enumerate(places):
            span, _ = reach.spans[which[index]]
            view = cells[which[index]]
            if view is None or span is None:
                before = int.from_bytes(self.space.read(address, size), "little")
                after = operation(before, operands[0][index], operands[1][index], size)
                self.space.write(address, after.to_bytes(size, "little"))
            else:
                at = (address - span.base) // size
                before = view[at]
                view[at] = operation(before, operands[0][index], operands[1][index], size)
            old.append(before)
        return old

    def read(self, address: int, length: int) -> bytes:
        """Contiguous bytes, for descriptors and instructions.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        return self.space.read(address & VA_MASK, length)

    def _load(self, addresses: Numbers, size: int) -> Numbers:
        reach = self._reached(addresses, False)
        if len(reach.spans) == 1:
            return self._gather(*reach.spans[0], addresses, size)
        result = np.zeros(len(addresses), dtype=np.uint64)
        for index, here in reach.by_span():
            result[here] = self._gather(*reach.spans[index], addresses[here], size)
        return result

    def _gather(self, span: Span | None, page: int, addresses: Numbers, size: int) -> Numbers:
        if span is None:
            data = self.space.read(page, _PAGE)
            memory, base = np.frombuffer(data, dtype=np.uint8), page
        else:
            view = span.window.lend(0, span.end - span.base, write=False, count=size * len(addresses))
            assert view is not None  # a span has a view
            memory, base = np.frombuffer(view, dtype=np.uint8), span.base
        offsets = (addresses - np.uint64(base)).astype(np.int64)
        if size == 1:
            return memory[offsets].astype(np.uint64)
        if not (offsets & size - 1).any():
            return memory.view(UNSIGNED[size])[offsets // size].astype(np.uint64)
        return numbers(memory[offsets[:, None] + np.arange(size)], size)

    def _store(self, addresses: Numbers, values: Numbers, size: int) -> None:
        reach = self._reached(addresses, True)
        if len(reach.spans) == 1:
            self._scatter(*reach.spans[0], addresses, values, size)
            return
        for index, here in reach.by_span():
            self._scatter(*reach.spans[index], addresses[here], values[here], size)

    def _scatter(self, span: Span | None, page: int, addresses: Numbers, values: Numbers, size: int) -> None:
        kind = UNSIGNED[size]
        if span is None:
            for address, value in zip(addresses.tolist(), values.tolist(), strict=True):
                self.space.write(address, value.to_bytes(size, "little"))
            return
        view = span.window.lend(0, span.end - span.base, write=True, count=size * len(addresses))
        assert view is not None  # a span has a view
        memory = np.frombuffer(view, dtype=np.uint8)
        offsets = (addresses - np.uint64(span.base)).astype(np.int64)
        if size == 1:
            memory[offsets] = values.astype(kind)
        elif not (offsets & size - 1).any():
            memory.view(kind)[offsets // size] = values.astype(kind)
        else:
            memory[offsets[:, None] + np.arange(size)] = parts(values, size)

    def _reached(self, addresses: Numbers, write: bool) -> Reach:
        reach = self._reach(addresses, write)
        if reach.faults:
            raise reach.faults[0]
        return reach

    def _reach(self, addresses: Numbers, write: bool) -> Reach:
        pages = (addresses >> np.uint64(_PAGE_SHIFT)).astype(np.int64)
        if not len(pages):
            return Reach([], pages, [])
        low, high = int(pages.min()), int(pages.max())
        if high - low < _NEAR:
            used = np.zeros(high - low + 1, dtype=np.bool_)
            used[pages - low] = True
            unique = np.nonzero(used)[0] + low
        else:
            unique = np.unique(pages)
        spans: list[tuple[Span | None, int]] = []
        known: dict[int, int] = {}
        faults: list[Fault] = []
        which = np.zeros(len(unique), dtype=np.int64)
        kept = self.space.writable if write else self.space.readable
        for index, page in enumerate(unique.tolist()):
            span = kept.get(page)
            if span is None or not span.valid:
                try:
                    span = self.space.span(page << _PAGE_SHIFT, write)
                except (TranslationFault, AccessFault) as fault:
                    faults.append(fault)
                    which[index] = -1
                    continue
            key = id(span) if span is not None else -page
            found = known.get(key)
            if found is None:
                found = known[key] = len(spans)
                spans.append((span, page << _PAGE_SHIFT))
            which[index] = found
        if len(spans) == 1 and not faults:
            return Reach(spans, np.zeros(len(pages), dtype=np.int64), faults)
        if high - low < _NEAR:
            table = np.zeros(high - low + 1, dtype=np.int64)
            table[unique - low] = which
            return Reach(spans, table[pages - low], faults)
        return Reach(spans, which[np.searchsorted(unique, pages)], faults)


def _cells(span: Span | None, size: int, count: int) -> memoryview | None:
    """The elements of `size` bytes of a span, counted as `count` reads and writes."""
    if span is None or not count:
        return None
    length = span.end - span.base
    span.window.lend(0, length, write=False, count=size * count)
    view = span.window.lend(0, length, write=True, count=size * count)
    assert view is not None  # a span has a view
    return view.cast("B").cast(_FORMATS[size])


def numbers(data: NDArray[np.uint8], size: int) -> Numbers:
    """Rows of `size` bytes as numbers."""
    found: Numbers = np.ascontiguousarray(data).view(UNSIGNED[size]).reshape(-1).astype(np.uint64)
    return found


def parts(values: Numbers, size: int) -> NDArray[np.uint8]:
    """Numbers as rows of `size` bytes."""
    return np.ascontiguousarray(values.astype(UNSIGNED[size])).view(np.uint8).reshape(-1, size)


def _crosses(addresses: Numbers, size: int) -> bool:
    """Whether any element lies in two pages."""
    return bool(((addresses & np.uint64(_PAGE - 1)) > _PAGE - size).any())


def _spread(addresses: Numbers, size: int) -> Numbers:
    """Addresses of the single bytes of elements."""
    single: Numbers = (addresses[:, None] + np.arange(size).astype(np.uint64)).reshape(-1)
    return single & np.uint64(VA_MASK)
