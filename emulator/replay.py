"""Playing a recording (`emulator.record`): the card again, without a guest, as fast as it can, and the first difference.

What is compared is what the guest can see: every value that it read, every interrupt, every byte that was written to its
memory. How the device gets there is its own affair: jobs run in the order of the recording as long as there are any, and
a value that is not as it was may become so when the jobs that are due have run (as a guest that polls would wait for it).
Interrupts and memory are compared whenever nothing was left to do.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from emulator import recording as rec
from emulator.card import Card
from emulator.executor import Executor
from emulator.memory import PAGE_SIZE
from emulator.pci.ecam import CHALLENGE
from emulator.pci.function import Function
from emulator.pci.transport import CONFIG_REGION, DmaError, Transport
from emulator.record import replaced_clock
from emulator.recording import Event, Recording
from emulator.registers import RegisterFile
from emulator.vfio_user.region_access import RegionAccess

_MOST_JOBS = 10_000
"""Jobs that may run until a value is as it was recorded: those of a spinning engine never end."""
_HISTORY = 12


@dataclass(frozen=True, slots=True)
class Difference:
    """What was not as recorded: at which event, where, what the recording has and what came instead."""

    event: int
    where: str
    expected: str
    got: str
    before: list[str] = field(default_factory=list)
    """The accesses before it, the latest last."""

    def __str__(self) -> str:
        lines = [f"event {self.event}: {self.where}: {self.got}, recorded was {self.expected}"]
        if self.before:
            lines += ["  before it:", *(f"    {line}" for line in self.before)]
        return "\n".join(lines)


@dataclass(slots=True)
class Outcome:
    """What came of a replay. Without a difference the card did all that was recorded."""

    events: int = 0
    accesses: int = 0
    jobs: int = 0
    interrupts: int = 0
    seconds: float = 0.0
    failures: int = 0
    """Jobs of the device that raised an exception."""
    unknown_reads: int = 0
    """Reads of guest memory that the recorded device did not make."""
    difference: Difference | None = None


class _Different(Exception):
    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


def replay(path: Path, events: Iterable[Event] | None = None) -> Outcome:
    """Replay the recording at `path` (or, of its card, other `events`). Raises `RecordingError` and `CardError`."""
    recording = Recording(path)
    started = time.monotonic()
    player = _Player(recording, iter(events) if events is not None else recording.events())
    with replaced_clock(player.clock):
        outcome = player.run()
    outcome.seconds = time.monotonic() - started
    return outcome


class ReplayExecutor(Executor):
    """Runs its jobs when it is told to, on the caller's thread."""

    def start(self) -> None:
        """Nothing: there is no thread."""

    def is_current(self) -> bool:
        return self._busy

    def run_next(self) -> bool:
        """Run the next job; False when there is none."""
        if not self._jobs:
            return False
        job, busy = self._jobs.popleft(), self._busy
        self._busy = True
        try:
            job()
        except _Different:
            raise
        except Exception:
            self.failures += 1
        finally:
            self._busy = busy
        return True

    @property
    def idle(self) -> bool:
        """Whether no job waits."""
        return not self._jobs

    def expire(self) -> None:
        """Queue the timers that are due."""
        self._expire_timers()


