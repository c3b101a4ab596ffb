"""DMA ranges against a simple model: a dictionary of pages."""

from __future__ import annotations

import errno
from abc import ABCMeta, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.served import ServedCard
from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, RequestError
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory, MapError

PAGE = 4096
PAGES = 24
"""Of the address space that the model looks at; the file has as many."""
_pages = st.integers(0, PAGES - 1)
_lengths = st.integers(1, 6)
_inside = st.integers(0, 5)
"""Pages to skip from a range's start, modulo its length."""
_flags = st.sampled_from([wire.DMA_READABLE, wire.DMA_WRITABLE, wire.DMA_READABLE | wire.DMA_WRITABLE])


_bytes = st.just(0) | st.integers(0, PAGE - 1)


class Meta(type(RuleBasedStateMachine), ABCMeta):  # type: ignore[misc]
    """Both hypothesis and `abc` have a metaclass of their own."""


class DmaModel(RuleBasedStateMachine, metaclass=Meta):
    """Ranges by their first page: (pages, flags, offset in the file or None for a range without a descriptor).

    `mapped` holds ranges (first page, pages) that were mapped; some of them are not any more.
    """

    mapped: Bundle[tuple[int, int]] = Bundle("mapped")

    def __init__(self) -> None:
        super().__init__()
        self.ranges: dict[int, tuple[int, int, int | None]] = {}
        self.file = Memory(2 * PAGES * PAGE, "fuzz")
        for page in range(2 * PAGES):
            self.file.view[page * PAGE] = page + 1

    def teardown(self) -> None:
        self.file.close()

    # What is tested; `errno` is 0 for success.

    @abstractmethod
    def do_map(self, page: int, pages: int, flags: int, offset: int | None) -> int: ...

    @abstractmethod
    def do_unmap(self, page: int, pages: int) -> int: ...

    @abstractmethod
    def do_unmap_all(self) -> None: ...

    @abstractmethod
    def may_access(self, page: int, pages: int, write: bool) -> bool: ...

    # The model.

    def covering(self, page: int) -> int | None:
        """The first page of the range that holds a page."""
        return next((first for first, (pages, _, _) in self.ranges.items() if first <= page < first + pages), None)

    @rule(target=mapped, page=_pages, pages=_lengths, flags=_flags, offset=st.none() | st.integers(0, 2 * PAGES + 2))
    def map(
        self, page: int, pages: int, flags: int, offset: int | None
    ) -> tuple[int, int] | MultipleResults[tuple[int, int]]:
        overlaps = any(self.covering(covered) is not None for covered in range(page, page + pages))
        beyond = offset is not None and offset + pages > 2 * PAGES
        result = self.do_map(page, pages, flags, offset)
        if overlaps:
            assert result == errno.EEXIST
        elif beyond:
            assert result != 0
        else:
            assert result == 0
            self.ranges[page] = (pages, flags, offset)
            return page, pages
        return multiple()

    @rule(was_mapped=consumes(mapped))
    def unmap_one(self, was_mapped: tuple[int, int]) -> None:
        self.unmap(*was_mapped)

    @rule(page=_pages, pages=st.integers(1, 12))
    def unmap(self, page: int, pages: int) -> None:
        inside = [first for first in self.ranges if page <= first < page + pages]
        ends = [first + self.ranges[first][0] for first in inside]
        cut_in_front = self.covering(page) not in (None, page)
        cut_behind = any(end > page + pages for end in ends)
        result = self.do_unmap(page, pages)
        if cut_in_front or cut_behind:
            assert result == errno.EINVAL
        elif not inside:
            assert result == errno.ENOENT
        else:
            assert result == 0
            for first in inside:
                del self.ranges[first]

    # Not before there is something to unmap: half of the steps would find nothing mapped.
    @precondition(lambda self: len(self.ranges) > 3)
    @rule()
    def unmap_all(self) -> None:
        self.do_unmap_all()
        self.ranges.clear()

    @rule(was_mapped=mapped, skipped=_inside, pages=_lengths, write=st.booleans())
    def access_mapped(self, was_mapped: tuple[int, int], skipped: int, pages: int, write: bool) -> None:
        first, length = was_mapped
        self.access(first + skipped % length, pages, write)

    @rule(page=_pages, pages=_lengths, write=st.booleans())
    def access(self, page: int, pages: int, write: bool) -> None:
        needed = wire.DMA_WRITABLE if write else wire.DMA_READABLE
        covering = [self.covering(covered) for covered in range(page, page + pages)]
        allowed = all(first is not None and self.ranges[first][1] & needed for first in covering)
        assert self.may_access(page, pages, write) == allowed


