"""Recording what a card is told and what it answers, so that `emulator.replay` can do it again without any guest.

A card under a `Recorder` is the same card with other neighbours: its executor is a `RecordingExecutor`, and its functions
are served through stand-ins. So a card that is not recorded pays nothing. What makes the recording exact:

* Accesses and jobs take turns (`Recorder.turn`): there is one order of all that happens.
* Guest memory is not given out as views, so each read of it is seen. What a client writes into the card's memory, which it
  has mapped, is found before and after each job (`emulator.record_memory`).
* The clock is an input: what `time.monotonic` and `time.perf_counter` answer in a turn is kept, too.

Not recorded: the control socket, and the thread that programs VF BARs into the client (the client's part in it is).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from emulator import recording as rec
from emulator.card import Card, CardConfig
from emulator.executor import Executor, Job, Result
from emulator.pci.transport import DmaError, Region, Served, Transport
from emulator.record_memory import MemoryWatch
from emulator.vfio_user.region_access import RegionAccess

_MASK = (1 << 64) - 1
_RESET_SECONDS = 2.0
_SETTLE_SECONDS = 0.25


class Recorder:
    """Writes one recording. `close` finishes the file."""

    def __init__(self, path: Path, config: CardConfig) -> None:
        """Start a recording of a card of `config`. Raises OSError when the file cannot be written."""
        self._file: BinaryIO | None = None
        self._path = path
        self._config = config
        self._lock = threading.Lock()
        self._owner = 0
        self._nested: list[bytes] | None = None
        self._last = 0
        self.watches: list[tuple[int, int, MemoryWatch]] = []
        """Memory that clients map, by function and region."""
        self._early = bytearray()
        path.open("wb").close()

    # Turns.

    @property
    def mine(self) -> bool:
        """Whether it is the calling thread's turn."""
        return self._owner == threading.get_ident()

    def take(self) -> None:
        """Wait for the turn."""
        self._lock.acquire()
        self._owner = threading.get_ident()

    def give(self) -> None:
        """End it."""
        self._owner = 0
        self._lock.release()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While it is the caller's turn, nothing else happens to the card."""
        self.take()
        try:
            yield
        finally:
            self.give()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A turn that leaves nothing in the recording."""
        with self._lock:
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In a turn: give it up meanwhile, because the client is waited for."""
        self.give()
        try:
            yield
        finally:
            self.take()

    # Events; in a turn.

    def emit(self, kind: int, function: int, a: int = 0, b: int = 0, x: int = 0, y: int = 0, data: bytes = b"") -> None:
        """Write one event down."""
        packed = rec.EVENT.pack(kind, function, a, b, x, y) + data
        if self._nested is not None:
            self._nested.append(packed)
        else:
            self._write(packed)

    def read(self, function: int, region: int, size: int, offset: int, read: Callable[[int, int], int]) -> int:
        """An access that reads: its own event is written first, though its value comes last."""
        nested: list[bytes] = []
        self._nested = nested
        try:
            value = read(offset, size)
        finally:
            self._nested = None
        self.emit(rec.READ, function, region, size, offset, value)
        for event in nested:
            self._write(event)
        return value

    def look(self) -> None:
        """Write down what has changed in memory that the client has mapped."""
        for function, region, watch in self.watches:
            for offset, data in watch.changes():
                self.emit(rec.MEMORY, function, region, 0, offset, len(data), data)

    def now(self) -> int:
        """A look at the clock: nanoseconds, in steps of microseconds."""
        microseconds = _real_ns() // 1000
        self.emit(rec.CLOCK, 0, x=microseconds - self._last)
        self._last = microseconds
        return microseconds * 1000

    # Life.

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Make `time` answer through this recorder wherever it is asked in a turn."""
        with replaced_clock(lambda: self.now() if self.mine else None):
            yield

    def begin(self, functions: Sequence[str]) -> None:
        """The card exists now: its header can be written, and what happened until here."""
        self._file = rec.create(self._path)
        rec.write_header(self._file, rec.Header.of(self._config, list(functions)))
        self._file.write(self._early)
        self._early.clear()

    def close(self) -> None:
        """Finish the file."""
        with self.turn():
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, packed: bytes) -> None:
        if self._file is not None:
            self._file.write(packed)
        else:
            self._early += packed


class RecordingExecutor(Executor):
    """An executor whose jobs wait for their turn, and are written down."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        super().__init__(name)
        self._recorder = recorder

    def submit(self, job: Job) -> None:
        super().submit(_Job(self._recorder, self, job))

    def run_sync(self, job: Callable[[], Result], timeout: float | None = None) -> Result:
        # The control plane's: in turn as well, but no part of the recording.
        if self.is_current():
            return job()
        call = _Unrecorded(self._recorder, job)
        super().submit(call)
        if not call.done.wait(timeout):
            raise TimeoutError(f"executor {self.name!r} did not run the job within {timeout} s")
        if call.error is not None:
            raise call.error
        result: Result = call.result
        return result

    def settle(self, timeout: float) -> bool:
        # In a turn no job runs; whoever serves the client waits after it.
        return True if self._recorder.mine else super().settle(timeout)

    @property
    def running(self) -> bool:
        """Whether jobs are being run. Not in a turn: what would wait for one there would wait for ever."""
        return super().running and not self._recorder.mine

    def finish(self, timeout: float) -> None:
        """Wait until the jobs that are queued now have run. Not in a turn."""
        call = _Unrecorded(self._recorder, lambda: None)
        super().submit(call)
        if super().running and not self.is_current():
            call.done.wait(timeout)

    def _expire_timers(self) -> None:
        if not self._timers or self._timers[0][0] > _real_ns() / 1e9:
            return
        with self._recorder.turn():
            self._recorder.emit(rec.EXPIRE, 0)
            before = len(self._jobs)
            super()._expire_timers()
            for index in range(before, len(self._jobs)):
                if not isinstance(self._jobs[index], (_Job, _Unrecorded)):
                    self._jobs[index] = _Job(self._recorder, self, self._jobs[index])


