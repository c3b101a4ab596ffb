"""`vfio-user-xe status, ledger, inspect, ...`: what a running card answers on its control socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vfio_user_xe.emulator.cli.answers import as_json_text, for_a_person, show_any, show_records, show_status
from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail, words
from vfio_user_xe.emulator.cli.options import Json, SocketDir
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient


@contextmanager
def connected(folder: Path) -> Iterator[ControlClient]:
    """The card served in `folder`; its refusals end the program with a message."""
    try:
        with ControlClient(folder / "control.sock") as client:
            yield client
    except CommandError as exc:
        # Most messages name what is allowed themselves.
        untold = [name for name in exc.allowed if name not in exc.message]
        fail(f"{exc}\nallowed: {', '.join(exc.allowed)}" if untold else exc)
    except OSError as exc:
        fail(f"{words(exc)}: is a card served in {folder}?")


def status(socket_dir: SocketDir, as_json: Json = False) -> None:
    """Show the card: functions, clients, VFs, the state of the VF BARs. JSON where the output is no terminal."""
    with connected(socket_dir) as client:
        answer = client.call("status")
    if for_a_person(as_json):
        show_status(answer)
    else:
        print(as_json_text(answer))


LEDGER_COLUMNS = [
    "initiator", "owner", "interconnect", "kind", "reads", "bytes_read", "writes", "bytes_written", "spans", "first", "last",
]  # fmt: skip


def ledger(
    socket_dir: SocketDir,
    as_json: Json = False,
    clear: Annotated[bool, typer.Option("--clear", help="Set all counters to zero afterwards.")] = False,
    history: Annotated[
        bool, typer.Option("--history", help="Print the history of ownership of device memory, and resets.")
    ] = False,
    page: Annotated[
        str | None, typer.Option("--page", metavar="DPA", help="The history of the page at this device address.")
    ] = None,
) -> None:
    """Print which function reached whose memory, by which interconnect, how often, and the verdicts (docs/ledger.md)."""
    with connected(socket_dir) as client:
        verdicts = client.call("verdicts")
        owners = client.call("ownership", address=page) if history or page is not None else None
        entries = client.call("ledger", clear=clear)
    if as_json:
        answer = {"entries": entries, **verdicts, **({"ownership": owners} if owners is not None else {})}
        print(as_json_text(answer))
        return
    for entry in entries:
        times = [f"{entry[name]:.3f} s" if entry["spans"] else "-" for name in ("first", "last")]
        entry["first"], entry["last"] = times
    show_records(entries, LEDGER_COLUMNS, "accesses")
    print("\n".join(verdict_lines(verdicts)))
    if owners is not None:
        print("\n".join(history_lines(owners) or ["no memory changed its owner, no function was reset"]))


def verdict_lines(verdicts: dict[str, Any]) -> list[str]:
    """The answer of the command `verdicts` in words."""
    lines = [
        f"{path['initiator']} reached {path['owner']}'s memory: {path['path']} ({_counts(path)})"
        for path in verdicts["paths"]
    ]
    lines += [
        f"STALE: {stale['initiator']} to {stale['owner']} over {stale['interconnect']} ({stale['kind']}),"
        f" {stale['reads']} reads and {stale['writes']} writes: {stale['reason']}"
        for stale in verdicts["stale"]
    ]
    lines += [f"FOREIGN: {path['initiator']} reached {path['owner']}'s memory" for path in verdicts["foreign"]]
    return lines or ["no function reached another's memory"]


def _counts(path: dict[str, Any]) -> str:
    words = {"zero-copy": "accesses by device address", "legacy": "as a PCI device"}
    others = {name: f"over {name}" for name in path if name not in (*words, "initiator", "owner", "path")}
    return ", ".join(f"{path[name]} {text}" for name, text in {**words, **others}.items())


def history_lines(owners: dict[str, Any]) -> list[str]:
    """The answer of the command `ownership`, in the order of time."""
    events = [
        (c["time"], f"[{c['address']:#x}, {c['address'] + c['length']:#x}) went from {c['old']} to {c['new']}")
        for c in owners["changes"]
    ]
    for reset in owners["resets"]:
        ended = "lasts" if reset["ended"] is None else f"took {1e3 * (reset['ended'] - reset['began']):.1f} ms"
        used = sum(access["reads"] + access["writes"] for access in reset["accesses"])
        events.append((reset["began"], f"reset of {reset['owner']} {ended}; accesses of others meanwhile: {used}"))
    return [f"{time:12.6f} s  {text}" for time, text in sorted(events)]


def inspect(
    socket_dir: SocketDir,
    name: Annotated[str, typer.Argument(help="Register name or pattern, such as 'GDRST' or 'FORCEWAKE*'.")] = "*",
    function: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only registers of this function: pf, vf1, ...")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Call the methods of computed registers, as a read would.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show registers by name: values and fields."""
    with connected(socket_dir) as client:
        records = client.call("registers", function=function, name=name, live=live)
    if as_json:
        print(as_json_text(records))
        return
    for record in records:
        record["offset"] = f"{record['offset']:#x}"
        record["value"] = "-" if record["value"] is None else f"{record['value']:#010x}"
        fields = record["fields"] | record["meanings"]
        record["fields"] = " ".join(f"{key}={value}" for key, value in fields.items())
    show_records(records, ["function", "name", "offset", "value", "fields"])


def unmodelled(socket_dir: SocketDir, function: Annotated[str | None, typer.Option(metavar="NAME")] = None) -> None:
    """Registers that nobody declared and a guest used all the same, and bits that it set though they are reserved or not modelled."""
    with connected(socket_dir) as client:
        print(client.call("unmodelled", function=function, format="text"))


def control(
    socket_dir: SocketDir,
    command: Annotated[str, typer.Argument(help="Command of the control socket; 'help' lists them.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, the value as JSON or text.")] = None,
    as_json: Json = False,
) -> None:
    """Send any command to the control socket; 'control help' lists them. JSON where the output is no terminal."""
    given: dict[str, Any] = {}
    for argument in arguments or []:
        key, equals, text = argument.partition("=")
        if not equals:
            fail(f"{argument}: want KEY=VALUE; 'control help command={command}' shows the arguments", EXIT_USAGE)
        try:
            given[key] = int(text, 0) if text[:1].isdigit() else json.loads(text)
        except ValueError:
            given[key] = text
    with connected(socket_dir) as client:
        answer = client.call(command, **given)
    if for_a_person(as_json):
        show_any(answer)
    else:
        print(as_json_text(answer))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Example: vfio-user-xe status --socket-dir /tmp/card")(status)
    app.command(epilog="Example: vfio-user-xe ledger --socket-dir /tmp/card --clear")(ledger)
    app.command(epilog="Example: vfio-user-xe inspect --socket-dir /tmp/card 'VF_*' --function vf1")(inspect)
    app.command(epilog="Example: vfio-user-xe unmodelled --socket-dir /tmp/card")(unmodelled)
    app.command(
        epilog="Example: vfio-user-xe control --socket-dir /tmp/card read function=pf space=device address=0 length=16"
    )(control)
