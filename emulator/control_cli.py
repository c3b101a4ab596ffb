"""`vfio-user-xe status, ledger, inspect, ...`: what a running card answers on its control socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from emulator.control import CommandError
from emulator.vfio_user.control_client import ControlClient

SocketDir = Annotated[Path, typer.Option("--socket-dir", metavar="DIR", help="Folder of the served card's sockets.")]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON.")]


@contextmanager
def connected(folder: Path) -> Iterator[ControlClient]:
    """The card served in `folder`; its refusals end the program with a message."""
    try:
        with ControlClient(folder / "control.sock") as client:
            yield client
    except CommandError as exc:
        print(f"vfio-user-xe: {exc}", file=sys.stderr)
        raise typer.Exit(1) from None
    except OSError as exc:
        print(f"vfio-user-xe: {exc}: is a card served in {folder}?", file=sys.stderr)
        raise typer.Exit(1) from None


def show(value: Any, as_json: bool, columns: list[str] | None = None, title: str = "") -> None:
    """Print an answer: as a table when it is a list of records, else as JSON."""
    if as_json or not isinstance(value, list):
        print(json.dumps(value, indent=2))
        return
    if not value:
        print(f"no {title}" if title else "nothing")
        return
    names = columns or list(value[0])
    table = Table(*names, title=title or None)
    for record in value:
        table.add_row(*(f"{record[name]:,}" if isinstance(record[name], int) else str(record[name]) for name in names))
    # As wide as it takes where nobody looks at a screen: a wrapped table cannot be searched.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def status(socket_dir: SocketDir) -> None:
    """The card: functions, clients, VFs, what became of the VF BARs."""
    with connected(socket_dir) as client:
        show(client.call("status"), as_json=True)


LEDGER_COLUMNS = ["initiator", "owner", "interconnect", "kind", "reads", "bytes_read", "writes", "bytes_written"]


def ledger(
    socket_dir: SocketDir,
    as_json: Json = False,
    clear: Annotated[bool, typer.Option("--clear", help="Set all counters to zero afterwards.")] = False,
) -> None:
    """Who reached whose memory, by which interconnect, how often."""
    with connected(socket_dir) as client:
        show(client.call("ledger", clear=clear), as_json, LEDGER_COLUMNS, "accesses")


def inspect(
    socket_dir: SocketDir,
    name: Annotated[str, typer.Argument(help="Register name or pattern, such as 'GDRST' or 'FORCEWAKE*'.")] = "*",
    function: Annotated[str | None, typer.Option(metavar="NAME", help="Of this function only: pf, vf1, ...")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Call the methods of computed registers, as a read would.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Registers by name: values and fields."""
    with connected(socket_dir) as client:
        records = client.call("registers", function=function, name=name, live=live)
        if not as_json:
            for record in records:
                record["offset"] = f"{record['offset']:#x}"
                record["value"] = "-" if record["value"] is None else f"{record['value']:#010x}"
                record["fields"] = " ".join(f"{key}={value}" for key, value in record["fields"].items())
        show(records, as_json, ["function", "name", "offset", "value", "fields"])


def unmodelled(socket_dir: SocketDir, function: Annotated[str | None, typer.Option(metavar="NAME")] = None) -> None:
    """Registers that nobody declared and a guest used all the same."""
    with connected(socket_dir) as client:
        print(client.call("unmodelled", function=function, format="text"))


def control(
    socket_dir: SocketDir,
    command: Annotated[str, typer.Argument(help="Command of the control socket; 'help' lists them.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, the value as JSON or text.")] = None,
) -> None:
    """Any command of the control socket."""
    given: dict[str, Any] = {}
    for argument in arguments or []:
        key, equals, text = argument.partition("=")
        if not equals:
            print(f"vfio-user-xe: {argument}: want KEY=VALUE", file=sys.stderr)
            raise typer.Exit(2)
        try:
            given[key] = int(text, 0) if text[:1].isdigit() else json.loads(text)
        except ValueError:
            given[key] = text
    with connected(socket_dir) as client:
        show(client.call(command, **given), as_json=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Example: vfio-user-xe status --socket-dir /tmp/card")(status)
    app.command(epilog="Example: vfio-user-xe ledger --socket-dir /tmp/card --clear")(ledger)
    app.command(epilog="Example: vfio-user-xe inspect --socket-dir /tmp/card 'VF_SW_FLAG*' --function vf1")(inspect)
    app.command(epilog="Example: vfio-user-xe unmodelled --socket-dir /tmp/card")(unmodelled)
    app.command(
        epilog="Example: vfio-user-xe control --socket-dir /tmp/card read function=pf space=device address=0 length=16"
    )(control)
