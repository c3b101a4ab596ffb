"""What a scenario is, and what a suite of them brings with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeAlias

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.settings import USUAL_MEMORY, Beside, GuestSettings
from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind
from vfio_user_xe.emulator.results import Case, Evidence
from vfio_user_xe.emulator.results.text import order
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.exploration.world import Player, World
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.machine import Booted, MachineT
from vfio_user_xe.emulator.scenarios.records import Records
from vfio_user_xe.emulator.scenarios.run import Run

SETUP = "up"
"""The number of set-ups among the results."""
_OF = "scenarios: "
"""Begins the name of a suite of scenarios among other suites of tests."""

Body: TypeAlias = Callable[[Run, MachineT], None]


def suite_of(case: Case) -> str:
    """The suite of scenarios that a result's case belongs to; empty: it is no scenario's."""
    return case.suite.removeprefix(_OF) if case.suite.startswith(_OF) else ""


@dataclass(frozen=True)
class Setup(Generic[MachineT]):
    """A machine that scenarios share: they run in one guest, one after the other, as long as it is healthy.

    `serve` are arguments of `vfio-user-xe serve`, `others` those of further cards, `guest` what the guest is told.
    `prepare(lab)` is called when it has booted, and makes what each scenario is handed. A failure in it fails the scenario.
    """

    name: str
    serve: tuple[str, ...]
    guest: GuestSettings
    prepare: Callable[[Booted], MachineT]
    others: tuple[tuple[str, ...], ...] = ()
    beside: tuple[Beside, ...] = ()
    """Further guests of the card. Their kernels' logs are the scenarios' own to judge."""
    excuses: tuple[Excuse, ...] = ()
    """Reports of the kernel that booting and preparing may cause."""

    @property
    def memory(self) -> tuple[int, ...]:
        """MiB of each of its guests."""
        return tuple(settings.get("memory", USUAL_MEMORY) for settings in (self.guest, *(b.guest for b in self.beside)))

    @property
    def slug(self) -> str:
        """Its name as part of another."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def described(self, suite: str) -> Case:
        """The set-up as results name it: its log, from the boot on, is judged like a scenario's."""
        return Case(
            suite=f"{_OF}{suite}",
            group=f"scenarios.{suite}",
            name=f"setup-{self.slug}",
            title=f"set-up: {self.name}",
            rule="boots and is prepared; the kernel reports nothing of itself",
            number=SETUP,
        )


@dataclass(frozen=True)
class Scenario(Generic[MachineT]):
    """`run(run, machine)` raises `Failed`, `KnownDefect` or `NotApplicable`, or returns: it passed.

    `number` is the entry of the suite's list that it belongs to ("17", with a letter for its variants); `expected` says
    what a correct kernel does. A `control` injects a fault and passes only if the verdict it is about turns red.
    `groups` are names by which it is run together with others.
    """

    number: str
    name: str
    title: str
    expected: str
    setup: Setup[MachineT]
    run: Body[MachineT]
    control: bool = False
    groups: tuple[str, ...] = ()
    must_report: Kind | None = None
    """The scenario makes the kernel report itself: it passes only if it was judged red for a report of this kind."""
    must_fail_with: str = ""
    """The scenario provokes a failure of another sort: it passes only if it was judged red, with this in the reason."""

    def described(self, suite: str) -> Case:
        """The scenario as results name it, in the suite of that name."""
        return Case(
            suite=f"{_OF}{suite}",
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
class Exploration(Generic[MachineT]):
    """A model of what is allowed on a suite's machine, and who plays the sequences that are made from it."""

    setup: Setup[MachineT]
    world: Callable[[], World]
    player: Callable[[Run, MachineT], Player]


@dataclass(frozen=True)
class Suite(Generic[MachineT]):
    """Scenarios, the defects that they know by name, files that they want in the guest, and accounts that are kept."""

    name: str
    scenarios: Sequence[Scenario[MachineT]]
    defects: Mapping[str, str]
    files: Callable[[Environment], Mapping[str, Path]] = lambda environment: {}
    account: Callable[[MachineT], Mapping[str, int]] = lambda machine: {}
    """Bytes in use by name, asked before and after each scenario of a guest that is in good health; not judged."""
    reports: Mapping[str, str] = field(default_factory=dict)
    """Regular expressions by defect: what the kernel itself says of it, from the line that begins a report on."""
    reports_only_in: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By defect, the names of the only scenarios in which `reports` may say it: elsewhere, and in set-ups, such a report fails."""
    late: Callable[[MachineT, Sequence[KernelReport]], Sequence[Excuse]] = lambda machine, reports: ()
    """Excuses for reports that nothing excuses yet: those that say that a limit of time has passed, of a machine found to be busy."""
    fatal: str = ""
    """A pattern of lines in the kernel's log after which a guest is of no use to others; empty: there is none."""
    records: Sequence[str] = ()
    """Commands of the card, besides those that every card has, whose answers are kept with each result."""
    findings: Sequence[Finding] = ()
    """Its defects as `scenario findings` shows them: their fixes, and which scenarios see them."""
    exhibits: Callable[[Records], Sequence[Evidence]] = lambda records: ()
    """What a report shows of the records, besides the ledger: whatever needs the words of this device."""
    exploration: Exploration[MachineT] | None = None
    """A model from which sequences are made (`vfio-user-xe scenario explore`)."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Seconds that scenarios took in a recorded run, by name: shards are balanced by them."""

    def known_in(self, name: str) -> Mapping[str, str]:
        """The part of `reports` that holds for the case of this name: a scenario, or a set-up."""
        only = self.reports_only_in
        return {defect: text for defect, text in self.reports.items() if defect not in only or name in only[defect]}
