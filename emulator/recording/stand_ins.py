"""What stands between a card that is recorded and its clients: functions, regions, the transport.

A card under a `Recorder` is the same card with other neighbours: its executor is a `RecordingExecutor`, and its functions
are served through stand-ins. So a card that is not recorded pays nothing. What makes the recording exact:

* Accesses and jobs take turns (`Recorder.turn`): there is one order of all that happens.
* Guest memory is not given out as views, so each read of it is seen. What a client writes into the card's memory, which it
  has mapped, is found before and after each job (`memory_watch`).
* The clock is an input: what the card's clock (`Card.clock`) answers in a turn is kept, too.

Not recorded: the control socket, and the thread that programs VF BARs into the client (the client's part in it is).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.transport import DmaError, Region, Served, Transport
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.executors import RecordingExecutor
from vfio_user_xe.emulator.recording.memory_watch import MemoryWatch
from vfio_user_xe.emulator.recording.recorder import Recorder
from vfio_user_xe.emulator.vfio_user.region_access import RegionAccess

_RESET_SECONDS = 2.0
_SETTLE_SECONDS = 0.25


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

    def drop_windows(self, address: int, length: int) -> None:
        with self._recorder.turn():
            self._recorder.emit(rec.UNMAPPED, self._index, x=rec.signed(address), y=min(length, rec.ALL))
            self._function.drop_windows(address, length)
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
        except MISTAKES:
            recorder.emit(rec.FAILED, self._function)
            raise
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
            self._recorder.emit(rec.MAPPED, self._function, int(write), int(answer), rec.signed(address), length)
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
        self._recorder.emit(rec.DMA_READ, self._function, 0, 0, rec.signed(address), len(data), data)
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
            rec.DMA_WRITE, self._function, 0, is_digest, rec.signed(address), memoryview(data).nbytes, kept
        )

    def trigger(self, index: int, vector: int) -> bool:
        delivered = self._inner.trigger(index, vector)
        if self._recorder.mine:
            self._recorder.emit(rec.TRIGGER, self._function, index, int(delivered), vector)
        return delivered

    def _failed(self, exc: DmaError, address: int, length: int, *, write: bool) -> None:
        self._recorder.emit(
            rec.DMA_FAILED, self._function, int(write), min(exc.errno, 255), rec.signed(address), length
        )


@contextmanager
def recorded_card(path: Path, config: CardConfig) -> Iterator[tuple[Card, list[RecordedFunction]]]:
    """A card of `config` that is recorded to `path`, and what to serve in place of its functions. It is complete when the context ends.

    Raises:
        CardError: the card cannot be made.
        RecordingError: the file cannot be written.
    """
    recorder = Recorder(path, config)
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
        served = [RecordedFunction(index, function, recorder, executor) for index, function in enumerate(card.served)]
        recorder.begin([function.name for function in served])
        yield card, served
    finally:
        recorder.close()
