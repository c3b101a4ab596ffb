"""How runs of suites end, and which folders they refuse."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli import main
from vfio_user_xe.emulator.cli import suite as cli
from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.results.journal import NotKept
from vfio_user_xe.emulator.suites.report import append_result
from vfio_user_xe.emulator.suites.subtest import SubtestResult
from vfio_user_xe.emulator.suites.userland import runner


def test_a_run_that_is_interrupted_writes_what_came_out_and_ends_as_a_shell_counts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(run: runner.UserlandRun, report: runner.Report) -> None:
        append_result(run.output / "results.jsonl", SubtestResult("clinfo", "", Outcome.PASS))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_userland", create_autospec(runner.run_userland, side_effect=interrupted))
    file = tmp_path / "junit.xml"
    arguments = ["run", "programs", "--output", str(tmp_path / "results"), "--junit", str(file)]
    done = CliRunner().invoke(cli.app, arguments)
    assert (done.exit_code, "go on with --resume" in done.stderr) == (130, True)
    assert 'name="clinfo"' in file.read_text()


@pytest.mark.parametrize("command", [["suite", "run", "programs"], ["igt", "run", "--igt", "."]], ids=["suite", "igt"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_run(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main.app, [*command, "--output", str(tmp_path / "file")])
    assert (done.exit_code, done.stderr) == (2, f"vfio-user-xe: --output {tmp_path / 'file'}: File exists\n")


@pytest.mark.parametrize(
    "command", [["suite", "run", "programs"], ["igt", "run", "--igt", "."], ["scenario", "run", "1"]]
)
def test_a_folder_into_which_another_run_writes_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    kept = tmp_path / "results.jsonl"
    kept.write_text("another's\n")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = CliRunner().invoke(main.app, [*command, "--output", str(tmp_path)])
    finally:
        os.close(descriptor)
    assert done.exit_code == 2
    assert "another run writes its results there" in done.stderr
    assert kept.read_text() == "another's\n"


def test_a_full_disk_ends_a_run_with_the_results_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(run: runner.UserlandRun, report: runner.Report) -> None:
        append_result(run.output / "results.jsonl", SubtestResult("clinfo", "", Outcome.PASS))
        raise NotKept(run.output / "results.jsonl", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(cli, "run_userland", create_autospec(runner.run_userland, side_effect=full))
    file = tmp_path / "junit.xml"
    done = CliRunner().invoke(cli.app, ["run", "programs", "--output", str(tmp_path / "out"), "--junit", str(file)])
    assert done.exit_code == 1
    assert "results cannot be kept: No space left on device" in done.stderr
    assert 'name="clinfo"' in file.read_text()
