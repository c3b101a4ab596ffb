"""What one test of a suite did, before it is judged, and what the kernel's log says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias

from vfio_user_xe.emulator.results import Case, Outcome

Key: TypeAlias = tuple[str, str, str, str]
"""`test@subtest`, group, function, kernel."""
_KEPT_OUTPUT = 6000
_KEPT_REASON = 600
_MARKS = re.compile(r"\[IGT\]|drm_dp_|^\s*$")


@dataclass
class SubtestResult:
    """What was seen of one subtest, before it is judged: a line of `results.jsonl`. `subtest` is "" for a test that has none; `on` is the function it ran on ("pf", "vf1").

    `seconds` is wall time in the guest, start of the process included.  `output` is the end of what it wrote,
    `kernel_log` what the kernel logged meanwhile, `device` what the card noticed (all empty for a pass); `activity` is how many memory
    accesses the card's engines made, None where they were not counted; `kernel` is what the run calls the guest's kernel, `group` the
    suite's group: another driver, or another card, for the same test.
    """

    test: str
    subtest: str
    outcome: Outcome
    on: str = "pf"
    seconds: float = 0.0
    reason: str = ""
    dynamic: dict[str, str] = field(default_factory=dict)
    output: str = ""
    kernel_log: str = ""
    device: str = ""
    activity: int | None = None
    kernel: str = ""
    group: str = ""

    @property
    def key(self) -> Key:
        """What makes it another test than the same of another group, function or kernel."""
        return self.name, self.group, self.on, self.kernel

    @property
    def name(self) -> str:
        """`test@subtest`, as IGT's own lists write it."""
        return subtest_name(self.test, self.subtest)

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> SubtestResult:
        """From `as_dict`.

        Raises:
            ValueError: `data` is something else.
        """
        known = {item.name for item in fields(SubtestResult)}
        if not isinstance(data, dict) or not {"test", "subtest", "outcome"} <= set(data) <= known:
            raise ValueError("not the result of a subtest")
        if data["outcome"] not in list(Outcome):
            raise ValueError(f"{data['outcome']!r} is no outcome (allowed: {', '.join(Outcome)})")
        return SubtestResult(**data | {"outcome": Outcome(data["outcome"])})

    def case(self, suite: str) -> Case:
        """The subtest as results of the suite `suite` ("igt") name it."""
        of = [self.group] if self.group else []
        return Case(
            suite=f"{self.test} ({', '.join([*of, self.on])})",
            group=".".join([suite, *of, self.on, self.test]),
            name=self.subtest or self.test,
            label=self.name,
        )


def subtest_name(test: str, subtest: str) -> str:
    """`test@subtest`, or `test` alone for a test without subtests."""
    return f"{test}@{subtest}" if subtest else test


@dataclass(frozen=True)
class KernelLog:
    """What to look for in a kernel log: lines that a healthy driver does not write, and what is excused.

    `wedged` are lines after which the driver refuses to work until it is bound anew.
    """

    errors: tuple[re.Pattern[str], ...] = ()
    allowed: tuple[re.Pattern[str], ...] = ()
    wedged: tuple[re.Pattern[str], ...] = ()

    @staticmethod
    def compiled(errors: Iterable[str] = (), allowed: Iterable[str] = (), wedged: Iterable[str] = ()) -> KernelLog:
        """From regular expressions.

        Raises:
            re.error: one is malformed.
        """
        return KernelLog(*(tuple(re.compile(item) for item in group) for group in (errors, allowed, wedged)))

    def complaints(self, log: str) -> list[str]:
        """The lines of `log` that match an error and nothing that is allowed."""
        return [line for line in log.splitlines() if _matches(self.errors, line) and not _matches(self.allowed, line)]

    def says_wedged(self, log: str) -> bool:
        """Whether the driver gave the device up."""
        return _matches(self.wedged, log)


def attach_kernel_log(result: SubtestResult, log: str, rules: KernelLog) -> None:
    """Keep the log with everything that is no plain pass; a pass with complaints becomes a `warn`."""
    complaints = rules.complaints(log)
    if result.outcome is Outcome.PASS and complaints:
        result.outcome = Outcome.WARN
        result.reason = complaints[0].strip()[:_KEPT_REASON]
    if result.outcome not in (Outcome.PASS, Outcome.SKIP):
        lines = [line for line in log.splitlines() if not _MARKS.search(line)]
        result.kernel_log = "\n".join(lines)[-_KEPT_OUTPUT:]


def _matches(patterns: Sequence[re.Pattern[str]], text: str) -> bool:
    return any(pattern.search(text) for pattern in patterns)
