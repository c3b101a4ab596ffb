"""What a run of a suite leaves: the lines of JSON from which it is resumed, and the report that they become once judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vfio_user_xe.emulator.results import Report, Result, Verdict
from vfio_user_xe.emulator.results.journal import append_line
from vfio_user_xe.emulator.results.text import totals_table, unexpected
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.subtest import Key, SubtestResult
from vfio_user_xe.emulator.suites.table import SuiteError


def append_result(path: Path, result: SubtestResult) -> None:
    """Add a result to a file of JSON lines; several processes may do so."""
    append_line(path, json.dumps(result.as_dict()))


def forget_results(output: Path) -> None:
    """Remove what an earlier run left in its output folder: results, consoles, servers' logs; make the folder where there is none."""
    output.mkdir(parents=True, exist_ok=True)
    for pattern in ("results.jsonl", "console-*.log", "server-*.log", "job-*/console-*.log", "job-*/server-*.log"):
        for old in output.glob(pattern):
            old.unlink(missing_ok=True)


def read_results(path: Path) -> list[SubtestResult]:
    """The results in a file of JSON lines, the last of each subtest; a last line cut short is ignored.

    Raises:
        SuiteError: the file holds something else.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[Key, SubtestResult] = {}
    for number, line in enumerate(lines, 1):
        try:
            result = SubtestResult.from_dict(json.loads(line.decode()))
        except ValueError as error:
            if number == len(lines):
                break
            raise SuiteError(f"{path}:{number}: {error}") from error
        found[result.key] = result
    return list(found.values())


def report_of(seen: Iterable[SubtestResult], expectations: Expectations, name: str, title: str = "") -> Report:
    """What was seen of the suite `name`, judged, as a report: a heading for each test and function."""
    by_suite: dict[str, list[Result]] = {}
    for item in seen:
        result = expectations.result(item, name)
        by_suite.setdefault(result.case.suite, []).append(result)
    return Report(name, [result for results in by_suite.values() for result in results], title=title or name)


def table(report: Report) -> str:
    """A Markdown table: a line for each test and function, and for each group and kernel where there are several."""
    return totals_table(report.results, (*_told_apart(report), "on", "test"), "longest subtest")


def summary(seen: Sequence[SubtestResult], report: Report, expectations: Expectations) -> str:
    """What no expectation explains, what became better, and the share that is as on real hardware."""
    if not seen:
        return "No subtest was run."
    alike = sum(expectations.as_on_hardware(result) for result in seen)
    failed = report.counts[Verdict.FAIL]
    share = (
        f"{len(seen)} subtests: {alike} ({100 * alike / len(seen):.1f} %) pass or end as on real hardware, "
        f"{failed} not explained."
    )
    apart = _told_apart(report)

    def place(result: Result) -> str:
        return ", ".join(
            [f"{result.case.label} on {result.properties['on']}", *(result.properties.get(one, "") for one in apart)]
        )

    told = unexpected(report.results, place)
    return f"{told}\n{share}" if told else share


def _told_apart(report: Report) -> list[str]:
    """Of a result's properties, those that a reader needs to tell results apart: a single kernel need not be repeated."""
    return [name for name in ("kernel", "group") if len({one.properties.get(name, "") for one in report.results}) > 1]
