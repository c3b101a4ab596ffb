"""What one IGT subtest did: read from its exit code, its output and the kernel's log.

IGT's exit codes (lib/igt_core.h): 0 passed, 77 skipped, 79 no such subtest, 98 failed, 112 aborted; a test that
crashed ends by the signal itself, which a shell reports as 128 + its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vfio_user_xe.emulator.results import Case, Outcome

_EXIT_CODES = {0: Outcome.PASS, 77: Outcome.SKIP, 79: Outcome.FAIL, 98: Outcome.FAIL, 112: Outcome.FAIL}
_KEPT_OUTPUT = 6000
_KEPT_REASON = 600
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RESULT = re.compile(r"^(Dynamic subtest|Subtest) (\S+): ([A-Z-]+) \((?:[0-9.]+)s\)", re.MULTILINE)
_SIMPLE_RESULT = re.compile(r"^(SUCCESS|SKIP|FAIL) \([0-9.]+s\)", re.MULTILINE)
_MARKS = re.compile(r"\[IGT\]|drm_dp_|^\s*$")
_REASONS = {
    Outcome.SKIP: re.compile(r"Test requirement not met in function .*", re.DOTALL),
    Outcome.FAIL: re.compile(r"(?:Test assertion failure function|Test abort in function) .*", re.DOTALL),
    Outcome.CRASH: re.compile(r"Received signal .*"),
}
# After a failed assertion IGT prints a stack, and everything the subtest logged, between these.
_END_OF_REASON = re.compile(r"^(Stack trace:|Subtest |Dynamic subtest |\*\*\*\*|Starting |SKIP|FAIL)", re.MULTILINE)


@dataclass
class SubtestResult:
    """What was seen of one subtest, before it is judged: a line of `results.jsonl`. `subtest` is "" for a test that has none; `on` is the function it ran on ("pf", "vf1").

    `seconds` is wall time in the guest, start of the process included.  `output` is the end of what it wrote,
    `kernel_log` what the kernel logged meanwhile, `device` what the card noticed (all empty for a pass); `activity` is how many memory
    accesses the card's engines made, None where they were not counted.
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

    @property
    def name(self) -> str:
        """`test@subtest`, as IGT's own lists write it."""
        return subtest_name(self.test, self.subtest)

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> SubtestResult:
        """From `as_dict`; raises `ValueError` when `data` is something else."""
        known = {item.name for item in fields(SubtestResult)}
        if not isinstance(data, dict) or not {"test", "subtest", "outcome"} <= set(data) <= known:
            raise ValueError("not the result of a subtest")
        if data["outcome"] not in list(Outcome):
            raise ValueError(f"{data['outcome']!r} is no outcome (allowed: {', '.join(Outcome)})")
        return SubtestResult(**data | {"outcome": Outcome(data["outcome"])})

    @property
    def case(self) -> Case:
        """The subtest as results name it."""
        return Case(
            suite=f"{self.test} ({self.on})",
            group=f"igt.{self.on}.{self.test}",
            name=self.subtest or self.test,
            label=self.name,
        )


def subtest_name(test: str, subtest: str) -> str:
    """`test@subtest`, or `test` alone for a test without subtests."""
    return f"{test}@{subtest}" if subtest else test


def read_result(test: str, subtest: str, returncode: int, output: str) -> SubtestResult:
    """Judge one process that was told to run one subtest. `output` is its stdout and stderr in one."""
    text = _COLOURS.sub("", output)
    outcome = _EXIT_CODES.get(returncode, Outcome.CRASH if returncode > 128 else Outcome.FAIL)
    results = {(match[1], match[2]): match[3] for match in _RESULT.finditer(text)}
    dynamic = {name: result.lower() for (kind, name), result in results.items() if kind == "Dynamic subtest"}
    reason = _reason(outcome, text)
    said = results.get(("Subtest", subtest)) if subtest else _last(_SIMPLE_RESULT.findall(text))
    if returncode == 79:
        reason = "the test says that it has no such subtest"
    elif outcome is Outcome.PASS and said != "SUCCESS":
        outcome = Outcome.FAIL
        reason = f"exit code 0, but the test wrote {said or 'no result'}"
    elif not reason and outcome in (Outcome.FAIL, Outcome.CRASH):
        reason = f"exit code {returncode}" if outcome is Outcome.FAIL else f"killed by signal {returncode - 128}"
    return SubtestResult(
        test,
        subtest,
        outcome,
        reason=reason,
        dynamic=dynamic,
        output="" if outcome is Outcome.PASS else text[-_KEPT_OUTPUT:],
    )


def read_subtests(output: str) -> list[str]:
    """The names that `--list-subtests` printed, in order."""
    return [line.strip() for line in output.splitlines() if re.fullmatch(r"[A-Za-z0-9_.+-]+", line.strip())]


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
        """From regular expressions; raises `re.error`."""
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


def _last(found: Sequence[str]) -> str | None:
    return found[-1] if found else None


def _reason(outcome: Outcome, text: str) -> str:
    pattern = _REASONS.get(outcome)
    match = pattern.search(text) if pattern is not None else None
    if match is None:
        return ""
    reason = match[0]
    if end := _END_OF_REASON.search(reason):
        reason = reason[: end.start()]
    # "(core_hotunplug:212) CRITICAL: " begins every line of IGT's log.
    lines = [re.sub(r"^\([\w.-]+:\d+\) [\w/-]*\s?[A-Z]+: ", "", line).strip() for line in reason.splitlines()]
    return " ".join(line for line in lines if line)[:_KEPT_REASON]
