"""Pages of a context's address space for compiled code: filled from spans, emptied when any of them may be out of date.

Compiled code runs with pointers into the host's memory. A page is entered when a thread has missed it; everything is forgotten
when the driver takes translations back (`PointerSpace.generation`) and when the fabric revokes a window. A revocation
on another thread stops what runs and waits until it has stopped.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

import numpy as np

from vfio_user_xe.device_models.xe.compute.units import Execution, Task
from vfio_user_xe.device_models.xe.compute.walks import Walks
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Access
from vfio_user_xe.device_models.xe.eu.compiled.library import Library
from vfio_user_xe.device_models.xe.eu.compiled.memory import LARGE_SHIFT, SMALL_SHIFT, Map, MapFull
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot
from vfio_user_xe.device_models.xe.memory.ppgtt import NULL_KIND, PointerSpace
from vfio_user_xe.emulator.fabric.interconnect import Fabric
from vfio_user_xe.emulator.fabric.ledger import LedgerEntry
from vfio_user_xe.emulator.fabric.span import Revoked, Span

_LARGE = 1 << LARGE_SHIFT
_SLOTS_KEPT = 16
_AHEAD = 16
"""Large pages that are entered with the one that was missed: most kernels go through their buffers."""


class Ended(Execution, Protocol):
    """An execution that is over, and may be had again for a task of the same form."""

    def again(self, task: Task, kernel: Kernel, pages: Pages) -> bool:
        """Execute `task` on the pages that kept it; False: it is of another form, and nothing has changed."""
        ...

    def dissolve(self, pages: Pages) -> None:
        """It will not be had again: the pages that kept it get back what is theirs."""
        ...


class Pages:
    """The map of one address space. On the card's executor, but for `revoked`."""

    def __init__(self, space: PointerSpace, library: Library) -> None:
        self._space = weakref.ref(space)
        self.map = Map(library)
        self.running = threading.Lock()
        """Held while compiled code runs on the map."""
        self.stop: list[Slot] = []
        """What runs, and is to return soon; changed only with `running` held or nothing running."""
        self._stale = False
        self._generation = space.generation
        self._spans: list[Span] = []
        """By ledger number: one span of each entry, and every span that pages are of, so that its memory stays."""
        self._numbers: dict[LedgerEntry, int] = {}
        self._held: set[Span] = set()
        self._large: dict[int, Access] = {}
        self.walks = Walks()
        """Not in use, too."""
        self._slots: list[Slot] = []
        """Not in use: making one costs more than a small kernel."""
        self._ended: Ended | None = None
        _revocations(space.function.gpu.fabric).add(self)

    @property
    def space(self) -> PointerSpace:
        """The address space: whoever runs on it holds it."""
        space = self._space()
        assert space is not None
        return space

    @property
    def is_stale(self) -> bool:
        """Whether something may be out of date."""
        return self._stale or self._generation != self.space.generation

    def refresh(self) -> None:
        """Before compiled code runs: forget what may be out of date."""
        if self.is_stale:
            self.harvest()
            self._stale = False
            self._generation = self.space.generation
            self.map.clear()
            self._spans.clear()
            self._numbers.clear()
            self._held.clear()
            self._large.clear()

    def enter(self, address: int, length: int, write: bool) -> bool:
        """Have the pages of `[address, address + length)`; False: one is reached in another way than by a pointer.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        page, end = address & -0x1000, address + length
        while page < end:
            span = self.space.span(page, write)
            if span is None or span.window.entry.kind == NULL_KIND:
                return False
            try:
                self._enter(page, span, write)
            except Revoked:
                continue
            page += 0x1000
        return True

    def take_slot(self, threads: int, slm_bytes: int) -> Slot:
        """A slot on this map. What a walk left in it stays for a further walk of the same kernel, as it may between groups of one."""
        for index, slot in enumerate(self._slots):
            if slot.size == (threads, slm_bytes):
                del self._slots[index]
                slot.forget_surfaces()
                slot.go_on()
                return slot
        return Slot(self.map, threads, slm_bytes)

    def drop(self, slot: Slot) -> None:
        """A slot that was given up in the middle."""
        self.map.forget(slot.counts)

    def give_back(self, slot: Slot) -> None:
        """A slot whose walk is over: kept for the next, if there are not many."""
        if len(self._slots) < _SLOTS_KEPT:
            self._slots.append(slot)
        else:
            self.harvest()
            self.map.forget(slot.counts)

    def keep(self, ended: Ended) -> None:
        """The next walker may be of the form of `ended`, which is over (`take_ended`)."""
        if self._ended is not None:
            self._ended.dissolve(self)
        self._ended = ended

    def take_ended(self) -> Ended | None:
        """What was kept last, which nobody else has from now on."""
        ended, self._ended = self._ended, None
        return ended

    def harvest(self) -> None:
        """Tell the ledger what compiled code has accessed."""
        for used in self.map.harvest():
            self._spans[used.ledger].account(used.reads, used.read_bytes, used.writes, used.written_bytes)

    def revoked(self) -> None:
        """Memory was taken away: from any thread. Nothing of it is accessed any more when this returns."""
        self._stale = True
        if self.running.acquire(blocking=False):
            self.running.release()
            return
        for slot in list(self.stop):
            slot.stop()
        with self.running:
            pass

    def _enter(self, page: int, span: Span, write: bool) -> None:
        access = Access.READ | Access.WRITE if write else Access.READ
        memory = np.frombuffer(span.fetch(), dtype=np.uint8)
        self._held.add(span)
        number = self._numbers.get(span.entry)
        if number is None:
            number = self._numbers[span.entry] = len(self._spans)
            self._spans.append(span)
        large = page & -_LARGE
        shift = LARGE_SHIFT if span.base <= large and large + _LARGE <= span.end else SMALL_SHIFT
        if shift == SMALL_SHIFT and self._large.pop(large, None) is not None:
            # What is entered of 64 KiB allows less, and would be found first.
            self.harvest()
            self.map.remove(large, _LARGE)
        host = memory.ctypes.data - span.base
        if shift == SMALL_SHIFT:
            self._insert(page, shift, host + page, access, number)
            return
        for at in range(large, min(large + _AHEAD * _LARGE, span.end - _LARGE + 1), _LARGE):
            if at == large or at not in self._large:
                self._large[at] = access
                self._insert(at, shift, host + at, access, number)

    def _insert(self, at: int, shift: int, host: int, access: Access, number: int) -> None:
        while True:
            try:
                self.map.insert(at, shift, host, access, number)
            except MapFull:
                self.harvest()
                self.map.grow()
                continue
            return


class _Revocations:
    """All maps of pages that are filled through one fabric."""

    def __init__(self, fabric: Fabric) -> None:
        self._lock = threading.Lock()
        self._pages: list[weakref.ref[Pages]] = []
        fabric.on_revoke.append(self._revoked)

    def add(self, pages: Pages) -> None:
        """Tell `pages` of revocations as long as it lives."""
        with self._lock:
            self._pages = [reference for reference in self._pages if reference() is not None]
            self._pages.append(weakref.ref(pages))

    def _revoked(self) -> None:
        with self._lock:
            references = list(self._pages)
        for reference in references:
            pages = reference()
            if pages is not None:
                pages.revoked()


_OF_FABRICS: weakref.WeakKeyDictionary[Fabric, _Revocations] = weakref.WeakKeyDictionary()


def _revocations(fabric: Fabric) -> _Revocations:
    found = _OF_FABRICS.get(fabric)
    if found is None:
        found = _OF_FABRICS[fabric] = _Revocations(fabric)
    return found