class _Job:
    """One job in its turn."""

    __slots__ = ("_executor", "_job", "_recorder")

    def __init__(self, recorder: Recorder, executor: RecordingExecutor, job: Job) -> None:
        self._recorder = recorder
        self._executor = executor
        self._job = job

    def __call__(self) -> None:
        recorder = self._recorder
        recorder.take()
        try:
            recorder.look()
            recorder.emit(rec.JOB, 0)
            self._job()
        finally:
            recorder.look()
            recorder.emit(rec.END, 0, 0 if self._executor._jobs else 1)
            recorder.give()


class _Unrecorded:
    """A job in its turn that is no part of the recording."""

    def __init__(self, recorder: Recorder, job: Callable[[], Any]) -> None:
        self._recorder = recorder
        self._job = job
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            with self._recorder.aside():
                self.result = self._job()
        except BaseException as exc:  # handed to the caller
            self.error = exc
        finally:
            self.done.set()


class RecordedFunction(Served):
    """Stands in for a function towards the transport."""

    def __init__(self, index: int, function: Served, recorder: Recorder, executor: RecordingExecutor) -> None:
        self.name = function.name
        self._index = index
        self._function = function
        self._recorder = recorder
        self._executor = executor
        self._regions = [
            None
            if region is None
            else Region(
                region.size,
                handler=_RecordedRegion(index, number, region, recorder) if region.handler is not None else None,
                memory=region.memory,
                memory_offset=region.memory_offset,
                areas=region.areas,
                readable=region.readable,
                writable=region.writable,
            )
            for number, region in enumerate(function.regions)
        ]
        for number, region in enumerate(function.regions):
            if region is not None and region.memory is not None and region.areas:
                recorder.watches.append((index, number, MemoryWatch(region)))

    @property
    def regions(self) -> Sequence[Region | None]:
        return self._regions

    @property
    def interrupts(self) -> Sequence[int]:
        return self._function.interrupts

    def attached(self, transport: Transport) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.ATTACH, self._index)
            self._function.attached(RecordedTransport(self._index, transport, self._recorder))
        self._executor.finish(_RESET_SECONDS)

    def detached(self) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.DETACH, self._index)
            self._function.detached()

    def reset(self) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.RESET, self._index)
            self._function.reset()
        self._executor.finish(_RESET_SECONDS)

    def wired(self, index: int, start: int, count: int) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.WIRED, self._index, index, 0, start, count)
            self._function.wired(index, start, count)

    def unmapped(self, address: int, length: int) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.UNMAPPED, self._index, x=_signed(address), y=min(length, _MASK))
            self._function.unmapped(address, length)
        self._executor.settle(_SETTLE_SECONDS)


class _RecordedRegion:
    """Every access to one region, in its turn and written down."""

    def __init__(self, function: int, number: int, region: Region, recorder: Recorder) -> None:
        self._function = function
        self._number = number
        self._access = RegionAccess(region)
        self._recorder = recorder

    def read(self, offset: int, size: int) -> int:
        recorder = self._recorder
        recorder.take()
        try:
            return recorder.read(self._function, self._number, size, offset, self._access.read)
        finally:
            recorder.give()

    def read_block(self, offset: int, length: int) -> bytes:
        with self._recorder.turn():
            data = self._access.read_block(offset, length)
            self._recorder.emit(rec.READ_BLOCK, self._function, self._number, 0, offset, len(data), data)
        return data

    def write(self, offset: int, size: int, value: int) -> None:
        recorder = self._recorder
        recorder.take()
        try:
            recorder.emit(rec.WRITE, self._function, self._number, size, offset, value)
            self._access.write(offset, size, value)
        finally:
            recorder.give()


