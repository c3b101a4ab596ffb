"""What a revocation is that does not come back: the known defect only where the importer's end frees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import create_autospec

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import defects, revocation
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect


def run_with(monkeypatch: pytest.MonkeyPatch, *, joins: list[str]) -> Run:
    """A run in which joining a job answers so one time after the other, and everything else succeeds."""
    answers = iter(joins)

    def step(command: str, **more: object) -> Step:
        return Step(True, command, next(answers) if command.startswith("try join") else "0")

    made = create_autospec(Program, instance=True)
    made.step.side_effect = step

    @contextlib.contextmanager
    def opened(*args: object, **more: object) -> Iterator[Program]:
        yield made

    monkeypatch.setattr(revocation, "opened", opened)
    for name in ("import_and_use", "show_blocked"):
        monkeypatch.setattr(revocation, name, lambda *args: None)
    return Run(create_autospec(KernelLog, instance=True))


def test_what_the_end_of_the_import_frees_is_the_known_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(monkeypatch, joins=["ETIME", "ETIME", "0"])
    with pytest.raises(KnownDefect) as met:
        revocation.does_not_wait(run, xe_machine(), "reset v", use=lambda *args: None)
    assert met.value.defect == defects.REVOCATION_WAITS


def test_what_blocks_on_when_the_import_is_gone_is_not_known_and_costs_the_guest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_with(monkeypatch, joins=3 * ["ETIME"])
    with pytest.raises(Failed, match="nothing frees it"):
        revocation.does_not_wait(run, xe_machine(), "reset v", use=lambda *args: None)
    assert run.given_up


@pytest.mark.parametrize("joins", [4 * ["ETIME"], ["ETIME", "ETIME", "0", "ETIME"]])
def test_two_resets_of_which_one_is_never_freed_are_not_known(
    monkeypatch: pytest.MonkeyPatch, joins: list[str]
) -> None:
    run = run_with(monkeypatch, joins=joins)
    with pytest.raises(Failed, match="nothing frees it"):
        revocation.second_reset(run, xe_machine())
