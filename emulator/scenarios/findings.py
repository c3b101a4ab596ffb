"""Known defects, their fixes, and on which kernels each was seen: red before the fix, green after.

What was seen is kept as data (`Seen`, a JSON file); the table is made of it. A kernel is red for a defect when a scenario ended
as a failure by that name, and green when the scenarios that look for it passed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vfio_user_xe.emulator.guest.cache import write_atomically
from vfio_user_xe.emulator.kernel_reports.reporters import State
from vfio_user_xe.emulator.results import Fact, Result, Verdict
from vfio_user_xe.emulator.results.evidence import Json
from vfio_user_xe.emulator.scenarios.evidence import KNOWN
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Suite

_UNSEEN = "without "
"""Begins an outcome of a scenario that passed without the reporter that would have seen the defect."""


@dataclass
class Seen:
    """How often a scenario ended how on a kernel."""

    suite: str
    scenario: str
    kernel: str
    outcomes: dict[str, int] = field(default_factory=dict)
    """By verdict, with the defect's name behind an expected failure."""
    said: dict[str, str] = field(default_factory=dict)
    """By verdict: the last reason."""
    also: dict[str, int] = field(default_factory=dict)
    """Known defects that the kernel reported in runs that ended by another name."""

    @property
    def runs(self) -> int:
        """How often it ran."""
        return sum(self.outcomes.values())

    def add(self, outcome: str, reason: str, also: Iterable[str] = ()) -> None:
        """One more run; `also` are defects that it showed besides."""
        for defect in also:
            self.also[defect] = self.also.get(defect, 0) + 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if reason:
            self.said[outcome] = reason


def chosen_findings(suite: Suite[MachineT], names: Sequence[str]) -> list[Finding]:
    """The findings of a suite with these defects or scenarios; all without names."""
    return [row for row in suite.findings if not names or row.defect in names or set(names) & set(row.scenarios)]


def load(file: Path) -> list[Seen]:
    """What was seen so far; nothing where there is no file.

    Raises:
        ValueError: the file is of another form.
    """
    if not file.exists():
        return []
    try:
        return [Seen(**entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not what `scenario findings --data` writes: {error}") from error


def save(file: Path, seen: Iterable[Seen]) -> None:
    """Write the data, in an order that does not depend on that of the runs."""
    ordered = sorted(seen, key=lambda entry: (entry.suite, entry.scenario, release_order(entry.kernel)))
    text = json.dumps([asdict(entry) for entry in ordered], indent=1, sort_keys=True)
    write_atomically(file, f"{text}\n".encode())


def record(seen: list[Seen], suite: str, results: Iterable[Result], needs: Mapping[str, str]) -> None:
    """Add results of a suite to what was seen; `needs` are reporters by scenario, see `Finding.needs`."""
    for result in results:
        kernel = result.properties.get("kernel", "")
        if result.case.number == SETUP or not kernel:
            continue
        name = result.case.name
        entry = next((e for e in seen if (e.suite, e.scenario, e.kernel) == (suite, name, kernel)), None)
        if entry is None:
            entry = Seen(suite, name, kernel)
            seen.append(entry)
        entry.add(_outcome(result, needs.get(name, "")), result.reason, _also(result))


def _outcome(result: Result, reporter: str) -> str:
    if result.verdict is Verdict.EXPECTED_FAIL:
        return f"{result.verdict} {result.defect}"
    if result.verdict is Verdict.PASS and reporter and not _at_work(result, reporter):
        return f"{_UNSEEN}{reporter}"
    return str(result.verdict)


def _also(result: Result) -> list[str]:
    known = _fact(result, KNOWN)
    return [str(defect) for defect in known if defect != result.defect] if isinstance(known, list) else []


def _at_work(result: Result, reporter: str) -> bool:
    states = _fact(result, "kernel's reporters")
    return isinstance(states, dict) and states.get(reporter) == State.ON


def _fact(result: Result, name: str) -> Json:
    return next((fact.value for fact in result.evidence if isinstance(fact, Fact) and fact.name == name), None)


def kernels(seen: Iterable[Seen]) -> list[str]:
    """The kernels that anything was seen on, the oldest first."""
    return sorted({entry.kernel for entry in seen}, key=release_order)


def release_order(release: str) -> tuple[list[int], str]:
    """To sort kernel releases by number."""
    number = release.partition("-")[0].partition("+")[0]
    return [int(part) for part in number.split(".") if part.isdigit()], release


def table(findings: Mapping[str, Sequence[Finding]], seen: Sequence[Seen]) -> str:
    """The red and green table in Markdown; `findings` by suite."""
    columns = kernels(seen)
    lines = [
        f"| defect | fix | seen by | {' | '.join(_labels(columns))} |",
        f"|---|---|---|{'---|' * len(columns)}",
    ]
    for suite, rows in findings.items():
        for finding in rows:
            title = f"[{finding.title}]({finding.page}.md)" if finding.page else finding.title
            cells = [cell(finding, suite, kernel, seen) for kernel in columns]
            names = ", ".join(f"`{name}`" for name in finding.scenarios)
            lines.append(f"| {title} | {finding.fix or 'none'} | {suite}: {names} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(finding: Finding, suite: str, kernel: str, seen: Iterable[Seen]) -> str:
    """What the scenarios of a finding came to on a kernel, with n of n runs."""
    outcomes: Counter[str] = Counter()
    also = 0
    for entry in seen:
        if entry.suite == suite and entry.scenario in finding.scenarios and entry.kernel == kernel:
            outcomes.update(entry.outcomes)
            also += entry.also.get(finding.defect, 0)
    runs = outcomes.total()
    if not runs:
        return ""
    red = outcomes[f"{Verdict.EXPECTED_FAIL} {finding.defect}"] + also
    if red:
        return f"**red** {red} of {runs}"
    if green := outcomes[str(Verdict.PASS)]:
        return f"green {green} of {runs}"
    return _neither(outcomes, runs)


def _neither(outcomes: Counter[str], runs: int) -> str:
    """No run says anything of the defect."""
    outcome, count = outcomes.most_common(1)[0]
    if outcome == str(Verdict.NOT_APPLICABLE):
        return "n/a"
    return f"{outcome} {count} of {runs}"


def _labels(releases: Sequence[str]) -> list[str]:
    """Version numbers, or whole releases where two have the same number."""
    numbers = [release.partition("-")[0].partition("+")[0] for release in releases]
    return [
        number if numbers.count(number) == 1 else release for number, release in zip(numbers, releases, strict=True)
    ]
