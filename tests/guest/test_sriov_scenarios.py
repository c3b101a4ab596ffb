"""A card's life with VFs: a part of the scenarios that share one guest, by the command itself (docs/sriov-scenarios.md has all)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.scenario_results import results_of
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler, compiler
from vfio_user_xe.emulator.scenarios.scenario import SETUP

pytestmark = [pytest.mark.guest, pytest.mark.timeout(500)]

CHOSEN = (
    "pf-removed-with-vfs",
    "unloaded-with-a-quota",
    "vf-driver-unbound",
    "memory-cleared-between-users",
    "vf-with-one-gt",
    "ccs-mode-of-vfs",
    "lockdown-guard",
    "provisioning-refused",
    "saved-and-restored",
    "control-command-that-stays",
    "control-wrong-result",
)
RACES = {"reset-lost-while-another-ends"}
"""Defects of every release so far that are seldom met, and then an expected failure of the test."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    try:
        compiler()
        locate()
    except (NoCompiler, MissingEnvironment) as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    data = tmp_path_factory.mktemp("sriov") / "out.json"
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "scenario", "run", "--suite", "sriov", *CHOSEN]
    done = subprocess.run(
        [*command, "--json", str(data)], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert data.exists(), done.stdout + done.stderr
    return {result["name"]: result for result in results_of(data)}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_passes_on_the_usual_kernel(outcome: dict[str, dict[str, Any]], name: str) -> None:
    result = outcome[name]
    if result["defect"] in RACES:
        pytest.xfail(f"a race of {result['kernel']} was met: {result['defect']}: {result['reason']}")
    assert (result["verdict"], result["defect"]) == ("pass", ""), result["reason"]


def test_the_scenarios_share_one_guest(outcome: dict[str, dict[str, Any]]) -> None:
    setups = [result for result in outcome.values() if result["number"] == SETUP]
    assert [setup["verdict"] for setup in setups] == ["pass"]
    assert max(setup["repetition"] for setup in setups) == 1
