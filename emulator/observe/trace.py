"""The trace: what happens in a card, one line an event, by category ("mmio", "irq", what a model adds).

Events come from taps (`vfio_user_xe.emulator.observe.tap`). A block that is made without a card has a tap of its own, which the card
lets join its tracer; a device model asks the tracer for one:

    self._tap = card.tracer.tap("firmware", "messages between driver and firmware")
    ...
    if self._tap.on:
        self._tap(function.name, "h2g", {"action": "REGISTER_CONTEXT", "length": 12})

A tap only queues; a thread of the tracer renders and writes. Two formats, by the file's name: text (default), and
JSON lines for "*.jsonl". `docs/tracing.md` describes both.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.options import UnknownName
from vfio_user_xe.emulator.observe.tap import Fields, Record, Tap

log = logging.getLogger(__name__)

_WRITE_EVERY = 0.1
_SAMPLE_EVERY = 0.02


class Tracer:
    """The taps of a card, and the trace that they are recorded to while there is one. From any thread."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.monotonic
        """The time of an event, in seconds. Not the card's clock: a recording keeps every look at that."""
        self._taps: dict[str, list[Tap]] = {}
        self._trace: _Trace | None = None
        self._lock = threading.RLock()

    def tap(self, category: str, help: str = "") -> Tap:
        """The tap of `category`, made at its first use; later calls return the same one."""
        with self._lock:
            if category not in self._taps:
                self.join(Tap(category, help))
            return self._taps[category][0]

    def join(self, tap: Tap) -> None:
        """Record `tap`, which a block was made with, whenever its category is traced."""
        with self._lock:
            self._taps.setdefault(tap.category, []).append(tap)
            if self._trace is not None and tap.category in self._trace.categories:
                self._trace.add(tap)

    def categories(self) -> dict[str, str]:
        """Every category with its help text."""
        with self._lock:
            return {name: self._taps[name][0].help for name in sorted(self._taps)}

    @property
    def active(self) -> list[str]:
        """The categories that are being recorded."""
        with self._lock:
            return sorted(name for name, taps in self._taps.items() if any(tap.on for tap in taps))

    def start(self, categories: Iterable[str], path: Path | str) -> None:
        """Record `categories` ("all": every one) to the file at `path` ("-": standard error), which is replaced.

        A trace that runs is ended first.

        Raises:
            UnknownName: for a category that is not there (a KeyError); the trace that runs goes on.
            OSError: for the file; nothing is traced then.

        From any thread.
        """
        wanted = set(categories)
        with self._lock:
            for category in sorted(wanted):
                if category != "all" and category not in self._taps:
                    raise UnknownName(category, "trace category", ["all", *sorted(self._taps)])
            self.stop()
            chosen = set(self._taps) if "all" in wanted else wanted
            self._trace = _Trace(path, chosen, self.now)
            for category in chosen:
                for tap in self._taps[category]:
                    self._trace.add(tap)
            self._trace.begin()

    def stop(self) -> None:
        """Stop recording, write what is queued, close the file. Nothing when nothing is traced."""
        with self._lock:
            trace, self._trace = self._trace, None
            if trace is not None:
                trace.end()


class _Trace:
    """One trace from start to stop. What is told late, by a thread that saw its tap on, is in nobody's way: the queue goes too."""

    def __init__(self, path: Path | str, categories: set[str], now: Callable[[], float]) -> None:
        self.categories = categories
        self._path = path
        self._file: IO[str] = sys.stderr if str(path) == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
        self._render = render_json if str(path).endswith(".jsonl") else render_text
        self._now = now
        self._epoch = now()
        self._records: deque[Record] = deque()
        """Records that are not written yet."""
        self._taps: list[Tap] = []
        self._samplers: list[Callable[[], None]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def add(self, tap: Tap) -> None:
        """Record `tap` from now on."""
        self._taps.append(tap)
        tap.switch_on(self._records.append, self._now)
        if tap.sampler is not None:
            self._samplers.append(tap.sampler())

    def begin(self) -> None:
        """Start to write."""
        self._thread.start()

    def end(self) -> None:
        """Switch the taps off, write what they told until then, close the file."""
        self._stop.set()
        self._thread.join()
        if self._file is not sys.stderr:
            with contextlib.suppress(OSError):  # what could not be written was logged
                self._file.close()

    def _run(self) -> None:
        try:
            while not self._stop.wait(_SAMPLE_EVERY if self._samplers else _WRITE_EVERY):
                self._sample()
                self._drain()
            self._sample()
            self._switch_off()
            self._drain()
        except OSError as exc:
            self._broken(exc)
        finally:
            # However this thread ended, the queue is not read any more.
            self._switch_off()
            self._records.clear()

    def _broken(self, exc: OSError) -> None:
        """The trace ends here; the card goes on."""
        log.error("the trace %s is incomplete: %s", self._path, exc.strerror)

    def _switch_off(self) -> None:
        for tap in self._taps:
            tap.switch_off()

    def _sample(self) -> None:
        for sampler in list(self._samplers):
            try:
                sampler()
            except MISTAKES:  # the rest of the trace must survive it
                log.exception("what a tap samples is missing in the trace %s from now on", self._path)
                self._samplers.remove(sampler)

    def _drain(self) -> None:
        file, records = self._file, self._records
        # Counted before: a guest that never pauses must not keep this loop from flushing.
        for _ in range(len(records)):
            moment, function, category, event, fields = records.popleft()
            head = moment - self._epoch, function, category, event
            try:
                line = self._render(*head, fields() if callable(fields) else fields or {})
            except MISTAKES as error:  # the trace must survive a field that cannot be computed or written
                line = self._render(*head, {"error": repr(error)})
            file.write(line)
        file.flush()


def parse_trace_argument(argument: str) -> tuple[list[str], str]:
    """Categories and file of "irq,config,mmio:FILE".

    Raises:
        ValueError: it is not of this form.
    """
    categories, colon, path = argument.partition(":")
    names = [name.strip() for name in categories.split(",") if name.strip()]
    if not colon or not path or not names:
        raise ValueError(f'"{argument}" is not of the form CATEGORY,...:FILE (for example mmio,irq:trace.txt)')
    return names, path


def render_text(moment: float, function: str, category: str, event: str, fields: Fields) -> str:
    """`    1.234567 pf   mmio   read  register=GMD_ID offset=0xd8c value=0x5010004`."""
    text = "".join(f" {name}={_value(value)}" for name, value in fields.items())
    return f"{moment:12.6f} {function:<4} {category:<6} {event}{text}\n"


def render_json(moment: float, function: str, category: str, event: str, fields: Fields) -> str:
    """One JSON object a line, with the members time, function, category, event, fields."""
    record = {"time": round(moment, 6), "function": function, "category": category, "event": event}
    return json.dumps({**record, "fields": dict(fields)}, default=str) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        text = str(value)
        return json.dumps(text) if not text or any(c.isspace() for c in text) else text
    return f"{value:#x}" if value > 9 else str(value)
