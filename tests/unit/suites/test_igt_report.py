"""Tables, JUnit, and resuming."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vfio_user_xe.emulator.results import Outcome, Verdict
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.json_file import dumps, loads
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.text import counted_line
from vfio_user_xe.emulator.suites.expectations import Expectation, Expectations
from vfio_user_xe.emulator.suites.report import append_result, read_results, report_of, summary, table
from vfio_user_xe.emulator.suites.subtest import SubtestResult
from vfio_user_xe.emulator.suites.table import SuiteError

EXPECTATIONS = Expectations((Expectation(("xe_query@pxp",), ("skip",), "hardware", "no PXP"),))
RESULTS = [
    SubtestResult("xe_query", "engines", Outcome.PASS, seconds=1.25),
    SubtestResult("xe_query", "pxp", Outcome.SKIP, seconds=0.5, reason="requirement"),
    SubtestResult(
        "xe_vm", "bind", Outcome.FAIL, seconds=2, reason="a \x00 & <b>", output="said \x1b that", kernel_log="log"
    ),
    SubtestResult("xe_vm", "bind", Outcome.TIMEOUT, on="vf1", seconds=60, reason="slow"),
]
REPORT = report_of(RESULTS, EXPECTATIONS, "igt")


def test_results_are_read_back_and_the_last_of_a_subtest_counts(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for result in [*RESULTS, SubtestResult("xe_vm", "bind", Outcome.PASS)]:
        append_result(file, result)
    found = {(result.name, result.on): result.outcome for result in read_results(file)}
    assert found[("xe_vm@bind", "pf")] == "pass"
    assert found[("xe_vm@bind", "vf1")] == "timeout"
    assert len(found) == 4


def test_a_last_line_that_was_cut_short_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, RESULTS[0])
    with file.open("a") as stream:
        stream.write('{"test": "xe_')
    assert [result.name for result in read_results(file)] == ["xe_query@engines"]


def test_a_file_of_something_else_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text("hello\n\n{}\n")
    with pytest.raises(SuiteError, match=r"results\.jsonl:1"):
        read_results(file)


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none") == []


def test_the_table_has_a_line_a_test_and_function_and_a_total() -> None:
    lines = table(REPORT).splitlines()
    assert lines[2] == "| pf | xe_query | 1 | 1 | 0 |  | 2 | engines 1.2 |"
    assert lines[3] == "| pf | xe_vm | 0 | 0 | 1 |  | 2 | bind 2.0 |"
    assert lines[4] == "| vf1 | xe_vm | 0 | 0 | 0 | timeout 1 | 60 | bind 60.0 |"
    assert lines[5].startswith("|  | total | 1 | 1 | 1 | timeout 1 |")


def test_the_summary_counts_what_is_as_on_hardware() -> None:
    text = summary(RESULTS, REPORT, EXPECTATIONS)
    assert "4 subtests: 2 (50.0 %)" in text
    assert "xe_vm@bind on vf1: timeout: slow" in text
    assert "xe_query@pxp" not in text


def test_junit_has_failures_for_what_is_not_explained_and_is_valid_xml() -> None:
    root = ElementTree.fromstring(junit(REPORT))
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert len(cases) == 4
    assert cases["igt.pf.xe_query", "engines"].find("failure") is None
    skipped = cases["igt.pf.xe_query", "pxp"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "skip, as expected: no PXP"
    failure = cases["igt.pf.xe_vm", "bind"].find("failure")
    assert failure is not None
    assert failure.get("message") == "fail: a \ufffd & <b>"
    assert failure.text == "log"
    assert [suite.get("failures") for suite in root.iter("testsuite")] == ["0", "1", "1"]
    output = cases["igt.pf.xe_vm", "bind"].find("system-out")
    assert output is not None
    assert output.text == "said \ufffd that"


def test_a_subtest_is_judged_by_its_expectation() -> None:
    assert [result.verdict for result in REPORT.results] == [Verdict.PASS, Verdict.SKIP, Verdict.FAIL, Verdict.FAIL]
    expected = Expectations((Expectation(("xe_vm",), ("fail", "timeout"), "guest", "slow"),))
    failed, better = report_of([RESULTS[2], SubtestResult("xe_vm", "map", Outcome.PASS)], expected, "igt").results
    assert (failed.verdict, failed.message) == (Verdict.EXPECTED_FAIL, "fail, as expected: slow")
    assert (better.verdict, better.better) == (Verdict.PASS, True)


def test_a_line_of_progress_says_what_nobody_explained() -> None:
    assert counted_line(3, 12, REPORT.results[0]) == "[ 3/12] pass       1.2 s  xe_query@engines"
    assert counted_line(4, 12, REPORT.results[3]).splitlines() == [
        "[ 4/12] timeout   60.0 s  xe_vm@bind  <- not explained",
        "      slow",
    ]


def test_what_the_guest_wrote_is_text_in_the_page_and_survives_json() -> None:
    hostile = SubtestResult("xe_vm", "bind", Outcome.FAIL, reason="<script>", kernel_log="\x1b[31m]]>\ud800<img src=x>")
    report = report_of([hostile], EXPECTATIONS, "igt")
    assert loads(dumps(report)) == report
    page = html(report)
    page.encode()
    assert "<script" not in page
    assert "<img" not in page
    assert "]]&gt;\ufffd&lt;img src=x&gt;" in page


def test_groups_and_kernels_are_told_apart_where_there_are_several() -> None:
    several = [
        SubtestResult("xe_vm", "bind", outcome, group=group, kernel=kernel)
        for group, kernel, outcome in (
            ("a", "6.18", Outcome.PASS),
            ("b", "6.18", Outcome.FAIL),
            ("a", "7.3.4", Outcome.PASS),
            ("b", "7.3.4", Outcome.PASS),
        )
    ]
    report = report_of(several, Expectations(), "igt")
    assert "| 6.18 | b | pf | xe_vm | 0 | 0 | 1 |" in table(report)
    assert "xe_vm@bind on pf, 6.18, b: fail" in summary(several, report, Expectations())
    assert "| on | test |" in table(report_of(several[:1], Expectations(), "igt"))


def test_an_expectation_can_be_of_one_group() -> None:
    entry = Expectation(("xe_vm",), ("fail",), "guest", "slow", group="gl-*")
    expectations = Expectations((entry,))
    assert expectations.find("xe_vm@bind", "pf", "gl-iris") is entry
    assert expectations.find("xe_vm@bind", "pf", "cl-neo") is None
