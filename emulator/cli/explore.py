"""`vfio-user-xe scenario explore` and `fuzz kernel`: sequences made from a suite's model, played in guests, made short when they fail."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE, exit_code_of, fail, say
from vfio_user_xe.emulator.cli.options import Append, check_outputs, make_folder
from vfio_user_xe.emulator.cli.scenario import (
    SuiteName,
    load_suite,
    runner_of,
    usual_suite,
    write,
)
from vfio_user_xe.emulator.cli.scenario_run import app
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.scenarios.evidence import report_of
from vfio_user_xe.emulator.scenarios.exploration.explorer import Explored, Explorer, Found
from vfio_user_xe.emulator.scenarios.exploration.summary import coverable, exploration_data, kept, kept_name, summary

__all__ = ["app", "explore", "fuzz"]

fuzz = typer.Typer(help="Find what nobody thought of.", no_args_is_help=True)
_FUZZ_KERNEL = "fuzz kernel"
"""The key of `ModelInfo.scenarios`."""


@fuzz.callback()
def _fuzz() -> None:
    """Commands of its own, although there is one only."""


@app.command(epilog="Example: vfio-user-xe scenario explore --budget 60 --kernel bzImage --modules DIR --keep FOLDER")
def explore(
    suite_name: SuiteName = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="BZIMAGE|SERIES", help="Your own kernel, or a fetched one such as 6.18.")
    ] = None,
    modules: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Its modules (what modules_install made).")
    ] = None,
    append: Append = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="The most steps of a sequence.")] = 40,
    seed: Annotated[int, typer.Option(metavar="S", help="The same one makes the same sequences.")] = 1,
    budget: Annotated[float, typer.Option(metavar="MINUTES", min=0, help="Begin nothing new after this time.")] = 10,
    sequences: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most sequences.")] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what was found here, for `scenario run FILE`.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Results as JUnit XML.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Results as one HTML page.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Findings, seeds and coverage as JSON.")
    ] = None,
    consoles: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the guests' consoles here.")] = None,
) -> None:
    """Play sequences of operations that a model allows, and make short what fails. Exit code: as of `run`.

    Interrupted (Ctrl-C), or when no guest comes up any more, what has come out so far is written all the same.
    """
    try:
        suite = load_suite(suite_name)
    except LookupError as error:
        fail(error.args[0], EXIT_USAGE)
    if suite.exploration is None:
        fail(f'the suite "{suite.name}" has no model to explore', EXIT_USAGE)
    if modules is not None and kernel is None:
        fail("--modules is for --kernel: the packaged kernel has modules of its own", EXIT_USAGE)
    check_outputs(junit=junit_file, report=report, json=json_file)
    make_folder("--consoles", consoles)
    make_folder("--keep", keep)

    def keep_it(found: Found, explored: Explored) -> None:
        if keep is not None:
            (keep / kept_name(found, explored)).write_text(str(kept(found, explored, suite.name)), encoding="utf-8")

    try:
        runner = runner_of(suite, kernel, modules, append or (), consoles)
    except GuestError as error:
        fail(error, exit_code_of(error))
    explorer = Explorer(
        suite.exploration,
        runner,
        seed=seed,
        length=steps,
        tell=print,
        keep=keep_it,
    )
    ended_early = 0
    try:
        explorer.explore(60 * budget, sequences)
    except KeyboardInterrupt:
        ended_early = EXIT_INTERRUPTED
        say("interrupted")
    except GuestError as error:
        ended_early = exit_code_of(error)
        say(error)
    explored = explorer.explored
    # The files come first: nobody may read the summary any more, and printing it ends the command then.
    write(report_of(suite, explored.results), junit_file, report, None)
    there = coverable(suite.exploration, explored.length)
    if json_file is not None:
        json_file.write_text(json.dumps(exploration_data(explored, there), indent=1), encoding="utf-8")
    print(f"\n{summary(explored, there)}")
    raise typer.Exit(ended_early or int(any(not found.failure.defect for found in explored.found)))


@functools.wraps(explore)
def _fuzz_kernel(suite_name: str | None, **options: object) -> None:
    if suite_name is None:
        try:
            suite_name = usual_suite(_FUZZ_KERNEL)
        except LookupError as error:
            fail(error.args[0], EXIT_USAGE)
    explore(suite_name, **options)  # type: ignore[arg-type]  # the options of `explore`, whose signature this has


fuzz.command(
    "kernel",
    help="Make calls of a kernel's drivers in any order, with arguments from a grammar, and make short what fails. "
    "Exit code: as of `scenario run`.",
    epilog="Example: vfio-user-xe fuzz kernel --budget 120 --kernel bzImage --modules DIR --keep FOLDER",
)(_fuzz_kernel)
