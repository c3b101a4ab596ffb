"""What `git bisect run` is told of a scenario's verdicts."""

from __future__ import annotations

import pytest

from vfio_user_xe.emulator.results import Case, Result, Verdict
from vfio_user_xe.emulator.scenarios.bisect import BAD, CANNOT_TEST, GOOD, Bad, bisect_code


def result(verdict: Verdict, defect: str = "") -> Result:
    return Result(Case("s", "g", "n", number="1"), verdict, defect=defect, properties={"kernel": "7.3"})


@pytest.mark.parametrize(
    ("words", "code"),
    [([], BAD), (["creaks"], CANNOT_TEST), (["expected-fail"], CANNOT_TEST), (["creaks", "fail"], BAD)],
)
def test_a_failure_decides_nothing_where_a_defect_is_looked_for(words: list[str], code: int) -> None:
    bad = Bad.parse(words, ["creaks"])
    assert bisect_code([result(Verdict.PASS), result(Verdict.FAIL)], bad) == code


def test_a_failure_is_good_where_what_is_not_applicable_is_looked_for() -> None:
    bad = Bad.parse(["not-applicable"], [])
    assert bisect_code([result(Verdict.FAIL)], bad) == GOOD
    assert bisect_code([result(Verdict.NOT_APPLICABLE)], bad) == BAD


def test_the_defect_that_is_looked_for_is_bad_whatever_else_fails() -> None:
    bad = Bad.parse(["creaks"], ["creaks", "leaks"])
    assert bisect_code([result(Verdict.FAIL), result(Verdict.EXPECTED_FAIL, "creaks")], bad) == BAD
    assert bisect_code([result(Verdict.EXPECTED_FAIL, "leaks")], bad) == GOOD
