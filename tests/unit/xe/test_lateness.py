"""What xe calls late is no defect of a kernel on a host that is busy, and one on a host that is not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import DMABUF, lateness
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV
from vfio_user_xe.device_models.xe.scenarios.vm import VM
from vfio_user_xe.emulator.kernel_reports import parse, reports
from vfio_user_xe.emulator.scenarios.excuses import Excuse, unexcused
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.scenario import Suite

LATE = "xe 0000:01:00.0: [drm] *ERROR* GT0: TLB invalidation fence timeout, seqno=66 recv=65"
WARNING = "WARNING: CPU: 0 PID: 7 at drivers/made/up.c:1 made_up+0x1/0x2"
NONE: dict[str, list[int]] = {"answered": [], "open": []}


UNNAMED = LATE.replace("GT0: ", "")


def excuses(
    monkeypatch: pytest.MonkeyPatch,
    turns: Sequence[float],
    *lines: str,
    answered: Sequence[int] = (66,),
    still_open: Sequence[int] = (),
) -> list[Excuse]:
    """What is excused of these lines on a machine whose turns take so many seconds, one after the other.

    The card says that it has answered these of the PF's first GT, and on the second has not answered those of `still_open`.
    """
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, seconds) for seconds in turns))
    monkeypatch.setattr(lateness.time, "monotonic", lambda: next(clock))
    machine = xe_machine()
    numbers = [{"answered": answered, "open": []}, {"answered": [], "open": still_open}]
    gucs = [
        {
            "gt": gt,
            "clients": [{"function": "pf", "tlb_invalidations": one}, {"function": "vf1", "tlb_invalidations": NONE}],
        }
        for gt, one in enumerate(numbers)
    ]
    machine.card.call.side_effect = lambda command: gucs if command == "guc" else {}  # type: ignore[attr-defined]
    machine.others = ()
    return lateness.lately(machine, reports([one for line in lines for one in parse(line)]))


def late(seqno: int, recv: int, text: str = LATE) -> str:
    return text.replace("seqno=66 recv=65", f"seqno={seqno} recv={recv}")


def test_late_answers_that_came_are_excused_each_once_when_one_turn_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = LATE, WARNING, late(68, 65)
    found = excuses(monkeypatch, (0.1, 2.5), *lines, answered=(66, 67, 68))
    assert all("took 2.5 s" in excuse.reason for excuse in found)
    rest, unneeded = unexcused(reports([one for line in (*lines, LATE) for one in parse(line)]), found)
    assert [str(report) for report in rest] == [WARNING, LATE]
    assert unneeded == []


def test_an_answer_that_never_came_is_not_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert excuses(monkeypatch, (2.5,), LATE, answered=()) == []
    assert excuses(monkeypatch, (2.5,), LATE.replace("01:00.0", "01:00.1")) == [], "the PF's answers are no VF's"
    assert excuses(monkeypatch, (2.5,), LATE.replace("GT0", "GT1")) == []


def test_a_later_report_says_that_the_answer_came(monkeypatch: pytest.MonkeyPatch) -> None:
    (excuse,) = excuses(monkeypatch, (2.5,), LATE, late(70, 66), answered=())
    assert "seqno=66" in excuse.message
    assert excuses(monkeypatch, (2.5,), LATE, late(70, 65), answered=()) == []
    (excuse,) = excuses(monkeypatch, (2.5,), late((1 << 20) - 1, 5), late(9, 3), answered=())
    assert "recv=5" in excuse.message, "numbers begin again"


def test_where_no_gt_is_named_every_gt_must_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(excuses(monkeypatch, (2.5,), UNNAMED)) == 1
    assert excuses(monkeypatch, (2.5,), UNNAMED, still_open=(66,)) == []
    assert excuses(monkeypatch, (2.5,), UNNAMED, late(70, 66, UNNAMED), answered=()) == []


def test_a_kernel_that_loses_every_answer_is_not_excused_on_a_busy_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [late(seqno, 65) for seqno in range(66, 266)]
    assert excuses(monkeypatch, (2.5,), *lines, answered=()) == []
    found = excuses(monkeypatch, (2.5,), *lines, answered=range(66, 266))
    assert len(found) == lateness.MOST
    rest, _ = unexcused(reports([one for line in lines for one in parse(line)]), found)
    assert len(rest) == 200 - lateness.MOST


def test_late_answers_count_where_every_turn_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert excuses(monkeypatch, (0.1, 0.2, 0.1, 0.3), LATE) == []


def test_nothing_else_is_excused_nor_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert excuses(monkeypatch, (), WARNING) == []


@pytest.mark.parametrize("suite", [DMABUF, SRIOV, VM], ids=lambda suite: suite.name)
def test_suites_ask_whether_the_host_is_busy(suite: Suite[Machine]) -> None:
    assert suite.late is lateness.lately


@pytest.mark.parametrize("suite", [DMABUF, SRIOV], ids=lambda suite: suite.name)
def test_both_suites_leave_a_device_without_firmware(suite: Suite[Machine]) -> None:
    assert re.search(suite.fatal, "xe 0000:01:00.0: [drm] *ERROR* GT1: resume failed (-ETIMEDOUT)")
