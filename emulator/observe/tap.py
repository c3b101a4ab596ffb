"""A tap: where a block tells the trace what it does. A block has its taps from its construction on, with or without a trace.

    self.tap = Tap("uart", "registers of the serial port")
    ...
    if self.tap.on:
        self.tap("serial", "write", {"register": "THR", "value": value})

A tap that is off costs a look at `on`. The card's tracer (`vfio_user_xe.emulator.observe.trace`) switches the taps that joined it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Fields = Mapping[str, Any]
"""The fields of an event, by name. Values should be numbers, text or booleans."""
LateFields = Fields | Callable[[], Fields]
"""Fields, or a call that computes them later, on the tracer's thread."""
Record = tuple[float, str, str, str, LateFields | None]
"""Time in seconds, function, category, event, fields."""
Sampler = Callable[[], None]


class Tap:
    """Where events of one category come from: look at `on`, then call the tap. From any thread.

    `tap(function, event, fields=None)` records `event` of the function called `function`, with its time; nothing while the tap is
    off. `fields` are what the event says, by name, or a call that computes them later, on the tracer's thread. It only queues:
    safe inside an access.
    """

    __slots__ = ("_now", "_record", "category", "help", "on", "sampler")

    def __init__(self, category: str, help: str = "", sampler: Callable[[], Sampler] | None = None) -> None:
        """`help` says in a line what the events of `category` are; every tap of a category has the same."""
        self.category = category
        self.help = help
        self.on = False
        """Whether events are recorded. Only the tracer changes it."""
        self.sampler = sampler
        """For what is sampled, not told: called when a trace begins; what it returns is called every 20 ms, and once at the end,
        on the tracer's thread."""
        self._record: Callable[[Record], None] = _drop
        self._now: Callable[[], float] = _never

    def __call__(self, function: str, event: str, fields: LateFields | None = None) -> None:
        """Record `event`; see the class."""
        self._record((self._now(), function, self.category, event, fields))

    def switch_on(self, record: Callable[[Record], None], now: Callable[[], float]) -> None:
        """Give every event, with the time `now()`, to `record`. For tracers."""
        self._now = now
        self._record = record
        self.on = True

    def switch_off(self) -> None:
        """Record nothing any more. A block that read `on` before and calls the tap now loses its event. For tracers."""
        self.on = False
        self._record = _drop


def _drop(record: Record) -> None:
    pass


def _never() -> float:
    return 0.0
