"""`vfio-user-xe screenshot`: what a function of a served card has drawn, as a PNG."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Any

import typer

from vfio_user_xe.emulator.cli.answers import as_json_text, show_records
from vfio_user_xe.emulator.cli.control import connected
from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail
from vfio_user_xe.emulator.cli.options import Json, SocketDir, check_outputs
from vfio_user_xe.emulator.observe.png import png
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient


def screenshot(
    socket_dir: SocketDir,
    file: Annotated[Path | None, typer.Argument(metavar="PNG", help="The file to write.")] = None,
    function: Annotated[str, typer.Option(metavar="NAME", help="The function that drew: pf, vf1, ...")] = "pf",
    targets: Annotated[
        bool, typer.Option("--list", help="List what the function's contexts drew to, the latest first.")
    ] = False,
    target: Annotated[int, typer.Option(metavar="N", help="Which of these; 0 is the latest.")] = 0,
    offset: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A surface by where it is, not by who drew to it.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="Address space of --offset, as 'status' shows them.")
    ] = None,
    asid: Annotated[str | None, typer.Option(metavar="N", help="ASID of the page tables.")] = None,
    root: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address of the root page table.")] = None,
    width: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    pitch: Annotated[
        str | None, typer.Option(metavar="BYTES", help="From a row to the next.", show_default="no gap")
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="As drm_fourcc.h names it: xrgb8888, rgb565, ...")
    ] = None,
    tiling: Annotated[str, typer.Option(metavar="NAME", help="How pixels are permuted in memory.")] = "linear",
    as_json: Json = False,
) -> None:
    """Write what a function's surface shows as a PNG: its latest render target, or the memory that options describe.

    The card's model knows formats and tilings, and names them where one is wrong.
    """
    if file is None and not targets:
        fail("name the PNG file to write, or give --list", EXIT_USAGE)
    described = {
        "space": space, "asid": asid, "root": root, "width": width, "height": height, "pitch": pitch, "format": format,
    }  # fmt: skip
    given = {name: value for name, value in described.items() if value is not None}
    if offset is None and given:
        fail(f"--{next(iter(given))} describes a surface at --offset", EXIT_USAGE)
    check_outputs(PNG=file)
    with connected(socket_dir) as client:
        if "screenshot" not in {entry["command"] for entry in client.call("help")}:
            fail("the card's device model shows no surfaces")
        if targets:
            _list(client, function, as_json)
        if file is not None:
            where = {"target": target} if offset is None else {"address": offset, "tiling": tiling, **given}
            found = client.call("screenshot", function=function, **where)
            file.write_bytes(png(found["width"], found["height"], base64.b64decode(found["pixels"])))
            shown = f"{found['width']} by {found['height']}, {found['format']}, {found['tiling']}"
            print(f"{file}: {function}'s surface at {found['address']:#x}: {shown}")


def _list(client: ControlClient, function: str, as_json: bool) -> None:
    found: list[dict[str, Any]] = client.call("render_targets", function=function)
    if as_json:
        print(as_json_text(found))
    else:
        show_records(found, title=f"render targets of {function}, the latest first")


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog="Example: vfio-user-xe screenshot --socket-dir /tmp/card --function vf1 vf1.png")(screenshot)
