"""`vfio-user-xe scenario run`: scenarios on one kernel or several, in one guest at a time or several, whole or in shards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE, exit_code_of, fail, say
from vfio_user_xe.emulator.cli.kernels import KernelsOption, ModulesOption, NamedKernel, named_kernels
from vfio_user_xe.emulator.cli.options import Append, check_outputs, make_folder, own_folder
from vfio_user_xe.emulator.cli.parts import (
    JobOption,
    JobsOption,
    ShardOption,
    TimesOption,
    chosen_parts,
    job_count,
    run_jobs,
)
from vfio_user_xe.emulator.cli.report import RESULTS
from vfio_user_xe.emulator.cli.scenario import (
    SuiteName,
    app,
    chosen_scenarios,
    runner_of,
    write,
)
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.settings import USUAL_MEMORY
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.results.journal import Journal, NotKept
from vfio_user_xe.emulator.results.json_file import NotAReport
from vfio_user_xe.emulator.results.matrix import matrix, matrix_text
from vfio_user_xe.emulator.results.tap import tap
from vfio_user_xe.emulator.results.text import evidence, line, verdict_table
from vfio_user_xe.emulator.scenarios.bisect import ABORT, CANNOT_TEST, GOOD, Bad, bisect_code
from vfio_user_xe.emulator.scenarios.evidence import report_of, summary_of
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.runner import grouped
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Suite
from vfio_user_xe.emulator.temporary import temporary_folder

__all__ = ["app", "run"]


@dataclass(frozen=True)
class _Unit:
    """One run of a scenario on a kernel."""

    kernel: NamedKernel
    scenario: Scenario[Machine]
    repetition: int


@app.command(epilog="Example: vfio-user-xe scenario run reset-with-an-idle-import --kernel bzImage --modules DIR")
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Names, numbers, groups, or files that `explore` kept; none: all."),
    ] = None,
    suite_name: SuiteName = None,
    kernels: KernelsOption = None,
    modules: ModulesOption = None,
    append: Append = None,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Run each so many times.", show_default="1")
    ] = None,
    until_fail: Annotated[
        bool,
        typer.Option("--until-fail", help="End with the first that fails; without --repeat, go on until one does."),
    ] = False,
    bad_names: Annotated[
        list[str] | None,
        typer.Option(
            "--bad",
            metavar="VERDICT|DEFECT",
            help="What counts as bad for the exit code, --until-fail and --bisect; repeatable.",
            show_default="fail",
        ),
    ] = None,
    bisect: Annotated[
        bool,
        typer.Option("--bisect", help="Exit codes for `git bisect run`: 0 good, 1 bad, 125 cannot be tested."),
    ] = False,
    shard: ShardOption = None,
    jobs: JobsOption = "1",
    job: JobOption = None,
    times: TimesOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Add each result to results.jsonl in this folder."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what --output has, and run the rest.")] = False,
    show_evidence: Annotated[
        bool, typer.Option("--evidence", help="Print what explains a verdict: stacks, the kernel's reports.")
    ] = False,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Results as JUnit XML.")] = None,
    tap_file: Annotated[Path | None, typer.Option("--tap", metavar="FILE", help="Results as TAP.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Results as one HTML page.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Everything as JSON.")] = None,
    consoles: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the guests' consoles here.")] = None,
) -> None:
    """Run scenarios. Exit code: 0 nothing failed but what is known by name, 1 something did, 2 a wrong argument.

    Interrupted (Ctrl-C), or when a kernel cannot be used any more, what has come out so far is written all the same; the exit code is
    then 130, or that of the error.
    With --bisect a kernel that is not there or does not boot cannot be tested (125), and a wrong argument ends the bisection (128).
    """
    with _codes_of_bisect(bisect):
        suite, chosen = chosen_scenarios(suite_name, names or [])
        try:
            bad = Bad.parse(bad_names or [], suite.defects)
        except LookupError as error:
            fail(f"--bad {error.args[0]}", EXIT_USAGE)
        parts = chosen_parts(shard, job, times, suite.times)
        count = job_count(jobs, *max((s.setup.memory for s in chosen), key=sum, default=(USUAL_MEMORY,)))
        if until_fail and (count > 1 or (repeat is None and parts.shards)):
            fail(
                "--until-fail goes with one guest at a time: neither with --jobs nor, without --repeat, --shard",
                EXIT_USAGE,
            )
        if bisect and (len(kernels or ()) > 1 or resume):
            fail("--bisect judges one kernel anew: neither several --kernel nor --resume go with it", EXIT_USAGE)
        if resume and output is None:
            fail("--resume is for --output: it takes up what is in that folder", EXIT_USAGE)
        if job is None:
            check_outputs(junit=junit_file, tap=tap_file, report=report, json=json_file)
        asked = named_kernels(kernels or [], modules or [], named=resume or job is not None)
        make_folder("--consoles", consoles)
        (make_folder if job is not None else own_folder)("--output", output)
    started = time.monotonic()
    with ExitStack() as stack:
        extra: list[str] = []
        folder = output
        if folder is None and count > 1 and job is None:
            folder = stack.enter_context(temporary_folder())
            extra = ["--output", str(folder)]
        log = Journal(folder / RESULTS, report_of(suite, [])) if folder is not None else None
        results = _before(log, keep=resume or job is not None, job=job is not None)
        units = (
            _endless(asked, chosen)
            if until_fail and repeat is None
            else iter(
                parts.of(
                    [
                        _Unit(kernel, scenario, repetition)
                        for kernel in asked
                        for scenario in grouped(chosen)
                        for repetition in range(1, (repeat or 1) + 1)
                    ],
                    lambda unit: unit.scenario.name,
                    lambda unit: (unit.kernel, unit.scenario.setup.name),
                )
            )
        )
        done = {(each.properties["kernel"], each.case.name, each.repetition) for each in results}
        left = (unit for unit in units if (unit.kernel.name, unit.scenario.name, unit.repetition) not in done)

        def progress(result: Result) -> None:
            results.append(result)
            if log is not None:
                log.append(result)
            print(line(result))
            if show_evidence and (shown := evidence(result)):
                print(shown)

        interrupted, ended = False, 0
        codes: list[int] = []
        try:
            if count > 1 and job is None:
                codes = run_jobs(count, ("scenario", "run"), extra)
            else:
                place = consoles / f"job-{job.partition('/')[0]}" if consoles is not None and job else consoles
                _run(suite, left, append or (), place, bad if until_fail else None, progress)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted")
        except (GuestError, NotKept) as error:
            ended = CANNOT_TEST if bisect else exit_code_of(error)
            if not results:
                fail(error, ended)
            say(error)
        if job is not None:
            raise typer.Exit(EXIT_INTERRUPTED if interrupted else ended)
        if log is not None:
            results = log.read()
    whole = report_of(suite, results)
    shown = matrix_text(matrix(whole)) if len(asked) > 1 else verdict_table(results)
    # The files come first: nobody may read the summary any more, and printing it ends the command then.
    write(whole, junit_file, report, json_file)
    if tap_file is not None:
        tap_file.write_text(tap(whole), encoding="utf-8")
    print(f"\n{shown}\n\n{summary_of(results, time.monotonic() - started)}")
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if lost := [code for code in codes if code]:
        say(f"{len(lost)} of {len(codes)} jobs did not do their parts: they ended with {', '.join(map(str, lost))}")
    if bisect:
        said = bisect_code(results, bad)
        raise typer.Exit(CANNOT_TEST if (lost or ended) and said == GOOD else said)
    raise typer.Exit(ended or int(bool(lost) or (any(map(bad, results)) if bad_names else whole.failed)))


@contextmanager
def _codes_of_bisect(wanted: bool) -> Iterator[None]:
    """With `wanted`, a wrong argument ends the bisection: as any other code would, it would tell git something of the commit."""
    try:
        yield
    except typer.Exit as ended:
        raise typer.Exit(ABORT if wanted and ended.exit_code == EXIT_USAGE else ended.exit_code) from None


def _before(log: Journal | None, *, keep: bool, job: bool) -> list[Result]:
    """The results to keep of an earlier run: what did not reach a kernel is run again. A job leaves the file as it is."""
    if log is None:
        return []
    try:
        kept = [result for result in log.read() if result.properties.get("kernel")] if keep else []
        if not job:
            log.rewrite(kept)
        return kept
    except (NotAReport, OSError) as error:
        fail(f"--output {error}", EXIT_USAGE)


def _endless(kernels: Sequence[NamedKernel], chosen: Sequence[Scenario[Machine]]) -> Iterator[_Unit]:
    for repetition in itertools.count(1):
        for kernel in kernels:
            for scenario in grouped(chosen):
                yield _Unit(kernel, scenario, repetition)


def _run(
    suite: Suite[Machine],
    units: Iterator[_Unit],
    append: Sequence[str],
    consoles: Path | None,
    until: Bad | None,
    progress: Callable[[Result], None],
) -> None:
    """Run these one after the other, kernel by kernel.

    Raises:
        GuestError: there is no such kernel, or no environment.
    """
    found = False

    def enough(result: Result) -> bool:
        nonlocal found
        found = until is not None and (until(result) or (until == Bad() and result.verdict is Verdict.FAIL))
        return found

    for number, (kernel, mine) in enumerate(itertools.groupby(units, lambda unit: unit.kernel), 1):
        folder = consoles / f"kernel-{number}" if consoles is not None and number > 1 else consoles
        make_folder("--consoles", folder)
        runner = runner_of(suite, kernel.given, kernel.modules, append, folder, kernel.name)
        runner.run_plan(((unit.scenario, unit.repetition) for unit in mine), progress, enough)
        if found:
            return
