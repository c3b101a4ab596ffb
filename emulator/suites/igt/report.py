"""IGT results for people and machines: a table, JUnit, and the lines of JSON from which a run is resumed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from vfio_user_xe.emulator.suites.igt.expectations import BETTER, UNEXPECTED, Expectations
from vfio_user_xe.emulator.suites.igt.results import FAIL, PASS, SKIP, SubtestResult
from vfio_user_xe.emulator.suites.igt.suite import SuiteError

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]")


def append_result(path: Path, result: SubtestResult) -> None:
    """Add a result to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")


def read_results(path: Path) -> list[SubtestResult]:
    """The results in a file of JSON lines, the last of each subtest; a last line cut short is ignored.

    Raises `SuiteError` for a file that holds something else.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str], SubtestResult] = {}
    for number, line in enumerate(lines, 1):
        try:
            result = SubtestResult.from_dict(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise SuiteError(f"{path}:{number}: {error}") from error
        found[result.name, result.on] = result
    return list(found.values())


def table(results: Iterable[SubtestResult]) -> str:
    """A Markdown table: a line for each test and function."""
    by_test: dict[tuple[str, str], list[SubtestResult]] = {}
    for result in results:
        by_test.setdefault((result.on, result.test), []).append(result)
    rows = [("on", "test", "pass", "skip", "fail", "other", "s", "longest subtest")]
    for (on, test), group in by_test.items():
        longest = max(group, key=lambda result: result.seconds)
        seconds = sum(result.seconds for result in group)
        slowest = f"{longest.subtest} {longest.seconds:.1f}".strip()
        rows.append((on, test, *_counts(group), f"{seconds:.0f}", slowest))
    everything = [result for group in by_test.values() for result in group]
    rows.append(("", "total", *_counts(everything), f"{sum(result.seconds for result in everything):.0f}", ""))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" for _ in rows[0]) + "|")
    return "\n".join(lines)


def summary(results: Sequence[SubtestResult], expectations: Expectations) -> str:
    """What nobody explained, what became better, and the share that is as on real hardware."""
    lines = []
    judged = [(result, expectations.judge(result)) for result in results]
    unexpected = [result for result, verdict in judged if verdict == UNEXPECTED]
    better = [result for result, verdict in judged if verdict == BETTER]
    if unexpected:
        lines.append(f"Not explained ({len(unexpected)}):")
        lines += [f"  {result.name} on {result.on}: {result.outcome}: {result.reason}" for result in unexpected]
    if better:
        lines.append(f"Better than expected, so the expectation file is out of date ({len(better)}):")
        lines += [f"  {result.name} on {result.on}" for result in better]
    if results:
        alike = sum(expectations.as_on_hardware(result) for result in results)
        lines.append(
            f"{len(results)} subtests: {alike} ({100 * alike / len(results):.1f} %) pass or end as on real hardware, "
            f"{len(unexpected)} not explained."
        )
    else:
        lines.append("No subtest was run.")
    return "\n".join(lines)


def junit(results: Iterable[SubtestResult], expectations: Expectations) -> bytes:
    """A JUnit file: a test suite for each test, a failure for what nobody explained, skipped for what was expected."""
    root = ElementTree.Element("testsuites", name="igt")
    suites: dict[tuple[str, str], list[SubtestResult]] = {}
    for result in results:
        suites.setdefault((result.on, result.test), []).append(result)
    for (on, test), group in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", name=f"{test} ({on})", tests=str(len(group)))
        failures = skipped = 0
        for result in group:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"igt.{on}.{test}",
                name=result.subtest or test,
                time=f"{result.seconds:.3f}",
            )
            entry = expectations.find(result.name, result.on)
            if expectations.judge(result) == UNEXPECTED:
                failures += 1
                message = f"{result.outcome}: {result.reason}"
                details = "\n".join(filter(None, (result.device, result.kernel_log)))
                ElementTree.SubElement(case, "failure", message=_xml(message)).text = _xml(details)
            elif result.outcome != PASS:
                skipped += 1
                why = f"{result.outcome}, as expected: {entry.reason if entry else result.reason}"
                ElementTree.SubElement(case, "skipped", message=_xml(why))
            if result.output:
                ElementTree.SubElement(case, "system-out").text = _xml(result.output)
        suite.set("failures", str(failures))
        suite.set("skipped", str(skipped))
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _counts(results: Iterable[SubtestResult]) -> tuple[str, str, str, str]:
    """pass, skip, fail, and the others by name."""
    counted = Counter(result.outcome for result in results)
    others = [f"{outcome} {count}" for outcome, count in counted.items() if outcome not in (PASS, SKIP, FAIL)]
    return str(counted[PASS]), str(counted[SKIP]), str(counted[FAIL]), ", ".join(others)


def _xml(text: str) -> str:
    """`text` without characters that XML cannot hold."""
    return _NOT_XML.sub("?", text)
