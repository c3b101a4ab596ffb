"""`vfio-user-xe new ...`, `vfio-user-xe api-reference`: for authors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.authoring.new import NameRefused, new_package
from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, fail

app = typer.Typer(help="Write a package to start from: a device model or an interconnect.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the package and of its plug-in.")]
Folder = Annotated[Path, typer.Option("--directory", metavar="DIR", help="The folder to create it in.")]


@app.command(epilog="Example: vfio-user-xe new device blinker && pip install -e blinker && cd blinker && pytest")
def device(name: Name, directory: Folder = Path()) -> None:
    """A device model: registers, work, an interrupt, DMA, and tests of all that."""
    _write("device", name, directory)


@app.command(epilog="Example: vfio-user-xe new interconnect bank && pip install -e bank && cd bank && pytest")
def interconnect(name: Name, directory: Folder = Path()) -> None:
    """An interconnect: memory at a DMA address, and tests of it."""
    _write("interconnect", name, directory)


def _write(kind: str, name: str, directory: Path) -> None:
    try:
        written = new_package(kind, name, directory)
    except NameRefused as refusal:
        fail(f"new {kind} {refusal}", EXIT_USAGE)
    except OSError as error:
        fail(f"new {kind} {name}: {error.filename}: {error.strerror}", EXIT_USAGE)
    for path in written:
        print(path)
    target = directory / name
    print(
        f"\nNext:\n  pip install -e '{target}[test]'\n  cd {target}\n"
        "  pytest -m 'not guest'      # seconds\n  pytest                     # in a guest, too"
    )


def api_reference() -> None:
    """Print the reference of the public API, in Markdown."""
    from vfio_user_xe.emulator.authoring.api_reference import reference

    print(reference(), end="")
