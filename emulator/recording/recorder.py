"""Who writes a recording: in whose turn something happens to the card, and the events of it."""

from __future__ import annotations

import gzip
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.card import CardConfig
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.clock import RecordingClock
from vfio_user_xe.emulator.recording.format import RecordingError
from vfio_user_xe.emulator.recording.memory_watch import MemoryWatch

log = logging.getLogger(__name__)

_SAVE_NS = 1_000_000_000


class Recorder:
    """Writes one recording. `close` finishes the file."""

    def __init__(self, path: Path, config: CardConfig) -> None:
        """Start a recording of a card of `config`.

        Raises:
            RecordingError: the file cannot be written.
        """
        self._file: BinaryIO | None = None
        self._path = path
        self._config = config
        self._lock = threading.Lock()
        self._owner = 0
        self._nested: list[bytes] | None = None
        self._last = 0
        self._lost = False
        self._save_at = 0
        self.watches: list[tuple[int, int, MemoryWatch]] = []
        """Memory that clients map, by function and region."""
        self._early = bytearray()
        try:
            path.open("wb").close()
        except OSError as exc:
            raise RecordingError(f"cannot record to {path}: {exc.strerror}") from None

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
        value = 0
        try:
            found = read(offset, size)
            operator.index(found).to_bytes(size, "little")
            value = found
        except MISTAKES:
            self.emit(rec.FAILED, function)
            raise
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

    def save(self) -> None:
        """Have what was written down so far on disk, about once a second: the process may be killed."""
        if isinstance(self._file, gzip.GzipFile) and time.monotonic_ns() >= self._save_at and not self._lost:
            self._save_at = time.monotonic_ns() + _SAVE_NS
            try:
                self._file.flush()
            except OSError as exc:
                self._broken(exc)

    def now(self) -> int:
        """A look at the clock: nanoseconds, in steps of microseconds."""
        microseconds = time.monotonic_ns() // 1000
        self.emit(rec.CLOCK, 0, x=microseconds - self._last)
        self._last = microseconds
        return microseconds * 1000

    # Life.

    def clock(self) -> RecordingClock:
        """The card's clock: every look at it in a turn is an event."""
        return RecordingClock(lambda: self.now() if self.mine else None)

    def begin(self, functions: Sequence[str]) -> None:
        """The card exists now: its header can be written, and what happened until here."""
        self._file = rec.create(self._path)
        rec.write_header(self._file, rec.Header.of(self._config, list(functions)))
        self._file.write(self._early)
        self._early.clear()

    def close(self) -> None:
        """Finish the file."""
        with self.turn():
            try:
                if self._file is not None:
                    self._file.close()
            except OSError as exc:
                self._broken(exc)
            self._file = None

    def _write(self, packed: bytes) -> None:
        if self._file is None:
            self._early += packed
        elif not self._lost:
            try:
                self._file.write(packed)
            except OSError as exc:
                self._broken(exc)

    def _broken(self, exc: OSError) -> None:
        """The recording ends here; the card goes on."""
        self._lost = True
        log.error("the recording %s is incomplete: %s", self._path, exc.strerror)
