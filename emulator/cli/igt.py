"""`vfio-user-xe igt ...`: run the user's own build of IGT in a guest, judge what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_INTERRUPTED, exit_code_of, explained, fail
from vfio_user_xe.emulator.cli.guest_memory import OwnGuestMemory
from vfio_user_xe.emulator.cli.interrupts import run as run_to_its_end
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
from vfio_user_xe.emulator.guest import environment as environments
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.guest.served import ServedCardError
from vfio_user_xe.emulator.model.card import CardError
from vfio_user_xe.emulator.model.packaged_cards import load_card
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, PluginError, default_model, load_plugin
from vfio_user_xe.emulator.results import json_file
from vfio_user_xe.emulator.results.journal import NotKept
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.suites.expectations import Expectations
from vfio_user_xe.emulator.suites.group import Part, checked_function
from vfio_user_xe.emulator.suites.igt.package import IgtBuild
from vfio_user_xe.emulator.suites.igt.runner import IgtRun, plan, run_igt
from vfio_user_xe.emulator.suites.igt.suite import Suite
from vfio_user_xe.emulator.suites.report import read_results, report_of, summary, table
from vfio_user_xe.emulator.suites.subtest import subtest_name
from vfio_user_xe.emulator.suites.table import SuiteError

app = typer.Typer(
    help="IGT, the tests of the kernel's graphics drivers, on an emulated card.",
    epilog="Exit codes: 0 everything is as expected, 1 something is not explained or the guest failed, 2 wrong use.",
    no_args_is_help=True,
)

RUNNER = "igt"
"""The name under which device models have files for it (`ModelInfo.suites`)."""
SUITE, EXPECTATIONS = "suite.toml", "expectations.toml"

Igt = Annotated[
    Path, typer.Option("--igt", metavar="DIR", help="Your build of IGT: installed, or its build directory.")
]
SuiteFile = Annotated[
    Path | None,
    typer.Option("--suite", metavar="FILE", help="Groups and guest (TOML).", show_default="the device model's"),
]
ExpectationFile = Annotated[
    Path | None,
    typer.Option("--expect", metavar="FILE", help="Expectations (TOML).", show_default="the device model's"),
]
Groups = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Only this group; repeatable.")]
Tests = Annotated[
    list[str] | None,
    typer.Option(
        "--test", metavar="GLOB", help="Only these, such as core_hotunplug or 'core_hotunplug@unplug-*'; repeatable."
    ),
]
PerTest = Annotated[
    int, typer.Option("--per-test", metavar="N", min=0, help="At most N subtests of a test, evenly spread (0: all).")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for results and logs.")]


@app.command("run", epilog="Example: vfio-user-xe igt run --igt ~/igt/install --group first --junit igt.xml")
@serve_options("card", "model", "vfs", "settings")
def run_command(
    igt: Igt,
    serve: ServeOptions,
    groups: Groups = None,
    tests: Tests = None,
    output: Output = Path("igt-results"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the results in the output folder, run the rest.")
    ] = False,
    per_test: PerTest = 0,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=1, help="Time limit of each subtest, instead of the suite's limits."),
    ] = None,
    on: Annotated[
        str | None, typer.Option(metavar="FUNCTION", help="pf or vf1, vf2, ..., instead of the groups'.")
    ] = None,
    suite: SuiteFile = None,
    expect: ExpectationFile = None,
    kernels: KernelsOption = None,
    modules: ModulesOption = None,
    append: Append = None,
    accelerator: Annotated[str, typer.Option(help="auto, kvm or tcg.")] = "auto",
    shard: ShardOption = None,
    jobs: JobsOption = "1",
    job: JobOption = None,
    times: TimesOption = None,
    memory: OwnGuestMemory = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit file.")] = None,
    data: DataOption = None,
) -> None:
    """Boot a guest with a card and run IGT subtests in it, each in a process of its own."""
    expectations = Expectations()
    wanted = (tuple(groups or ()), tuple(tests or ()))
    if job is None:
        check_outputs(junit=junit_file, json=data)
    with explained():
        on_kernels = suite_kernels(kernels or (), modules or ())
    (make_folder if job is not None else own_folder)("--output", output)
    try:
        model = load_card(serve.card).model if serve.card is not None else serve.model
        expectations = Expectations.load(_file(expect, EXPECTATIONS, model))
        suite_file = _file(suite, SUITE, model)
        loaded = Suite.load(suite_file)
        if memory is not None:
            loaded = loaded.with_memory(memory)
        count = job_count(jobs, loaded.most_memory(wanted[0]))
        chosen = chosen_parts(shard, job, times, recorded_times(suite_file.parent))
        work = IgtRun(
            igt=igt,
            suite=loaded,
            expectations=expectations,
            output=output,
            groups=wanted[0],
            tests=wanted[1],
            on=None if on is None else checked_function(on, "--on"),
            timeout=timeout,
            per_test=per_test,
            resume=resume or job is not None,
            card=tuple(serve.argv()),
            accelerator=accelerator,
            append=" ".join(append or ()),
        )

        def run_one(part: Part, again: bool) -> None:
            each = dataclasses.replace(work, part=part, resume=again)
            run_to_its_end(run_igt, each, print)

        all_parts = suite_parts(on_kernels, chosen, job)
        codes = run_parts(count, job, ("igt", "run"), output, resume, all_parts, run_one)
    except (GuestError, ServedCardError, CardError, NotKept) as exc:
        if job is None:
            _results(output, expectations, junit_file, data)
        fail(exc, exit_code_of(exc))
    except (KeyboardInterrupt, BaseExceptionGroup) as exc:
        if isinstance(exc, BaseExceptionGroup) and exc.subgroup(KeyboardInterrupt) is None:
            raise
        if job is None:
            _results(output, expectations, junit_file, data)
        fail("interrupted; go on with --resume", EXIT_INTERRUPTED)
    if job is not None:
        raise typer.Exit
    raise typer.Exit(max(_results(output, expectations, junit_file, data), *codes))


@app.command("list", epilog="Example: vfio-user-xe igt list --igt ~/igt/install --group first")
def list_subtests(
    igt: Igt,
    groups: Groups = None,
    tests: Tests = None,
    per_test: PerTest = 0,
    model: Model = None,
    suite: SuiteFile = None,
    expect: ExpectationFile = None,
) -> None:
    """List the subtests that would be run, by group, and what is expected of those that need not pass."""
    try:
        expectations = Expectations.load(_file(expect, EXPECTATIONS, model))
        build = IgtBuild(igt, environments.locate())
        work = IgtRun(
            igt,
            Suite.load(_file(suite, SUITE, model)),
            expectations,
            Path(),
            tuple(groups or ()),
            tuple(tests or ()),
            per_test=per_test,
        )
        for item in plan(work, build.programs, build.subtests):
            print(f"{item.group.name} on {item.group.on}: {len(item.subtests)} subtests")
            for pair in item.subtests:
                entry = expectations.find(subtest_name(*pair), item.group.on, item.group.name)
                expected = f"  ({'/'.join(entry.results)}, {entry.cause}: {entry.reason})" if entry else ""
                print(f"  {subtest_name(*pair)}{expected}")
    except GuestError as exc:
        fail(exc, exit_code_of(exc))


@app.command("report", epilog="Example: vfio-user-xe igt report --output igt-results --junit igt.xml")
def report(
    output: Output = Path("igt-results"),
    model: Model = None,
    expect: ExpectationFile = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit file.")] = None,
    data: DataOption = None,
) -> None:
    """Judge the results of an earlier run again, with the present expectations."""
    try:
        raise typer.Exit(_results(output, Expectations.load(_file(expect, EXPECTATIONS, model)), junit_file, data))
    except GuestError as exc:
        fail(exc, exit_code_of(exc))


def _file(given: Path | None, name: str, model: str | None) -> Path:
    """The file that the user gives, or else the device model has.

    Raises:
        SuiteError: neither the user nor the device model names one.
    """
    if given is not None:
        return given
    try:
        plugin = default_model() if model is None else load_plugin(DEVICE_MODEL, model)
    except PluginError as error:
        raise SuiteError(str(error)) from None
    folder = plugin.info.suites.get(RUNNER)
    if folder is None:
        raise SuiteError(f"the device model {plugin.name} has no files for IGT: name them with --suite and --expect")
    return folder / name


def _results(output: Path, expectations: Expectations, junit_file: Path | None, data: Path | None) -> int:
    """Write and print the results in `output`; returns the exit code."""
    seen = read_results(output / "results.jsonl")
    judged = report_of(seen, expectations, RUNNER, "IGT")
    if junit_file is not None:
        junit_file.write_text(junit(judged), "utf-8")
    if data is not None:
        json_file.write(judged, data)
    # The files come first: nobody may read this any more, and printing it ends the command then.
    if seen:
        print(f"\n{table(judged)}\n")
    print(summary(seen, judged, expectations))
    return int(not seen or judged.failed)
