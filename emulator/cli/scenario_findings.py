"""`vfio-user-xe scenario findings`: known defects and their fixes, kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE, exit_code_of, fail, say
from vfio_user_xe.emulator.cli.explore import app
from vfio_user_xe.emulator.cli.options import Append
from vfio_user_xe.emulator.cli.report import read_reports
from vfio_user_xe.emulator.cli.scenario import installed_suites, load_suite, runner_of
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.results.text import line
from vfio_user_xe.emulator.scenarios.finding import Finding
from vfio_user_xe.emulator.scenarios.findings import Seen, chosen_findings, load, record, save, table
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.runner import grouped, select
from vfio_user_xe.emulator.scenarios.scenario import SETUP, Suite, suite_of

__all__ = ["app", "findings"]


@app.command(
    epilog="Example: vfio-user-xe scenario findings --kernel 6.18 --kernel 7.3 --repeat 3 --data findings.json"
)
def findings(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Defects, or scenarios; none: all.")
    ] = None,
    kernels: Annotated[
        list[str] | None,
        typer.Option(
            "--kernel", metavar="BZIMAGE|SERIES", help="Run on this kernel; repeatable. None: only the table."
        ),
    ] = None,
    modules: Annotated[Path | None, typer.Option(metavar="DIR", help="Modules, of one BZIMAGE.")] = None,
    append: Append = None,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Run each so many times.")] = 1,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results", metavar="FILE", help="Count what `scenario run` wrote by --json or --output; repeatable."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep what was seen here, with earlier runs.")
    ] = None,
) -> None:
    """Known defects and their fixes: which kernel is red and which green, as a table in Markdown.

    Exit code: 1 when a scenario failed otherwise than by a known defect. Each result is kept as it comes. Interrupted (Ctrl-C), what
    has come out so far is printed all the same; the exit code is then 130.
    """
    if modules is not None and len(kernels or ()) != 1:
        fail("--modules are those of one kernel: name it by --kernel", EXIT_USAGE)
    suites = _suites()
    wanted = {name: chosen_findings(suite, names or []) for name, suite in suites.items()}
    if names and not any(wanted.values()):
        known = [finding.defect for suite in suites.values() for finding in suite.findings]
        fail(unknown(names[0], "finding", known), EXIT_USAGE)
    try:
        book = _Book(load(data) if data is not None else [], data, wanted)
    except ValueError as error:
        fail(error, EXIT_USAGE)
    for report in read_reports(results or []):
        for result in report.results:
            book.count(result)
    interrupted, ended = False, 0
    try:
        for kernel in kernels or ():
            for name, rows in wanted.items():
                _find(suites[name], rows, kernel, modules, append or (), repeat, book.count)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted")
    except GuestError as error:
        ended = exit_code_of(error)
        if not book.seen:
            fail(error, ended)
        say(error)
    print(table(wanted, book.seen))
    raise typer.Exit(EXIT_INTERRUPTED if interrupted else ended or int(book.failed))


class _Book:
    """What was seen, and the file that it is kept in."""

    def __init__(self, seen: list[Seen], file: Path | None, wanted: Mapping[str, list[Finding]]) -> None:
        self.seen = seen
        self.failed = False
        """Whether a scenario failed otherwise than by a known defect."""
        self._file = file
        self._needs = {
            suite: {scenario: row.needs for row in rows for scenario in row.scenarios} for suite, rows in wanted.items()
        }

    def count(self, result: Result) -> None:
        """Add a result, if its scenario belongs to a finding that is wanted."""
        suite = suite_of(result.case)
        needs = self._needs.get(suite)
        if not needs or (result.case.name not in needs and result.case.number != SETUP):
            return
        self.failed = self.failed or result.verdict is Verdict.FAIL
        record(self.seen, suite, [result], needs)
        if self._file is not None:
            save(self._file, self.seen)


def _suites() -> dict[str, Suite[Machine]]:
    """Those with findings. One that cannot be loaded is told, and costs the others nothing."""
    found = {}
    for name in installed_suites():
        try:
            suite = load_suite(name)
        except LookupError as error:
            say(str(error))
            continue
        if suite.findings:
            found[name] = suite
    return found


def _find(
    suite: Suite[Machine],
    rows: list[Finding],
    kernel: str,
    modules: Path | None,
    append: Sequence[str],
    repeat: int,
    count: Callable[[Result], None],
) -> None:
    """Run the scenarios of these findings; each result goes to `count` as it comes.

    Raises:
        GuestError: there is no such kernel, or no environment.
    """

    def progress(result: Result) -> None:
        count(result)
        say(line(result))

    names = list(dict.fromkeys(name for row in rows for name in row.scenarios))
    if names:
        runner_of(suite, kernel, modules, append, None).run(grouped(select(suite, names)), repeat, progress)
