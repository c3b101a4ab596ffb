"""Results as text for a terminal or a log: lines, evidence, summaries, tables.

Nothing here passes on control characters of what was tested.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vfio_user_xe.emulator.results.characters import clean
from vfio_user_xe.emulator.results.evidence import Fact, Json, Role
from vfio_user_xe.emulator.results.model import Outcome, Result, Status, Verdict

_MARKS = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "FAIL",
    Verdict.EXPECTED_FAIL: "known",
    Verdict.SKIP: "skip",
    Verdict.NOT_APPLICABLE: "n/a ",
}
_COUNTED = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.EXPECTED_FAIL: "failed as known",
    Verdict.SKIP: "skipped",
    Verdict.NOT_APPLICABLE: "not applicable",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a suite's lines look: the marks of verdicts, how far what follows is indented, what is said."""

    marks: Mapping[Verdict, str]
    indent: int
    seconds: bool
    rule: bool
    """Whether a failure says the rule, and what was seen instead."""


VERDICT_AND_TIME = Layout({verdict: f"{mark:6} " for verdict, mark in _MARKS.items()}, 13, seconds=True, rule=False)
"""One line for a case that takes seconds or minutes."""
RULE = Layout({**_MARKS, Verdict.PASS: "ok  "}, 6, seconds=False, rule=True)
"""One line for a case that is a rule of a specification."""


def line(result: Result, layout: Layout = VERDICT_AND_TIME) -> str:
    """One result: its verdict, what it is, and why."""
    case = result.case
    number = f"{case.number:4} " if case.number else ""
    gap = "  " if layout.rule else ""
    text = f"{layout.marks[result.verdict]}{gap}{number}{case.label or case.name}"
    if case.source:
        text += f"  [{', '.join((case.source, *case.tags))}]"
    if layout.seconds:
        text += f" ({result.seconds:.1f} s)"
    before = "\n" + layout.indent * " "
    why = f"{result.defect}: {result.reason}" if result.defect else result.reason
    if layout.rule and result.status is Status.FAILED:
        text += f"{before}rule: {case.rule}{before}seen: {why}"
    elif why:
        text += f"  ({why})" if layout.rule else before + why
    return clean(text)


def counted_line(number: int, total: int, result: Result) -> str:
    """One result of many whose total is known: its outcome, its time, and why where that is not expected."""
    failed = result.status is Status.FAILED
    mark = "  <- not explained" if failed else "  <- better than expected" if result.better else ""
    label = result.case.label or result.case.name
    text = f"[{number:{len(str(total))}}/{total}] {result.word:7} {result.seconds:6.1f} s  {label}{mark}"
    return clean(f"{text}\n      {result.reason}" if failed and result.reason else text)


def evidence(result: Result, indent: int = 13) -> str:
    """The facts that explain a verdict; empty when there are none."""
    parts = []
    for fact in result.evidence:
        if not isinstance(fact, Fact) or fact.role is not Role.SHOWN:
            continue
        text = plain(fact.value)
        if "\n" in text:
            rows = "\n".join(f"{' ' * (indent + 4)}{row}" for row in text.splitlines())
            parts.append(f"{' ' * indent}{fact.name}:\n{rows}")
        else:
            parts.append(f"{' ' * indent}{fact.name}: {text}")
    return clean("\n".join(parts))


def plain(value: Json) -> str:
    """A fact as text: stacks and lists of lines as they are, other data as JSON."""
    if value in ([], {}, ""):
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return "\n".join(
            f"{key}\n{item}" if isinstance(item, str) and "\n" in item else f"{key}: {item}"
            for key, item in value.items()
        )
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(str(item) for item in value)
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return json.dumps(value)
    return json.dumps(value, indent=1)


def summary(results: Sequence[Result], noun: str, verdicts: Iterable[Verdict], on: str = "") -> str:
    """How many of what: `3 cases: 1 passed, 1 failed, 1 skipped`. `verdicts` are named even where there are none."""
    counts = Counter(result.verdict for result in results)
    asked = list(dict.fromkeys((*verdicts, *(verdict for verdict in Verdict if counts[verdict]))))
    parts = ", ".join(f"{counts[verdict]} {_COUNTED[verdict]}" for verdict in asked)
    return clean(f"{len(results)} {noun}{f' on {on}' if on else ''}: {parts}")


def verdict_table(results: Sequence[Result]) -> str:
    """A row for each numbered case, in the order of the numbers; of repetitions, one for each different verdict."""
    rows = Counter(
        (order(result.case.number), result.case.number, result.verdict, result.defect, result.case.title)
        for result in results
    )
    lines = []
    for (_, number, verdict, defect, title), count in sorted(rows.items()):
        times = f"{count}x " if count > 1 else ""
        lines.append(f"{number:4} {times + verdict:18} {defect:30} {title}".rstrip())
    return clean("\n".join(lines))


def order(number: str) -> tuple[int, str]:
    """To sort cases by number: those that begin with a letter come last."""
    digits = "".join(character for character in number if character.isdecimal())
    return int(digits or 0) + (0 if number[:1].isdecimal() else 1000), number


def totals_table(results: Iterable[Result], by: Sequence[str], longest: str) -> str:
    """A Markdown table of outcomes: a row for each value of the properties `by`; `longest` heads its slowest case."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result.properties.get(name, "") for name in by), []).append(result)
    rows = [(*by, "pass", "skip", "fail", "other", "s", longest)]
    for key, group in groups.items():
        slowest = max(group, key=lambda result: result.seconds)
        name = slowest.case.name if slowest.case.name != key[-1] else ""
        rows.append((*key, *_totals(group), f"{name} {slowest.seconds:.1f}".strip()))
    everything = [result for group in groups.values() for result in group]
    rows.append((*[""] * (len(by) - 1), "total", *_totals(everything), ""))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" for _ in rows[0]) + "|")
    return clean("\n".join(lines))


def unexpected(results: Iterable[Result], place: Callable[[Result], str]) -> str:
    """What no expectation explains, and what became better, each with its `place`; empty when there is neither."""
    failed = [result for result in results if result.status is Status.FAILED]
    better = [result for result in results if result.better]
    lines = []
    if failed:
        lines.append(f"Not explained ({len(failed)}):")
        lines += [f"  {place(result)}: {result.message}" for result in failed]
    if better:
        lines.append(f"Better than expected, so the expectation file is out of date ({len(better)}):")
        lines += [f"  {place(result)}" for result in better]
    return clean("\n".join(lines))


def _totals(results: Sequence[Result]) -> tuple[str, ...]:
    counted = Counter(result.word for result in results)
    named = (Outcome.PASS, Outcome.SKIP, Outcome.FAIL)
    others = ", ".join(f"{word} {count}" for word, count in counted.items() if word not in named)
    return (*(str(counted[word]) for word in named), others, f"{sum(result.seconds for result in results):.0f}")
