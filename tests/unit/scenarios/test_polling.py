"""Waiting within a guest: the shell's own commands, run by this machine's shell in a guest's stead."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.scenarios.polling import poll


class Here:
    """Runs a guest's commands here."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        done = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, timeout=timeout, check=check)
        return Result(done.returncode, done.stdout, done.stderr.decode(), 0.0)


@pytest.mark.parametrize("seconds", [0, 60])
def test_what_is_so_is_seen_at_the_first_look(seconds: float) -> None:
    found = poll(Here(), "echo look; exit 0", seconds)
    assert (found.returncode, found.stdout) == (0, "look\n")


def test_without_time_there_is_one_look() -> None:
    found = poll(Here(), "echo look", 0)
    assert (found.returncode, found.stdout) == (1, "look\n")


def test_what_comes_about_meanwhile_is_seen(tmp_path: Path) -> None:
    look = f"echo >> {tmp_path}/looks; test $(wc -l < {tmp_path}/looks) = 3 && exit 0"
    assert poll(Here(), look, 60).returncode == 0


def test_however_slow_looks_are_some_are_made(tmp_path: Path) -> None:
    found = poll(Here(), "echo look; sleep 0.3", 0.1)
    assert found.returncode == 1
    assert found.stdout.count("look") == 10