class RecordedTransport(Transport):
    """What the function gets for its client's transport. Outside of a turn (VF BARs) it only passes on."""

    def __init__(self, function: int, inner: Transport, recorder: Recorder) -> None:
        self._function = function
        self._inner = inner
        self._recorder = recorder

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        return None

    def mapped(self, address: int, length: int, write: bool) -> bool:
        answer = self._inner.mapped(address, length, write)
        if self._recorder.mine:
            self._recorder.emit(rec.MAPPED, self._function, int(write), int(answer), _signed(address), length)
        return answer

    def read(self, address: int, length: int) -> bytes:
        if not self._recorder.mine:
            return self._inner.read(address, length)
        parts = []
        at, end = address, address + length
        try:
            while at < end:
                view = self._inner.view(at, end - at, False)
                if view is not None and len(view):
                    parts.append(bytes(view))
                    at += len(view)
                    continue
                with self._recorder.waiting():
                    parts.append(self._inner.read(at, end - at))
                break
        except DmaError as exc:
            self._failed(exc, address, length, write=False)
            raise
        data = b"".join(parts)
        self._recorder.emit(rec.DMA_READ, self._function, 0, 0, _signed(address), len(data), data)
        return data

    def write(self, address: int, data: bytes | memoryview) -> None:
        if not self._recorder.mine:
            self._inner.write(address, data)
            return
        rest = memoryview(data).cast("B")
        kept = bytes(rest) if len(rest) <= rec.LARGEST_DATA else rec.digest(rest)
        at = address
        try:
            while rest:
                view = self._inner.view(at, len(rest), True)
                if view is not None and len(view):
                    count = len(view)
                    view[:] = rest[:count]
                    at += count
                    rest = rest[count:]
                    continue
                with self._recorder.waiting():
                    self._inner.write(at, rest)
                break
        except DmaError as exc:
            self._failed(exc, address, len(data), write=True)
            raise
        is_digest = int(len(kept) != memoryview(data).nbytes)
        self._recorder.emit(
            rec.DMA_WRITE, self._function, 0, is_digest, _signed(address), memoryview(data).nbytes, kept
        )

    def trigger(self, index: int, vector: int) -> bool:
        delivered = self._inner.trigger(index, vector)
        if self._recorder.mine:
            self._recorder.emit(rec.TRIGGER, self._function, index, int(delivered), vector)
        return delivered

    def _failed(self, exc: DmaError, address: int, length: int, *, write: bool) -> None:
        self._recorder.emit(rec.DMA_FAILED, self._function, int(write), min(exc.errno, 255), _signed(address), length)


@contextmanager
def recorded_card(path: Path, config: CardConfig) -> Iterator[tuple[Card, list[RecordedFunction]]]:
    """A card of `config` that is recorded to `path`, and what to serve in place of its functions.

    Raises `CardError`, and OSError when the file cannot be written. The file is complete when the context ends.
    """
    recorder = Recorder(path, config)
    with recorder.clock():
        try:
            with recorder.turn():
                executor = RecordingExecutor(config.name, recorder)
                card = Card(config, executor)
            starters, card.on_start = card.on_start, []

            def start() -> None:
                with recorder.turn():
                    recorder.emit(rec.START, 0)
                    for callback in starters:
                        callback()

            card.on_start.append(start)
            served = [
                RecordedFunction(index, function, recorder, executor) for index, function in enumerate(card.served)
            ]
            recorder.begin([function.name for function in served])
            yield card, served
        finally:
            recorder.close()


_real_ns = time.monotonic_ns


@contextmanager
def replaced_clock(nanoseconds: Callable[[], int | None]) -> Iterator[None]:
    """Let the functions of `time` that tell intervals answer `nanoseconds()`; where that is None, as usual.

    In the module itself, because device models ask it directly; it holds for every thread.
    """
    names = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    before = {name: getattr(time, name) for name in names}

    def answer(name: str) -> Callable[[], float | int]:
        real = before[name]

        def ask() -> float | int:
            value = nanoseconds()
            if value is None:
                result: float | int = real()
                return result
            return value if name.endswith("_ns") else value / 1e9

        return ask

    for name in names:
        setattr(time, name, answer(name))
    try:
        yield
    finally:
        for name, real in before.items():
            setattr(time, name, real)


def _signed(address: int) -> int:
    """An address as the event has it."""
    return address - (1 << 64) if address >> 63 & 1 else address
