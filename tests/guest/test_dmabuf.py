"""A VF's memory as a dma-buf in the hands of the PF's xe: a representative part of the scenarios, by the command itself.

All of them: `vfio-user-xe scenario run` (docs/dmabuf-scenarios.md). What a kernel with mappings by device address asks of the card
is in tests/twins.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.emulator.guest import MissingEnvironment, locate
from vfio_user_xe.emulator.guest.programs import NoCompiler, compiler

pytestmark = [pytest.mark.guest, pytest.mark.timeout(500)]

USUAL = (
    "basic-import",
    "pf-writes-vf-reads",
    "pages-and-odd-sizes",
    "several-ranges",
    "bad-exports",
    "two-vfs",
    "reset-with-an-idle-import",
    "reset-with-an-unbound-import",
    "reset-through-sysfs",
    "reset-while-copying",
    "gt-reset-with-an-idle-import",
    "control-wrong-path",
    "control-kernel-report",
)
TRANSLATING = ("basic-import-translating", "several-ranges-translating")
FAULTY = ("control-wrong-data", "control-broken-link")
CHOSEN = (*USUAL, *TRANSLATING, *FAULTY)


@dataclass
class Outcome:
    code: int
    said: str
    results: dict[str, dict[str, Any]]
    junit: ElementTree.Element
    report: str


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    try:
        compiler()
        locate()
    except (NoCompiler, MissingEnvironment) as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    folder = tmp_path_factory.mktemp("scenarios")
    data, junit, report = (folder / name for name in ("out.json", "out.xml", "out.html"))
    files = ["--json", str(data), "--junit", str(junit), "--report", str(report), "--consoles", str(folder)]
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "scenario", "run", *CHOSEN, "--evidence", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert data.exists(), done.stdout + done.stderr
    results = {result["name"]: result for result in json.loads(data.read_text())}
    return Outcome(done.returncode, done.stdout, results, ElementTree.parse(junit).getroot(), report.read_text())


@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_is_passed_or_meets_a_defect_that_is_known(outcome: Outcome, name: str) -> None:
    result = outcome.results[name]
    assert result["verdict"] in ("pass", "expected-fail"), result["reason"]
    assert (result["verdict"] == "expected-fail") == bool(result["defect"])
    if name.startswith("control-"):
        assert result["verdict"] == "pass", result["reason"]


def test_what_the_command_says_agrees_with_what_it_writes(outcome: Outcome) -> None:
    assert outcome.code == 0
    assert f"{len(CHOSEN)} scenarios on " in outcome.said
    assert {case.get("name") for case in outcome.junit} == set(CHOSEN)
    known = [result for result in outcome.results.values() if result["verdict"] == "expected-fail"]
    assert int(outcome.junit.get("skipped", "")) == len(known)
    for result in known:
        assert result["defect"] in DMABUF.defects
        assert result["defect"] in outcome.report
    assert outcome.report.count('<details class="run"') == len(CHOSEN)


def test_a_blocked_reset_is_explained_by_where_it_blocks_and_what_frees_it(outcome: Outcome) -> None:
    result = outcome.results["reset-with-an-idle-import"]
    assert "control (import closed first)" in result["shown"]
    if result["verdict"] == "pass":
        assert "with an idle import" in result["shown"]
        return
    assert any("vfio_pci_dma_buf_move" in stack for stack in result["facts"]["stack of the blocked task"].values())
    assert "blocked for more than" in result["facts"]["hung-task report"][0]
    assert result["facts"]["freed by"] == "unbinding after GEM_CLOSE, not by GEM_CLOSE alone"
    assert "vfio_pci_dma_buf_move" in outcome.said
