"""What the scenarios of SR-IOV's life are written with."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.setups import USUAL
from vfio_user_xe.device_models.xe.scenarios.steps import STUCK_SECONDS, blocked_tasks, unnoticed_reset, while_served
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup

Body: TypeAlias = Callable[[Run, SriovMachine], None]

SCENARIOS: list[Scenario[SriovMachine]] = []


def scenario(
    number: str,
    title: str,
    expected: str,
    setup: Setup[SriovMachine] = USUAL,
    *,
    control: bool = False,
    groups: tuple[str, ...] = (),
    restore: bool = True,
) -> Callable[[Body], Body]:
    """Register the function below as the scenario of its name.

    It begins without VFs, and with `restore` they are gone and VRAM is accounted for when it has ended.
    """

    def register(function: Body) -> Body:
        served = while_served(function)
        body = _restored(served) if restore else _given_up(served)
        name = function.__name__.replace("_", "-")
        SCENARIOS.append(Scenario(number, name, title, expected, setup, body, control, groups))
        return function

    return register


def _given_up(function: Body) -> Body:
    """Where nothing is restored, a scenario that does not pass leaves a guest that is of no use to others."""

    @functools.wraps(function)
    def body(run: Run, machine: SriovMachine) -> None:
        try:
            function(run, machine)
        except BaseException:
            run.give_up("the scenario did not come to its end")
            raise

    return body


def _restored(function: Body) -> Body:
    @functools.wraps(function)
    def body(run: Run, machine: SriovMachine) -> None:
        before = machine.card.vram_used()
        try:
            function(run, machine)
        except BaseException:
            if not run.given_up:
                machine.as_before(run)
            raise
        if run.given_up:
            return
        machine.as_before(run)
        if not run.given_up:
            left = machine.provisioned()
            run.check(not left, f"LMTT still gives VFs memory: {left}")
            # What the kernel frees by work queues is free a moment later.
            back = machine.wait(lambda: machine.card.vram_used() <= before, 5)
            after = run.fact("VRAM in use", {"before": before, "afterwards": machine.card.vram_used()})
            if not back:
                run.give_up("VRAM is lost")
            run.check(back, f"VRAM in use: {after}")

    return body


def note(run: Run, step: Step) -> None:
    """Write a program's step down."""
    run.note(str(step), step.seconds, step.ok, step.ago)


@contextlib.contextmanager
def program(run: Run, machine: SriovMachine) -> Iterator[Program]:
    """A process of the guest program that is gone afterwards, or the guest is given up."""
    made = machine.start(lambda step: note(run, step))
    try:
        yield made
    finally:
        if not made.end(timeout=10):
            run.give_up(f"process {made.pid} of the guest cannot be killed")


@contextlib.contextmanager
def busy(run: Run, machine: SriovMachine, *functions: str) -> Iterator[Program]:
    """A process that has jobs on all engines of these functions, until it is told to stop or dies."""
    with program(run, machine) as made:
        for index, address in enumerate(functions):
            made.do(f"gpu g{index} {address}", f"spawn work{index} busy g{index}")
        made.step("sleep 200")
        yield made


def work(run: Run, machine: SriovMachine, *functions: str) -> dict[str, int]:
    """Jobs on every engine of these functions, one after the other; how many GTs each has.

    Raises:
        StepFailed: a job fails, or its result is wrong.
    """
    gts = {}
    with program(run, machine) as made:
        for address in functions:
            *_, done, _ = made.do(f"gpu g {address}", "engines g 2", "close g", timeout=120)
            gts[address] = done.number("gts")
    return gts


def must_end(
    run: Run, machine: SriovMachine, command: str, seconds: float, what: str, most_turns: int | None = None
) -> Background:
    """Run a command that has to end in time; where it does not, the guest is given up, with what blocks it."""
    with run.step(command):
        background = Background(machine, command)
        if background.standing(seconds, most_turns) is None:
            return background
    stuck(run, machine, f"{what} does not end within {seconds:g} s")
    return background


def stuck(run: Run, machine: SriovMachine, what: str) -> None:
    """Fail, or name the defect, by where the guest's tasks are blocked."""
    run.give_up("a task of the guest blocks for ever")
    stacks = run.evidence("stacks of blocked tasks", blocked_tasks(machine))
    if _any(stacks, defects.DEADLOCKED):
        run.known(defects.REMOVAL_DEADLOCK, f"{what}: sriov_disable waits for the lock that remove_store holds")
    if _any(stacks, defects.NUMVFS_WAITS) and _any(stacks, defects.REMOVAL_WAITS):
        run.known(defects.NUMVFS_DEADLOCK, f"{what}: each of sriov_numvfs_store and remove_store has the other's lock")
    run.check(False, what)


def _any(stacks: Mapping[str, str], waits: str) -> bool:
    """Whether one of the tasks waits there: its own stack begins so."""
    return any(re.match(waits, stack) for stack in stacks.values())


def lost_reset(run: Run, machine: SriovMachine, number: int) -> str:
    """Whether VF `number` is not served because xe took no notice of a reset; in words, empty: for another reason.

    It is reset once more, which mends it.
    """
    noticed = unnoticed_reset(run, number)
    reset(machine, number)
    served = machine.card.served(number, STUCK_SECONDS)
    if not noticed or not served:
        return ""
    return f"xe: FLR is already in progress; after one more reset VF {number} is served"


def reset(machine: SriovMachine, number: int) -> None:
    """A function level reset of VF `number` that the kernel's drivers do not know of.

    Raises:
        GuestError: the guest does not answer.
    """
    machine.sh(f"setpci -s {machine.card.vf(number)} CAP_EXP+8.w=8000:8000")


def refused(machine: SriovMachine, value: object, file: str) -> bool:
    """Whether writing to a file fails.

    Raises:
        GuestError: the guest does not answer.
    """
    return machine.run(f"echo {value} > {file}", timeout=120).returncode != 0
