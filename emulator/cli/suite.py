"""`vfio-user-xe suite ...`: tests that others wrote for a guest's user space, run on an emulated card and judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.kernels import KernelsOption, ModulesOption, suite_kernels
from vfio_user_xe.emulator.cli.options import Append, Model, check_outputs, make_folder, own_folder, serve_options
from vfio_user_xe.emulator.cli.parts import (
    DataOption,
    JobOption,
    JobsOption,
    ShardOption,
    TimesOption,
    chosen_parts,
    job_count,
    recorded_times,
    run_parts,
    suite_parts,
)
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.model.card import CardError
from vfio_user_xe.emulator.model.packaged_cards import load_card
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, PluginError, default_model, load_plugin
from vfio_user_xe.emulator.results import Verdict, json_file
from vfio_user_xe.emulator.results.journal import NotKept
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.group import Part, checked_function
from vfio_user_xe.emulator.suites.report import read_results, report_of, summary, table
from vfio_user_xe.emulator.suites.table import SuiteError
from vfio_user_xe.emulator.suites.userland.runner import UserlandRun, run_userland
from vfio_user_xe.emulator.suites.userland.suite import UserlandSuite

app = typer.Typer(
    help="Tests of others for a guest's user space (OpenCL, OpenGL, Vulkan), on an emulated card.",
    epilog="Exit codes: 0 everything is as expected, 1 something is not explained, 2 it could not be run, 130 interrupted.",
    no_args_is_help=True,
)

SUITE, EXPECTATIONS = "suite.toml", "expectations.toml"
_OTHER_COMMANDS = {"igt": "vfio-user-xe igt run --igt DIR"}
"""Suites that have a command of their own."""

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A suite of the device model ('suite list'), or a folder with suite.toml.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for results and logs.", show_default="NAME-results"),
]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit file.")]


@app.command("list", epilog="Example: vfio-user-xe suite list")
def list_suites(model: Model = None) -> None:
    """List the suites of the device model, with their groups."""
    try:
        for name, folder in sorted(_folders(model).items()):
            if name in _OTHER_COMMANDS:
                print(f"{name}: {_OTHER_COMMANDS[name]}")
                continue
            suite = UserlandSuite.load(folder / SUITE)
            print(f"{name}: {suite.title} (userland {suite.guest.userland})")
            for group in suite.groups:
                print(
                    f"  {group.name} on {group.on}: {group.kind} {group.profile or ', '.join(group.commands or group.tests)}"
                )
    except GuestError as exc:
        fail(exc, EXIT_USAGE)


@app.command("run", epilog="Example: vfio-user-xe suite run pyopencl --group neo --junit pyopencl.xml")
@serve_options("card", "model", "vfs", "settings")
def run_command(
    name: Name,
    serve: ServeOptions,
    groups: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="Only this group; repeatable.")
    ] = None,
    tests: Annotated[
        list[str] | None,
        typer.Option(
            "--test", metavar="GLOB", help="Only these, such as test_array.py or 'test_array.py@test_sum*'; repeatable."
        ),
    ] = None,
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the results in the output folder, run the rest.")
    ] = False,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=0, help="At most N tests of a group, evenly spread (0: all).")
    ] = 0,
    budget: Annotated[
        float,
        typer.Option(
            "--budget", metavar="MINUTES", min=0, help="Begin no test of a group after so long (0: no limit)."
        ),
    ] = 0,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Time limit of each test, instead of the suite's limits."),
    ] = None,
    on: Annotated[
        str | None, typer.Option(metavar="FUNCTION", help="pf or vf1, vf2, ..., instead of the groups'.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option("--expect", metavar="FILE", help="Expectations (TOML).", show_default="the suite's")
    ] = None,
    kernels: KernelsOption = None,
    modules: ModulesOption = None,
    append: Append = None,
    accelerator: Annotated[str, typer.Option(help="auto, kvm or tcg.")] = "auto",
    shard: ShardOption = None,
    jobs: JobsOption = "1",
    job: JobOption = None,
    times: TimesOption = None,
    junit_file: Junit = None,
    data: DataOption = None,
) -> None:
    """Boot a guest with a card and a userland, and run a suite's tests in it."""
    if job is None:
        check_outputs(junit=junit_file, json=data)
    try:
        model = load_card(serve.card).model if serve.card is not None else serve.model
        folder = _folder(name, model)
        expectations = _expectations(folder, expect)
        loaded = UserlandSuite.load(folder / SUITE)
        count = job_count(jobs, loaded.guest.memory)
        chosen = chosen_parts(shard, job, times, recorded_times(folder))
        run = UserlandRun(
            name=folder.name,
            suite=loaded,
            expectations=expectations,
            output=output if output is not None else Path(f"{folder.name}-results"),
            groups=tuple(groups or ()),
            tests=tuple(tests or ()),
            on=None if on is None else checked_function(on, "--on"),
            timeout=timeout,
            sample=sample,
            budget=budget * 60,
            resume=resume or job is not None,
            card=tuple(serve.argv()),
            accelerator=accelerator,
            append=" ".join(append or ()),
        )
        on_kernels = suite_kernels(kernels or (), modules or ())
    except (GuestError, CardError) as exc:
        fail(exc, EXIT_USAGE)

    (make_folder if job is not None else own_folder)("--output", run.output)

    def run_one(part: Part, again: bool) -> None:
        run_userland(replace(run, part=part, resume=again), print)

    try:
        all_parts = suite_parts(on_kernels, chosen, job)
        codes = run_parts(count, job, ("suite", "run"), run.output, resume, all_parts, run_one)
    except (GuestError, NotKept) as exc:
        if job is None:
            _results(run.name, run.output, expectations, junit_file, data)
        fail(exc, EXIT_USAGE if isinstance(exc, GuestError) else EXIT_FAILED)
    except KeyboardInterrupt:
        if job is None:
            _results(run.name, run.output, expectations, junit_file, data)
        fail("interrupted; go on with --resume", EXIT_INTERRUPTED)
    if job is not None:
        raise typer.Exit
    raise typer.Exit(max(_results(run.name, run.output, expectations, junit_file, data), *codes))


