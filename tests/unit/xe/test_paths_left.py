"""Scenarios 36h and 36i: what a command is that takes a VF away from who has nothing of it but an O_PATH descriptor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import Mock, create_autospec

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import defects, files
from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

UNREGISTERS = "[<0>] wait_for_completion_interruptible_timeout+0x1/0x2\n[<0>] vfio_unregister_group_dev+0x1/0x2 [vfio]"
LOCK = "[<0>] __mutex_lock+0x1/0x2\n[<0>] sriov_numvfs_store+0x1/0x2"


class Guest:
    """Two commands that are started, one after the other, and a process that closes what it has."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, seconds: float, stack: str, code: int = 0, control: int = 0
    ) -> None:
        """The second command takes so many seconds; for ever: until the O_PATH descriptor is closed, sleeping in `stack`."""
        self.machine = xe_machine()
        self.run = Run(create_autospec(KernelLog, instance=True))
        self.started: list[str] = []
        self._clock = 0.0
        self._seconds, self._stack, self._codes = seconds, stack, (control, code)
        self._closed = False
        monkeypatch.setattr(files, "opened", self._opened)
        monkeypatch.setattr(files, "Background", self._background)
        monkeypatch.setattr(files, "Patience", lambda machine: Patience(self.machine, seconds=0))
        monkeypatch.setattr(Patience, "turn", lambda patience: None)

    @contextlib.contextmanager
    def _opened(self, run: Run, machine: object) -> Iterator[Program]:
        made = create_autospec(Program, instance=True)
        made.step.side_effect = lambda command: setattr(self, "_closed", command == "close p")
        yield made

    def _background(self, machine: object, command: str) -> Background:
        self.started.append(command)
        first = len(self.started) == 1
        made: Mock = create_autospec(Background, instance=True)

        def ended(seconds: float) -> bool:
            self._clock += 0 if first else seconds
            return first or self._closed or self._clock >= self._seconds

        def must_end(run: Run, otherwise: str) -> None:
            run.check(ended(30), otherwise)

        made.ended.side_effect = ended
        made.standing.side_effect = lambda seconds, turns: None if ended(seconds + turns) else {}
        made.must_end.side_effect = must_end
        made.stack.side_effect = lambda: "" if ended(0) else self._stack
        made.code.return_value = self._codes[not first]
        made.output.return_value = "write error"
        return made  # type: ignore[no-any-return]


FOR_EVER = float("inf")


def taken_away(guest: Guest) -> str:
    """The defect that was met; empty: none."""
    try:
        files._taken_away(guest.run, guest.machine, "take it")
    except KnownDefect as known:
        return known.defect
    return ""


def test_a_command_that_waits_for_the_registration_is_the_known_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, seconds=FOR_EVER, stack=UNREGISTERS)
    assert taken_away(guest) == defects.REGISTRATION_HELD
    assert guest.started == ["take it", "take it"]


@pytest.mark.parametrize("stack", ["", LOCK, UNREGISTERS], ids=["at work", "elsewhere", "just there"])
def test_a_command_that_is_slow_passes(monkeypatch: pytest.MonkeyPatch, stack: str) -> None:
    assert taken_away(Guest(monkeypatch, seconds=12, stack=stack)) == ""


def test_a_command_that_waits_elsewhere_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Guest(monkeypatch, seconds=FOR_EVER, stack=LOCK)
    monkeypatch.setattr(files, "PATIENCE", 0)
    with pytest.raises(Failed, match=r"(?s)waits elsewhere.*sriov_numvfs_store"):
        taken_away(guest)


@pytest.mark.parametrize(("control", "code"), [(1, 0), (0, 1)])
def test_a_command_that_fails_is_a_failure_and_vfs_come_back(
    monkeypatch: pytest.MonkeyPatch, control: int, code: int
) -> None:
    guest = Guest(monkeypatch, seconds=0, stack="", code=code, control=control)
    with pytest.raises(Failed, match="take it: write error"):
        taken_away(guest)
    restored = guest.machine.restore_quotas
    assert isinstance(restored, Mock)
    assert restored.call_count == (1 if control else 2)
