"""The judgement of what a kernel reported of itself, which no scenario can escape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind, Line
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.excuses import Excuse, unexcused


@dataclass
class Findings:
    """What was found of the kernel after a scenario or a set-up."""

    lines: list[Line] = field(default_factory=list)
    """The part of the log that is judged."""
    reports: list[KernelReport] = field(default_factory=list)
    """All reports in it, and what kmemleak found."""
    contradictions: list[str] = field(default_factory=list)
    """What the kernel has counted and not reported; lines that were lost; what could not be read."""
    silenced: dict[str, str] = field(default_factory=dict)
    """Reporters that have switched themselves off, each with what says so."""


@dataclass(frozen=True)
class Judgement:
    """What the findings mean for the result."""

    guilty: list[KernelReport]
    """Reports that nothing excuses."""
    unneeded: list[Excuse]
    """Excuses that covered no report."""
    known: list[str] = field(default_factory=list)
    """Known defects that reports show, each once, in the order in which they came."""


def judge(findings: Findings, result: Result, excuses: Sequence[Excuse], known: Mapping[str, str]) -> Judgement:
    """Let the findings change the result: a report fails it whatever else was seen, unless it is excused or a known defect's.

    `known` are regular expressions by defect, of the report's text from the line that begins it on.
    """
    guilty, unneeded = unexcused(findings.reports, excuses)
    patterns = {name: re.compile(pattern) for name, pattern in known.items()}
    shown: list[str] = []
    for report in guilty:
        defect = next((name for name, pattern in patterns.items() if pattern.search(report.text)), None)
        if defect is None:
            _fail(result, f"the kernel reported: {report}")
            continue
        shown.append(defect)
        if result.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE):
            result.verdict, result.defect = Verdict.EXPECTED_FAIL, defect
            result.reason = f"the kernel reported: {report}"
    for said in findings.contradictions:
        _fail(result, said)
    return Judgement(guilty, unneeded, list(dict.fromkeys(shown)))


def must_be_red(result: Result, kind: Kind | None, words: str, judgement: Judgement) -> None:
    """Turn the result of a scenario round that must fail: for a report of `kind`, or (None) with `words` in the reason.

    One that did not apply, and in which the kernel reported nothing, stays as it is.
    """
    if result.verdict is Verdict.NOT_APPLICABLE:
        return
    right = kind is None or any(
        report.kind is kind and result.reason.startswith(f"the kernel reported: {report}")
        for report in judgement.guilty
    )
    if result.verdict is Verdict.FAIL and right and words in result.reason:
        result.verdict, result.reason = Verdict.PASS, f"red, as it should be: {result.reason}"
        return
    judged = f"{result.verdict}, {result.reason}" if result.reason else str(result.verdict)
    wanted = f"a report of the kind {kind}" if kind is not None else f'a failure with "{words}"'
    result.verdict, result.defect = Verdict.FAIL, ""
    result.reason = f"{wanted} was provoked, and judged: {judged}"


def _fail(result: Result, reason: str) -> None:
    """The first reason stays; of a defect that is known by name, a failure is more than that."""
    if result.verdict is Verdict.FAIL:
        return
    besides = f" (besides {result.defect}: {result.reason})" if result.defect else ""
    result.verdict, result.defect, result.reason = Verdict.FAIL, "", f"{reason}{besides}"
