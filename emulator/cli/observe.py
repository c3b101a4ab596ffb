"""`vfio-user-xe top, walk, vram-map, perfetto`: looking at a card, and at what it traced."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from vfio_user_xe.emulator.cli.answers import PLAIN_WIDTH, as_json_text, print_table
from vfio_user_xe.emulator.cli.control import connected
from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.options import Json, SocketDir, check_outputs
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.model.plugin_loading import device_models
from vfio_user_xe.emulator.observe.memory_map import MemoryMap
from vfio_user_xe.emulator.observe.perfetto import TraceRefused, export
from vfio_user_xe.emulator.observe.top import screen, take


def top(
    socket_dir: SocketDir,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Seconds between two samples.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one sample, then end.")] = False,
) -> None:
    """Show what a card does now: accesses of its functions, time of its engines, traffic of its links.

    On a terminal it is drawn anew until Ctrl-C; elsewhere every look is printed as plain text.
    """
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with connected(socket_dir) as client, _interruptible():
        before = take(client.call)
        if once or not console.is_terminal:
            while True:
                time.sleep(interval)
                now = take(client.call)
                console.print(screen(before, now))
                if once:
                    return
                before = now
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                now = take(client.call)
                live.update(screen(before, now), refresh=True)
                before = now


@contextmanager
def _interruptible() -> Iterator[None]:
    """End without an error at Ctrl-C."""
    with suppress(KeyboardInterrupt):
        yield


def walk(
    socket_dir: SocketDir,
    address: Annotated[str, typer.Argument(help="Such as 0x1000.")],
    function: Annotated[str, typer.Option(metavar="NAME", help="The function that is used: pf, vf1, ...")] = "pf",
    space: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Address space.", show_default="the first that 'status' shows"),
    ] = None,
    asid: Annotated[str | None, typer.Option(metavar="N", help="ASID of the page tables.")] = None,
    root: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address of the root page table.")] = None,
    as_json: Json = False,
) -> None:
    """Walk page tables to an address, and show every level, its entry and meaning, and the result."""
    arguments: dict[str, Any] = {"function": function, "address": address}
    arguments |= {name: value for name, value in (("asid", asid), ("root", root)) if value is not None}
    with connected(socket_dir) as client:
        known = client.call("status")["address_spaces"]
        if not known:
            fail("the card's device model has no page tables to walk")
        if space is not None and space not in known:
            fail(f"--space {space}: {unknown(space, 'address space', known)}", EXIT_USAGE)
        answer = client.call("walk", space=space or next(iter(known)), **arguments)
    if as_json:
        print(as_json_text(answer))
        return
    table = Table("table", "level", "index", "entry at", "entry", "meaning", box=None)
    for step in answer["steps"]:
        table.add_row(
            step["table"],
            str(step["level"]),
            f"{step['index']:#x}",
            step["at"],
            f"{step['entry']:#018x}",
            step["meaning"],
        )
    print_table(table)
    if answer["fault"]:
        print(f"fault: {answer['fault']}")
        raise typer.Exit(1)
    target = answer["target"]
    owner = f", which is {target['owner']}'s" if target["owner"] else ""
    print(f"-> {target['space']} address {target['address']:#x}{owner}")


def vram_map(
    socket_dir: SocketDir,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture, too.")] = None,
    as_json: Json = False,
) -> None:
    """Show which function owns which part of the card's VRAM."""
    check_outputs(png=png)
    with connected(socket_dir) as client:
        answer = client.call("vram_map")
    owners = {name: [(part["dpa"], part["size"]) for part in parts] for name, parts in answer["vfs"].items()}
    found = MemoryMap(answer["size"], owners)
    if png is not None:
        png.write_bytes(found.png())
    if as_json:
        print(as_json_text(answer))
    else:
        print(found.text(), end="")
        print(f"source: {answer['source']}")


def perfetto(
    trace: Annotated[Path, typer.Argument(metavar="TRACE.jsonl", help="A trace in JSON lines.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT.json", show_default="TRACE.perfetto.json")] = None,
) -> None:
    """Convert a trace for the Perfetto UI (ui.perfetto.dev): a track for each function, engine, link."""
    target = out or trace.with_suffix(".perfetto.json")
    beside = target
    try:
        # A device, a pipe, or a link (/dev/stdout) cannot be replaced by a file.
        if not target.is_symlink() and (target.is_file() or not target.exists()):
            beside = target.with_name(f".{target.name[:200]}.part")
        if target.exists() and trace.samefile(target):
            fail(f"{target} is the trace itself: name another file", EXIT_USAGE)
        if trace.is_file() and not trace.stat().st_size:
            fail(f"{trace} is empty: nothing was traced", EXIT_USAGE)
        with trace.open(encoding="utf-8") as lines:
            processes = {name: it for model in device_models() for name, it in model.info.trace_processes.items()}
            pieces = export(lines, str(trace), processes)
            with beside.open("w", encoding="utf-8") as file:
                file.writelines(pieces)
        if beside != target:
            beside.replace(target)
    except (TraceRefused, UnicodeError) as error:
        fail(error, EXIT_USAGE)
    except OSError as error:
        fail(f"{trace if error.filename == str(trace) else target}: {error.strerror}", EXIT_USAGE)
    finally:
        if beside != target:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    print(target)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command(epilog="Example: vfio-user-xe top --socket-dir /tmp/card")(top)
    app.command(epilog="Example: vfio-user-xe walk --socket-dir /tmp/card --function vf1 0x2000000")(walk)
    app.command("vram-map", epilog="Example: vfio-user-xe vram-map --socket-dir /tmp/card --png vram.png")(vram_map)
    app.command(epilog="Example: vfio-user-xe perfetto trace.jsonl")(perfetto)
