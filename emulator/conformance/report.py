"""Results as a person, a CI system and a program want them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from vfio_user_xe.emulator.conformance.case import FAIL, PASS, SKIP, Result

_MARKS = {PASS: "ok  ", FAIL: "FAIL", SKIP: "skip"}


def line(result: Result) -> str:
    """One result in one line, or two when there is something to say."""
    case = result.case
    silent = ", robustness" if case.silent else ""
    text = f"{_MARKS[result.verdict]}  {case.id}  [{case.section}{silent}]"
    if result.verdict == FAIL:
        text += f"\n      rule: {case.summary}\n      seen: {result.detail}"
    elif result.detail:
        text += f"  ({result.detail})"
    return text


def summary(results: Sequence[Result]) -> str:
    """How many of what, in one line."""
    counts = Counter(result.verdict for result in results)
    seconds = sum(result.seconds for result in results)
    return (
        f"{len(results)} cases: {counts[PASS]} passed, {counts[FAIL]} failed, {counts[SKIP]} skipped in {seconds:.1f} s"
    )


def junit(results: Sequence[Result], suite: str) -> str:
    """A JUnit XML document."""
    counts = Counter(result.verdict for result in results)
    root = ElementTree.Element(
        "testsuite",
        name=f"vfio-user conformance: {suite}",
        tests=str(len(results)),
        failures=str(counts[FAIL]),
        skipped=str(counts[SKIP]),
        errors="0",
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        group, _, name = result.case.id.partition(".")
        case = ElementTree.SubElement(
            root, "testcase", classname=f"conformance.{group}", name=name, time=f"{result.seconds:.3f}"
        )
        if result.verdict == FAIL:
            failure = ElementTree.SubElement(case, "failure", message=result.detail)
            failure.text = f"{result.case.section}: {result.case.summary}\n{result.detail}"
        elif result.verdict == SKIP:
            ElementTree.SubElement(case, "skipped", message=result.detail)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
