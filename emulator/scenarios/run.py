"""One run of a scenario: its steps with their times, what was looked at, and what the kernel logged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias, TypeVar

from vfio_user_xe.emulator.kernel_reports import KernelLog, KernelReport, Kind, Line, reports
from vfio_user_xe.emulator.results import Event
from vfio_user_xe.emulator.results.evidence import Json
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.records import Records
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable

Plain: TypeAlias = "str | int | float | bool | Sequence[Plain] | Mapping[str, Plain] | None"
"""Data that JSON can carry."""
PlainT = TypeVar("PlainT", bound=Plain)


@dataclass
class Run:
    """What a scenario writes down. Its verdict is what it raises; see `vfio_user_xe.emulator.scenarios.verdict`."""

    log: KernelLog
    events: list[Event] = field(default_factory=list)
    facts: dict[str, Json] = field(default_factory=dict)
    """Dumps and figures by name, plain data: page tables, accounting, stacks."""
    shown: list[str] = field(default_factory=list)
    """The facts that explain the verdict: a terminal shows them too."""
    kernel_log: list[Line] = field(default_factory=list)
    """What the kernel has logged since the scenario before."""
    records: Records = field(default_factory=Records)
    """What the card told when the scenario had ended, and the suite's accounts."""
    excuses: list[Excuse] = field(default_factory=list)
    depth: int = 0
    """How many steps are going on."""
    given_up: str = ""
    """Why the guest is of no use afterwards; empty: it is."""
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A step of the scenario, timed; an exception in it marks it as bad."""
        event = Event(time.monotonic() - self._began, 0.0, text, depth=self.depth)
        self.events.append(event)
        self.depth += 1
        try:
            yield
            event.good = True
        except BaseException:
            event.good = False
            raise
        finally:
            self.depth -= 1
            event.seconds = time.monotonic() - self._began - event.start

    def note(self, text: str, seconds: float = 0.0, good: bool | None = None, ago: float = 0.0) -> None:
        """Something that took `seconds` and ended just now, or `ago` seconds ago."""
        now = time.monotonic() - self._began - ago
        self.events.append(Event(max(0.0, now - seconds), seconds, text, good, self.depth))

    def fact(self, name: str, value: PlainT) -> PlainT:
        """Keep what was found, as it is now; returns it."""
        self.facts[name] = _copied(value)
        return value

    def evidence(self, name: str, value: PlainT) -> PlainT:
        """A fact that explains the verdict; returns it."""
        if name not in self.shown:
            self.shown.append(name)
        return self.fact(name, value)

    def check(self, condition: object, otherwise: str) -> None:
        """Fail the scenario unless `condition`."""
        if not condition:
            self.note(otherwise, good=False)
            raise Failed(otherwise)

    def known(self, defect: str, evidence: str) -> NoReturn:
        """End the scenario: it met a defect that the suite knows."""
        self.note(f"{defect}: {evidence}", good=False)
        raise KnownDefect(defect, evidence)

    def not_applicable(self, reason: str) -> NoReturn:
        """End the scenario: there is nothing to be tested here."""
        raise NotApplicable(reason)

    def excuse(
        self, kind: Kind, reason: str, *, place: str = "", message: str = "", pattern: str = "", count: int = 1
    ) -> None:
        """Up to `count` reports of this kind that name the function `place`, or have `message` or what `pattern` (a regular
        expression) is found in in their first line, are no reason to fail. What was excused and not seen is reported.

        Raises:
            ValueError: as `Excuse`.
        """
        self.excuses.append(Excuse(kind, reason, place, message, count, pattern))

    def give_up(self, why: str) -> None:
        """The guest cannot be used any more: it is ended from outside."""
        self.given_up = self.given_up or why

    def reports(self) -> list[KernelReport]:
        """What the kernel has reported of itself, excused or not, in the part of its log that was read."""
        return reports(self.kernel_log)

    def rebooted(self) -> None:
        """The guest has booted anew. What was prepared in it is gone, so it is given up when the scenario ends."""
        self.kernel_log += self.log.rebooted()
        self.give_up("the guest was booted anew")

    def read_kernel_log(self) -> list[Line]:
        """What the kernel has logged since the last call; kept.

        Raises:
            LogLost: lines of the log are lost.
            GuestError: the guest cannot be asked.
        """
        lines = self.log.read()
        self.kernel_log += lines
        return lines


def _copied(value: Plain) -> Json:
    if isinstance(value, str) or value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value]
