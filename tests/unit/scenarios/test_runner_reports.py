"""What is written about a run of scenarios: text, JSON, JUnit, the page, evidence and accounts."""

from __future__ import annotations

from html import unescape
from typing import Any
from unittest.mock import create_autospec
from xml.etree import ElementTree

import pytest

from tests.support.scenario_plays import (
    VRAM_MAP,
    Labs,
    Tried,
    logs,
    passes,
    run_all,
    run_suite,
    scenario,
)
from vfio_user_xe.device_models.xe.scenarios.exhibits import exhibits
from vfio_user_xe.emulator.kernel_reports import KernelLog, Line
from vfio_user_xe.emulator.results import Fact, Log, Report, Result, Role, Timeline, Verdict
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.json_file import dumps, loads
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.text import evidence, line, verdict_table
from vfio_user_xe.emulator.scenarios.evidence import evidence_of, report_of, summary_of
from vfio_user_xe.emulator.scenarios.records import Records
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Suite


@pytest.fixture
def results(labs: Labs) -> list[Result]:
    return run_all(
        labs,
        scenario("2", passes),
        scenario("10", lambda run, machine: run.known("known-one", "seen <here>")),
        scenario("c1", lambda run, machine: run.not_applicable("nothing")),
        scenario("1", logs("\x1b[1mcoloured\x1b[0m", "BUG: <script>alert(1)</script>")),
    )


def test_junit_tells_failures_from_what_is_known_and_what_does_not_apply(results: list[Result]) -> None:
    root = ElementTree.fromstring(junit(report_of(Suite("tried", [], {}), results)))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("4", "1", "2")
    messages = {case.get("name"): (case.find("skipped"), case.find("failure")) for case in root}
    skipped = messages["scenario-10"][0]
    assert skipped is not None
    assert "known-one" in str(skipped.get("message"))
    assert messages["scenario-1"][1] is not None


def test_text_is_sorted_by_number_with_controls_last(results: list[Result]) -> None:
    assert [row.split()[0] for row in verdict_table(results).splitlines()] == ["1", "2", "10", "c1"]
    assert "1 passed, 1 failed, 1 failed as known, 1 not applicable" in summary_of(results, 1)
    assert "known-one: seen <here>" in line(results[1])


def fact(result: Result, name: str) -> Any:
    return next((item.value for item in result.evidence if isinstance(item, Fact) and item.name == name), None)


def test_everything_can_be_written_as_json(results: list[Result]) -> None:
    read = loads(dumps(report_of(Suite("tried", [], {}), results))).results
    assert [result.verdict for result in read] == ["pass", "expected-fail", "not-applicable", "fail"]
    (log,) = (item.text for item in read[3].evidence if isinstance(item, Log))
    times, texts = zip(*(line.split("] ", 1) for line in log.splitlines()), strict=True)
    assert texts == ("\x1b[1mcoloured\x1b[0m", "BUG: <script>alert(1)</script>")
    assert set(times) == {"[    0.001000"}
    (steps,) = (item.events for item in read[0].evidence if isinstance(item, Timeline))
    assert [(event.text, event.depth) for event in steps] == [("a step", 0), ("inside", 1)]
    assert fact(read[3], "unexcused_reports") == ["BUG: <script>alert(1)</script>"]
    assert {"ledger", "verdicts", "ownership", "vram_map", "accounts"} <= {
        item.name for item in read[0].evidence if isinstance(item, Fact)
    }


def test_the_page_stands_alone_and_shows_foreign_text_as_text(results: list[Result]) -> None:
    page = html(report_of(Suite("tried", [], {"known-one": "a defect"}), results))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "vf1: GDPA 0x0 is DPA 0x20000000" in page
    assert page.count('<details class="run"') == 4
    assert page.count("<details") == page.count("</details>")


def test_the_page_shows_which_way_accesses_took_and_what_changed_hands(labs: Labs) -> None:
    (result,) = run_all(labs, scenario("1", passes))
    counted = {"reads": 3, "bytes_read": 4096, "writes": 0, "bytes_written": 0, "spans": 1}
    ways = (("iov", "vram"), ("p2p", "system"), ("iov", "stale vram"), ("iov", "kernel vram"))
    run = Run(create_autospec(KernelLog, instance=True))
    run.records.ledger = [
        {
            "initiator": "pf",
            "owner": "vf1",
            "interconnect": link,
            "way": "zero-copy" if link == "iov" else "legacy",
            "kind": kind,
            **counted,
        }
        for link, kind in ways
    ]
    run.records.verdicts = {
        "stale": [
            {
                "reason": "reset",
                "initiator": "pf",
                "owner": "vf1",
                "interconnect": "iov",
                "way": "zero-copy",
                "reads": 1,
                "writes": 2,
                "after": 0.5,
            }
        ]
    }
    run.records.ownership = {
        "changes": [{"time": 1.5, "address": 1 << 29, "length": 2 << 20, "old": "vf1", "new": "pf"}],
        "resets": [{"owner": "vf1", "began": 2.0, "ended": None, "accesses": []}],
    }
    suite = Suite("tried", [], {}, exhibits=exhibits)
    result.evidence = evidence_of(suite, run)
    page = html(report_of(suite, [result]))
    assert [page.count(f'<div class="path {look}"') for look in ("zero-copy", "legacy", "stale")] == [1, 1, 1]
    assert "3 reads (4 KiB)" in page
    assert "reset: pf to vf1 over iov, 1 reads, 2 writes; over a path that was opened 0.500 s after" in page
    assert "2 MiB from DPA 0x20000000 on: vf1 → pf" in page
    assert "reset of vf1, lasts" in page


