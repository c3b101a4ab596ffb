"""The model of results: reading back, merging, and the text, XML and HTML made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.emulator.results import (
    Access,
    Accesses,
    Case,
    Event,
    Fact,
    Log,
    MemoryMap,
    Outcome,
    Range,
    Report,
    Result,
    Role,
    Status,
    Table,
    Timeline,
    Verdict,
)
from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.json_file import NotAReport, dumps, loads, read, write
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.text import (
    RULE,
    evidence,
    line,
    plain,
    summary,
    totals_table,
    unexpected,
    verdict_table,
)

# Text that must not get through: escapes, other controls of C0 and C1, a lone surrogate, a non-character, markup.
HOSTILE = "\x1b[31mred\x1b[0m\x00\x08\x9b \ud800\ufffe ]]> & \"'<script>alert(1)</script>"
HARMLESS = "red\ufffd\ufffd\ufffd \ufffd\ufffd ]]> & \"'<script>alert(1)</script>"


def case(name: str, number: str = "", suite: str = "suite") -> Case:
    return Case(suite, f"group.{suite}", name, title=f"title of {name}", rule="it works", number=number)


def rich(text: str) -> Report:
    """A report in which `text` stands wherever a report can hold text."""
    table = Table(text, [text, "count"], [[text, "1"]], ["count"], omitted=2)
    found = [
        Timeline([Event(0.0, 1.5, text, True), Event(0.5, 0.0, text, None, 1), Event(1.0, 1.0, text, False)], text),
        Fact(text, text, Role.SHOWN),
        Fact(text, [{text: text, "n": 70000}], Role.SHOWN),
        Fact(text, {text: f"{text}\n{text}"}),
        Fact(text, [None, True, 1.5, {"deep": [text]}]),
        Fact(text, text, Role.RAW),
        Accesses(text, [Access(text, text, "stale", text, text)], [text]),
        MemoryMap(text, 1 << 30, [Range(text, 0, 4096, text)], {text: text}, text, table),
        table,
        Log(text, text),
        Log(text, text, output=True, role=Role.SHOWN),
    ]
    described = Case(text, text, text, text, text, text, text, "1", (text,))
    results = [
        Result(
            described,
            verdict,
            text,
            0.25,
            defect,
            outcome,
            text,
            properties={"kernel": text, "on": text},
            figures={text: text},
            evidence=list(found),
        )
        for verdict, defect, outcome in (
            (Verdict.PASS, "", None),
            (Verdict.FAIL, "", Outcome.CRASH),
            (Verdict.EXPECTED_FAIL, text, None),
            (Verdict.SKIP, "", Outcome.SKIP),
            (Verdict.NOT_APPLICABLE, "", None),
        )
    ]
    return Report(text, results, {text: text}, text)


def xml(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(junit(report).encode())


# JSON.


@pytest.mark.parametrize("text", ["plain", HOSTILE, "ünï-文\U0001f600", "a\r\nb\tc", ""])
def test_a_report_comes_back_from_json_as_it_was(text: str, tmp_path: Path) -> None:
    report = rich(text)
    write(report, tmp_path / "report.json")
    assert read(tmp_path / "report.json") == report


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["results"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format="junit"), '"format" must be "vfio-user-xe results"'),
        (lambda data: data.update(version=2), r"version 2 of the format is not known \(allowed: 1\)"),
        (lambda data: data.pop("results"), "report.results: is missing"),
        (lambda data: data.update(results={}), r"report.results: \{\} is not a list"),
        (lambda data: data.update(defects=[]), r"report.defects: \[\] is not an object"),
        (lambda data: data["results"].append(7), r"report.results\[5\]: 7 is not an object"),
        (_set("verdict", "fine"), r"report.results\[0\].verdict: 'fine' is not one of pass, fail, "),
        (_set("outcome", "ok"), r"results\[0\].outcome: 'ok' is not one of pass, warn, "),
        (_set("seconds", "1"), r"results\[0\].seconds: '1' is not of type float"),
        (_set("repetition", True), r"results\[0\].repetition: True is not of type int"),
        (_set("better", 1), r"results\[0\].better: 1 is not of type bool"),
        (_set("colour", "red"), r"results\[0\].colour: is no field \(allowed: case, verdict, "),
        (_set("properties", {"kernel": 7}), r"results\[0\].properties.kernel: 7 is not of type str"),
        (_set("evidence", [{"kind": "smell"}]), r"evidence\[0\].kind: must be one of log, fact, timeline"),
        (_set("evidence", [{"kind": "log"}]), r"evidence\[0\].name: is missing"),
    ],
)
def test_what_is_no_report_is_refused_with_the_place_and_what_is_allowed(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = json.loads(dumps(rich("text")))
    change(data)
    with pytest.raises(NotAReport, match=message):
        loads(json.dumps(data))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_file_of_something_else_is_refused_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(NotAReport, match="other: "):
        read(path)


# Merging.


def test_shards_become_one_report_with_the_results_of_all() -> None:
    shards = [Report("s", [Result(case(name), Verdict.PASS)], {"D1": "a defect"}) for name in ("a", "b", "c")]
    merged = Report.merge("s", [loads(dumps(shard)) for shard in shards])
    assert [result.case.name for result in merged.results] == ["a", "b", "c"]
    assert (merged.defects, merged.failed) == ({"D1": "a defect"}, False)


def test_suites_of_different_reports_stay_apart() -> None:
    reports = [Report(name, [Result(case("a", suite=name), Verdict.PASS)]) for name in ("first", "second")]
    merged = Report.merge("all", reports)
    assert list(merged.suites) == ["first", "second"]
    assert [suite.get("name") for suite in xml(merged)] == ["first", "second"]


def test_a_pass_that_comes_again_hides_no_failure() -> None:
    red, green = (Report("s", [Result(case("a"), verdict)]) for verdict in (Verdict.FAIL, Verdict.PASS))
    merged = Report.merge("s", [red, green, green])
    assert [(r.verdict, r.repetition) for r in merged.results] == [
        (Verdict.FAIL, 1),
        (Verdict.PASS, 2),
        (Verdict.PASS, 3),
    ]
    assert merged.failed
    assert [test.get("name") for test in xml(merged).iter("testcase")] == ["a", "a #2", "a #3"]
    assert green.results[0].repetition == 1, "merging changed a report"


def test_the_same_case_on_another_kernel_is_no_repetition() -> None:
    reports = [Report("s", [Result(case("a"), Verdict.PASS, properties={"kernel": kernel})]) for kernel in ("6", "7")]
    merged = Report.merge("s", reports)
    assert [result.repetition for result in merged.results] == [1, 1]
    assert merged.kernels == ["6", "7"]


def test_two_explanations_of_one_defect_are_refused() -> None:
    with pytest.raises(ValueError, match='the defect "D1" is "this" in one report and "that" in second'):
        Report.merge("s", [Report("first", [], {"D1": "this"}), Report("second", [], {"D1": "that"})])


# JUnit.


def test_junit_of_hostile_text_is_read_by_an_xml_parser_and_keeps_what_can_be_kept() -> None:
    root = xml(rich(HOSTILE))
    assert root.get("name") == HARMLESS
    failure = root.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == f"crash: {HARMLESS}"
    assert HARMLESS in str(failure.text)
    outputs = [output.text for output in root.iter("system-out")]
    assert outputs == [HARMLESS] * 5


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_makes_invalid_xml_or_cannot_be_encoded(text: str) -> None:
    report = Report(text, [Result(case(text), Verdict.FAIL, text, evidence=[Log("log", text)])])
    assert len(list(xml(report).iter("testcase"))) == 1
    html(report).encode()


def test_a_report_of_one_suite_is_a_testsuite_with_its_counts() -> None:
    verdicts = (Verdict.PASS, Verdict.FAIL, Verdict.EXPECTED_FAIL, Verdict.SKIP, Verdict.NOT_APPLICABLE)
    root = xml(Report("suite", [Result(case(verdict), verdict, "why", 1.5) for verdict in verdicts]))
    assert root.tag == "testsuite"
    assert [root.get(key) for key in ("tests", "failures", "errors", "skipped", "time")] == [
        "5",
        "1",
        "0",
        "3",
        "7.500",
    ]
    assert [[child.tag for child in test] for test in root] == [[], ["failure"], *[["skipped"]] * 3]


def test_a_message_names_the_known_defect_or_the_expectation() -> None:
    assert Result(case("a"), Verdict.EXPECTED_FAIL, "seen", defect="D1").message == "known defect D1: seen"
    accepted = Result(case("a"), Verdict.EXPECTED_FAIL, "seen", outcome=Outcome.TIMEOUT, excuse="slow machine")
    assert accepted.message == "timeout, as expected: slow machine"
    assert Result(case("a"), Verdict.FAIL, "seen", outcome=Outcome.WARN).message == "warn: seen"
    assert Result(case("a"), Verdict.FAIL, "seen").message == "seen"


# HTML.


def test_the_page_shows_hostile_text_as_text_wherever_it_stands() -> None:
    page = html(rich(HOSTILE))
    page.encode()
    assert "<script" not in page
    assert "red\ufffd\ufffd\ufffd \ufffd\ufffd ]]&gt; &amp; &#34;&#39;&lt;script&gt;" in page
    assert not [character for character in page if character != "\n" and not character.isprintable()]
    assert page.count("<details") == page.count("</details>")


def test_the_page_has_no_more_elements_than_with_harmless_text() -> None:
    assert html(rich(HOSTILE)).count("<") == html(rich("text")).count("<")


def test_the_page_needs_nothing_else() -> None:
    page = html(rich("text"))
    assert not [word for word in ("http:", "https:", "src=", "@import", "url(") if word in page]


def test_the_page_opens_what_failed_and_hides_raw_data() -> None:
    facts = [Fact("open", "in sight"), Fact("data", "for programs", Role.RAW)]
    page = html(Report("r", [Result(case(v), v, evidence=list(facts)) for v in (Verdict.PASS, Verdict.FAIL)]))
    assert page.count('<details class="run"') == 2
    assert page.count(" open><summary>") == 1
    assert "in sight" in page
    assert "for programs" not in page


# Text.


def test_a_line_says_verdict_name_time_and_why() -> None:
    known = Result(case("a", "17b"), Verdict.EXPECTED_FAIL, "seen", 1.25, "D1")
    assert line(known).splitlines() == ["known  17b  a (1.2 s)", "             D1: seen"]
    assert line(Result(case("a", "1"), Verdict.PASS)) == "pass   1    a (0.0 s)"


def test_a_line_of_a_rule_says_rule_and_what_was_seen_only_of_a_failure() -> None:
    rule = Case("s", "g", "n", rule="It is refused.", source="DMA_MAP", label="dma.n", tags=("robustness",))
    assert line(Result(rule, Verdict.PASS), RULE) == "ok    dma.n  [DMA_MAP, robustness]"
    assert line(Result(rule, Verdict.SKIP, "no DMA"), RULE) == "skip  dma.n  [DMA_MAP, robustness]  (no DMA)"
    assert line(Result(rule, Verdict.FAIL, "accepted"), RULE).splitlines() == [
        "FAIL  dma.n  [DMA_MAP, robustness]",
        "      rule: It is refused.",
        "      seen: accepted",
    ]


@pytest.mark.parametrize("layout", [RULE, None])
def test_no_control_character_reaches_a_terminal(layout: Any) -> None:
    for result in rich(HOSTILE).results:
        text = line(result, layout) if layout else line(result)
        text += evidence(result) + verdict_table([result]) + totals_table([result], ("on",), "longest")
        text += unexpected([result], lambda found: found.case.label)
        text += summary([result], "cases", (), result.properties["kernel"])
        text.encode()
        assert not [character for character in text if character != "\n" and not character.isprintable()]


def test_a_summary_names_what_was_asked_and_whatever_else_there_is() -> None:
    results = [Result(case("a"), Verdict.PASS), Result(case("b"), Verdict.SKIP)]
    assert summary(results, "cases", (Verdict.PASS, Verdict.FAIL)) == "2 cases: 1 passed, 0 failed, 1 skipped"


def test_a_table_of_verdicts_is_sorted_by_number_and_counts_repetitions() -> None:
    numbers = ("10", "c1", "2", "2", "2")
    verdicts = (Verdict.PASS, Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.PASS)
    rows = verdict_table([Result(case("n", n), v) for n, v in zip(numbers, verdicts, strict=True)]).splitlines()
    assert [row.split()[:2] for row in rows] == [["2", "fail"], ["2", "2x"], ["10", "pass"], ["c1", "pass"]]


def test_what_nobody_explained_and_what_became_better_is_listed() -> None:
    results = [
        Result(case("a"), Verdict.FAIL, "seen", outcome=Outcome.CRASH),
        Result(case("b"), Verdict.PASS, outcome=Outcome.PASS, better=True),
        Result(case("c"), Verdict.PASS, outcome=Outcome.PASS),
    ]
    assert unexpected(results, lambda result: result.case.name).splitlines() == [
        "Not explained (1):",
        "  a: crash: seen",
        "Better than expected, so the expectation file is out of date (1):",
        "  b",
    ]
    assert unexpected(results[2:], lambda result: result.case.name) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "none"),
        ("", "none"),
        ("as it is", "as it is"),
        (["a", "b"], "a\nb"),
        ([1, 2.5], "[1, 2.5]"),
        ({"task": "inner\nouter", "n": "7"}, "task\ninner\nouter\nn: 7"),
        ({"n": 7}, '{\n "n": 7\n}'),
        (None, "null"),
    ],
)
def test_a_fact_is_plain_text_where_it_can_be(value: Any, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]0;t\x07", "link"),
        ("\x1b[2J\x1b[?25l\x1bM", ""),
        ("a\x1b", "a\ufffd"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("\U0001f600 文 é\t", "\U0001f600 文 é\t"),
        ("\ud800\udc00", "\ufffd\ufffd"),
    ],
)
def test_clean_text_has_no_escapes_and_no_controls(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_every_verdict_is_one_of_the_three_things_that_ci_tells_apart() -> None:
    assert {verdict: verdict.status for verdict in Verdict} == {
        Verdict.PASS: Status.PASSED,
        Verdict.FAIL: Status.FAILED,
        Verdict.EXPECTED_FAIL: Status.SKIPPED,
        Verdict.SKIP: Status.SKIPPED,
        Verdict.NOT_APPLICABLE: Status.SKIPPED,
    }
