"""Run a suite of tests of a guest's user space, group by group, and keep each result as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.results import Outcome
from vfio_user_xe.emulator.results.text import counted_line
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.group import Part
from vfio_user_xe.emulator.suites.report import append_result, forget_results, read_results
from vfio_user_xe.emulator.suites.subtest import SubtestResult, subtest_name
from vfio_user_xe.emulator.suites.table import SuiteError, fits
from vfio_user_xe.emulator.suites.userland.bench import Bench, SetupFailed
from vfio_user_xe.emulator.suites.userland.kinds import Name, Tests, tests_of
from vfio_user_xe.emulator.suites.userland.source import fetch_source
from vfio_user_xe.emulator.suites.userland.suite import Group, UserlandSuite

Report = Callable[[str], None]


@dataclass(frozen=True)
class UserlandRun:
    """What to run.

    `name` is the suite's.  `groups` are names of its groups (none: all), `tests` patterns on `test@subtest` that narrow them.
    `timeout` replaces the suite's limits, in seconds; `on` replaces the groups' function.  `sample` takes at most so many
    tests of each group, evenly spread; `budget` begins no further test after so many seconds of a group (0: neither).
    `card` are arguments of `vfio-user-xe serve`.  Results go to `results.jsonl` in `output`; with `resume`, what is there
    is not run again.  `part` says which of the tests are run, and on which kernel: of each group a part.
    """

    name: str
    suite: UserlandSuite
    expectations: Expectations
    output: Path
    groups: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    on: str | None = None
    timeout: float | None = None
    sample: int = 0
    budget: float = 0
    resume: bool = False
    card: tuple[str, ...] = ()
    part: Part = field(default_factory=Part)
    accelerator: str = "auto"
    append: str = ""

    def limit(self, name: str) -> float:
        """Seconds that the test `name` may take."""
        return self.timeout or self.suite.timeout(name)

    def selected(self) -> list[Group]:
        """The groups to run.

        Raises:
            SuiteError: There is no group of a name.
        """
        groups = self.suite.select(self.groups)
        return groups if self.on is None else [replace(group, on=self.on) for group in groups]


def run_userland(run: UserlandRun, report: Report = print) -> list[SubtestResult]:
    """Run a suite as `run` says; returns all results, those of an earlier run that is resumed included.

    Raises:
        SuiteError: A pattern or group means nothing, or a group has no test.
        GuestError: The userland is not there, or a guest cannot be set up. Results are kept until then.
    """
    userland = locate_userland(run.suite.guest.userland)
    groups = run.selected()
    source = None
    if run.suite.source is not None and any(group.kind == "pytest" for group in groups):
        source = fetch_source(run.suite.source, userland.manifest.packages)
    run.output.mkdir(parents=True, exist_ok=True)
    if not run.resume:
        forget_results(run.output)
    file = run.output / "results.jsonl"
    results = {result.key: result for result in read_results(file)}
    found = False
    for group in groups:
        tests = tests_of(group, source)
        with Bench(
            run.suite, group, run.part.logs(run.output), run.card, tests.files, run.part.kernel, run.accelerator, run.append
        ) as bench:  # fmt: skip
            names = _chosen(run, tests.names(bench))
            found = found or bool(names)
            names = run.part.parts.of(names, lambda name: subtest_name(*name))
            todo = [
                name
                for name in names
                if (subtest_name(*name), group.name, group.on, run.part.kernel_name) not in results
            ]
            report(f"group {group.name}: {len(todo)} tests on {run.part.place(group.on)}")
            number = len(names) - len(todo)
            for result in _results(run, tests, bench, todo):
                number += 1
                result.kernel, result.group = run.part.kernel_name, group.name
                results[result.key] = result
                append_result(file, result)
                report(counted_line(number, len(names), run.expectations.result(result, run.name)))
    if not found:
        raise SuiteError(f"no test of the suite {run.name} fits {', '.join(run.tests)}")
    return list(results.values())


def _results(run: UserlandRun, tests: Tests, bench: Bench, todo: Sequence[Name]) -> Iterator[SubtestResult]:
    """Run the tests `todo`; one whose guest was lost is lost, and the rest goes on in a new guest."""
    until = time.monotonic() + (run.budget or float("inf"))
    left = list(todo)
    while left:
        try:
            for portion in tests.run(bench, tuple(left), run.limit):
                bench.finish(portion)
                for result in portion:
                    result.on = bench.group.on
                    left.remove((result.test, result.subtest))
                    yield result
                if time.monotonic() > until:
                    return
        except SetupFailed:
            raise
        except GuestError as error:
            bench.close()
            lost = SubtestResult(*left.pop(0), Outcome.LOST, on=bench.group.on, reason=error.message)
            lost.kernel_log = error.console_tail
            yield lost


def _chosen(run: UserlandRun, names: Sequence[Name]) -> list[Name]:
    patterns = run.tests
    chosen = [name for name in names if not patterns or any(fits(pattern, subtest_name(*name)) for pattern in patterns)]
    if not run.sample or len(chosen) <= run.sample:
        return chosen
    return [chosen[index * len(chosen) // run.sample] for index in range(run.sample)]
