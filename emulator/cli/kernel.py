"""`vfio-user-xe kernel config|check|build`: a kernel of one's own for guests with the card."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_FAILED, EXIT_USAGE, explained, fail, say
from vfio_user_xe.emulator.cli.options import Json, Model
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.kernel_build import Build
from vfio_user_xe.emulator.guest.kernel_config import Missing, missing, read_config, rows, table
from vfio_user_xe.emulator.guest.packaged_kernels import named_kernel
from vfio_user_xe.emulator.model.options import unknown
from vfio_user_xe.emulator.model.plugin_loading import DEVICE_MODEL, default_model, load_plugin

app = typer.Typer(help="Kernels of your own: their configuration, and how to build them.", no_args_is_help=True)

Purpose = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="PURPOSE",
        help="What the kernel is for: scenarios, or debug (slower, finds more).",
        show_default="the model's first",
    ),
]


@app.command(
    epilog="Example: vfio-user-xe kernel config > F; cd TREE; scripts/kconfig/merge_config.sh -O OBJ OBJ/.config F"
)
def config(
    purpose: Purpose = None,
    model: Model = None,
    as_table: Annotated[bool, typer.Option("--table", help="What the options are for, as tables in Markdown.")] = False,
) -> None:
    """Print a fragment of a kernel's configuration, for merge_config.sh over tinyconfig or defconfig."""
    files = _fragments(purpose, model)
    if as_table:
        print("\n\n".join(table(file) for file in files))
    else:
        print("\n".join(file.read_text("utf-8") for file in files), end="")


@app.command(epilog="Example: vfio-user-xe kernel check OBJ/.config --for debug")
def check(
    kernel: Annotated[
        str, typer.Argument(metavar="BZIMAGE|.config|SERIES", help="An image, a configuration, or a fetched kernel.")
    ],
    purpose: Purpose = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Say which scenario, suite or verdict loses what for which option that a kernel lacks.

    Exit code: 1 if nothing could be run with it, 0 otherwise.
    """
    wanted = [row for file in _fragments(purpose, model) for row in rows(file)]
    with explained():
        if Path(kernel).exists() or "/" in kernel:
            found, place = read_config(Path(kernel))
        else:
            named = named_kernel(kernel)
            found, place = read_config(named.image, named)
    lacks = missing(found, wanted)
    fatal = any(item.fatal for item in lacks)
    if as_json:
        print(
            json.dumps(
                {"configuration": place, "usable": not fatal, "missing": [asdict(item) for item in lacks]}, indent=1
            )
        )
    else:
        print(f"{place}: {_summary(lacks)}")
        _tell(lacks)
    raise typer.Exit(EXIT_FAILED if fatal else 0)


@app.command(epilog="Example: vfio-user-xe kernel build ~/linux --output ~/obj -j 8")
def build(
    tree: Annotated[Path, typer.Argument(metavar="TREE", help="A kernel tree; nothing is written to it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Object folder.", show_default="TREE-PURPOSE, beside TREE"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", min=1, help="make's -j.", show_default="processors")
    ] = None,
    purpose: Purpose = None,
    extra: Annotated[
        list[Path] | None,
        typer.Option(
            "--config", metavar="FILE", help="A further fragment, merged last; repeatable.", exists=True, dir_okay=False
        ),
    ] = None,
    reconfigure: Annotated[
        bool, typer.Option("--reconfigure", help="Configure again, where the folder has a .config.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result.")] = False,
    model: Model = None,
) -> None:
    """Build a tree's bzImage and modules for guests, and print the line that runs the scenarios on them.

    Exit code: 1 if the build failed, 2 if there is nothing to build.
    """
    known = _purposes(model)
    chosen = purpose or next(iter(known))
    source = tree.resolve()
    objects = output.absolute() if output is not None else source.with_name(f"{source.name}-{chosen}")
    work = Build(
        source,
        objects,
        _fragments(purpose, model),
        [path.resolve() for path in extra or ()],
        jobs or len(os.sched_getaffinity(0)),
        (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr)),
    )
    with explained():
        built = work.run(configure=reconfigure)
        release = Kernel.custom(built.image, built.modules).release
    if built.missing:
        say(f"the tree did not take {_summary(list(built.missing))}")
        _tell(list(built.missing))
    print(f"# {release}")
    print(
        shlex.join(["vfio-user-xe", "scenario", "run", "--kernel", str(built.image), "--modules", str(built.modules)])
    )


def _purposes(model: str | None) -> Mapping[str, tuple[Path, ...]]:
    with explained():
        plugin = default_model() if model is None else load_plugin(DEVICE_MODEL, model)
    if not plugin.info.kernel_config:
        fail(f"the device model {plugin.name} says nothing of a kernel's configuration", EXIT_USAGE)
    return plugin.info.kernel_config


def _fragments(purpose: str | None, model: str | None) -> tuple[Path, ...]:
    """The files of a purpose; ends with a message and exit code 2 if the model has none of this name."""
    known = _purposes(model)
    name = purpose or next(iter(known))
    if name not in known:
        fail(f"--for {unknown(name, 'purpose', list(known))}", EXIT_USAGE)
    return known[name]


def _summary(lacks: list[Missing]) -> str:
    fatal = sum(item.fatal for item in lacks)
    if not lacks:
        return "has every option"
    return f"{len(lacks)} options" + (f", {fatal} of them without which nothing can be run" if fatal else "")


def _tell(lacks: list[Missing]) -> None:
    """A line an option, those first without which nothing runs."""
    for item in sorted(lacks, key=lambda item: not item.fatal):
        mark = "MISSING" if item.fatal else "lost" if item.loss else "note"
        has = "not set" if item.has == "n" else f"={item.has}"
        print(f"{mark:7} CONFIG_{item.option} ({has}, wanted: {item.wanted}): {item.loss or item.purpose}")
