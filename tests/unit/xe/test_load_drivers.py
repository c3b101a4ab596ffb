"""Drivers are loaded when the PF has one: a guest whose PF could not be probed is not used. The shell is this machine's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import CommandFailed
from vfio_user_xe.emulator.scenarios.machine import Card


class Local:
    """A shell's commands, run here; modules are not loaded."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 60, check: bool = False) -> Result:
        done = subprocess.run(
            ["sh", "-c", f"modprobe() {{ :; }}; {command}"], capture_output=True, timeout=timeout, check=False
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode(), 0.0)
        return result.check(command) if check else result


def test_a_pf_that_could_not_be_probed_fails_the_set_up(tmp_path: Path) -> None:
    card = XeCard(Local(), create_autospec(Card, instance=True))
    card.sysfs = str(tmp_path)
    with pytest.raises(CommandFailed, match="no driver has probed the PF"):
        card.load_drivers()
    (tmp_path / "driver").touch()
    card.load_drivers()
