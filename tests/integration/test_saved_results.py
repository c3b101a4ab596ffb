"""Results of a run whose reader leaves, as by `| head -1`: the files that were asked for are there all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.emulator.results.json_file import read

SIGPIPE_ENDED_IT = 128 + 13

PLAYED = """
import select
from vfio_user_xe.emulator.cli import explore, scenario_run
from vfio_user_xe.emulator.cli.kernels import NamedKernel
from vfio_user_xe.emulator.cli.main import main
from vfio_user_xe.emulator.conformance import suite
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.exploration.explorer import Explorer

PRINTED = {printed}

def until_the_reader_has_left():
    poll = select.poll()
    poll.register(1, 0)
    poll.poll()

def run_scenarios(suite, units, append, consoles, until, progress):
    for number, unit in enumerate(units, 1):
        progress(Result(unit.scenario.described(suite.name), Verdict.PASS, properties=dict(kernel="6.1")))
        if number == PRINTED:
            until_the_reader_has_left()

def run_cases(path, profile, *, progress, cases, **options):
    results = []
    for number, case in enumerate(suite.select_cases(cases), 1):
        results.append(Result(case.described(profile.name), Verdict.PASS))
        progress(results[-1])
        if number == PRINTED:
            until_the_reader_has_left()
    return results

def explore_sequences(self, seconds, most):
    for number in range(1, most + 1):
        self.explored.sequences = number
        print("a sequence", flush=True)
        if number == PRINTED:
            until_the_reader_has_left()

scenario_run._run = run_scenarios
scenario_run.named_kernels = lambda *given, **options: [NamedKernel(None, None)]
suite.run = run_cases
explore.runner_of = lambda *given: None
Explorer.explore = explore_sequences
# What can be reached at all takes seconds to find out.
explore.coverable = lambda model, length: None
explore.summary = lambda explored, there: "a summary"
explore.exploration_data = lambda explored, there: {"sequences": explored.sequences}
main()
"""


def read_in_part(printed: int, *command: str) -> tuple[int, str]:
    """Exit code and messages of a command, played, whose reader leaves after so many lines; it does nothing meanwhile."""
    program = (sys.executable, "-c", PLAYED.replace("{printed}", str(printed)), *command)
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert all(process.stdout.readline() for _ in range(printed))
            process.stdout.close()
            messages = process.stderr.read()
            process.wait(300)
        finally:
            process.kill()
    return process.returncode, messages


@pytest.mark.parametrize(("printed", "kept"), [(1, 2), (4, 4)], ids=["after a line", "before the summary"])
def test_scenario_run_writes_what_came_out(printed: int, kept: int, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("json", "junit", "tap", "report")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    code, messages = read_in_part(printed, "scenario", "run", "1b", "2", "3", "4b", *options)
    assert (code, messages) == (SIGPIPE_ENDED_IT, "vfio-user-xe: interrupted\n" if printed == 1 else "")
    assert len(read(files["json"]).results) == kept
    assert all(file.read_text("utf-8") for file in files.values())


@pytest.mark.parametrize("printed", [1, 3], ids=["after a line", "before the summary"])
def test_scenario_explore_writes_what_came_out(printed: int, tmp_path: Path) -> None:
    data, junit = tmp_path / "json", tmp_path / "junit"
    code, messages = read_in_part(
        printed, "scenario", "explore", "--sequences", "3", "--json", str(data), "--junit", str(junit)
    )
    assert (code, messages) == (SIGPIPE_ENDED_IT, "vfio-user-xe: interrupted\n" if printed == 1 else "")
    assert json.loads(data.read_text("utf-8")) == {"sequences": 2 if printed == 1 else 3}
    assert "<testsuite" in junit.read_text("utf-8")


@pytest.mark.parametrize(("printed", "whole"), [(1, False), (2, True)], ids=["after a line", "before the summary"])
def test_conformance_writes_what_came_out(printed: int, whole: bool, tmp_path: Path) -> None:
    junit = tmp_path / "junit"
    words = ("conformance", "--socket", "/nonexistent", "--junit", str(junit))
    cases = (
        ("--case", "negotiation.usual_proposal_is_accepted", "--case", "negotiation.empty_object_is_accepted")
        if whole
        else ()
    )
    assert read_in_part(printed, *words, *cases) == (SIGPIPE_ENDED_IT, "")
    assert junit.read_text("utf-8").count("<testcase") == 2
