"""`vfio-user-xe report merge|times`: results of several runs, as one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.options import check_outputs
from vfio_user_xe.emulator.results import Report, Verdict, json_file
from vfio_user_xe.emulator.results.html import html
from vfio_user_xe.emulator.results.journal import read_journal
from vfio_user_xe.emulator.results.json_file import NotAReport
from vfio_user_xe.emulator.results.junit import junit
from vfio_user_xe.emulator.results.matrix import matrix, matrix_text
from vfio_user_xe.emulator.results.text import summary
from vfio_user_xe.emulator.results.times import save_times, times_of
from vfio_user_xe.emulator.suites.report import read_results
from vfio_user_xe.emulator.suites.table import SuiteError

app = typer.Typer(help="Results of several runs, as one report.", no_args_is_help=True)

RESULTS = "results.jsonl"
"""The file of a run's output folder to which results are added as they come."""

_NOT_JUDGED = "has results that are not judged: `igt report` or `suite report NAME` does it, with"

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="What `--json` wrote; or the output folder of `scenario run`, finished or not."
    ),
]


@app.command(
    epilog="Example: vfio-user-xe report merge shard-1.json shard-2.json --html report.html --junit report.xml"
)
def merge(
    files: Files,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the report.", show_default="the first one's")] = "",
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one HTML page.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")] = None,
    data: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the whole as JSON.")] = None,
) -> None:
    """Merge reports: shards of one run, repetitions, other kernels. Prints a table of kernels, tests and verdicts.

    No result is dropped: one that is in several reports is a further repetition. Exit code: 1 if any test failed.
    """
    check_outputs(html=page, junit=junit_file, json=data)
    reports = read_reports(files)
    try:
        merged = Report.merge(name or reports[0].name, reports)
    except ValueError as error:
        fail(error, EXIT_USAGE)
    merged.title = f"{merged.name} on {', '.join(merged.kernels) or 'no kernel'}"
    table = matrix(merged)
    always = (Verdict.PASS, Verdict.FAIL)
    if page is not None:
        page.write_text(html(merged), encoding="utf-8")
    if junit_file is not None:
        junit_file.write_text(junit(merged), encoding="utf-8")
    if data is not None:
        json_file.write(merged, data)
    # The files come first: nobody may read this any more, and printing it ends the command then.
    print(f"{matrix_text(table)}\n\n{summary(merged.results, 'results', always, ', '.join(merged.kernels))}")
    raise typer.Exit(int(merged.failed))


@app.command(epilog="Example: vfio-user-xe report times monday.json tuesday.json --output times.json")
def times(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write them here.", show_default="printed")
    ] = None,
) -> None:
    """Print how long each test takes, the mean of all runs: `--times` balances shards by it."""
    check_outputs(output=output)
    found = times_of(result for report in read_reports(files) for result in report.results)
    if output is not None:
        save_times(found, output)
    else:
        print(json.dumps(dict(sorted(found.items())), indent=1))


def read_reports(files: list[Path]) -> list[Report]:
    """The reports; ends with a message and exit code 2 if a file is none."""
    try:
        return [read_any(file) for file in files]
    except NotAReport as error:
        fail(error, EXIT_USAGE)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}", EXIT_USAGE)


def _of_suite(file: Path) -> bool:
    """Whether it has what `igt run` and `suite run` keep, which is not judged yet."""
    try:
        return bool(read_results(file))
    except SuiteError:
        return False


def read_any(path: Path) -> Report:
    """A report in a file of JSON, in a file of results that came one after the other, or in a folder that has one.

    Raises:
        NotAReport: it is something else; the text begins with the path.
        OSError: it cannot be read.
    """
    file = path / RESULTS if path.is_dir() else path
    if file.suffix == ".jsonl":
        try:
            return read_journal(file)
        except NotAReport:
            if not _of_suite(file):
                raise
            raise NotAReport(f"{path}: {_NOT_JUDGED} `--output {file.parent} --json FILE`") from None
    return json_file.read(file)
