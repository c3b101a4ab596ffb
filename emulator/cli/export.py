"""`vfio-user-xe export`: memory of a function of a served card, for another program of the host."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.options import SocketDir
from vfio_user_xe.emulator.model.options import parse_size
from vfio_user_xe.emulator.vfio_user.export import Exporter, ExportError, whole_pages


def export(
    socket_dir: SocketDir,
    function: Annotated[str, typer.Option(metavar="NAME", help="Function that owns the memory: pf, vf1, ...")],
    offset: Annotated[
        str, typer.Option(metavar="SIZE", help="Start of the memory: a device address of the function.")
    ] = "0",
    length: Annotated[
        str, typer.Option(metavar="SIZE", help="Length of the memory.", show_default="as far as it is in one piece")
    ] = "0",
    to: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The socket to make.", show_default="DIR/export-NAME.sock"),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the first program has disconnected.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Give a memfd that cannot be written.")] = False,
    memfd: Annotated[
        bool, typer.Option("--memfd", help="Give a memfd, even where the host can make a dma-buf.")
    ] = False,
    width: Annotated[int, typer.Option(min=0, help="Of the surface at the start of the memory, in pixels.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="The same.")] = 0,
    pitch: Annotated[int, typer.Option(min=0, metavar="BYTES", help="From a row to the next.")] = 0,
    format: Annotated[str, typer.Option(metavar="NAME", help="Such as xrgb8888.")] = "",
    tiling: Annotated[str, typer.Option(metavar="NAME", help="How pixels are permuted in memory.")] = "",
) -> None:
    """Give the descriptor of a function's memory to every program that connects to a UNIX socket.

    What the options say of a surface is passed on to the programs; nothing here looks at it. Prints one JSON line with the socket and what is handed out, then serves until the card takes the memory back (exit
    code 1), SIGTERM or Ctrl-C. docs/export.md tells what programs get.
    """
    try:
        begin = whole_pages(_size(offset, "--offset"), "--offset")
        count = whole_pages(_size(length, "--length"), "--length")
    except ExportError as error:
        fail(error, EXIT_USAGE)
    said = {"width": width, "height": height, "pitch": pitch, "format": format, "tiling": tiling}
    surface = {name: value for name, value in said.items() if value}
    path = to or socket_dir / f"export-{function}.sock"
    try:
        exporter = Exporter(socket_dir, function, begin, count, read_only=read_only, dma_buf=not memfd, surface=surface)
    except ExportError as error:
        fail(error)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exporter.stop())
    try:
        exporter.listen(path)

        def ready() -> None:
            print(json.dumps({"ready": True, "socket": str(path), **exporter.description}), flush=True)

        reason = exporter.serve(once, ready)
    except ExportError as error:
        fail(error)
    finally:
        exporter.close()
    if reason is not None:
        fail(f"the memory was revoked: {reason}")


def _size(text: str, what: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise ExportError(f"{what}: {error}") from None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog="Example: vfio-user-xe export --socket-dir /tmp/card --function vf1 --length 8MiB")(export)