@app.command(
    "report", epilog="Example: vfio-user-xe suite report pyopencl --output pyopencl-results --junit pyopencl.xml"
)
def report(
    name: Name,
    output: Output = None,
    model: Model = None,
    expect: Annotated[
        Path | None, typer.Option("--expect", metavar="FILE", help="Expectations (TOML).", show_default="the suite's")
    ] = None,
    junit_file: Junit = None,
    data: DataOption = None,
) -> None:
    """Judge the results of an earlier run again, with the present expectations."""
    try:
        folder = _folder(name, model)
        where = output if output is not None else Path(f"{folder.name}-results")
        raise typer.Exit(_results(folder.name, where, _expectations(folder, expect), junit_file, data))
    except GuestError as exc:
        fail(exc, EXIT_USAGE)


def _folders(model: str | None) -> dict[str, Path]:
    try:
        plugin = default_model() if model is None else load_plugin(DEVICE_MODEL, model)
    except PluginError as error:
        raise SuiteError(str(error)) from None
    return dict(plugin.info.suites)


def _folder(name: str, model: str | None) -> Path:
    """The folder of a suite.

    Raises:
        SuiteError: There is none of this name.
    """
    if name in _OTHER_COMMANDS:
        raise SuiteError(f"the suite {name} has a command of its own: {_OTHER_COMMANDS[name]}")
    if (Path(name) / SUITE).is_file():
        return Path(name).resolve()
    folders = _folders(model)
    if name not in folders:
        known = ", ".join(sorted(set(folders) - set(_OTHER_COMMANDS))) or "none"
        raise SuiteError(f"there is no suite {name!r} (allowed: {known}, or a folder that has {SUITE})")
    return folders[name]


def _expectations(folder: Path, given: Path | None) -> Expectations:
    if given is None and not (folder / EXPECTATIONS).exists():
        return Expectations()
    return Expectations.load(given if given is not None else folder / EXPECTATIONS)


def _results(name: str, output: Path, expectations: Expectations, junit_file: Path | None, data: Path | None) -> int:
    """Write and print the results in `output`; returns the exit code."""
    seen = read_results(output / "results.jsonl")
    judged = report_of(seen, expectations, name)
    if junit_file is not None:
        junit_file.write_text(junit(judged), "utf-8")
    if data is not None:
        json_file.write(judged, data)
    # The files come first: nobody may read this any more, and printing it ends the command then.
    if seen:
        print(f"\n{table(judged)}\n")
    print(summary(seen, judged, expectations))
    return int(not seen or judged.counts[Verdict.FAIL] > 0)
