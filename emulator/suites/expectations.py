"""What is expected of a suite's tests on this device: a TOML file, a list of

    [[expect]]
    tests = ["core_hotunplug@unplug-rescan"]
    result = "fail"               # or a list of outcomes that are all right
    cause = "guest"               # hardware: real hardware does the same; device: a gap of ours; guest: the machine
    reason = "..."
    missing = "..."               # what would have to be emulated, for cause = "device"
    on = "vf*"                    # only on these functions ("pf", "vf1", ...); without it on all
    group = "gl-*"                # only in these groups of the suite; without it in all

The first entry that fits a subtest counts; a subtest that none fits has to pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vfio_user_xe.emulator.results import Log, Outcome, Result, Verdict
from vfio_user_xe.emulator.suites.subtest import SubtestResult
from vfio_user_xe.emulator.suites.table import SuiteError, Table, fits

CAUSES = ("hardware", "device", "guest")

EXPECTED = "expected"
UNEXPECTED = "unexpected"
BETTER = "better"
"""It passed although the file expects something else: the entry is out of date."""


@dataclass(frozen=True)
class Expectation:
    """One `[[expect]]` table."""

    tests: tuple[str, ...]
    results: tuple[str, ...]
    cause: str
    reason: str
    missing: str = ""
    on: str = "*"
    group: str = "*"

    def fits(self, name: str, on: str, group: str) -> bool:
        """Whether this is about the subtest `name` of a group on function `on`."""
        return (
            fnmatchcase(on, self.on)
            and fnmatchcase(group, self.group)
            and any(fits(pattern, name) for pattern in self.tests)
        )


@dataclass(frozen=True)
class Expectations:
    """An expectation file, checked."""

    entries: tuple[Expectation, ...] = ()

    @staticmethod
    def load(path: Path) -> Expectations:
        """Read an expectation file.

        Raises:
            SuiteError: the file cannot be read, or has a key or value that is not allowed; its place is named.
        """
        table = Table.read(path)
        entries = []
        for item in table.tables("expect"):
            entry = Expectation(
                item.texts("tests"),
                item.texts("result", choices=tuple(Outcome)),
                item.text("cause", choices=CAUSES),
                item.text("reason"),
                item.text("missing", ""),
                item.text("on", "*"),
                item.text("group", "*"),
            )
            item.finish()
            if entry.cause == "device" and not entry.missing:
                raise SuiteError(f'{item.place}: cause "device" needs "missing": what would have to be emulated')
            if not entry.reason.strip():
                raise SuiteError(f"{item.place}.reason: must say why")
            entries.append(entry)
        table.finish()
        return Expectations(tuple(entries))

    def find(self, name: str, on: str = "pf", group: str = "") -> Expectation | None:
        """The entry for a group's subtest on a function, None for one that has to pass."""
        return next((entry for entry in self.entries if entry.fits(name, on, group)), None)

    def judge(self, result: SubtestResult) -> str:
        """`EXPECTED`, `UNEXPECTED` or `BETTER`."""
        entry = self.find(result.name, result.on, result.group)
        allowed = entry.results if entry is not None else (Outcome.PASS,)
        if result.outcome in allowed:
            return EXPECTED
        return BETTER if result.outcome is Outcome.PASS else UNEXPECTED

    def as_on_hardware(self, result: SubtestResult) -> bool:
        """Whether it passed, or ended as it does on real hardware too."""
        entry = self.find(result.name, result.on, result.group)
        if result.outcome is Outcome.PASS:
            return True
        return entry is not None and entry.cause == "hardware" and result.outcome in entry.results

    def result(self, seen: SubtestResult, suite: str) -> Result:
        """What was seen of a subtest of the suite `suite` ("igt"), judged."""
        entry = self.find(seen.name, seen.on, seen.group)
        judged = self.judge(seen)
        if judged == UNEXPECTED:
            verdict = Verdict.FAIL
        elif seen.outcome is Outcome.PASS:
            verdict = Verdict.PASS
        else:
            verdict = Verdict.SKIP if seen.outcome is Outcome.SKIP else Verdict.EXPECTED_FAIL
        logs = (
            Log("What the card noticed", seen.device),
            Log("Kernel log", seen.kernel_log),
            Log("Output", seen.output, output=True),
        )
        return Result(
            seen.case(suite),
            verdict,
            seen.reason,
            seen.seconds,
            outcome=seen.outcome,
            excuse=entry.reason if entry is not None and verdict is not Verdict.FAIL else "",
            better=judged == BETTER,
            properties={"on": seen.on, "test": seen.test}
            | {name: text for name, text in (("kernel", seen.kernel), ("group", seen.group)) if text},
            evidence=[log for log in logs if log.text],
        )

    def unused(self, results: Iterable[SubtestResult]) -> list[Expectation]:
        """Entries that decide none of `results`."""
        used = [self.find(result.name, result.on, result.group) for result in results]
        return [entry for entry in self.entries if not any(entry is found for found in used)]
