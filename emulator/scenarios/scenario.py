"""What a scenario is, and what a suite of them brings with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.results import Case, Evidence
from vfio_user_xe.emulator.results.text import order
from vfio_user_xe.emulator.scenarios.run import Run


@dataclass(frozen=True)
class Setup:
    """A machine that scenarios share: they run in one guest, one after the other, as long as it is healthy.

    `serve` are arguments of `vfio-user-xe serve`, `machine` keyword arguments of `vfio_user_xe.emulator.testing.lab.open_lab`. `prepare(lab)`
    is called in the booted guest; what it returns is handed to each scenario. A failure in it fails the scenario.
    """

    name: str
    serve: tuple[str, ...]
    machine: Mapping[str, Any]
    prepare: Callable[[Any], Any]


Body = Callable[[Run, Any], None]


@dataclass(frozen=True)
class Scenario:
    """`run(run, prepared)` raises `Failed`, `KnownDefect` or `NotApplicable`, or returns: it passed.

    `number` is the entry of the suite's list that it belongs to ("17", with a letter for its variants); `expected` says
    what a correct kernel does. A `control` injects a fault and passes only if the verdict it is about turns red.
    `groups` are names by which it is run together with others.
    """

    number: str
    name: str
    title: str
    expected: str
    setup: Setup
    run: Body
    control: bool = False
    groups: tuple[str, ...] = ()

    def described(self, suite: str) -> Case:
        """The scenario as results name it, in the suite of that name."""
        return Case(
            suite=f"scenarios: {suite}",
            group=f"scenarios.{suite}",
            name=self.name,
            title=self.title,
            rule=self.expected,
            number=self.number,
        )

    @property
    def order(self) -> tuple[int, str]:
        """To sort by number: controls, whose numbers begin with a letter, come last."""
        return order(self.number)


@dataclass(frozen=True)
class Suite:
    """Scenarios, the defects that they know by name, files that they want in the guest, and accounts that are kept."""

    name: str
    scenarios: Sequence[Scenario]
    defects: Mapping[str, str]
    files: Callable[[Environment], Mapping[str, Path]] = lambda environment: {}
    account: Callable[[Any], Mapping[str, int]] = lambda prepared: {}
    """Bytes in use by name, asked before and after each scenario of a guest that is in good health; not judged."""
    reports: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions by defect: what the kernel itself says of it, from the line that begins a report on."""
    fatal: str = ""
    """A pattern of lines in the kernel's log after which a guest is of no use to others; empty: there is none."""
    records: Sequence[str] = ()
    """Commands of the card, besides those that every card has, whose answers are kept with each result."""
    exhibits: Callable[[Mapping[str, Any]], Sequence[Evidence]] = lambda records: ()
    """What a report shows of `Run.records`, besides the ledger: whatever needs the words of this device."""
