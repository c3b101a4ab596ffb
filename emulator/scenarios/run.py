"""One run of a scenario: its steps with their times, what was looked at, and what the kernel logged."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vfio_user_xe.emulator.results import Event
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable

SPLAT = re.compile(
    r"WARNING:|BUG:|KASAN:|UBSAN:|Oops|general protection|possible (recursive|circular)|inconsistent lock state"
    r"|refcount_t:|blocked (for more than|on a)|kernel panic|use-after-free|sleeping function called"
)
"""What a kernel says when it found something wrong with itself."""


@dataclass
class Run:
    """What a scenario writes down. Its verdict is what it raises; see `vfio_user_xe.emulator.scenarios.scenario`."""

    lab: Any
    events: list[Event] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Dumps and figures by name, plain data: page tables, LMTT, accounting, stacks."""
    shown: list[str] = field(default_factory=list)
    """The facts that explain the verdict: a terminal shows them too."""
    kernel_log: list[str] = field(default_factory=list)
    records: dict[str, Any] = field(default_factory=dict)
    """What the card told when the scenario had ended, by command, and the suite's accounts."""
    excused: list[re.Pattern[str]] = field(default_factory=list)
    depth: int = 0
    """How many steps are going on."""
    spoiled: str = ""
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

    def fact(self, name: str, value: Any) -> Any:
        """Keep what was found; returns it."""
        self.facts[name] = value
        return value

    def evidence(self, name: str, value: Any) -> Any:
        """A fact that explains the verdict; returns it."""
        if name not in self.shown:
            self.shown.append(name)
        return self.fact(name, value)

    def check(self, condition: object, otherwise: str) -> None:
        """Fail the scenario unless `condition`."""
        if not condition:
            self.note(otherwise, good=False)
            raise Failed(otherwise)

    def known(self, defect: str, evidence: str) -> None:
        """End the scenario: it met a defect that the suite knows."""
        self.note(f"{defect}: {evidence}", good=False)
        raise KnownDefect(defect, evidence)

    def not_applicable(self, reason: str) -> None:
        """End the scenario: there is nothing to be tested here."""
        raise NotApplicable(reason)

    def excuse(self, pattern: str) -> None:
        """Lines of the kernel's log that match are no reason to fail."""
        self.excused.append(re.compile(pattern))

    def spoil(self, why: str) -> None:
        """The guest cannot be used any more: it is ended from outside."""
        self.spoiled = self.spoiled or why

    def splats(self) -> list[str]:
        """Lines of the log in which the kernel reports itself, but those that are excused."""
        return [report[0] for report in self.reports()]

    def reports(self) -> list[list[str]]:
        """What the kernel reports of itself, but what is excused: each from its first line to the next report's."""
        starts = [at for at, line in enumerate(self.kernel_log) if SPLAT.search(line)]
        ends = [*starts, len(self.kernel_log)][1:]
        return [
            self.kernel_log[start:end]
            for start, end in zip(starts, ends, strict=True)
            if not any(pattern.search(self.kernel_log[start]) for pattern in self.excused)
        ]

    def read_kernel_log(self) -> list[str]:
        """What the kernel logged since the last call; kept."""
        lines: list[str] = self.lab.guest.run("dmesg -c", timeout=30).stdout.splitlines()
        self.kernel_log += lines
        return lines