def test_only_the_suite_s_own_records_are_asked_of_the_card(labs: Labs) -> None:
    suite = Suite("tried", [scenario("1", passes)], {})
    (result,) = run_suite(suite)
    assert fact(result, "vram_map") is None
    (result,) = run_all(labs, scenario("1", passes))
    assert fact(result, "vram_map") == VRAM_MAP


@pytest.mark.parametrize("error", [KeyError("vfs"), SystemExit("vfs")])
def test_exhibits_that_fail_are_noted_and_cost_no_verdict(labs: Labs, error: BaseException) -> None:
    def broken(records: Records) -> Any:
        raise error

    suite = Suite("tried", [scenario("1", passes), scenario("2", passes)], {}, exhibits=broken)
    results = run_suite(suite)
    assert [result.verdict for result in results] == [Verdict.PASS, Verdict.PASS]
    assert f"the suite's exhibits failed: {type(error).__name__}: {error}" in unescape(html(report_of(suite, results)))


def test_runs_of_one_kernel_merge_as_repetitions_whatever_was_measured(labs: Labs) -> None:
    counts = iter(range(1 << 20, 5 << 20, 1 << 20))
    suite = Suite("tried", [scenario("1", passes)], {}, account=lambda machine: {"VRAM in use": next(counts)})
    runs = [report_of(suite, run_suite(suite)) for _ in range(2)]
    assert runs[0].results[0].figures != runs[1].results[0].figures
    assert [result.repetition for result in Report.merge("all", runs).results] == [1, 2]


def test_a_kernel_s_report_cannot_break_junit_page_or_terminal(labs: Labs) -> None:
    bad = "BUG: \x1b]0;title\x07\x1b[31mred\x00\x0b\x9b2J\ud800\ufffe ]]> </pre><script>alert('x')</script>"
    (result,) = run_all(labs, scenario("1", lambda run, machine: run.kernel_log.append(Line(bad))))
    assert result.verdict is Verdict.FAIL
    report = report_of(Suite("tried", [], {}), [result])
    failure = ElementTree.fromstring(junit(report).encode()).find("testcase/failure")
    assert failure is not None
    seen = "BUG: red\ufffd\ufffd\ufffd2J\ufffd\ufffd ]]> </pre><script>alert('x')</script>"
    assert str(failure.get("message")).endswith(seen)
    assert seen in str(failure.text)
    page = html(report)
    page.encode()
    assert "<script" not in page
    assert page.count("</pre>") == page.count("<pre>")
    assert line(result).isprintable() is False
    assert {c for c in line(result) if not c.isprintable()} == {"\n"}
    assert loads(dumps(report)) == report


def test_evidence_is_what_a_scenario_shows(labs: Labs) -> None:
    def body(run: Run, machine: Tried) -> None:
        run.fact("hidden", "not shown")
        run.evidence("stack", {"task (7)": "inner\nouter"})
        run.evidence("freed by", "nothing")

    (result,) = run_all(labs, scenario("1", body))
    text = evidence(result)
    assert [part.strip() for part in text.splitlines()] == ["stack:", "task (7)", "inner", "outer", "freed by: nothing"]
    shown = [item for item in result.evidence if isinstance(item, Fact) and item.role is Role.SHOWN]
    assert [item.name for item in shown] == ["stack", "freed by"]


def test_repetitions_are_one_row_for_each_verdict(labs: Labs) -> None:
    outcomes = iter([True, False, True])
    results = run_all(labs, scenario("1", lambda run, machine: run.check(next(outcomes), "red")), repeat=3)
    assert [row.split()[:3] for row in verdict_table(results).splitlines()] == [
        ["1", "fail", "title"],
        ["1", "2x", "pass"],
    ]


def test_accounts_are_kept_before_and_after_and_not_of_a_guest_that_is_given_up(labs: Labs) -> None:
    counts = iter([10 << 20, 10 << 20, 10 << 20, 11 << 20, 12 << 20])
    scenarios = [scenario("1", passes), scenario("2", passes), scenario("3", lambda run, machine: run.give_up("dead"))]
    suite = Suite("tried", scenarios, {}, account=lambda machine: {"VRAM in use": next(counts)})
    results = run_suite(suite)
    assert [fact(r, "accounts")["VRAM in use"] for r in results] == [
        [10 << 20, 10 << 20],
        [10 << 20, 11 << 20],
        [12 << 20, None],
    ]
    page = html(report_of(suite, results))
    assert "10 MiB before, afterwards the same" in page
    assert "10 MiB before, afterwards 11 MiB" in page
    assert "12 MiB before, afterwards the guest was given up" in page


def test_a_report_is_a_known_defect_s_only_in_the_scenarios_that_the_suite_names(labs: Labs) -> None:
    suite = Suite(
        "tried",
        (scenario("1", logs("BUG: of known one")), scenario("2", logs("BUG: of known one"))),
        {"known-one": "a defect"},
        reports={"known-one": "of known one"},
        reports_only_in={"known-one": ("scenario-1",)},
    )
    assert [result.verdict for result in run_suite(suite)] == [Verdict.EXPECTED_FAIL, Verdict.FAIL]
