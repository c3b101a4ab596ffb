"""A command in the background: whether it has ended, how, and what it said. The shell is this machine's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios import background
from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import CommandFailed
from vfio_user_xe.emulator.scenarios.machine import Machine, Shell


class Local:
    """A shell's commands, run here."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout, check=False)
        result = Result(done.returncode, done.stdout, done.stderr.decode(), 0.0)
        return result.check(command) if check else result


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(background, "FOLDER", str(tmp_path))
    yield Machine(Local(), create_autospec(Shell, instance=True))
    (tmp_path / "go").touch()


def test_a_command_that_ended_has_a_code_and_an_output(machine: Machine) -> None:
    started = Background(machine, "echo said; exit 3")
    assert started.ended(30)
    assert started.code() == 3
    assert started.output() == "said"


def test_a_command_that_waits_has_not_ended_and_has_no_code(machine: Machine, tmp_path: Path) -> None:
    started = Background(machine, f"until test -e {tmp_path}/go; do sleep 0.1; done")
    assert not started.ended(1)
    with pytest.raises(CommandFailed):
        started.code()
    (tmp_path / "go").touch()
    assert started.ended(30)
    assert started.code() == 0


def test_two_commands_are_told_apart(machine: Machine) -> None:
    first, second = Background(machine, "exit 1"), Background(machine, "exit 2")
    assert first.ended(30)
    assert second.ended(30)
    assert (first.code(), second.code()) == (1, 2)
