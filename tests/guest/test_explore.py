"""Exploration in a guest, by the command itself, with a fixed seed. A kept sequence is played again in test_dmabuf.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler, compiler

pytestmark = [pytest.mark.guest, pytest.mark.timeout(500)]


@pytest.fixture(autouse=True)
def _environment() -> None:
    try:
        compiler()
        locate()
    except (NoCompiler, MissingEnvironment) as error:
        pytest.skip(f"{error} (or run scripts/setup)")


def test_a_seed_is_explored_and_what_it_meets_is_known_by_name(tmp_path: Path) -> None:
    data, kept = tmp_path / "out.json", tmp_path / "kept"
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "scenario", "explore", "--seed", "3", "--sequences", "1"]
    command += ["--steps", "14", "--budget", "1", "--json", str(data), "--keep", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert data.exists(), done.stdout + done.stderr
    found = json.loads(data.read_text())
    assert found["sequences"] >= 1
    assert found["steps_played"] >= 10
    unknown = [failure["text"] for failure in found["failures"] if failure["defect"] not in DMABUF.defects]
    assert not unknown
    assert done.returncode == 0
    assert len(found["failures"]) == len(list(kept.glob("*.steps")) if kept.exists() else [])
    assert found["coverage"]["pairs"]["made"] > 5
