"""The end of a sequence of lifetimes: imports are used once more, importers let go, drivers are taken away and given back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from unittest.mock import create_autospec

import pytest

from tests.support.xe.lifetimes import IMPORTED
from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step as Answer
from vfio_user_xe.device_models.xe.scenarios.lifetimes import looking, player
from vfio_user_xe.device_models.xe.scenarios.lifetimes.exporting import REFUSED
from vfio_user_xe.device_models.xe.scenarios.lifetimes.player import LifetimesPlayer
from vfio_user_xe.device_models.xe.scenarios.lifetimes.system import Command, SystemCommands
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run


def finished(
    monkeypatch: pytest.MonkeyPatch,
    lines: Sequence[str],
    errno: str,
    refused: str = "nothing",
    *,
    reads: str = "0",
    exports: str = "",
    run: Callable[..., object] | None = None,
) -> tuple[list[Failure], list[str]]:
    """What the end of a sequence finds where every copy answers this, and the copies that were asked for at the end.

    A command that begins with the word `refused` answers EIO; reading a VF's memory answers `reads`. What cannot be exported is refused,
    but for what has `exports` in it.
    """
    machine = xe_machine()
    machine.run.return_value.stdout = "0"
    if run is not None:
        machine.run.side_effect = run
    machine.zero_copy = True
    monkeypatch.setattr(player.s, "settle", lambda *settled: None)
    for name in ("settled", "restore", "look", "left_over"):
        monkeypatch.setattr(looking.Looking, name, lambda *args, **more: [])
    asked: list[str] = []
    program = create_autospec(Program, instance=True)
    program.pid = 9

    def answer(*commands: str, **more: object) -> list[Answer]:
        asked.extend(commands)
        copies = "copy" in "".join(commands)

        def errno_of(one: str) -> str:
            if one.startswith("try export"):
                _, _, _, region, ranges, _ = one.split()
                return "0" if exports and exports in ranges else REFUSED[region, ranges][0]
            if one.startswith(f"try {refused}"):
                return "EIO"
            return errno if copies else reads if "join" in one and "clean" in "".join(commands) else "0"

        values = {"fd": "3", "device": "4", "render": "5"}
        return [Answer(True, one, errno_of(one), values=values) for one in commands]

    program.attempt.side_effect = answer
    monkeypatch.setattr(player.s, "started", lambda *started: program)
    plays = LifetimesPlayer(Run(create_autospec(KernelLog, instance=True)), machine)
    for line in lines:
        assert not plays.play(Step.of(line)), line
    asked.clear()
    return plays.finish(), [one for one in asked if one.startswith("spawn") and " copy " in one]


def test_at_the_end_an_import_whose_exporter_has_closed_must_run_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    found, copies = finished(monkeypatch, (*IMPORTED, "a release v1"), "0")
    assert [failure.defect for failure in found] == ["D7"]
    assert len(copies) == 1


def test_at_the_end_a_job_that_is_refused_after_its_exporter_has_closed_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished(monkeypatch, (*IMPORTED, "a release v1"), "ENODEV")[0] == []


def test_at_the_end_an_import_that_lives_must_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = finished(monkeypatch, IMPORTED, "ENODEV")
    assert [failure.signature for failure in found] == ["answer: job, ENODEV instead of 0"]


def test_at_the_end_nothing_that_is_unbound_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finished(monkeypatch, (*IMPORTED, "b unbind i3"), "0") == ([], [])


def test_at_the_end_the_driver_is_taken_from_vfs_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def start(system: SystemCommands, text: str, words: str) -> Command:
        started.append(words)
        command = create_autospec(Command, instance=True)
        command.text, command.said = text, "0"
        return command

    monkeypatch.setattr(SystemCommands, "start", start)
    assert finished(monkeypatch, ("guest unbind-vf v2",), "0") == ([], [])
    unbound = [words for words in started[1:] if "/driver/unbind" in words]
    assert len(unbound) == 1
    assert "0000:01:00.1/driver/unbind" in unbound[0]


def commands_of_the_system(monkeypatch: pytest.MonkeyPatch, word: str, said: str, *, waits: bool = False) -> None:
    """Commands with this word say so when they end; with `waits` they have not when they are asked first."""

    def start(system: SystemCommands, text: str, words: str) -> Command:
        command = create_autospec(Command, instance=True)
        meant = word in words
        command.text, command.said = text, said if meant else "0"
        ended = itertools.chain([False] if meant and waits else [], itertools.repeat(True))
        command.ended.side_effect = lambda seconds: next(ended)
        return command

    monkeypatch.setattr(SystemCommands, "start", start)


def test_a_driver_that_cannot_be_given_back_at_the_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    commands_of_the_system(monkeypatch, "0000:01:00.1/driver/unbind", "exit code 1: No such device")
    found, _ = finished(monkeypatch, (), "0")
    assert [failure.signature for failure in found] == ["answer: rebind-vf failed"]


def test_what_waited_for_users_until_the_end_must_succeed_and_give_all_back(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(looking.Looking, "before_taking_away", lambda looked: None)
    monkeypatch.setattr(looking.Looking, "taken_away", lambda looked: taken.append("looked at") or [])
    commands_of_the_system(monkeypatch, "sriov_numvfs", "exit code 1: Device or resource busy", waits=True)
    found, _ = finished(monkeypatch, ("a start", "a open v1", "guest disable-vfs"), "0")
    assert [failure.signature for failure in found] == ["answer: disable-vfs failed"]
    assert taken == ["looked at"]


def test_a_failure_at_the_end_after_which_the_guest_is_in_another_state_ends_the_use_of_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, copies = finished(monkeypatch, (*IMPORTED, "b loop i3"), "0", refused="stop")
    assert [failure.derails for failure in found] == [True]
    assert copies == []


def test_at_the_end_a_vf_s_memory_is_read_by_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in (("a start", "a open v1", "a fill v1 1"), ("a start", "a open v1", "a fill v1 1", "a reset v1")):
        assert finished(monkeypatch, lines, "0", refused="clean")[0] == []
    found, _ = finished(monkeypatch, ("a start", "a open v1", "a fill v1 1", "a reset v1"), "0", reads="EILSEQ")
    assert [failure.signature for failure in found] == ["answer: check, data instead of 0"]


def attachments(monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], said: str) -> list[str]:
    """What the end of a sequence finds where debugfs says so of attachments once importers have let go."""
    plain = xe_machine().run

    def run(script: str, **more: object) -> object:
        answer = plain.return_value
        answer.stdout = said if "devices attached" in script else "0"
        return answer

    monkeypatch.setattr(looking.Patience, "within", lambda patience, seconds, ended: ended())
    found, _ = finished(monkeypatch, lines, "0", run=run)
    return [failure.signature for failure in found]


def test_at_the_end_nobody_is_attached_once_importers_have_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    none, two = (
        "Total 0 devices attached\nTotal 0 devices attached",
        "Total 0 devices attached\nTotal 2 devices attached",
    )
    assert attachments(monkeypatch, IMPORTED, none) == []
    assert attachments(monkeypatch, IMPORTED, two) == ["attachments are left"]
    # Who has a descriptor of the file keeps what was imported there.
    assert attachments(monkeypatch, (*IMPORTED, "a hold-gpu g2 b"), two) == []


def test_at_the_end_what_cannot_be_exported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ("a start", "a open v1")
    assert finished(monkeypatch, opened, "0")[0] == []
    found, _ = finished(monkeypatch, opened, "0", exports="0xffff000+")
    assert [failure.signature for failure in found] == ["answer: bad-export, 0 instead of EINVAL"]
    assert finished(monkeypatch, (*opened, "a release v1"), "0", exports="0xffff000+")[0] == []
