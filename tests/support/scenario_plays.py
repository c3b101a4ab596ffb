"""A scenario runner without guests: shells, cards and labs that are played, and scenarios in a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import NonCallableMock

from tests.support.played_kernel import PlayedKernel
from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.emulator.guest.errors import BootFailed, KernelLacks
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.settings import Beside
from vfio_user_xe.emulator.results import Result
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Scenario, Setup, Suite
from vfio_user_xe.emulator.testing.lab import Lab

VRAM_MAP = {"size": 1 << 30, "vfs": {"vf1": [{"gdpa": 0, "dpa": 1 << 29, "size": 2 << 20}]}}


class Guest(PlayedKernel):
    """A shell, and the log of its kernel, which its console shows."""

    def __init__(self) -> None:
        super().__init__(priority=4)
        self.answers: dict[str, str] = {}
        """What commands that contain a word write."""

    def answer(self, command: str) -> str:
        return next((answer for word, answer in self.answers.items() if word in command), "")

    def console_tail(self, lines: int) -> str:
        return "\n".join(line for _, line in self.records[-lines:])


class Card:
    def call(self, command: str, **arguments: Any) -> Any:
        return {
            "help": [{"command": "vram_map"}],
            "vram_map": VRAM_MAP,
            "ledger": [],
            "ownership": {"changes": [], "resets": []},
            "verdicts": {"paths": [], "stale": [], "foreign": []},
        }.get(command)


class Labs:
    """Stands for `open_lab`: what was booted, and what is running."""

    def __init__(self) -> None:
        self.booted: list[str] = []
        self.beside: list[list[Beside]] = []
        """By boot, the further guests that were asked for."""
        self.running = 0
        self.fail = False
        self.lacking = ""
        """What the kernel is built without, so that no guest can be begun."""
        self.healthy = True
        self.prepared: list[str] = []
        """What kernels log while they boot."""
        self.guests: list[Guest] = []

    @contextlib.contextmanager
    def open(self, serve: Any, **machine: Any) -> Iterator[Any]:
        self.booted.append(machine["append"])
        self.beside.append(machine["beside"])
        if self.lacking:
            raise KernelLacks(f"bzImage: it is built without {self.lacking}")
        if self.fail:
            raise BootFailed("the guest did not boot")
        self.running += 1
        guest = Guest()
        guest.say(*self.prepared)
        self.guests.append(guest)
        lab = NonCallableMock(spec=Lab, guest=guest, card=Card(), others=[])
        lab.usable.side_effect = lambda: self.healthy and not guest.dead
        try:
            yield lab
        finally:
            self.running -= 1


class Tried(Machine):
    """The machine of a setup, which says whose it is."""

    shell: Guest

    def __init__(self, shell: Guest, card: Any, others: Any, setup: str = "") -> None:
        super().__init__(shell, card, others)
        self.setup = setup
        shell.answers["uname -r"] = "7.3.4"


def setup(name: str) -> Setup[Tried]:
    return Setup(
        name, (), {"append": name}, lambda booted: Tried(cast(Guest, booted.guest), booted.card, booted.others, name)
    )


FIRST, SECOND = setup("first"), setup("second")


def scenario(number: str, body: Any, where: Setup[Tried] = FIRST) -> Scenario[Tried]:
    return Scenario(number, f"scenario-{number}", f"title of {number}", "it works", where, body)


def run_all(labs: Labs, *scenarios: Scenario[Tried], **options: Any) -> list[Result]:
    suite = Suite(
        "tried",
        scenarios,
        {"known-one": "a defect"},
        reports={"known-one": r"(?s)circular.*of_known_one"},
        records=RECORDS,
        exhibits=exhibits,
    )
    results = run_suite(suite, **options)
    assert labs.running == 0, "a guest was left"
    return results


def run_suite(suite: Suite[Tried], **options: Any) -> list[Result]:
    """The scenarios' results: the set-ups' are apart (`setups_of`)."""
    return [result for result in all_results(suite, **options) if result.case.number != SETUP]


def all_results(suite: Suite[Tried], **options: Any) -> list[Result]:
    return Runner(suite, {}, kernel=Kernel(Path("bzImage"), None)).run(suite.scenarios, **options)


def passes(run: Run, machine: Tried) -> None:
    with run.step("a step"):
        run.note("inside", good=True)


def fails(run: Run, machine: Tried) -> None:
    run.check([], "one is not two")


def logs(*lines: str) -> Any:
    def body(run: Run, machine: Tried) -> None:
        machine.shell.say(*lines)

    return body
