"""How the tests of each kind of group are found and run in the guest."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from vfio_user_xe.emulator.guest.errors import CommandTimeout, GuestError
from vfio_user_xe.emulator.guest.initramfs import Content
from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.suites.subtest import SubtestResult, subtest_name
from vfio_user_xe.emulator.suites.table import SuiteError, fits
from vfio_user_xe.emulator.suites.userland import in_guest_pytest
from vfio_user_xe.emulator.suites.userland.bench import Bench, SetupFailed
from vfio_user_xe.emulator.suites.userland.suite import Group, Kind

Name = tuple[str, str]
"""Test and subtest."""
Limit = Callable[[str], float]
"""Seconds that a test may take, by `test@subtest`."""

_LIST_LIMIT = 600.0
_BATCH = 120.0
"""Seconds after which a batch of pytest tests begins no further test: so long are results not yet kept."""
_KEPT = 6000
_FOLDER = "/run-suite"
_SKIPPED = 77


class Tests(Protocol):
    """The tests of a group."""

    @property
    def files(self) -> Mapping[str, Content]:
        """What they need in the guest."""
        ...

    def names(self, bench: Bench) -> list[Name]:
        """All tests that there are.

        Raises:
            SuiteError: There is none.
            GuestError: The guest cannot be set up, or does not answer.
        """
        ...

    def run(self, bench: Bench, names: Sequence[Name], limit: Limit) -> Iterator[list[SubtestResult]]:
        """Run these; results come in portions that have one kernel log.

        Raises:
            GuestError: The guest did not survive a test, or cannot be set up.
        """
        ...


def tests_of(group: Group, source: Path | None) -> Tests:
    """The tests of a group; `source` is the folder of pytest tests, on the host."""
    match group.kind:
        case Kind.PYTEST:
            assert source is not None
            return PytestTests(source, group.tests)
        case Kind.PIGLIT:
            return PiglitTests(group.profile, group.tests)
        case Kind.COMMAND:
            return CommandTests(group.commands, group.files)


@dataclass(frozen=True)
class CommandTests:
    """A shell command a test: it passes with exit code 0, and is skipped with 77."""

    commands: Mapping[str, str]
    given: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> Mapping[str, Content]:
        return dict(self.given)

    def names(self, bench: Bench) -> list[Name]:
        return [(name, "") for name in self.commands]

    def run(self, bench: Bench, names: Sequence[Name], limit: Limit) -> Iterator[list[SubtestResult]]:
        for name, _ in names:
            yield [_process(bench, (name, ""), f"{{ {self.commands[name]}\n}} 2>&1", limit(name), _exit_code)]


_PIGLIT_LINE = re.compile(r"^(?P<name>\S.*?) ::: (?P<command>.+)$")
# The commands' paths are relative to where the program piglit lies.
_PIGLIT_FOLDER = 'cd "$(dirname "$(readlink -f "$(command -v piglit)")")"'
_PIGLIT_RESULT = re.compile(r'^PIGLIT: (\{.*"result".*\})\s*$', re.MULTILINE)
_PIGLIT_WORDS = {
    "pass": Outcome.PASS,
    "fail": Outcome.FAIL,
    "skip": Outcome.SKIP,
    "warn": Outcome.WARN,
    "crash": Outcome.CRASH,
}


class PiglitTests:
    """A profile of Piglit: each of its tests is a command that prints its result (piglit's print-cmd)."""

    def __init__(self, profile: str, patterns: Sequence[str] = ("*",)) -> None:
        self.profile = profile
        self.patterns = tuple(patterns)
        self._commands: dict[Name, str] = {}

    @property
    def files(self) -> Mapping[str, Content]:
        return {}

    def names(self, bench: Bench) -> list[Name]:
        form = "{name} ::: {command}"
        command = f"piglit print-cmd --format {shlex.quote(form)} {shlex.quote(self.profile)}"
        done = bench.run(command, limit=_LIST_LIMIT)
        if done.returncode != 0:
            raise SuiteError(f"piglit knows no profile {self.profile}: {(done.stderr or done.stdout).strip()[-600:]}")
        self._commands = read_piglit_commands(done.stdout)
        if not self._commands:
            raise SuiteError(f"piglit's profile {self.profile} has no test here")
        names = [name for name in self._commands if any(fits(p, subtest_name(*name)) for p in self.patterns)]
        if not names:
            raise SuiteError(f"no test of piglit's profile {self.profile} fits {', '.join(self.patterns)}")
        return names

    def run(self, bench: Bench, names: Sequence[Name], limit: Limit) -> Iterator[list[SubtestResult]]:
        if not self._commands:
            self.names(bench)
        for name in names:
            command = f"{_PIGLIT_FOLDER}; {self._commands[name]} 2>&1"
            yield [_process(bench, name, command, limit(subtest_name(*name)), read_piglit_result)]


def read_piglit_commands(listed: str) -> dict[Name, str]:
    """By name, the commands that `piglit print-cmd` printed; what is before the first `@` is the test."""
    found = {}
    for line in listed.splitlines():
        if match := _PIGLIT_LINE.match(line):
            test, _, subtest = match["name"].partition("@")
            found[test, subtest] = match["command"]
    return found


def read_piglit_result(code: int, output: str) -> tuple[Outcome, str]:
    """How a test of Piglit ended, and why, from its exit code and what it printed."""
    if code > 128:
        return Outcome.CRASH, f"killed by signal {code - 128}"
    said = ""
    for match in _PIGLIT_RESULT.finditer(output):
        try:
            said = str(json.loads(match[1])["result"])
        except (ValueError, KeyError):
            continue
    if said not in _PIGLIT_WORDS:
        return Outcome.FAIL, f"exit code {code}, and it printed {said or 'no result'}"
    return _PIGLIT_WORDS[said], "" if said == "pass" else _last_words(output)


@dataclass(frozen=True)
class PytestTests:
    """Files of pytest tests, below a folder of the host."""

    folder: Path
    patterns: tuple[str, ...]

    @property
    def files(self) -> Mapping[str, Content]:
        there = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
        script = Path(in_guest_pytest.__file__)
        return {
            f"{_FOLDER}/in_guest_pytest.py": script,
            **{f"{_FOLDER}/tests/{path.relative_to(self.folder)}": path for path in there},
        }

    def names(self, bench: Bench) -> list[Name]:
        names = [path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*.py"))]
        files = [name for name in names if any(fnmatchcase(name, pattern.split("@")[0]) for pattern in self.patterns)]
        if not files:
            raise SuiteError(
                f"no file in {self.folder} fits {', '.join(self.patterns)} (there are: {', '.join(names)})"
            )
        done = bench.run(_driver("list", *files), limit=_LIST_LIMIT)
        events = _lines(done.stdout)
        found = [_name(str(event["id"])) for event in events if event["event"] == "found"]
        # A file that cannot even be collected is a test that fails.
        found += [_name(str(event["id"])) for event in events if event["event"] == "end"]
        if not found:
            said = "\n".join(str(event.get("text", "")) for event in events) or done.stderr or done.stdout
            raise SuiteError(f"pytest found no test in {', '.join(files)}: {said.strip()[-1000:]}")
        return found

    def run(self, bench: Bench, names: Sequence[Name], limit: Limit) -> Iterator[list[SubtestResult]]:
        left = list(names)
        while left:
            seconds = limit(subtest_name(*left[0]))
            same = [name for name in left if limit(subtest_name(*name)) == seconds]
            wanted = "".join(json.dumps(_id(name)) + "\n" for name in same).encode()
            ran = self._batch(bench, wanted, seconds)
            # Whatever ends before its first test would do so for ever.
            ran = ran or [SubtestResult(*same[0], Outcome.CRASH, reason="pytest ended before the test began")]
            ended = {(result.test, result.subtest) for result in ran}
            left = [name for name in left if name not in ended]
            yield ran

    @staticmethod
    def _batch(bench: Bench, wanted: bytes, limit: float) -> list[SubtestResult]:
        command = _driver("run", f"{limit:g}", f"{_BATCH:g}")
        done = bench.run(command, stdin=wanted, limit=in_guest_pytest.START_LIMIT + _BATCH + limit + 60)
        results = []
        for line in _lines(done.stdout):
            test, subtest = _name(str(line["id"]))
            text = str(line.get("text", ""))
            outcome = Outcome(str(line["outcome"]))
            reason = f"it ran longer than {limit:g} s" if outcome is Outcome.TIMEOUT else _last_words(text)
            seconds = float(str(line.get("seconds", 0)))
            results.append(SubtestResult(test, subtest, outcome, seconds=seconds, reason=reason, output=text))
        return results


def _process(
    bench: Bench, name: Name, command: str, limit: float, judge: Callable[[int, str], tuple[Outcome, str]]
) -> SubtestResult:
    """Run a test that is one process."""
    bench.ready()
    started = time.monotonic()
    try:
        done = bench.run(command, limit=limit)
    except CommandTimeout as error:
        result = SubtestResult(*name, Outcome.TIMEOUT, reason=f"it ran longer than {limit:g} s")
        result.output = error.output.decode(errors="replace")[-_KEPT:]
    except SetupFailed:
        raise
    except GuestError as error:
        bench.close()
        result = SubtestResult(*name, Outcome.LOST, reason=error.message, kernel_log=error.console_tail)
    else:
        outcome, reason = judge(done.returncode, done.stdout)
        output = "" if outcome is Outcome.PASS else done.stdout[-_KEPT:]
        result = SubtestResult(*name, outcome, reason=reason, output=output)
    result.seconds = time.monotonic() - started
    return result


def _exit_code(code: int, output: str) -> tuple[Outcome, str]:
    if code == 0:
        return Outcome.PASS, ""
    if code == _SKIPPED:
        return Outcome.SKIP, _last_words(output)
    if code > 128:
        return Outcome.CRASH, f"killed by signal {code - 128}"
    return Outcome.FAIL, f"exit code {code}: {_last_words(output)}"


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("PIGLIT:")]
    return lines[-1][:600] if lines else ""


def _driver(*words: str) -> str:
    command, *rest = words
    script = shlex.join(["python3", f"{_FOLDER}/in_guest_pytest.py", command, f"{_FOLDER}/tests", *rest])
    return f"IN_GUEST_LOG=/dev/kmsg {script}"


def _lines(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def _name(node: str) -> Name:
    test, _, subtest = node.partition("::")
    return test, subtest


def _id(name: Name) -> str:
    return "::".join(filter(None, name))