class GuestMemoryMachine(DmaModel):
    """The table of ranges itself."""

    seen: Counter[str] = Counter()
    """What `view` met, in all runs."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = GuestMemory()

    def teardown(self) -> None:
        self.memory.unmap_all()
        super().teardown()

    def do_map(self, page: int, pages: int, flags: int, offset: int | None) -> int:
        fd = None if offset is None else self.file.fd
        try:
            self.memory.map(page * PAGE, pages * PAGE, flags, fd, (offset or 0) * PAGE)
        except MapError as exc:
            return exc.errno
        return 0

    def do_unmap(self, page: int, pages: int) -> int:
        try:
            self.memory.unmap(page * PAGE, pages * PAGE)
        except MapError as exc:
            return exc.errno
        return 0

    def do_unmap_all(self) -> None:
        self.memory.unmap_all()

    def may_access(self, page: int, pages: int, write: bool) -> bool:
        return self.memory.mapped(page * PAGE, pages * PAGE, write)

    @rule(
        was_mapped=DmaModel.mapped, skipped=_inside, byte=_bytes, length=st.integers(1, 4 * PAGE), write=st.booleans()
    )
    def view_mapped(self, was_mapped: tuple[int, int], skipped: int, byte: int, length: int, write: bool) -> None:
        first, pages = was_mapped
        self.view(first + skipped % pages, byte, length, write)

    @rule(page=_pages, byte=_bytes, length=st.integers(1, 4 * PAGE), write=st.booleans())
    def view(self, page: int, byte: int, length: int, write: bool) -> None:
        view = self.memory.view(page * PAGE + byte, length, write)
        first = self.covering(page)
        needed = wire.DMA_WRITABLE if write else wire.DMA_READABLE
        if first is None:
            assert view is None
            self.seen["nothing"] += 1
            return
        if self.ranges[first][2] is None or not self.ranges[first][1] & needed:
            assert view is None
            self.seen["no descriptor" if self.ranges[first][2] is None else "not allowed"] += 1
            return
        self.seen["memory"] += 1
        pages, _, offset = self.ranges[first]
        assert view is not None
        assert offset is not None
        assert len(view) == min(length, (first + pages - page) * PAGE - byte)
        if byte == 0:
            assert view[0] == offset + page - first + 1
        if not self.ranges[first][1] & wire.DMA_WRITABLE:
            assert view.readonly

    @invariant()
    def ranges_are_sorted_and_disjoint(self) -> None:
        found = [(r.start // PAGE, (r.end - r.start) // PAGE, r.flags) for r in self.memory.ranges()]
        assert found == sorted((first, pages, flags) for first, (pages, flags, _) in self.ranges.items())


def test_guest_memory_is_what_was_mapped() -> None:
    GuestMemoryMachine.seen.clear()
    run_state_machine_as_test(GuestMemoryMachine, settings=settings(max_examples=100, stateful_step_count=60))
    seen = GuestMemoryMachine.seen
    assert min(seen[what] for what in ("nothing", "no descriptor", "not allowed", "memory")) > 20, seen


class SocketMachine(DmaModel):
    """The same over the protocol, seen through the device's eyes."""

    card: ServedCard

    @initialize()
    def connect(self) -> None:
        self.client = Client(self.card.socket)
        self.driver = Driver(self.client)

    def teardown(self) -> None:
        self.client.close()
        super().teardown()

    def do_map(self, page: int, pages: int, flags: int, offset: int | None) -> int:
        fd = None if offset is None else self.file.fd
        with _errno() as result:
            self.client.dma_map(page * PAGE, pages * PAGE, flags=flags, fd=fd, offset=(offset or 0) * PAGE)
        return result[0]

    def do_unmap(self, page: int, pages: int) -> int:
        with _errno() as result:
            self.client.dma_unmap(page * PAGE, pages * PAGE)
        return result[0]

    def do_unmap_all(self) -> None:
        self.client.dma_unmap(0, 0, wire.DMA_UNMAP_ALL)

    def may_access(self, page: int, pages: int, write: bool) -> bool:
        return self.driver.may_access(page * PAGE, pages * PAGE, write=write)

    @rule(was_mapped=DmaModel.mapped, skipped=_inside)
    def read(self, was_mapped: tuple[int, int], skipped: int) -> None:
        page = was_mapped[0] + skipped % was_mapped[1]
        first = self.covering(page)
        if first is None or self.ranges[first][2] is None or not self.ranges[first][1] & wire.DMA_READABLE:
            return
        offset = self.ranges[first][2]
        assert offset is not None
        assert self.driver.read_memory(page * PAGE, 1)[0] == offset + page - first + 1


@contextmanager
def _errno() -> Iterator[list[int]]:
    result = [0]
    try:
        yield result
    except RequestError as exc:
        result[0] = exc.errno


@pytest.mark.usefixtures("card")
def test_device_reaches_what_was_mapped(card: ServedCard) -> None:
    machine = type("Machine", (SocketMachine,), {"card": card})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=25))
