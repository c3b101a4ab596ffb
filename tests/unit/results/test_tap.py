"""Results as TAP."""

from __future__ import annotations

from vfio_user_xe.emulator.results import Case, Report, Result, Verdict
from vfio_user_xe.emulator.results.tap import tap


def result(name: str, verdict: Verdict, reason: str = "", **more: str) -> Result:
    return Result(Case("suite", "group", name), verdict, reason, **more)


def test_each_result_has_a_line_and_a_failure_its_reason() -> None:
    report = Report(
        "all",
        [
            result("good", Verdict.PASS),
            result("bad", Verdict.FAIL, 'said "no"\nand left'),
            result("known", Verdict.EXPECTED_FAIL, "waits", defect="hang"),
            result("none", Verdict.NOT_APPLICABLE, "no KUnit"),
        ],
    )
    assert tap(report).splitlines() == [
        "TAP version 14",
        "1..4",
        "ok 1 - group.good",
        "not ok 2 - group.bad",
        "  ---",
        '  message: "said \\"no\\" and left"',
        "  duration_ms: 0",
        "  ...",
        "ok 3 - group.known # SKIP known defect hang: waits",
        "ok 4 - group.none # SKIP no KUnit",
    ]


def test_a_name_with_a_hash_is_no_directive_and_repetitions_are_told_apart() -> None:
    again = result("a#b", Verdict.PASS)
    again.repetition = 2
    assert "ok 1 - group.a\\#b \\#2" in tap(Report("all", [again]))
