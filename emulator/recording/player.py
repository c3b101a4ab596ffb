"""Playing a recording: the card again, without a guest, as fast as it can, and the first difference.

What is compared is what the guest can see: every value that it read, every interrupt, every byte that was written to its
memory. How the device gets there is its own affair: jobs run in the order of the recording as long as there are any, and
a value that is not as it was may become so when the jobs that are due have run (as a guest that polls would wait for it).
Interrupts and memory: see `comparison`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TypeVar

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.memory import PAGE_SIZE
from vfio_user_xe.emulator.model.options import UnknownName
from vfio_user_xe.emulator.pci.ecam import CHALLENGE
from vfio_user_xe.emulator.pci.function import Function
from vfio_user_xe.emulator.pci.transport import CONFIG_REGION, DmaError
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.clock import RecordingClock
from vfio_user_xe.emulator.recording.comparison import Comparison
from vfio_user_xe.emulator.recording.executors import ReplayExecutor
from vfio_user_xe.emulator.recording.format import Event, Recording, RecordingError
from vfio_user_xe.emulator.recording.guest import GuestMemory, ReplayTransport
from vfio_user_xe.emulator.recording.outcome import Difference, Different, Outcome, line, place
from vfio_user_xe.emulator.vfio_user.region_access import RegionAccess

_MOST_JOBS = 10_000
"""Jobs that may run until a value is as it was recorded: those of a spinning engine never end."""
_PATIENCE = 100_000
"""Microseconds of the device's time in which a value may become as it was recorded."""
_HISTORY = 12
_Answer = TypeVar("_Answer")

Trace = tuple[Iterable[str], Path | str]
"""Categories and the file of a trace."""


