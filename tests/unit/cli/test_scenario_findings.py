"""`scenario findings --results`: what a suite's run found counts in the table without running it again."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from typer.testing import CliRunner

from tests.support.scenario_plays import passes, scenario
from vfio_user_xe.emulator.cli import scenario_findings as cli
from vfio_user_xe.emulator.guest.errors import KernelError
from vfio_user_xe.emulator.results import Case, Report, Result, Verdict, json_file
from vfio_user_xe.emulator.results.journal import Journal
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Suite

CREAKS = Finding("creaks", "it creaks", ("scenario-1",))


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Suite("tried", [scenario("1", passes), scenario("2", passes)], {}, findings=[CREAKS])
    monkeypatch.setattr(cli, "installed_suites", lambda: ["tried"])
    monkeypatch.setattr(cli, "load_suite", lambda name: made)


def result(name: str, verdict: Verdict, defect: str = "", suite: str = "scenarios: tried", number: str = "1") -> Result:
    case = Case(suite, "scenarios.tried", name, number=number)
    return Result(case, verdict, "seen", defect=defect, properties={"kernel": "7.3.4"})


def findings(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["findings", *map(str, words)])
    return done.exit_code, done.output


def test_results_of_scenarios_that_look_for_a_defect_are_counted_and_others_are_not(tmp_path: Path) -> None:
    results = [
        result("scenario-1", Verdict.EXPECTED_FAIL, "creaks"),
        result("scenario-1", Verdict.PASS),
        result("scenario-2", Verdict.FAIL),
        result("scenario-1", Verdict.FAIL, suite="scenarios: another"),
        result("scenario-1", Verdict.FAIL, suite="piglit"),
        result("setup-usual", Verdict.FAIL, suite="scenarios: another", number=SETUP),
    ]
    json_file.write(Report("scenarios: tried", results), tmp_path / "run.json")
    data = tmp_path / "seen.json"
    code, output = findings("--results", tmp_path / "run.json", "--data", data)
    assert code == 0
    assert "| it creaks | none | tried: `scenario-1` | **red** 1 of 2 |" in output
    assert [(entry["suite"], entry["scenario"]) for entry in json.loads(data.read_text())] == [("tried", "scenario-1")]


def test_a_folder_that_a_run_added_to_is_counted_and_its_failure_is_the_exit_code(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl", Report("scenarios: tried", []))
    journal.append(result("scenario-1", Verdict.PASS))
    journal.append(result("scenario-1", Verdict.FAIL))
    code, output = findings("--results", tmp_path)
    assert code == 1
    assert "green 1 of 2" in output


def test_a_file_that_is_no_report_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    data = tmp_path / "seen.json"
    code, output = findings("--results", wrong, "--data", data)
    assert code == 2
    assert str(wrong) in output
    assert not data.exists()


def test_the_table_is_printed_of_what_was_seen_before_a_kernel_was_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def runner_of(suite: Suite[Machine], kernel: str, *rest: object) -> object:
        if kernel == "b":
            raise KernelError("kernel image b: no such file")
        runner = create_autospec(Runner, instance=True)
        runner.run.side_effect = lambda scenarios, repeat, progress: progress(result("scenario-1", Verdict.PASS))
        return runner

    monkeypatch.setattr(cli, "runner_of", runner_of)
    code, output = findings("--kernel", "a", "--kernel", "b")
    assert code == 2
    assert "kernel image b: no such file" in output
    assert "green 1 of 1" in output
    code, output = findings("--kernel", "b")
    assert (code, output) == (2, "vfio-user-xe: kernel image b: no such file\n")


def test_findings_are_looked_for_with_words_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def runner_of(suite: Suite[Machine], kernel: str, modules: object, append: object, consoles: object) -> object:
        told.append(append)
        return create_autospec(Runner, instance=True)

    monkeypatch.setattr(cli, "runner_of", runner_of)
    findings("--kernel", "a", "--append", "kmemleak=off", "--append", "no5lvl")
    assert told == [["kmemleak=off", "no5lvl"]]


def test_a_suite_that_cannot_be_loaded_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cli.load_suite

    def load(name: str) -> Suite[Machine]:
        if name == "broken":
            raise LookupError('the suite "broken" cannot be loaded: planned')
        return kept(name)

    monkeypatch.setattr(cli, "installed_suites", lambda: ["broken", "tried"])
    monkeypatch.setattr(cli, "load_suite", load)
    code, output = findings()
    assert code == 0
    assert 'the suite "broken" cannot be loaded: planned' in output
    assert "| it creaks |" in output
