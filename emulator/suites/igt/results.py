"""What one IGT subtest did: read from its exit code, its output and the kernel's log.

IGT's exit codes (lib/igt_core.h): 0 passed, 77 skipped, 79 no such subtest, 98 failed, 112 aborted; a test that
crashed ends by the signal itself, which a shell reports as 128 + its number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.subtest import SubtestResult

_EXIT_CODES = {0: Outcome.PASS, 77: Outcome.SKIP, 79: Outcome.FAIL, 98: Outcome.FAIL, 112: Outcome.FAIL}
_KEPT_OUTPUT = 6000
_KEPT_REASON = 600
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RESULT = re.compile(r"^(Dynamic subtest|Subtest) (\S+): ([A-Z-]+) \((?:[0-9.]+)s\)", re.MULTILINE)
_SIMPLE_RESULT = re.compile(r"^(SUCCESS|SKIP|FAIL) \([0-9.]+s\)", re.MULTILINE)
_REASONS = {
    Outcome.SKIP: re.compile(r"Test requirement not met in function .*", re.DOTALL),
    Outcome.FAIL: re.compile(r"(?:Test assertion failure function|Test abort in function) .*", re.DOTALL),
    Outcome.CRASH: re.compile(r"Received signal .*"),
}
# After a failed assertion IGT prints a stack, and everything the subtest logged, between these.
_END_OF_REASON = re.compile(r"^(Stack trace:|Subtest |Dynamic subtest |\*\*\*\*|Starting |SKIP|FAIL)", re.MULTILINE)


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
