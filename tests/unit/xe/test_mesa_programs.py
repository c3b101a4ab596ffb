"""Programs of Mesa's frames in guests that are played: what is waited for, and what is said when it does not come."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.guest_program import ProgramError
from vfio_user_xe.device_models.xe.scenarios.vm import mesa_programs as mesa
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.scenarios.machine import Shell


def shell(*returncodes: int, output: str = "") -> Shell:
    """A guest whose commands end so, one after the other."""
    made: Shell = create_autospec(Shell, instance=True)
    made.run.side_effect = [Result(code, output.encode(), "", 0.0) for code in returncodes]
    return made


def test_a_program_that_ends_without_the_words_is_told_at_once() -> None:
    program = mesa.Background(shell(2, 0, output="egl: no device"), 7, "/run/x.log")
    with pytest.raises(ProgramError, match=r"ended without 'ready'.*egl: no device"):
        program.said("ready")


def test_a_program_that_is_silent_for_too_long_is_told_with_its_last_words() -> None:
    program = mesa.Background(shell(1, 0, output="still compiling"), 7, "/run/x.log")
    with pytest.raises(TimeoutError, match=r"no 'ready' in /run/x\.log within 0 s: still compiling"):
        program.said("ready", seconds=0)


def test_words_that_come_late_are_waited_for() -> None:
    made = shell(1, 0, 1, 0, 0)
    mesa.Background(made, 7, "/run/x.log").said("ready")
    assert made.run.call_count == 5


def test_a_program_of_the_background_is_killed_when_it_is_left_in_the_same_boot() -> None:
    made = shell(0, 0, 0, output="42 5b1d\n")
    with mesa.background(made, "frame-compositor", "/run/x.log", "ready") as program:
        assert program.pid == 42
    assert made.run.call_args.args[0] == "test $(cat /proc/sys/kernel/random/boot_id) = 5b1d && kill -9 42 2>/dev/null"
