"""The trace: what happens in a card, one line an event, by category ("mmio", "irq", what a model adds).

A model asks for its channel once and looks at `enabled` before it emits, so that a trace that is off costs one
attribute look-up:

    self._trace = card.tracer.channel("guc", "messages between driver and GuC")
    ...
    if self._trace.enabled:
        self._trace.emit(function.name, "h2g", {"action": "REGISTER_CONTEXT", "length": 12})

Emitting only queues; a thread of the tracer renders and writes. Two formats, by the file's name: text (default), and
JSON lines for "*.jsonl". `docs/tracing.md` describes both.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic as _monotonic
from typing import IO, Any

from vfio_user_xe.emulator.model.options import unknown

Fields = Mapping[str, Any]
_Record = tuple[float, str, str, str, Fields | Callable[[], Fields] | None]

_WRITE_EVERY = 0.1


class Channel:
    """One category of a card's trace."""

    __slots__ = ("_tracer", "category", "enabled", "help", "on_switch")

    def __init__(self, category: str, help: str, tracer: Tracer) -> None:
        self.category = category
        self.help = help
        self.enabled = False
        self.on_switch: list[Callable[[bool], None]] = []
        """Called when the channel is switched on or off: for what hooks itself in only while it is traced."""
        self._tracer = tracer

    def emit(self, function: str, event: str, fields: Fields | Callable[[], Fields] | None = None) -> None:
        """Record `event` of `function`. `fields` may be a call, which is made later, on the tracer's thread."""
        tracer = self._tracer
        tracer.records.append((tracer.now(), function, self.category, event, fields))

    def switch(self, on: bool) -> None:
        """Start or stop recording."""
        if on != self.enabled:
            self.enabled = on
            for callback in self.on_switch:
                callback(on)


class Tracer:
    """A card's channels, and the file that they are written to while the trace is on."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}
        self.records: deque[_Record] = deque()
        """What is not written yet."""
        # The function itself, not what `time` answers while a card is recorded: a trace is no part of the device.
        self.now: Callable[[], float] = _monotonic
        """The time of an event, in seconds."""
        self._epoch = self.now()
        self._file: IO[str] | None = None
        self._render: Callable[[float, str, str, str, Fields], str] = render_text
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def channel(self, category: str, help: str = "") -> Channel:
        """The channel of `category`, made when it is first asked for."""
        return self._channels.setdefault(category, Channel(category, help, self))

    def categories(self) -> dict[str, str]:
        """Every category with its help text."""
        return {name: self._channels[name].help for name in sorted(self._channels)}

    @property
    def active(self) -> list[str]:
        """The categories that are being recorded."""
        return sorted(channel.category for channel in self._channels.values() if channel.enabled)

    def start(self, categories: Iterable[str], path: Path | str) -> None:
        """Record `categories` ("all": every one) to the file at `path` ("-": standard error), which is replaced.

        Raises ValueError for a category that is not there, OSError for the file. A trace that runs is ended first.
        """
        wanted = list(categories)
        for category in wanted:
            if category != "all" and category not in self._channels:
                raise ValueError(unknown(category, "trace category", ["all", *sorted(self._channels)]))
        self.stop()
        with self._lock:
            self._file = sys.stderr if str(path) == "-" else Path(path).open("w", encoding="utf-8")  # noqa: SIM115
            self._render = render_json if str(path).endswith(".jsonl") else render_text
            self._epoch = self.now()
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
            self._thread.start()
        for name, channel in self._channels.items():
            channel.switch(name in wanted or "all" in wanted)

    def stop(self) -> None:
        """Stop recording, write what is queued, close the file."""
        for channel in self._channels.values():
            channel.switch(False)
        with self._lock:
            if self._thread is None:
                return
            self._stop.set()
            self._thread.join()
            self._thread = None
            if self._file is not None and self._file is not sys.stderr:
                self._file.close()
            self._file = None

    def _run(self) -> None:
        while not self._stop.wait(_WRITE_EVERY):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        file = self._file
        assert file is not None
        records = self.records
        # Counted before: a guest that never pauses must not keep this loop from flushing.
        for _ in range(len(records)):
            moment, function, category, event, fields = records.popleft()
            try:
                rendered = fields() if callable(fields) else fields or {}
            except Exception as error:  # the trace must survive a field that cannot be computed
                rendered = {"error": repr(error)}
            file.write(self._render(moment - self._epoch, function, category, event, rendered))
        file.flush()


def parse_trace_argument(argument: str) -> tuple[list[str], str]:
    """Categories and file of "guc,cs,mmio:FILE". Raises ValueError."""
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
