"""The judge's own suite in a guest: whatever report its kernel makes is judged red."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scenario_results import results_of
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.scenarios.judge import JUDGE
from vfio_user_xe.emulator.scenarios.scenario import SETUP

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def test_every_report_that_the_guest_s_kernel_makes_is_judged_red(tmp_path: Path) -> None:
    try:
        locate()
    except MissingEnvironment as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    data = tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "vfio_user_xe.emulator",
        "scenario",
        "run",
        "--suite",
        "judge",
        "--json",
        str(data),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert data.exists(), done.stdout + done.stderr
    results = results_of(data)
    scenarios = [result for result in results if result["number"] != SETUP]
    assert [scenario["name"] for scenario in scenarios] == [scenario.name for scenario in JUDGE.scenarios]
    missed = {scenario["name"]: scenario["reason"] for scenario in scenarios if scenario["verdict"] == "fail"}
    assert not missed
    passed = {scenario["name"] for scenario in scenarios if scenario["verdict"] == "pass"}
    without_lkdtm_or_kasan = {scenario.name for scenario in JUDGE.scenarios if "provoked" not in scenario.groups}
    assert passed >= without_lkdtm_or_kasan | {"provoked-panic"}
    assert all(result["verdict"] == "pass" for result in results if result["number"] == SETUP)
    assert done.returncode == 0
