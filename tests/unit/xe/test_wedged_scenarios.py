"""A process that cannot leave a wedged device: the known loop of resets is told from whatever else keeps it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.sriov import defects, wedged
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind, parse, reports
from vfio_user_xe.emulator.scenarios.excuses import unexcused
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import KnownDefect

BEFORE = "xe 0000:01:00.0: [drm] GT0: trying reset from guc_exec_queue_timedout_job [xe]\n"
WEDGED = "xe 0000:01:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:01:00.0 as wedged.\n"


HUNG = "INFO: task {}:833 blocked for more than 90 seconds.\nCall Trace:\n dma_fence_wait_timeout+0x1/0x2\n"


def timed(text: str, first: int = 0) -> str:
    """Lines as a log has them: no two have the same time."""
    return "".join(f"[{at:6}.000000] {line}" for at, line in enumerate(text.splitlines(keepends=True), first))


def looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, log: str, added: str, *, lost: bool = False
) -> None:
    """Look at a guest whose log is this, and in which that comes while it is looked at; its commands are run by a shell of the host.

    `lost`: what comes overwrites all that was there.
    """
    (tmp_path / "log").write_text(timed(log))
    (tmp_path / "added").write_text(timed(added, 1000))
    for name, does in (("dmesg", "cat"), ("sleep", f"true; cat added {'>' if lost else '>>'} log; true")):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{does} {'log' if name == 'dmesg' else ''}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = create_autospec(SriovMachine, instance=True)
    machine.run.side_effect = lambda command: subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False
    )
    wedging = wedged.Wedging(machine)
    if lost:
        assert wedging.seen()
        (tmp_path / "log").write_text(timed(BEFORE))
    wedged._known_loop(run, machine, wedging)


def played() -> Run:
    return Run(create_autospec(KernelLog, instance=True))


def test_resets_that_are_asked_for_without_end_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played()
    with pytest.raises(KnownDefect) as known:
        looked_at(tmp_path, monkeypatch, run, BEFORE + WEDGED + BEFORE * 5, BEFORE * 10)
    assert known.value.defect == defects.WEDGED_LOOP
    assert "ask for 10 resets a second" in known.value.evidence
    assert [(excuse.kind, excuse.place) for excuse in run.excuses] == [(Kind.HUNG_TASK, "dma_fence_wait_timeout")]


def test_a_loop_that_has_overwritten_what_xe_said_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KnownDefect) as known:
        looked_at(tmp_path, monkeypatch, played(), WEDGED, BEFORE * 30, lost=True)
    assert "ask for 30 resets a second" in known.value.evidence


def test_only_the_process_s_own_tasks_may_hang_and_not_without_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played()
    with pytest.raises(KnownDefect):
        looked_at(tmp_path, monkeypatch, run, WEDGED, BEFORE * 10)
    own, other = (reports(parse(HUNG.format(name))) for name in ("xe-dmabuf", "kworker/0:1"))
    assert unexcused([*own, *other], run.excuses) == (other, [])
    assert len(unexcused(own * 50, run.excuses)[0]) >= 40


@pytest.mark.parametrize(
    ("log", "added"),
    [
        (BEFORE * 40, BEFORE * 40),  # not wedged: the driver may still do it
        (BEFORE * 40 + WEDGED + BEFORE * 3, ""),  # it has ended
        (WEDGED, BEFORE),  # one more for each queue is no loop
    ],
)
def test_a_process_that_stays_for_another_reason_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, added: str
) -> None:
    run = played()
    looked_at(tmp_path, monkeypatch, run, log, added)
    assert run.excuses == []
