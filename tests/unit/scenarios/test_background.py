"""A command in the background: whether it has ended, how, and what it said. The shell is this machine's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from tests.support.local_shell import LocalShell
from vfio_user_xe.device_models.xe.scenarios import background, patience
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.emulator.guest.errors import CommandFailed
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.machine import Card, Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(background, "FOLDER", str(tmp_path))
    yield Machine(LocalShell(), create_autospec(Card, instance=True))
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


@pytest.fixture
def sleepers(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> dict[str, s.Sleeper]:
    """The tasks that sleep uninterruptibly, as the test wants them; nothing is waited for longer than a moment."""
    found: dict[str, s.Sleeper] = {}
    monkeypatch.setattr(s, "sleeping_tasks", lambda _machine: dict(found))
    monkeypatch.setattr(background, "Patience", partial(patience.Patience, seconds=0.0))
    return found


def test_a_command_that_is_at_work_for_long_is_not_late(machine: Machine, sleepers: dict[str, s.Sleeper]) -> None:
    started = Background(machine, "sleep 3")
    assert started.standing(1) is None
    assert started.code() == 0


def test_a_command_that_is_not_woken_is_held_up(
    machine: Machine, sleepers: dict[str, s.Sleeper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleepers["sh (7)"] = s.Sleeper(7, "3 1", "[<0>] waits+0x1/0x2")
    started = Background(machine, f"until test -e {tmp_path}/go; do sleep 0.1; done")
    run = Run(create_autospec(KernelLog, instance=True))
    monkeypatch.setattr(background, "PATIENCE", 1)
    with pytest.raises(Failed, match="still there"):
        started.must_end(run, "still there")
    assert run.facts["stacks of blocked tasks"] == {"sh (7)": "[<0>] waits+0x1/0x2"}