class _Player:
    """One replay. The device's calls come in while an event is carried out, and take what belongs to it."""

    def __init__(self, recording: Recording, events: Iterator[Event]) -> None:
        self._thread = threading.get_ident()
        self._events = events
        self.outcome = Outcome()
        self._ahead: Event | None = self._following()
        self._section: deque[Event] = deque()
        """What the recorded device did in the access or job that is being carried out, and the replayed one has not done yet."""
        self._now = 0
        self._comparison = Comparison(recording.header.functions)
        self._memory: dict[int, GuestMemory] = {}
        self._mapped: dict[tuple[int, int, int], bool] = {}
        self._recent: deque[Event] = deque(maxlen=_HISTORY)
        self._in_job = 0
        self._looked = False
        """Whether the device looked at the clock."""
        self._executor = ReplayExecutor("replay", RecordingClock(self.clock))
        # What happened when the card was made.
        self._gather()
        config = recording.header.config(str(recording.path))
        self._card = Card(config, self._executor)
        names = [function.name for function in self._card.served]
        if names != recording.header.functions:
            recorded = ", ".join(recording.header.functions)
            raise RecordingError(f"{recording.path}: recorded were {recorded}; its card now has {', '.join(names)}")
        self._starters, self._card.on_start = self._card.on_start, []
        self._access = [
            [RegionAccess(region) if region and region.size else None for region in function.regions]
            for function in self._card.served
        ]
        for function in self._card.functions:
            if function.sriov is not None:
                # The client's part in programming VF BARs is in the recording; there is nobody to program.
                function.sriov.programming.suspend()

    def run(self, trace: Trace | None = None) -> Outcome:
        """Play it all, or up to the first difference."""
        self._card.tracer.now = lambda: self._now / 1e6
        try:
            if trace is not None:
                self._trace(*trace)
            self._card.start()
            while self._ahead is not None:
                self._step()
            self._end()
        except Different as exc:
            self.outcome.difference = exc.difference
        finally:
            for function in self._card.functions:
                function.transport = None
            self._card.tracer.stop()
            self._card.stop()
        self.outcome.failures = self._executor.failures
        return self.outcome

    def _trace(self, categories: Iterable[str], path: Path | str) -> None:
        try:
            self._card.tracer.start(categories, path)
        except UnknownName as exc:
            raise RecordingError(str(exc)) from None

    # Events.

    def _next(self) -> Event:
        event = self._ahead
        assert event is not None
        self._ahead = self._following()
        self.outcome.events = event.number
        return event

    def _following(self) -> Event | None:
        try:
            return next(self._events, None)
        except RecordingError as exc:
            self.outcome.cut_off = str(exc)
            return None

    def _gather(self) -> None:
        """Take what the recorded device did up to the next event that a client caused."""
        while self._ahead is not None and self._ahead.kind not in rec.BEGINNINGS and self._ahead.kind != rec.END:
            event = self._next()
            if event.kind == rec.TRIGGER:
                self.outcome.interrupts += 1
                if event.b:
                    self._comparison.interrupt(event.function, event.a, event.x, made=False)
            elif event.kind == rec.DMA_WRITE and event.b:
                self._comparison.write_large(event.function, event.x, event.y, event.data, made=False)
            elif event.kind == rec.DMA_WRITE:
                self._comparison.write(event.function, event.x, event.data, made=False)
            self._section.append(event)

    def _step(self) -> None:
        event = self._next()
        if event.kind not in rec.BEGINNINGS:
            # The end of a job that was not carried out here, or what a nested one left.
            if event.kind == rec.END and event.a:
                self._rest()
            return
        outer, self._section = self._section, deque()
        self._gather()
        _CARRY_OUT[event.kind](self, event)
        if self._in_job:
            # An access while a job waits for its client: what is left is that job's.
            outer += self._section
        else:
            self._leave()
        self._section = outer

    def _leave(self) -> None:
        """What the device did not ask for this time: the memory it read is known all the same, and time has passed."""
        while self._section:
            self._learn(self._section.popleft())

    def _learn(self, event: Event) -> None:
        if event.kind == rec.DMA_READ:
            self._guest(event.function).write(event.x, event.data)
        elif event.kind == rec.CLOCK:
            self._now += event.x
        elif event.kind == rec.MAPPED:
            self._mapped[event.function, event.x // PAGE_SIZE, event.a] = bool(event.b)

    def _guest(self, function: int) -> GuestMemory:
        return self._memory.setdefault(function, GuestMemory())

    def _take(self, function: int, matches: Callable[[Event], bool], *, waits: bool = False) -> Event | None:
        """The next of the section's events that `matches`, if there is one; `waits` when for the client."""
        while True:
            for index, event in enumerate(self._section):
                if event.function == function and matches(event):
                    del self._section[index]
                    return event
            # A job that waits for its client lets accesses in between.
            if (
                not waits
                or not self._in_job
                or self._ahead is None
                or self._ahead.kind in (rec.END, rec.JOB, rec.EXPIRE)
            ):
                return None
            self._step()
            self._gather()

    # What the client did.

    def _read(self, event: Event) -> None:
        access = self._accessed(event)
        if event.a == CONFIG_REGION and event.x == CHALLENGE:
            # A secret number that is another one every time: how a VF is found in the client.
            access.read(event.x, event.b)
            return
        if self._must_fail(event, lambda: access.read(event.x, event.b)):
            return
        self._looked = False
        got = self._carried_out(event, lambda: access.read(event.x, event.b))
        if got != event.y and self._looked:
            self.outcome.other_times += 1
            return
        until = self._now + _PATIENCE
        for _ in range(_MOST_JOBS):
            if got == event.y or not (self._executor.run_next() or self._wait_for_timer(until)):
                break
            got = access.read(event.x, event.b)
        if got != event.y:
            raise self._different(event, f"{event.y:#x}", f"read {got:#x}")

    def _read_block(self, event: Event) -> None:
        access = self._accessed(event)
        got = self._carried_out(event, lambda: access.read_block(event.x, len(event.data)))
        for at, (expected, value) in enumerate(zip(event.data, got, strict=True)):
            if expected != value and not (event.a == CONFIG_REGION and event.x + at >= CHALLENGE):
                where = replace(event, x=event.x + at)
                raise self._different(where, f"{expected:#x}", f"read {value:#x}")

    def _write(self, event: Event) -> None:
        access = self._accessed(event)
        if not self._must_fail(event, lambda: access.write(event.x, event.b, event.y)):
            self._carried_out(event, lambda: access.write(event.x, event.b, event.y))

    def _accessed(self, event: Event) -> RegionAccess:
        self.outcome.accesses += 1
        self._recent.append(event)
        access = self._access[event.function][event.a]
        if access is None:
            raise self._different(event, "an access", "there is no such region")
        return access

    def _carried_out(self, event: Event, access: Callable[[], _Answer]) -> _Answer:
        try:
            return access()
        except Different:
            raise
        except MISTAKES as exc:
            raise self._different(event, "carried out", f"failed with {type(exc).__name__}: {exc}") from exc

    def _must_fail(self, event: Event, access: Callable[[], object]) -> bool:
        """Whether the access failed when it was recorded, and then here, too."""
        if self._take(event.function, lambda inner: inner.kind == rec.FAILED) is None:
            return False
        try:
            access()
        except Different:
            raise
        except MISTAKES:
            return True
        raise self._different(event, "that it fails", "carried out")

    def _write_memory(self, event: Event) -> None:
        self._accessed(event).write_block(event.x, memoryview(event.data))

    def _function(self, event: Event) -> Function:
        return self._card.served[event.function]

    def _attach(self, event: Event) -> None:
        self._function(event).attached(ReplayTransport(self, event.function))

    def _detach(self, event: Event) -> None:
        self._function(event).detached()

    def _reset(self, event: Event) -> None:
        self._function(event).reset()

    def _wired(self, event: Event) -> None:
        self._function(event).wired(event.a, event.x, event.y)

    def _unmapped(self, event: Event) -> None:
        length = event.y if event.y != rec.ALL else 1 << 64
        self._function(event).drop_windows(rec.unsigned(event.x), length)

    def _start(self, event: Event) -> None:
        for callback in self._starters:
            callback()

    # What the executor did.

    def _job(self, event: Event) -> None:
        self.outcome.jobs += 1
        self._in_job += 1
        try:
            self._executor.run_next()
        finally:
            self._in_job -= 1
        self._leave()
        while self._ahead is not None and self._ahead.kind != rec.END:
            # What was found in memory afterwards; accesses that came while this job waited for its client.
            self._step()
        if self._ahead is not None:
            end = self._next()
            if end.a:
                self._rest()

    def _expire(self, event: Event) -> None:
        self._executor.expire()

    def _rest(self) -> None:
        """The recorded device had nothing left to do."""
        self._settle()
        self._comparison.look(self.outcome.events)

    def _settle(self) -> None:
        """Run the jobs that are left, if that comes to an end."""
        for _ in range(_MOST_JOBS):
            if not self._executor.run_next():
                return

    def _wait_for_timer(self, until: int) -> bool:
        """Let the time of the next timer come, unless it is later than `until`, in microseconds."""
        due = self._executor.next_timer()
        if due is None or due * 1e6 > until:
            return False
        self._now = max(self._now, ceil(due * 1e6))
        self._executor.expire()
        return True

    def _end(self) -> None:
        """Nothing more was recorded. What the device is late with may come now."""
        self._rest()
        until = self._now + _PATIENCE
        while not self._comparison.look(self.outcome.events) and self._wait_for_timer(until):
            self._settle()
        for lasting in self._comparison.lasting():
            raise Different(Difference(lasting.since, lasting.where, lasting.expected, lasting.got, self._before()))

    def _before(self, number: int = 0) -> list[str]:
        return [line(self._card, event) for event in self._recent if event.number != number]

    def _different(self, event: Event, expected: str, got: str) -> Different:
        return Different(Difference(event.number, place(self._card, event), expected, got, self._before(event.number)))

    # Requests of the device.

    def clock(self) -> int | None:
        """The time in nanoseconds: as recorded, or a little later than the last time. None for other threads."""
        if threading.get_ident() != self._thread:
            return None
        self._looked = True
        for index, event in enumerate(self._section):
            if event.kind == rec.CLOCK:
                del self._section[index]
                self._now += event.x
                return self._now * 1000
        self._now += 1
        return self._now * 1000

    def dma_read(self, function: int, address: int, length: int) -> bytes:
        """Guest memory as the recorded device read it."""
        found = self._transfer(rec.DMA_READ, function, address, length)
        memory = self._guest(function)
        if found is not None:
            memory.write(address, found.data)
            return found.data
        for event in self._section:
            if event.kind == rec.DMA_READ and event.function == function:
                memory.write(event.x, event.data)
        if not memory.known(address, length):
            self.outcome.unknown_reads += 1
        return memory.read(address, length)

    def dma_write(self, function: int, address: int, data: bytes) -> None:
        """What the device writes into guest memory."""
        self._transfer(rec.DMA_WRITE, function, address, len(data))
        if len(data) > rec.LARGEST_DATA:
            self._comparison.write_large(function, address, len(data), rec.digest(data), made=True)
        else:
            self._comparison.write(function, address, data, made=True, tells=self._executor.clock.tells)
        self._guest(function).write(address, data)

    def _transfer(self, kind: int, function: int, address: int, length: int) -> Event | None:
        """The same DMA of the recorded device, if it did any.

        Raises:
            DmaError: the recorded device got it.
        """
        write = int(kind == rec.DMA_WRITE)

        def same(event: Event) -> bool:
            if event.kind == rec.DMA_FAILED:
                return (event.a, event.x) == (write, address)
            return (event.kind, event.x, event.y) == (kind, address, length)

        found = self._take(function, same, waits=True)
        if found is not None and found.kind == rec.DMA_FAILED:
            raise DmaError("as recorded", found.b)
        return found

    def mapped(self, function: int, address: int, length: int, write: bool) -> bool:
        """What the client said then, or the last time about that page."""
        asked = (rec.MAPPED, int(write), address, length)
        found = self._take(function, lambda event: (event.kind, event.a, event.x, event.y) == asked)
        if found is not None:
            self._learn(found)
            return bool(found.b)
        return self._mapped.get((function, address // PAGE_SIZE, int(write)), True)

    def trigger(self, function: int, index: int, vector: int) -> bool:
        """An interrupt; whether it was delivered then."""
        raised = (rec.TRIGGER, index, vector)
        found = self._take(function, lambda event: (event.kind, event.a, event.x) == raised)
        delivered = bool(found.b) if found is not None else True
        if delivered:
            self._comparison.interrupt(function, index, vector, made=True)
        return delivered


_CARRY_OUT: dict[int, Callable[[_Player, Event], None]] = {
    rec.READ: _Player._read,
    rec.WRITE: _Player._write,
    rec.READ_BLOCK: _Player._read_block,
    rec.MEMORY: _Player._write_memory,
    rec.ATTACH: _Player._attach,
    rec.DETACH: _Player._detach,
    rec.RESET: _Player._reset,
    rec.WIRED: _Player._wired,
    rec.UNMAPPED: _Player._unmapped,
    rec.START: _Player._start,
    rec.JOB: _Player._job,
    rec.EXPIRE: _Player._expire,
}


def replay(path: Path, events: Iterable[Event] | None = None, trace: Trace | None = None) -> Outcome:
    """Replay the recording at `path` (or, of its card, other `events`), in the calling thread, without any client.

    `trace` are categories ("all": every one) and a file: what the card traces, at the times of the recording.

        assert replay(Path("tests/bug.xz")).difference is None

    Raises:
        RecordingError: the file cannot be read, or is cut off.
        CardError: its card cannot be made any more.

    From any thread.
    """
    recording = Recording(path)
    started = time.monotonic()
    player = _Player(recording, iter(events) if events is not None else recording.events())
    outcome = player.run(trace)
    outcome.seconds = time.monotonic() - started
    return outcome
