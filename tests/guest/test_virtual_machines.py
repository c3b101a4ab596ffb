"""A frame across two guests, and a reset: a virtual machine on a VF that is passed on to it (docs/virtual-machines.md has all)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler, compiler
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.results.json_file import read
from vfio_user_xe.emulator.scenarios.scenario import SETUP

pytestmark = [pytest.mark.guest, pytest.mark.timeout(1200)]

CHOSEN = "reset-in-a-frame"
"""It has a frame before the reset and one after it."""
RACES = {"reset-lost-while-another-ends"}
"""Defects of every release so far that are seldom met, and then an expected failure of the test."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    try:
        compiler()
        locate()
    except (NoCompiler, MissingEnvironment) as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    data = tmp_path_factory.mktemp("vm") / "out.json"
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "scenario", "run", "--suite", "vm", CHOSEN]
    done = subprocess.run(
        [*command, "--json", str(data)], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert data.exists(), done.stdout + done.stderr
    return list(read(data).results)


def test_frames_reach_the_host_before_and_after_a_reset_of_the_machine(outcome: list[Result]) -> None:
    [result] = [result for result in outcome if result.case.name == CHOSEN]
    if result.defect in RACES:
        pytest.xfail(f"a race of {result.properties['kernel']} was met: {result.defect}: {result.reason}")
    assert (result.verdict, result.defect) == (Verdict.PASS, ""), result.reason


def test_host_and_machine_come_up_without_a_report(outcome: list[Result]) -> None:
    assert [result.verdict for result in outcome if result.case.number == SETUP] == [Verdict.PASS]
