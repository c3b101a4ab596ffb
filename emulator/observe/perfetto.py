"""Traces for the Perfetto UI (ui.perfetto.dev, or chrome://tracing): JSON trace events from a trace in JSON lines.

Tracks: one a function (registers, configuration space, interrupts, and what else a model traces), one a unit of what the
device models declare (`ModelInfo.trace_processes`), one an engine (contexts as slices, commands as instants), one a link
(windows that were opened) with a counter of its traffic.

The format is Google's "Trace Event Format": `ph` is M for names, i for instants, B and E for slices, C for counters;
times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vfio_user_xe.emulator.model.model_info import TraceProcess

FUNCTIONS, ENGINES, LINKS = "functions", "engines", "links"
"""The processes that every trace may have. The UI shows those of the models between functions and engines."""
_NAMES_OF_EVENTS = ("register", "action", "name")
"""Fields that say what an event is about, the first that is there."""

Record = Mapping[str, Any]
Event = dict[str, Any]


class TraceRefused(Exception):
    """A trace that cannot be read; the text says which line and why."""


def records(lines: Iterable[str], source: str) -> Iterator[Record]:
    """The records of a trace in JSON lines. A last line that was cut off is left out.

    Raises:
        TraceRefused: a line is no record of a trace.
    """
    incomplete: str | None = None
    for number, line in enumerate(lines, 1):
        if incomplete is not None:
            raise TraceRefused(incomplete)
        try:
            record = json.loads(line)
            time, function, category, event = (record[key] for key in ("time", "function", "category", "event"))
            fields = record["fields"]
        except (ValueError, KeyError, TypeError):
            hint = ": want a trace in JSON lines, from --trace CATEGORY,...:FILE.jsonl" if number == 1 else ""
            incomplete = f"{source}, line {number}, is no record of a trace{hint}"
            if number == 1 or line.endswith("\n"):
                raise TraceRefused(incomplete) from None
            continue
        yield {"time": float(time), "function": function, "category": category, "event": event, "fields": fields}


def events(trace: Iterable[Record], processes: Mapping[str, TraceProcess]) -> Iterator[Event]:
    """The trace as trace events, names of tracks where they are first needed.

    `processes` says by category what the device models' own events belong to.
    """
    tracks = _Tracks(processes)
    for record in trace:
        yield from tracks.convert(record)
    yield from tracks.finish()


def export(lines: Iterable[str], source: str, processes: Mapping[str, TraceProcess]) -> Iterator[str]:
    """The JSON text of a whole trace file, piece by piece; `processes` as in `events`.

    Raises:
        TraceRefused: a line is no record of a trace.
    """
    yield '{"displayTimeUnit": "ns", "traceEvents": [\n'
    separator = ""
    for event in events(records(lines, source), processes):
        yield separator + json.dumps(
            event, ensure_ascii=False
        )  # the UI shows the escapes of names of counters as they are
        separator = ",\n"
    yield "\n]}\n"


class _Tracks:
    """The tracks, and the slices that are open on them."""

    def __init__(self, processes: Mapping[str, TraceProcess]) -> None:
        self._processes = processes
        titles = dict.fromkeys([FUNCTIONS, *(process.title for process in processes.values()), ENGINES, LINKS])
        self._numbers = {title: number for number, title in enumerate(titles, 1)}
        self._threads: dict[tuple[str, str], int] = {}
        self._running: dict[str, str] = {}
        """The context that each engine has."""
        self._last = 0.0

    def convert(self, record: Record) -> Iterator[Event]:
        """The events of one record."""
        time = self._last = record["time"] * 1e6
        category, fields = record["category"], record["fields"]
        if category == "engine":
            yield from self._switch(time, record)
        elif category == "cs" and "engine" in fields:
            yield from self._instant(ENGINES, fields["engine"], time, record)
        elif category in self._processes:
            process = self._processes[category]
            track = f"{process.unit}{fields.get(process.unit, 0)}"
            yield from self._instant(process.title, track, time, record)
        elif category == "fabric":
            yield from self._instant(LINKS, _link(record), time, record)
        elif category == "link":
            yield from self._traffic(time, record)
        else:
            yield from self._instant(FUNCTIONS, record["function"], time, record)

    def finish(self) -> Iterator[Event]:
        """Close what is open at the trace's end."""
        for engine in list(self._running):
            yield from self._leave(engine, self._last)

    def _track(self, process: str, name: str) -> Iterator[Event]:
        key = (process, name)
        if key in self._threads:
            return
        pid = self._numbers[process]
        if not any(known == process for known, _ in self._threads):
            yield {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": process}}
            yield {"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}
        number = self._threads[key] = len(self._threads) + 1
        yield {"ph": "M", "pid": pid, "tid": number, "name": "thread_name", "args": {"name": name}}

    def _event(self, process: str, track: str, time: float, phase: str, name: str, **more: Any) -> Event:
        number = self._threads[process, track]
        return {"ph": phase, "pid": self._numbers[process], "tid": number, "ts": round(time, 3), "name": name, **more}

    def _instant(self, process: str, track: str, time: float, record: Record) -> Iterator[Event]:
        yield from self._track(process, track)
        fields = {"function": record["function"], **record["fields"]}
        yield self._event(process, track, time, "i", _name(record), s="t", cat=record["category"], args=_shown(fields))

    def _switch(self, time: float, record: Record) -> Iterator[Event]:
        fields = record["fields"]
        engine = str(fields.get("engine", "engine"))
        yield from self._track(ENGINES, engine)
        if engine in self._running:
            yield from self._leave(engine, time)
        if record["event"] == "in":
            name = self._running[engine] = f"{record['function']} context {fields.get('context', '?')}"
            shown = _shown({"function": record["function"], **fields})
            yield self._event(ENGINES, engine, time, "B", name, cat="engine", args=shown)

    def _leave(self, engine: str, time: float) -> Iterator[Event]:
        yield self._event(ENGINES, engine, time, "E", self._running.pop(engine))

    def _traffic(self, time: float, record: Record) -> Iterator[Event]:
        link, fields = _link(record), record["fields"]
        yield from self._track(LINKS, link)
        # Totals, not rates: a counter keeps its value until the next event. The UI shows rates of it when asked to.
        totals = {"bytes read": fields["bytes_read"], "bytes written": fields["bytes_written"]}
        yield self._event(LINKS, link, time, "C", link, cat="link", args=totals)


def _link(record: Record) -> str:
    fields = record["fields"]
    parts = f"{record['function']} → {fields.get('owner', '?')} by {fields.get('interconnect', '?')}"
    return f"{parts} ({fields['kind']})" if fields.get("kind") else parts


def _name(record: Record) -> str:
    fields = record["fields"]
    about = next((str(fields[key]) for key in _NAMES_OF_EVENTS if key in fields), "")
    return f"{record['event']} {about}".strip()


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as people read them: the UI shows decimals only."""
    return {
        name: f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) and value > 9 else value
        for name, value in fields.items()
    }
