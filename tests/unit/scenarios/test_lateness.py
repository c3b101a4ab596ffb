"""A suite can excuse what a busy host explains, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.support.scenario_plays import Labs, Tried, logs, passes, run_suite, scenario
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind
from vfio_user_xe.emulator.results import Verdict
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.scenario import Suite

LATE = "made up 0000:01:00.0: [drm] *ERROR* the answer did not come in time"
WARNING = "WARNING: CPU: 0 PID: 7 at drivers/made/up.c:1 made_up+0x1/0x2"


def judged(labs: Labs, late: Callable[[Tried, Sequence[KernelReport]], list[Excuse]]) -> tuple[Verdict, str]:
    suite = Suite("tried", (scenario("1", logs(LATE, WARNING)), scenario("2", passes)), {}, late=late)
    first, second = run_suite(suite)
    assert second.verdict is Verdict.PASS, "what excuses one scenario is not asked for another that has no report"
    return first.verdict, first.reason


def test_a_suite_s_excuses_for_late_answers_cover_these_alone(labs: Labs) -> None:
    asked = []

    def late(machine: Tried, left: Sequence[KernelReport]) -> list[Excuse]:
        asked.append([str(report) for report in left])
        return [Excuse(Kind.DRM, "the host is busy", message="in time")]

    assert judged(labs, late) == (Verdict.FAIL, f"the kernel reported: {WARNING}")
    assert len(asked) == 1


@pytest.mark.parametrize("error", [GuestError("it does not answer"), CommandError("no"), OSError("gone")])
def test_a_machine_that_cannot_be_measured_excuses_nothing_and_is_judged(labs: Labs, error: Exception) -> None:
    def late(machine: Tried, left: Sequence[KernelReport]) -> list[Excuse]:
        raise error

    assert judged(labs, late) == (Verdict.FAIL, f"the kernel reported: {LATE}")
