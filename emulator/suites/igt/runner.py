"""Run IGT, the tests of the kernel's graphics drivers, on a card of ours in a guest.

IGT is not part of this project: a user names a build of it.  Each subtest is a process of its own, with a time limit;
the kernel's log is read after each; a driver that a test left unbound or wedged is bound anew, and where that does
not help the next subtest gets a new card and a new guest.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vfio_user_xe.emulator.guest import environment as environments
from vfio_user_xe.emulator.results.shard import Parts
from vfio_user_xe.emulator.results.text import counted_line
from vfio_user_xe.emulator.suites.igt.bench import Bench, DeviceNotReady, IgtRun, Report
from vfio_user_xe.emulator.suites.igt.package import IgtBuild
from vfio_user_xe.emulator.suites.igt.suite import Group, Suite
from vfio_user_xe.emulator.suites.report import append_result, forget_results, read_results
from vfio_user_xe.emulator.suites.subtest import SubtestResult, subtest_name
from vfio_user_xe.emulator.suites.table import SuiteError

__all__ = ["DeviceNotReady", "IgtRun", "Planned", "plan", "run_igt"]


@dataclass(frozen=True)
class Planned:
    """A group and the subtests of it to run, in order."""

    group: Group
    subtests: tuple[tuple[str, str], ...]


def plan(
    run: IgtRun, programs: Iterable[str], list_subtests: Callable[[Iterable[str]], Mapping[str, Sequence[str]]]
) -> list[Planned]:
    """The subtests to run, by group.

    Raises:
        SuiteError: a pattern or group means nothing.
    """
    programs = sorted(programs)
    groups = run.suite.select(run.groups)
    if run.on is not None:
        groups = [dataclasses.replace(group, on=run.on) for group in groups]
    members: list[tuple[Group, list[str]]] = [
        (group, [name for name in programs if group.names(name)]) for group in groups
    ]
    patterns = [pattern if "@" in pattern else f"{pattern}@*" for pattern in run.tests]
    if patterns and not run.groups:
        grouped = {name for _, names in members for name in names}
        wanted = {name for name in programs for pattern in patterns if fnmatchcase(name, pattern.split("@")[0])}
        if extra := sorted(wanted - grouped):
            first = groups[0] if groups else Group("", ())
            members.append((dataclasses.replace(first, name="other", device={}, active=False), extra))
    if patterns:
        members = [
            (group, [name for name in names if any(fnmatchcase(name, item.split("@")[0]) for item in patterns)])
            for group, names in members
        ]
    listed = list_subtests(dict.fromkeys(name for _, names in members for name in names))
    planned = []
    for group, names in members:
        chosen = []
        for name in names:
            subtests = [
                subtest
                for subtest in listed[name]
                if not patterns or any(fnmatchcase(f"{name}@{subtest}", pattern) for pattern in patterns)
            ]
            chosen += [(name, subtest) for subtest in _spread(subtests, run.per_test)]
        planned += _by_boot(run.suite, group, chosen)
    if not planned:
        wanted_names = ", ".join(run.tests) or ", ".join(pattern for group in groups for pattern in group.tests)
        raise SuiteError(f"no subtest of this IGT build fits {wanted_names or 'the suite, which has no group'}")
    return planned


def divided(planned: Sequence[Planned], parts: Parts) -> list[Planned]:
    """Of what is planned, this part: groups stay whole where they can, as each needs a guest."""
    units = [(index, pair) for index, item in enumerate(planned) for pair in item.subtests]
    mine = set(parts.of(units, lambda unit: subtest_name(*unit[1]), lambda unit: unit[0]))
    return [
        dataclasses.replace(item, subtests=tuple(pair for pair in item.subtests if (index, pair) in mine))
        for index, item in enumerate(planned)
    ]


async def run_igt(run: IgtRun, report: Report = print) -> list[SubtestResult]:
    """Run IGT as `run` says; returns all results, those of an earlier run that is resumed included.

    Raises:
        GuestError: IGT, the guest or the device cannot be made to work at all; results are kept until then.
    """
    environment = run.environment if run.environment is not None else environments.locate()
    build = IgtBuild(run.igt, environment)
    planned = plan(run, build.programs, build.subtests)
    planned = divided(planned, run.part.parts)
    run.output.mkdir(parents=True, exist_ok=True)
    if not run.resume:
        forget_results(run.output)
    file = run.output / "results.jsonl"
    results = {result.key: result for result in read_results(file)}
    total = sum(len(item.subtests) for item in planned)
    number = 0
    for item in planned:
        todo = [
            pair
            for pair in item.subtests
            if (subtest_name(*pair), item.group.name, item.group.on, run.part.kernel_name) not in results
        ]
        number += len(item.subtests) - len(todo)
        if not todo:
            continue
        report(f"group {item.group.name}: {len(todo)} subtests on {run.part.place(item.group.on)}")
        async with contextlib.aclosing(
            Bench(run, item.group, environment, build, sorted({t for t, _ in todo}))
        ) as bench:
            for test, subtest in todo:
                number += 1
                result = await bench.run_subtest(test, subtest, report)
                result.kernel, result.group = run.part.kernel_name, item.group.name
                results[result.key] = result
                append_result(file, result)
                report(counted_line(number, total, run.expectations.result(result, "igt")))
    return list(results.values())


def _by_boot(suite: Suite, group: Group, chosen: Sequence[tuple[str, str]]) -> list[Planned]:
    """What of a group is run in its guest, and what in one with OVMF, because it suspends the guest to RAM."""
    asleep = [pair for pair in chosen if not group.ovmf and suite.suspends(subtest_name(*pair))]
    awake = [pair for pair in chosen if pair not in asleep]
    parts = [(group, awake), (dataclasses.replace(group, ovmf=True), asleep)]
    return [Planned(owner, tuple(pairs)) for owner, pairs in parts if pairs]


def _spread(items: Sequence[str], count: int) -> list[str]:
    """At most `count` of `items` (0: all), evenly spread, the first always."""
    if not count or len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