class _GuestMemory:
    """What is known of a function's guest memory: what the device read and wrote."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes | memoryview) -> None:
        for page, start, count, at in _pieces(address, len(data)):
            self._pages.setdefault(page, bytearray(PAGE_SIZE))[start : start + count] = data[at : at + count]

    def read(self, address: int, length: int) -> bytes:
        parts = []
        for page, start, count, _ in _pieces(address, length):
            known = self._pages.get(page)
            parts.append(bytes(known[start : start + count]) if known is not None else bytes(count))
        return b"".join(parts)

    def known(self, address: int, length: int) -> bool:
        """Whether anything is known of every page of it."""
        return all(page in self._pages for page, _, _, _ in _pieces(address, length))


def _pieces(address: int, length: int) -> Iterator[tuple[int, int, int, int]]:
    at = 0
    while at < length:
        page, start = divmod(address + at, PAGE_SIZE)
        count = min(length - at, PAGE_SIZE - start)
        yield page, start, count, at
        at += count


@dataclass(slots=True)
class _Outputs:
    """What a device did to its guest between two moments of rest."""

    interrupts: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    small: dict[tuple[int, int], int] = field(default_factory=dict)
    """By function and address."""
    large: Counter[tuple[int, int, int, bytes]] = field(default_factory=Counter)
    """Function, address, length, digest."""

    def wrote(self, function: int, address: int, data: bytes) -> None:
        for offset, value in enumerate(data):
            self.small[function, address + offset] = value


class _Player:
    """One replay. The device's calls come in while an event is carried out, and take what belongs to it."""

    def __init__(self, recording: Recording, events: Iterator[Event]) -> None:
        self._thread = threading.get_ident()
        self._events = events
        self._ahead: Event | None = next(events, None)
        self._section: deque[Event] = deque()
        """What the recorded device did in the access or job that is being carried out, and was not asked for yet."""
        self._now = 0
        self._expected = _Outputs()
        self._made = _Outputs()
        self._memory: dict[int, _GuestMemory] = {}
        self._mapped: dict[tuple[int, int, int], bool] = {}
        self._recent: deque[Event] = deque(maxlen=_HISTORY)
        self._event: Event | None = None
        self._in_job = 0
        self.outcome = Outcome()
        self._executor = ReplayExecutor("replay")
        # What happened when the card was made.
        self._gather()
        config = recording.header.config(str(recording.path))
        with replaced_clock(self.clock):
            self._card = Card(config, self._executor)
        self._starters, self._card.on_start = self._card.on_start, []
        self._names = [function.name for function in self._card.served]
        self._access = [
            [RegionAccess(region) if region and region.size else None for region in function.regions]
            for function in self._card.served
        ]
        for function in self._card.functions:
            if function.sriov is not None:
                # The client's part in programming VF BARs is in the recording; there is nobody to program.
                function.sriov.programming.suspend()

    def run(self) -> Outcome:
        """Play it all, or up to the first difference."""
        self._card.start()
        try:
            while self._ahead is not None:
                self._step()
            self._settle()
            self._compare()
        except _Different as exc:
            self.outcome.difference = exc.difference
        finally:
            for function in self._card.functions:
                function.transport = None
            self._card.stop()
        self.outcome.failures = self._executor.failures
        return self.outcome

    # Events.

    def _next(self) -> Event:
        event = self._ahead
        assert event is not None
        self._ahead = next(self._events, None)
        self.outcome.events = event.number
        return event

    def _gather(self) -> None:
        """Take what the recorded device did up to the next event that somebody else caused."""
        while self._ahead is not None and self._ahead.kind not in rec.BEGINNINGS and self._ahead.kind != rec.END:
            event = self._next()
            if event.kind == rec.TRIGGER:
                self._expected.interrupts[event.function, event.a, event.x] += event.b
                self.outcome.interrupts += 1
            elif event.kind == rec.DMA_WRITE:
                if event.b:
                    self._expected.large[event.function, event.x, event.y, event.data] += 1
                else:
                    self._expected.wrote(event.function, event.x, event.data)
            self._section.append(event)

    def _step(self) -> None:
        event = self._next()
        if event.kind not in rec.BEGINNINGS:
            # The end of a job that was not carried out here, or what a nested one left.
            if event.kind == rec.END and event.a:
                self._rest()
            return
        outer, self._section = self._section, deque()
        self._event = event
        self._gather()
        _CARRY_OUT[event.kind](self, event)
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

    def _guest(self, function: int) -> _GuestMemory:
        return self._memory.setdefault(function, _GuestMemory())

    def _take(self, kind: int, function: int, matches: Callable[[Event], bool], *, waits: bool = False) -> Event | None:
        """The next of the section's events of `kind` that `matches`, if there is one; `waits` when for the client."""
        while True:
            for index, event in enumerate(self._section):
                if event.kind == kind and event.function == function and matches(event):
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
            outer, self._section = self._section, deque()
            self._step()
            self._section = outer
            self._gather()

    # What the client did.

    def _read(self, event: Event) -> None:
        self.outcome.accesses += 1
        access = self._access[event.function][event.a]
        assert access is not None
        got = access.read(event.x, event.b)
        if event.a == CONFIG_REGION and event.x == CHALLENGE:
            # A secret number that is another one every time: how a VF is found in the client.
            self._recent.append(event)
            return
        for _ in range(_MOST_JOBS):
            if got == event.y or not self._executor.run_next():
                break
            got = access.read(event.x, event.b)
        if got != event.y:
            raise self._different(event, f"{event.y:#x}", f"read {got:#x}")
        self._recent.append(event)

    def _read_block(self, event: Event) -> None:
        self.outcome.accesses += 1
        access = self._access[event.function][event.a]
        assert access is not None
        got = access.read_block(event.x, len(event.data))
        for at, (expected, value) in enumerate(zip(event.data, got, strict=True)):
            if expected != value and not (event.a == CONFIG_REGION and event.x + at >= CHALLENGE):
                where = replace(event, x=event.x + at)
                raise self._different(where, f"{expected:#x}", f"read {value:#x}")
        self._recent.append(event)

    def _write(self, event: Event) -> None:
        self.outcome.accesses += 1
        self._recent.append(event)
        access = self._access[event.function][event.a]
        assert access is not None
        access.write(event.x, event.b, event.y)

    def _write_memory(self, event: Event) -> None:
        self.outcome.accesses += 1
        access = self._access[event.function][event.a]
        assert access is not None
        access.write_block(event.x, memoryview(event.data))

    def _function(self, event: Event) -> Function:
        return self._card.served[event.function]

    def _attach(self, event: Event) -> None:
        self._function(event).attached(_ReplayTransport(self, event.function))

    def _detach(self, event: Event) -> None:
        self._function(event).detached()

    def _reset(self, event: Event) -> None:
        self._function(event).reset()

    def _wired(self, event: Event) -> None:
        self._function(event).wired(event.a, event.x, event.y)

    def _unmapped(self, event: Event) -> None:
        length = event.y if event.y != (1 << 64) - 1 else 1 << 64
        self._function(event).unmapped(event.x & (1 << 64) - 1, length)

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
        if self._settle():
            self._compare()

    def _settle(self) -> bool:
        """Run the jobs that are left; whether that came to an end."""
        return any(not self._executor.run_next() for _ in range(_MOST_JOBS))

    def _compare(self) -> None:
        expected, made = self._expected, self._made
        if expected.interrupts != made.interrupts:
            for key in sorted({*expected.interrupts, *made.interrupts}):
                if expected.interrupts[key] != made.interrupts[key]:
                    function, index, vector = key
                    where = f"{self._names[function]}: vector {vector} of interrupt index {index}"
                    raise self._output(where, f"{expected.interrupts[key]}", f"{made.interrupts[key]} signals")
        if expected.small != made.small:
            for function, address in sorted({*expected.small, *made.small}):
                wanted, got = expected.small.get((function, address)), made.small.get((function, address))
                if wanted != got:
                    where = f"{self._names[function]}: guest memory at {address & (1 << 64) - 1:#x}"
                    raise self._output(where, _byte(wanted), _byte(got))
        if expected.large != made.large:
            function, address, length, _ = next(iter((expected.large - made.large) + (made.large - expected.large)))
            where = f"{self._names[function]}: {length} bytes of guest memory at {address & (1 << 64) - 1:#x}"
            raise self._output(where, "others", "not written with these bytes")
        self._expected, self._made = _Outputs(), _Outputs()

    def _different(self, event: Event, expected: str, got: str) -> _Different:
        return _Different(
            Difference(event.number, self._place(event), expected, got, [self._line(e) for e in self._recent])
        )

    def _output(self, where: str, expected: str, got: str) -> _Different:
        return _Different(Difference(self.outcome.events, where, expected, got, [self._line(e) for e in self._recent]))

    def _place(self, event: Event) -> str:
        name = self._names[event.function]
        if event.a == CONFIG_REGION:
            return f"{name}: configuration space at {event.x:#x}"
        region = self._card.served[event.function].regions[event.a]
        handler = region.handler if region is not None else None
        register = f" ({handler.name_of(event.x)})" if isinstance(handler, RegisterFile) else ""
        return f"{name}: BAR{event.a} at {event.x:#x}{register}"

    def _line(self, event: Event) -> str:
        value = f" = {event.y:#x}" if event.kind in (rec.READ, rec.WRITE) else ""
        return f"{event.number}: {rec.NAMES[event.kind]} {self._place(event)}{value}"

    # What the device asks for.

    def clock(self) -> int | None:
        """The time in nanoseconds: as recorded, or a little later than the last time. None for other threads."""
        if threading.get_ident() != self._thread:
            return None
        for index, event in enumerate(self._section):
            if event.kind == rec.CLOCK:
                del self._section[index]
                self._now += event.x
                return self._now * 1000
        self._now += 1
        return self._now * 1000

    def dma_read(self, function: int, address: int, length: int) -> bytes:
        """Guest memory as the recorded device read it."""
        found = self._take(rec.DMA_READ, function, lambda event: event.x == address and event.y == length, waits=True)
        memory = self._guest(function)
        if found is not None:
            memory.write(address, found.data)
            return found.data
        failed = self._failed(function, address, write=False)
        if failed is not None:
            raise failed
        for event in self._section:
            if event.kind == rec.DMA_READ and event.function == function:
                memory.write(event.x, event.data)
        if not memory.known(address, length):
            self.outcome.unknown_reads += 1
        return memory.read(address, length)

    def dma_write(self, function: int, address: int, data: bytes) -> None:
        """What the device writes into guest memory."""
        failed = self._failed(function, address, write=True)
        if failed is not None:
            raise failed
        self._take(rec.DMA_WRITE, function, lambda event: event.x == address and event.y == len(data), waits=True)
        if len(data) > rec.LARGEST_DATA:
            self._made.large[function, address, len(data), rec.digest(data)] += 1
        else:
            self._made.wrote(function, address, data)
        self._guest(function).write(address, data)

    def _failed(self, function: int, address: int, *, write: bool) -> DmaError | None:
        for index, event in enumerate(self._section):
            if event.kind == rec.DMA_FAILED and event.function == function and (event.a, event.x) == (write, address):
                del self._section[index]
                return DmaError("as recorded", event.b)
        return None

    def mapped(self, function: int, address: int, length: int, write: bool) -> bool:
        """What the client said then, or the last time about that page."""
        found = self._take(
            rec.MAPPED, function, lambda event: (event.a, event.x, event.y) == (int(write), address, length)
        )
        if found is not None:
            self._learn(found)
            return bool(found.b)
        return self._mapped.get((function, address // PAGE_SIZE, int(write)), True)

    def trigger(self, function: int, index: int, vector: int) -> bool:
        """An interrupt; whether it was delivered then."""
        found = self._take(rec.TRIGGER, function, lambda event: (event.a, event.x) == (index, vector))
        delivered = bool(found.b) if found is not None else True
        self._made.interrupts[function, index, vector] += delivered
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


class _ReplayTransport(Transport):
    """A client that is only recorded."""

    def __init__(self, player: _Player, function: int) -> None:
        self._player = player
        self._function = function

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        return None

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return self._player.mapped(self._function, _signed(address), length, write)

    def read(self, address: int, length: int) -> bytes:
        return self._player.dma_read(self._function, _signed(address), length)

    def write(self, address: int, data: bytes | memoryview) -> None:
        self._player.dma_write(self._function, _signed(address), bytes(data))

    def trigger(self, index: int, vector: int) -> bool:
        return self._player.trigger(self._function, index, vector)


def _byte(value: int | None) -> str:
    return f"{value:#04x}" if value is not None else "not written"


def _signed(address: int) -> int:
    return address - (1 << 64) if address >> 63 & 1 else address
