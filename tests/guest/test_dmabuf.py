"""A VF's memory as a dma-buf in the hands of the PF's xe: a representative part of the scenarios, by the command itself.

All of them: `vfio-user-xe scenario run` (docs/dmabuf-scenarios.md). What a kernel with mappings by device address asks of the card
is in tests/twins.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.scenario_results import results_of
from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler, compiler
from vfio_user_xe.emulator.scenarios.scenario import SETUP

pytestmark = [pytest.mark.guest, pytest.mark.timeout(500)]

USUAL = (
    "basic-import",
    "import-read-by-a-kernel",
    "pf-writes-vf-reads",
    "pages-and-odd-sizes",
    "several-ranges",
    "bad-exports",
    "two-vfs",
    "reset-with-an-idle-import",
    "reset-with-an-unbound-import",
    "reset-through-sysfs",
    "reset-while-copying",
    "reset-while-kernels-run",
    "gt-reset-with-an-idle-import",
    "control-wrong-path",
    "control-kernel-report",
)
TRANSLATING = ("basic-import-translating", "several-ranges-translating")
FAULTY = ("control-wrong-data", "control-broken-link")
KEPT = {
    "kept-reset": (
        "# failure: a reset waits for an idle importer",
        *(
            "a start",
            "a open v1",
            "a fill v1 1",
            "a export v1 d1 0+0x200000",
            "a gpu g2",
            "a import g2 d1 i3",
            "a bind i3",
        ),
        *("a job i3", "a reset v1"),
    ),
}
"""Sequences as `scenario explore` keeps them, which are played again from a file."""
CHOSEN = (*USUAL, *KEPT, *TRANSLATING, *FAULTY)
DEFECTS_MET = {
    "7.3.4": {
        "reset-with-an-idle-import": "revocation-waits-for-importer",
        "kept-reset": "revocation-waits-for-importer",
        "reset-through-sysfs": "sysfs-reset-does-not-revoke",
        "several-ranges-translating": "ranges-linked-at-one-iova",
    },
}
"""By kernel release: the scenarios that meet a known defect of that kernel, and which; every other one passes."""
RACES = {
    **dict.fromkeys(
        ("reset-while-copying", "reset-while-kernels-run"), ("clear-outlasts-reset", "reset-lost-while-another-ends")
    ),
    **dict.fromkeys(
        ("reset-with-an-idle-import", "reset-with-an-unbound-import", "reset-through-sysfs", *KEPT),
        ("reset-lost-while-another-ends",),
    ),
}
"""Defects of every release so far that are races: seldom met, and then an expected failure of the test."""


@dataclass
class Outcome:
    code: int
    said: str
    results: dict[str, dict[str, Any]]
    setups: list[dict[str, Any]]
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
    for name, lines in KEPT.items():
        (folder / f"{name}.steps").write_text("\n".join(lines))
    chosen = [str(folder / f"{name}.steps") if name in KEPT else name for name in CHOSEN]
    command = [sys.executable, "-m", "vfio_user_xe.emulator", "scenario", "run", *chosen, "--evidence", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert data.exists(), done.stdout + done.stderr
    found = results_of(data)
    results = {result["name"]: result for result in found if result["number"] != SETUP}
    setups = [result for result in found if result["number"] == SETUP]
    return Outcome(
        done.returncode, done.stdout, results, setups, ElementTree.parse(junit).getroot(), report.read_text()
    )


def _unless_it_lost_a_race(result: dict[str, Any]) -> None:
    if result["defect"] in RACES.get(result["name"], ()):
        pytest.xfail(f"a race of {result['kernel']} was met: {result['defect']}: {result['reason']}")


@pytest.mark.parametrize("name", CHOSEN)
def test_a_scenario_has_the_verdict_that_is_known_of_this_kernel(outcome: Outcome, name: str) -> None:
    result = outcome.results[name]
    release = result["kernel"].partition("+")[0].partition("-")[0]
    assert release in DEFECTS_MET, f"verdicts on {release} are not known yet; those of this run: {outcome.said}"
    known = DEFECTS_MET[release].get(name, "")
    _unless_it_lost_a_race(result)
    assert (result["verdict"], result["defect"]) == ("expected-fail" if known else "pass", known), result["reason"]


def test_what_the_command_says_agrees_with_what_it_writes(outcome: Outcome) -> None:
    assert outcome.code == 0
    assert f"{len(CHOSEN)} scenarios on " in outcome.said
    setups = {setup["name"] for setup in outcome.setups}
    assert {case.get("name") for case in outcome.junit} == {*CHOSEN, *setups}
    known = [result for result in outcome.results.values() if result["verdict"] == "expected-fail"]
    assert int(outcome.junit.get("skipped", "")) == len(known)
    for result in known:
        assert result["defect"] in DMABUF.defects
        assert result["defect"] in outcome.report
    assert outcome.report.count('<details class="run"') == len(CHOSEN) + len(outcome.setups)


def test_boot_probe_and_enabling_vfs_are_judged(outcome: Outcome) -> None:
    assert len({setup["setup"] for setup in outcome.setups}) == 3
    for setup in outcome.setups:
        assert setup["verdict"] == "pass", setup["reason"]
        assert any("Linux version" in line for line in setup["kernel_log"])
        assert any("VF" in line for line in setup["kernel_log"])


def test_every_result_says_which_of_the_kernel_s_reporters_were_at_work(outcome: Outcome) -> None:
    for result in (*outcome.results.values(), *outcome.setups):
        assert result["facts"]["kernel's reporters"]["hung tasks"] == "on"


def test_a_blocked_reset_is_explained_by_where_it_blocks_and_what_frees_it(outcome: Outcome) -> None:
    result = outcome.results["reset-with-an-idle-import"]
    _unless_it_lost_a_race(result)
    assert "control (import closed first)" in result["shown"]
    assert any("vfio_pci_dma_buf_move" in stack for stack in result["facts"]["stack of the blocked task"].values())
    assert "blocked for more than" in result["facts"]["hung-task report"][0]
    assert result["facts"]["freed by"] == "unbinding after GEM_CLOSE, not by GEM_CLOSE alone"
    assert "vfio_pci_dma_buf_move" in outcome.said
