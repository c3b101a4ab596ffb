"""What xe calls late is no defect of a kernel on a host that is busy, and one on a host that is not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import DMABUF, lateness
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV
from vfio_user_xe.emulator.kernel_reports import parse, reports
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.scenario import Suite

LATE = "xe 0000:01:00.0: [drm] *ERROR* GT0: TLB invalidation fence timeout, seqno=66 recv=65"
WARNING = "WARNING: CPU: 0 PID: 7 at drivers/made/up.c:1 made_up+0x1/0x2"


def excuses(monkeypatch: pytest.MonkeyPatch, turns: Sequence[float], *lines: str) -> list[Excuse]:
    """What is excused of these lines on a machine whose turns take so many seconds, one after the other."""
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, seconds) for seconds in turns))
    monkeypatch.setattr(lateness.time, "monotonic", lambda: next(clock))
    return lateness.lately(xe_machine(), reports([one for line in lines for one in parse(line)]))


def test_late_answers_are_excused_each_once_when_one_turn_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    (excuse,) = excuses(monkeypatch, (0.1, 2.5), LATE, WARNING, LATE)
    assert (excuse.message, excuse.count) == (lateness.LATE, 2)
    assert "took 2.5 s" in excuse.reason


def test_late_answers_count_where_every_turn_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert excuses(monkeypatch, (0.1, 0.2, 0.1, 0.3), LATE) == []


def test_nothing_else_is_excused_nor_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert excuses(monkeypatch, (), WARNING) == []


@pytest.mark.parametrize("suite", [DMABUF, SRIOV], ids=lambda suite: suite.name)
def test_both_suites_ask_whether_the_host_is_busy_and_leave_a_device_without_firmware(suite: Suite[Machine]) -> None:
    assert suite.late is lateness.lately
    assert re.search(suite.fatal, "xe 0000:01:00.0: [drm] *ERROR* GT1: resume failed (-ETIMEDOUT)")
