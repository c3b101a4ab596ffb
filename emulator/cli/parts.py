"""Options by which a run is divided: `--shard`, `--jobs`, `--times`; and the jobs of one machine, processes of this program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.child_process import launch
from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.report import read_any
from vfio_user_xe.emulator.guest.host import meminfo
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.results.json_file import NotAReport
from vfio_user_xe.emulator.results.shard import Parts, Shard
from vfio_user_xe.emulator.results.times import Times, load_times, times_of
from vfio_user_xe.emulator.suites.group import Part
from vfio_user_xe.emulator.suites.report import forget_results

ShardOption = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts; the parts are balanced by recorded times."),
]
JobsOption = Annotated[
    str, typer.Option("--jobs", metavar="N|auto", help="So many guests at once; auto: by processors and memory.")
]
JobOption = Annotated[str | None, typer.Option("--job", hidden=True, help="One of the processes that --jobs starts.")]
TimesOption = Annotated[
    Path | None,
    typer.Option(
        "--times",
        metavar="FILE",
        help="Balance parts by this: results of an earlier run, or what `report times` wrote.",
        show_default="the suite's",
    ),
]

DataOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Everything as JSON, for `report merge`.")
]

AUTO = "auto"
TIMES = "times.json"
"""In a suite's folder: how long its tests take."""
SERVER_MEMORY = 512
"""MiB that a guest needs besides its own memory: QEMU, the served card."""


def chosen_parts(shard: str | None, job: str | None, times: Path | None, usual: Mapping[str, float]) -> Parts:
    """What the options mean, `usual` being the suite's recorded times; ends with a message and exit code 2 if they mean nothing."""
    try:
        shards = tuple(Shard.parse(text) for text in (shard, job) if text is not None)
    except ValueError as error:
        fail(f"--shard {error}", EXIT_USAGE)
    return Parts(shards, read_times(times) if times is not None else Times(usual))


def read_times(path: Path) -> Times:
    """Recorded times in a file of any kind that has them; ends with a message and exit code 2 if it has none."""
    try:
        try:
            return load_times(path)
        except NotAReport:
            return times_of(read_any(path).results)
    except (NotAReport, OSError) as error:
        fail(f"--times {error}", EXIT_USAGE)


def suite_parts(kernels: Sequence[tuple[Kernel | None, str]], parts: Parts, job: str | None) -> list[Part]:
    """What a suite is to be run as: once on each kernel."""
    number = job.partition("/")[0] if job else ""
    return [Part(parts, kernel, name, number) for kernel, name in kernels]


def recorded_times(folder: Path) -> Times:
    """Those that lie beside a suite's file; none where there are none."""
    file = folder / TIMES
    return read_times(file) if file.is_file() else Times()


def run_parts(
    count: int,
    job: str | None,
    command: Sequence[str],
    output: Path,
    resume: bool,
    parts: Sequence[Part],
    run_one: Callable[[Part, bool], None],
) -> list[int]:
    """Run a suite's parts in `count` jobs of their own, or here; returns exit codes.

    `command` are the words of the command ("igt", "run"). `run_one(part, resume)` runs one: the first takes up what is in `output` if `resume`, the others add to it.
    """
    if count > 1 and job is None:
        if not resume:
            forget_results(output)
        return run_jobs(count, command)
    for number, part in enumerate(parts):
        run_one(part, resume or job is not None or number > 0)
    return [0]


def job_count(text: str, *guests: int) -> int:
    """What `--jobs` means where a job has guests of so many MiB; ends with a message and exit code 2 if it means nothing."""
    if text == AUTO:
        each = sum(memory + SERVER_MEMORY for memory in guests)
        return max(1, min(len(os.sched_getaffinity(0)), meminfo().get("MemAvailable", 0) // 1024 // each))
    if not re.fullmatch(r"[1-9]\d{0,2}", text):
        fail(f"--jobs {text}: want a number from 1 to 999, or {AUTO}", EXIT_USAGE)
    return int(text)


def run_jobs(count: int, command: Sequence[str], extra: Sequence[str] = ()) -> list[int]:
    """Run this program `count` times at once with the options that it was given; returns the exit codes, as a shell has them.

    `command` are the words of the command ("scenario", "run"), `extra` further options. Each process gets `--job K/COUNT`,
    does that part, and prints its results as they come. An interrupt (Ctrl-C) is passed on to them, and raised when they have
    ended.
    """
    given = sys.argv[1:]
    rest = given[len(command) :] if given[: len(command)] == list(command) else given
    sys.stdout.flush()
    jobs = [
        launch(
            [
                sys.executable,
                "-P",
                "-m",
                "vfio_user_xe.emulator",
                *command,
                "--job",
                f"{number}/{count}",
                *extra,
                *rest,
            ],
            stdout=sys.stdout.fileno(),
            stderr=sys.stderr.fileno(),
        )
        for number in range(1, count + 1)
    ]
    try:
        codes = [job.wait() for job in jobs]
    except KeyboardInterrupt:
        _interrupt(jobs)
        raise
    return [code if code >= 0 else 128 - code for code in codes]


def _interrupt(jobs: Sequence[subprocess.Popen[bytes]]) -> None:
    for job in jobs:
        if job.poll() is None:
            job.terminate()  # not SIGINT: a background job's children ignore it, too
    for job in jobs:
        job.wait()
