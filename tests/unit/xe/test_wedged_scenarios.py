"""A process that cannot leave a wedged device: the known loop of resets is told from whatever else keeps it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.sriov import defects, wedged
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import KnownDefect

BEFORE = "xe 0000:01:00.0: [drm] GT0: trying reset from guc_exec_queue_timedout_job [xe]\n"
WEDGED = "xe 0000:01:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:01:00.0 as wedged.\n"


def looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, log: str, added: str) -> None:
    """Look at a guest whose log is this, and in which that comes while it is looked at; its commands are run by a shell of the host."""
    (tmp_path / "log").write_text(log)
    (tmp_path / "added").write_text(added)
    for name, does in (("dmesg", "cat"), ("sleep", "true; cat added >> log; true")):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{does} {'log' if name == 'dmesg' else ''}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = create_autospec(SriovMachine, instance=True)
    machine.run.side_effect = lambda command: subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False
    )
    wedged._known_loop(run, machine)


def played() -> Run:
    return Run(create_autospec(KernelLog, instance=True))


def test_resets_that_are_asked_for_without_end_have_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played()
    with pytest.raises(KnownDefect) as known:
        looked_at(tmp_path, monkeypatch, run, BEFORE + WEDGED + BEFORE * 5, BEFORE * 10)
    assert known.value.defect == defects.WEDGED_LOOP
    assert "asked for 15 resets" in known.value.evidence
    assert [(excuse.kind, excuse.place) for excuse in run.excuses] == [(Kind.HUNG_TASK, "dma_fence_wait_timeout")]


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
