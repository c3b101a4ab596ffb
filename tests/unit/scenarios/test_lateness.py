"""A suite can excuse what a busy host explains, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.support.scenario_plays import Labs, Tried, all_results, logs, passes, run_suite, scenario
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind
from vfio_user_xe.emulator.results import Fact, Result, Verdict
from vfio_user_xe.emulator.results.text import evidence
from vfio_user_xe.emulator.scenarios.evidence import EXCUSED_LATE
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Suite

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


def busy(machine: Tried, left: Sequence[KernelReport]) -> list[Excuse]:
    return [Excuse(Kind.DRM, "the host is busy: 2.5 s", message="in time"), Excuse(Kind.DRM, "another", message="none")]


def shown(result: Result) -> list[object]:
    return [one.value for one in result.evidence if isinstance(one, Fact) and one.name == EXCUSED_LATE]


def test_a_pass_with_a_late_answer_shows_the_excuse_and_a_clean_one_does_not(labs: Labs) -> None:
    suite = Suite("tried", (scenario("1", logs(LATE)), scenario("2", passes)), {}, late=busy)
    first, second = run_suite(suite)
    assert (first.verdict, second.verdict) == (Verdict.PASS, Verdict.PASS)
    (said,) = shown(first)
    assert "2.5 s" in str(said)
    assert "another" not in str(said), "only what was used"
    assert shown(second) == []
    assert "2.5 s" in evidence(first)


@pytest.mark.parametrize(("line", "verdict"), [(LATE, Verdict.PASS), (WARNING, Verdict.FAIL)])
def test_set_ups_are_judged_with_the_same_measure(labs: Labs, line: str, verdict: Verdict) -> None:
    labs.prepared = [line]
    results = all_results(Suite("tried", (scenario("1", passes),), {}, late=busy))
    (up,) = (result for result in results if result.case.number == SETUP)
    assert up.verdict is verdict
    assert bool(shown(up)) is (line == LATE)
