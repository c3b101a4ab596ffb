"""A report as JUnit XML, as GitHub, GitLab and Jenkins read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.evidence import Log, Timeline
from vfio_user_xe.emulator.results.model import Report, Result, Status


def junit(report: Report) -> str:
    """The document, which any XML parser accepts whatever results hold. Write it as UTF-8.

    A report of one suite that bears its name is a `testsuite`; others are `testsuites`. What is not applicable or failed
    as expected is a skipped test with its reason.
    """
    suites = report.suites
    if not suites or list(suites) == [report.name]:
        root = _suite(None, report.name, report.results)
    else:
        root = _element(None, "testsuites", name=report.name)
        for name, results in suites.items():
            _suite(root, name, results)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(
        ("<?xml version='1.0' encoding='utf-8'?>\n", "\n")
    )


def _suite(parent: ElementTree.Element | None, name: str, results: Sequence[Result]) -> ElementTree.Element:
    counts = Counter(result.status for result in results)
    suite = _element(
        parent,
        "testsuite",
        name=name,
        tests=str(len(results)),
        failures=str(counts[Status.FAILED]),
        errors="0",
        skipped=str(counts[Status.SKIPPED]),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        _case(suite, result)
    return suite


def _case(suite: ElementTree.Element, result: Result) -> None:
    again = f" #{result.repetition}" if result.repetition > 1 else ""
    case = _element(
        suite, "testcase", classname=result.case.group, name=result.case.name + again, time=f"{result.seconds:.3f}"
    )
    record = _record(result)
    if result.status is Status.FAILED:
        rule = f"{result.case.source}: {result.case.rule}\n{result.reason}" if result.case.source else ""
        _element(case, "failure", rule or record or result.reason, message=result.message)
    elif result.status is Status.SKIPPED:
        _element(case, "skipped", message=result.message)
    output = "\n".join(log.text for log in result.evidence if isinstance(log, Log) and log.output)
    if output or record:
        _element(case, "system-out", output or record)


def _record(result: Result) -> str:
    """What was noted of a run: its steps, and what others than the test wrote."""
    lines = []
    for item in result.evidence:
        if isinstance(item, Timeline):
            lines += [f"{event.start:9.3f} s  {event.seconds:8.3f} s  {event.text}" for event in item.events]
        elif isinstance(item, Log) and not item.output:
            lines.append(item.text)
    return "\n".join(filter(None, lines))


def _element(parent: ElementTree.Element | None, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """An element whose text and attributes hold nothing that XML forbids."""
    cleaned = {name: clean(value) for name, value in attributes.items()}
    element = ElementTree.Element(tag, cleaned) if parent is None else ElementTree.SubElement(parent, tag, cleaned)
    element.text = clean(text) or None
    return element
