"""Results as text, as JUnit XML, and as plain data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from vfio_user_xe.emulator.scenarios.scenario import EXPECTED_FAIL, FAIL, NOT_APPLICABLE, PASS, Result, Suite

MARKS = {PASS: "pass", FAIL: "FAIL", EXPECTED_FAIL: "known", NOT_APPLICABLE: "n/a "}


def line(result: Result) -> str:
    """One result: its verdict, its time, and why."""
    why = f"{result.defect}: {result.reason}" if result.defect else result.reason
    text = f"{MARKS[result.verdict]:6} {result.scenario.number:4} {result.scenario.name} ({result.seconds:.1f} s)"
    return f"{text}\n             {why}" if why else text


def evidence(result: Result) -> str:
    """What explains a result, as the scenario collected it; empty when there is nothing."""
    if result.run is None:
        return ""
    parts = []
    for name in result.run.shown:
        text = plain(result.run.facts[name])
        if "\n" in text:
            parts.append(
                f"             {name}:\n" + "\n".join(f"                 {part}" for part in text.splitlines())
            )
        else:
            parts.append(f"             {name}: {text}")
    return "\n".join(parts)


def plain(value: Any) -> str:
    """A fact as text: stacks and lists of lines as they are, other data as JSON."""
    if value in ([], {}, ""):
        return "none"
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return "\n".join(f"{key}\n{item}" if "\n" in item else f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value, indent=1)


def table(results: Sequence[Result]) -> str:
    """A row for each scenario, in the order of their numbers; of repetitions, one for each different verdict."""
    rows = Counter((r.scenario.order, r.scenario.number, r.verdict, r.defect, r.scenario.title) for r in results)
    lines = []
    for (_, number, verdict, defect, title), count in sorted(rows.items()):
        times = f"{count}x " if count > 1 else ""
        lines.append(f"{number:4} {times + verdict:18} {defect:30} {title}".rstrip())
    return "\n".join(lines)


def summary(results: Sequence[Result], seconds: float) -> str:
    """How many of what."""
    counts = Counter(result.verdict for result in results)
    kernels = ", ".join(sorted({result.kernel for result in results if result.kernel})) or "no kernel ran"
    return (
        f"{len(results)} scenarios on {kernels}: {counts[PASS]} passed, {counts[FAIL]} failed,"
        f" {counts[EXPECTED_FAIL]} failed as known, {counts[NOT_APPLICABLE]} not applicable; {seconds:.0f} s"
    )


def junit(suite: Suite, results: Sequence[Result]) -> str:
    """A JUnit XML document; known defects and what does not apply are skipped tests with their reasons."""
    counts = Counter(result.verdict for result in results)
    root = ElementTree.Element(
        "testsuite",
        name=f"scenarios: {suite.name}",
        tests=str(len(results)),
        failures=str(counts[FAIL]),
        errors="0",
        skipped=str(counts[EXPECTED_FAIL] + counts[NOT_APPLICABLE]),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        name = result.scenario.name + (f" #{result.repetition}" if result.repetition > 1 else "")
        case = ElementTree.SubElement(
            root, "testcase", classname=f"scenarios.{suite.name}", name=name, time=f"{result.seconds:.3f}"
        )
        if result.verdict == FAIL:
            ElementTree.SubElement(case, "failure", message=result.reason).text = _protocol(result)
        elif result.verdict == EXPECTED_FAIL:
            ElementTree.SubElement(case, "skipped", message=f"known defect {result.defect}: {result.reason}")
        elif result.verdict == NOT_APPLICABLE:
            ElementTree.SubElement(case, "skipped", message=result.reason)
        ElementTree.SubElement(case, "system-out").text = _protocol(result)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_dict(result: Result) -> dict[str, Any]:
    """Everything about a result."""
    run = result.run
    return {
        "number": result.scenario.number,
        "name": result.scenario.name,
        "title": result.scenario.title,
        "expected": result.scenario.expected,
        "setup": result.scenario.setup.name,
        "verdict": result.verdict,
        "defect": result.defect,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "kernel": result.kernel,
        "repetition": result.repetition,
        "events": [asdict(event) for event in run.events] if run else [],
        "facts": run.facts if run else {},
        "shown": run.shown if run else [],
        "kernel_log": run.kernel_log if run else [],
        "splats": run.splats() if run else [],
        **result.details,
    }


def _protocol(result: Result) -> str:
    run = result.run
    if run is None:
        return result.reason
    lines = [f"{event.start:9.3f} s  {event.seconds:8.3f} s  {event.text}" for event in run.events]
    lines += [f"kernel: {text}" for text in run.kernel_log]
    # Control characters of a console have no place in XML.
    return "".join(c for c in "\n".join(lines) if c in "\n\t" or ord(c) >= 32)
