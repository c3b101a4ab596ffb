"""The stall watchdog: which register a guest waits for, when it reads the same one over and over.

A thread looks a few times a second at how often each register file was read and where last; an access costs nothing
more. Only a register that looks polled is watched closely, for what its reads return: the report names the bits that
never changed, among which is the one that the driver waits for. A driver that writes registers meanwhile is not stalled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.register_use import ReadWatch

log = logging.getLogger(__name__)

SAMPLE_EVERY = 0.05
MIN_READS = 8
"""Reads of one register, and of no other, that make a stall: drivers that back off read rarely."""
KEPT = 64


@dataclass(frozen=True, slots=True)
class Stall:
    """A guest that polls: one register was all it read for `seconds`, and it read it `reads` times."""

    function: str
    register: str
    offset: int
    seconds: float
    reads: int
    value: int
    """The value of the last read."""
    stuck_at_0: int
    """Bits that were 0 in every read."""
    stuck_at_1: int
    fields: dict[str, int]
    """Declared fields of `value`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the control socket."""
        return asdict(self)

    def __str__(self) -> str:
        fields = "".join(f" {name}={value:#x}" for name, value in self.fields.items())
        return (
            f"{self.function} polls {self.register} ({self.offset:#x}): {self.reads} reads in {self.seconds:.1f} s,"
            f" value {self.value:#010x}{fields}; never changed: bits {bit_names(self.stuck_at_1)} set,"
            f" bits {bit_names(self.stuck_at_0)} clear"
        )


def bit_names(bits: int) -> str:
    """Bit numbers as ranges, high first: 0x8000000f is "31, 3:0"."""
    parts = []
    high = 31
    while high >= 0:
        if bits >> high & 1:
            low = high
            while low and bits >> (low - 1) & 1:
                low -= 1
            parts.append(f"{high}:{low}" if high != low else str(high))
            high = low
        high -= 1
    return ", ".join(parts) or "none"


class StallWatchdog:
    """Watches register files for polling. `after` seconds of it make a stall, which is reported once."""

    def __init__(self, files: Sequence[RegisterFile], after: float = 1.0) -> None:
        """`files` may grow."""
        self.after = after
        self.stalls: deque[Stall] = deque(maxlen=KEPT)
        """The last stalls, oldest first."""
        self.on_stall: list[Callable[[Stall], None]] = [lambda stall: log.warning("%s", stall)]
        self._files = files
        self._suspects: list[_Suspect] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is watched any more."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        for suspect in self._suspects:
            suspect.forget()

    def sample(self, now: float) -> None:
        """Look once; `now` are seconds of a clock that does not go back. The thread does this."""
        self._suspects += [_Suspect(file) for file in self._files[len(self._suspects) :]]
        for suspect in self._suspects:
            stall = suspect.sample(now, self.after)
            if stall is not None:
                self.stalls.append(stall)
                for callback in self.on_stall:
                    callback(stall)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            self.sample(time.monotonic())


class _Suspect:
    """One register file between two samples: idle, with a candidate, or with a watch on what looks polled."""

    def __init__(self, file: RegisterFile) -> None:
        self._file = file
        self._reads = file.reads
        self._writes = file.writes
        self._offset = -1
        self._watch: ReadWatch | None = None
        self._seen = 0
        self._since = 0.0
        self._last_read = 0.0
        self._reported = False

    def sample(self, now: float, after: float) -> Stall | None:
        file = self._file
        reads, writes, offset = file.reads, file.writes, file.last_read
        grown, self._reads = reads - self._reads, reads
        if writes != self._writes:
            # A driver that still writes gets on: it reads back what it posted, say.
            self._writes = writes
            self.forget()
            return None
        if not grown:
            # A driver that sleeps between reads is still polling; one that was not heard of for long is not.
            if self._watch is not None and now - self._last_read > 2 * after:
                self.forget()
            return None
        self._last_read = now
        if self._watch is None:
            if offset == self._offset:
                self._watch, self._seen, self._since = file.watch(offset), 0, now
            self._offset = offset
            return None
        polled, self._seen = self._watch.reads - self._seen, self._watch.reads
        # Half of the reads, so that a loop over two registers is caught; 2 because the counters are not read at once.
        if not polled or 2 * polled + 2 < grown:
            self.forget()
            return None
        if self._reported or now - self._since < after or self._watch.reads < MIN_READS:
            return None
        self._reported = True
        return self._stall(self._watch, now - self._since)

    def forget(self) -> None:
        """Not polling (any more)."""
        if self._watch is not None:
            self._file.unwatch(self._offset)
        self._watch = None
        self._offset = -1
        self._reported = False

    def _stall(self, watch: ReadWatch, seconds: float) -> Stall:
        file, offset = self._file, self._offset
        register = file.registers.get(offset)
        fields = register.decode(watch.last) if register is not None and offset == register.offset else {}
        return Stall(
            file.name,
            file.name_of(offset),
            offset,
            round(seconds, 3),
            watch.reads,
            watch.last,
            watch.all_zeros,
            watch.all_ones,
            fields,
        )
