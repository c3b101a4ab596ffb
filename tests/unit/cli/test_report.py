"""`report merge` and `report times`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result as Done
from typer.testing import CliRunner

from vfio_user_xe.emulator.cli.report import app
from vfio_user_xe.emulator.results import Case, Outcome, Report, Result, Verdict, json_file
from vfio_user_xe.emulator.results.journal import Journal
from vfio_user_xe.emulator.suites.report import append_result
from vfio_user_xe.emulator.suites.subtest import SubtestResult


def report(kernel: str, **verdicts: Verdict) -> Report:
    results = [
        Result(
            Case("tried", "group", name),
            verdict,
            seconds=2,
            defect="creaks" if verdict is Verdict.EXPECTED_FAIL else "",
            properties={"kernel": kernel},
        )
        for name, verdict in verdicts.items()
    ]
    return Report("tried", results, {"creaks": "it creaks"})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    json_file.write(report("7.3.4", a=Verdict.PASS, b=Verdict.EXPECTED_FAIL), tmp_path / "1.json")
    json_file.write(report("7.3.4", b=Verdict.PASS), tmp_path / "2.json")
    log = Journal(tmp_path / "results.jsonl", report("6.18"))
    log.append(report("6.18", b=Verdict.PASS).results[0])
    return [tmp_path / "1.json", tmp_path / "2.json", tmp_path]


def invoke(*words: Any) -> Done:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_reports_become_one_in_every_form(files: list[Path], tmp_path: Path) -> None:
    page, junit, data = tmp_path / "out.html", tmp_path / "out.xml", tmp_path / "out.json"
    done = invoke("merge", *files, "--html", page, "--junit", junit, "--json", data)
    assert done.exit_code == 0, done.output
    assert "| b | pass 1 of 1 | creaks 1 of 2, pass 1 of 2 |" in done.output
    assert "| creaks | b | 7.3.4: 1 of 2 | 6.18: 1 of 1, 7.3.4: 1 of 2 |" in done.output
    assert "4 results on 6.18, 7.3.4" in done.output
    assert "Defects and their controls" in page.read_text()
    assert len(ElementTree.parse(junit).findall(".//testcase")) == 4
    assert len(json_file.read(data).results) == 4


def test_a_failure_in_any_report_is_the_exit_code(files: list[Path], tmp_path: Path) -> None:
    json_file.write(report("7.3.4", a=Verdict.FAIL), tmp_path / "3.json")
    assert invoke("merge", *files, tmp_path / "3.json").exit_code == 1


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for path, said in ((tmp_path / "list.json", "not a report"), (tmp_path / "gone.json", "No such file")):
        done = invoke("merge", path)
        assert done.exit_code == 2
        assert path.name in done.output
        assert said in done.output


def test_a_defect_that_two_reports_explain_differently_is_refused(files: list[Path], tmp_path: Path) -> None:
    json_file.write(Report("tried", [], {"creaks": "it groans"}), tmp_path / "4.json")
    done = invoke("merge", *files, tmp_path / "4.json")
    assert done.exit_code == 2
    assert "it groans" in done.output


def test_times_are_printed_and_written(files: list[Path], tmp_path: Path) -> None:
    assert json.loads(invoke("times", *files).output) == {"a": 2.0, "b": 2.0}
    assert invoke("times", *files, "--output", tmp_path / "times.json").exit_code == 0
    assert json.loads((tmp_path / "times.json").read_text()) == {"a": 2.0, "b": 2.0}


def test_results_of_a_suite_that_are_not_judged_are_told_with_what_judges_them(tmp_path: Path) -> None:
    append_result(tmp_path / "results.jsonl", SubtestResult("xe_vm", "bind", Outcome.PASS))
    done = CliRunner().invoke(app, ["merge", str(tmp_path)])
    assert done.exit_code == 2
    assert "not judged: `igt report` or `suite report NAME`" in done.output
    assert f"--output {tmp_path} --json FILE" in done.output


def test_a_file_of_bytes_that_are_no_text_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"\xff\n\xff\n")
    done = CliRunner().invoke(app, ["merge", str(tmp_path)])
    assert done.exit_code == 2
    assert "results.jsonl:1: " in done.output
