"""The command `vfio-user-xe`."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from vfio_user_xe.emulator.cli.attach import register as register_attach
from vfio_user_xe.emulator.cli.authoring import api_reference
from vfio_user_xe.emulator.cli.authoring import app as new_app
from vfio_user_xe.emulator.cli.control import register as register_control
from vfio_user_xe.emulator.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, explained, fail, words
from vfio_user_xe.emulator.cli.explore import fuzz as fuzz_app
from vfio_user_xe.emulator.cli.export import register as register_export
from vfio_user_xe.emulator.cli.guest_run import app as guest_app
from vfio_user_xe.emulator.cli.igt import app as igt_app
from vfio_user_xe.emulator.cli.interrupts import end_as_ctrl_c_does
from vfio_user_xe.emulator.cli.kernel import app as kernel_app
from vfio_user_xe.emulator.cli.man_page import manual
from vfio_user_xe.emulator.cli.observe import register as register_observation
from vfio_user_xe.emulator.cli.options import check_outputs
from vfio_user_xe.emulator.cli.recording import register as register_recording
from vfio_user_xe.emulator.cli.report import app as report_app
from vfio_user_xe.emulator.cli.scenario_findings import app as scenario_app
from vfio_user_xe.emulator.cli.screenshot import register as register_screenshot
from vfio_user_xe.emulator.cli.serve import register as register_serve
from vfio_user_xe.emulator.cli.standard_streams import ending_with_the_reader, lost_exit_code, output_lost
from vfio_user_xe.emulator.cli.suite import app as suite_app
from vfio_user_xe.emulator.conformance.suite import main as run_conformance
from vfio_user_xe.emulator.guest.doctor import examine
from vfio_user_xe.emulator.model.card_file import annotated_card
from vfio_user_xe.emulator.model.packaged_cards import load_card
from vfio_user_xe.emulator.model.plugin_loading import PluginError, default_model, find_plugins
from vfio_user_xe.emulator.version import described

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a file system that takes no more says: the user's to mend, whatever was being written."""


def _is_no_room(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class _Program(TyperGroup):
    """The program's help names what is emulated; the device model is asked only when the help is printed."""

    @property
    def help(self) -> str:
        try:
            title = default_model().info.title
        except PluginError:
            title = ""
        return f"Emulates {title or 'PCI devices'} for QEMU, over vfio-user."

    @help.setter
    def help(self, text: str | None) -> None:
        """Ignored: it is not known when the program is put together."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command. One that was interrupted because its output takes no more ends without a traceback."""
        try:
            return super().invoke(ctx)
        except BaseExceptionGroup as group:  # of trio: a task was interrupted, or could not write
            if (full := group.subgroup(_is_no_room)) is not None:
                fail(words(_first(full)))
            if group.split(KeyboardInterrupt)[1] is not None:
                raise
        except KeyboardInterrupt:
            pass
        except OSError as error:
            if not _is_no_room(error):
                raise
            fail(words(error))
        if output_lost():
            raise typer.Exit(lost_exit_code())
        raise KeyboardInterrupt


app = typer.Typer(
    name="vfio-user-xe",
    cls=_Program,
    epilog="Exit codes: 0 success; 1 the work failed, or the served card refused it; 2 wrong use: an argument, or a file that one names.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(guest_app, name="guest")
app.add_typer(scenario_app, name="scenario")
app.add_typer(fuzz_app, name="fuzz")
app.add_typer(igt_app, name="igt")
app.add_typer(suite_app, name="suite")
app.add_typer(report_app, name="report")
app.add_typer(kernel_app, name="kernel")
app.add_typer(new_app, name="new")
app.command("api-reference")(api_reference)


@app.command("man-page", hidden=True)
def man_page() -> None:
    """Print the manual page, for man(1)."""
    print(manual(app), end="")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(described())
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print version, commit and guest environment."
        ),
    ] = False,
) -> None:
    pass


plugins_app = typer.Typer(help="Device models and interconnects that are installed.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")


@plugins_app.command("list")
def plugins_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List device models and interconnects, where they come from, and why one cannot be loaded."""
    found = find_plugins()
    if as_json:
        print(json.dumps([plugin.as_dict() for plugin in found], indent=2))
        return
    for plugin in found:
        state = f"  [{plugin.error}]" if plugin.error else ""
        print(f"{plugin.kind:14} {plugin.name:14} {plugin.distribution} {plugin.version}  {plugin.doc}{state}")


register_serve(app)
register_attach(app)
register_control(app)
register_observation(app)
register_export(app)
register_screenshot(app)
register_recording(app)


@app.command("card", epilog="Example: vfio-user-xe card --default > my-card.toml")
def card_command(
    file: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="A card file to check, or a packaged card.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Print a card file with every option and its help.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Device model, with --default.", show_default="the default model"),
    ] = None,
) -> None:
    """Check a card file, or print one that explains every option."""
    if default == (file is not None):
        fail("want a card file to check, or --default", EXIT_USAGE)
    with explained():
        if file is None:
            print(annotated_card(model), end="")
            return
        config = load_card(file)
    print(
        f"{config.source}: a good card: model {config.model}, {', '.join(item.name for item in config.interconnects)}"
    )


@app.command(
    epilog="Example: vfio-user-xe conformance --socket /tmp/card/pf.sock --profile profile.toml --junit out.xml"
)
def conformance(
    socket: Annotated[
        str | None, typer.Option(metavar="PATH", help="Socket of the server; it must have no other client.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="FILE", help="What the device has that is to be tested.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Results as JUnit XML.")] = None,
    cases: Annotated[
        list[str] | None, typer.Option("--case", metavar="PATTERN", help="Only these; repeatable.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Run the cases that take seconds, too.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the cases.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Time limit of a case.")] = 30.0,
    start: Annotated[
        str, typer.Option("--start", metavar="COMMAND", help="Start the server, and again whenever it has ended.")
    ] = "",
) -> None:
    """Test any vfio-user server against the specification."""
    check_outputs(junit=Path(junit) if junit is not None else None)
    if socket is None and not list_only:
        fail("name the server's socket by --socket, or give --list", EXIT_USAGE)
    raise typer.Exit(
        run_conformance(
            socket or "",
            profile,
            junit,
            cases=cases or (),
            slow=slow,
            list_only=list_only,
            timeout=timeout,
            start=start,
        )
    )


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Check this machine: what it has, what is missing, and the remedy. Exit code: 1 if guests cannot run."""
    good = True
    if as_json:
        found = list(examine())
        good = not any(finding.fatal for finding in found)
        print(json.dumps({"usable": good, "findings": [asdict(finding) for finding in found]}, indent=2))
        raise typer.Exit(0 if good else EXIT_FAILED)
    for finding in examine():
        print(f"{finding.mark:5} {finding.what}: {finding.text}")
        if finding.cure:
            print(f"      -> {finding.cure}")
        good = good and not finding.fatal
    raise typer.Exit(0 if good else EXIT_FAILED)


def main() -> None:
    """Entry point.

    SIGTERM and SIGHUP end a command as Ctrl-C does, unless it has its own way: with what it has so far, and leaving nothing
    behind. So does a reader of its output that leaves.
    """
    try:
        end_as_ctrl_c_does()
        with ending_with_the_reader():
            app()
    except KeyboardInterrupt:  # before the command began, or when it had ended
        raise SystemExit(EXIT_INTERRUPTED) from None
