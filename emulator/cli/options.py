"""The options that groups of commands share."""

from __future__ import annotations

import fcntl
import inspect
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, explained, fail, say
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import ENVIRONMENT

SocketDir = Annotated[Path, typer.Option("--socket-dir", metavar="DIR", help="Folder of the served card's sockets.")]
Json = Annotated[bool, typer.Option("--json", help="The answer as JSON.")]
Switches = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=8, help="Switches of QEMU between the root port and the card.", show_default=False
    ),
]
Functions = Annotated[
    list[str] | None,
    typer.Option("--function", metavar="NAME", help="Only these functions, for a guest of their own; repeatable."),
]
SocketDirs = Annotated[
    list[Path],
    typer.Option("--socket-dir", metavar="DIR", help="Folder of a card's sockets; repeatable: cards of one machine."),
]

Append = Annotated[
    list[str] | None,
    typer.Option("--append", metavar="WORDS", help="Add to the kernel's command line; repeatable."),
]

Userland = Annotated[
    str | None,
    typer.Option(
        "--userland", metavar="NAME", help="A fetched userland as root file system (guest fetch --userland NAME)."
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="FOLDER|IMAGE", help="Your own root file system; changes in the guest are not kept."
    ),
]

Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="Device model, without a card file.", show_default="the default model"
    ),
]

_SERVE: dict[str, Any] = {
    "card": Annotated[
        str | None,
        typer.Option("--card", metavar="NAME|FILE", help="A packaged card, or a card file (TOML)."),
    ],
    "model": Model,
    "vfs": Annotated[int | None, typer.Option("--vfs", metavar="N", help="Number of VFs, instead of the card file's.")],
    "topology": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which guest has which functions (docs/topologies.md)."),
    ],
    "cards": Annotated[
        int, typer.Option(metavar="N", min=1, max=8, help="Number of such cards, in folders card1, card2, ... of DIR.")
    ],
    "settings": Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Option of the device model; repeatable.")
    ],
    "interconnects": Annotated[
        list[str] | None,
        typer.Option("--interconnect", metavar="NAME[:KEY=VALUE,...]", help="Interconnects in order; repeatable."),
    ],
    "trace": Annotated[
        str | None, typer.Option(metavar="CATEGORY,...:FILE", help="Trace these categories (or 'all') to a file.")
    ],
    "poll_us": Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Microseconds to poll for an access before sleeping; auto: while a core is free."
        ),
    ],
    "record": Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record the card, for 'vfio-user-xe replay FILE'.")
    ],
    "backend": Annotated[
        str, typer.Option(metavar="NAME", help="Implementation of vfio-user: 'own', or 'libvfio-user'.")
    ],
    "libvfio_user": Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The library for --backend libvfio-user.", show_default=f"${ENVIRONMENT}"),
    ],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Log connections and refused requests.")],
}
"""The command line's options of `ServeOptions`, by field."""


def serve_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a served card (those of these names; none: all) in place of its parameter `serve`.

    The command gets a `ServeOptions`. It ends with exit code 2 when they do not go together.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        defaults = {item.name: item.default for item in fields(ServeOptions)}
        wanted = names or tuple(defaults)
        expanded = [_parameter(name, defaults[name]) for name in wanted]
        own = inspect.signature(command, eval_str=True)
        parameters = [
            each
            for parameter in own.parameters.values()
            for each in (
                expanded if parameter.name == "serve" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
            )
        ]

        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in wanted}
            chosen: dict[str, Any] = {
                name: tuple(value or ()) if defaults[name] == () else value for name, value in values.items()
            }
            options = ServeOptions(**chosen)
            if problem := options.problem():
                fail(problem, EXIT_USAGE)
            command(serve=options, **given)

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(name: str, default: Any) -> inspect.Parameter:
    assert default is not MISSING
    shown = None if default == () else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=_SERVE[name])


def check_outputs(**files: Path | None) -> None:
    """End with a message if a file that an option names cannot be written: before the work, not when it is done.

    Each keyword is an option's name without its dashes.
    """
    for option, path in files.items():
        if path is None:
            continue
        made = not path.exists()
        try:
            with path.open("a"):
                pass
        except OSError as error:
            fail(f"--{option} {path}: cannot be written: {error.strerror}", EXIT_USAGE)
        if made:
            path.unlink(missing_ok=True)


def make_folder(option: str, folder: Path | None) -> None:
    """Make the folder that an option names, if it does; a wrong argument when that cannot be."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{option} {folder}: {error.strerror}", EXIT_USAGE)
    if not os.access(folder, os.W_OK | os.X_OK):
        fail(f"{option} {folder}: nothing can be written there", EXIT_USAGE)


def own_folder(option: str, folder: Path | None) -> None:
    """`make_folder`, and a wrong argument if another command writes its results there now: one would forget the other's.

    The folder is this process' until it ends, also when it is killed.
    """
    make_folder(option, folder)
    if folder is None:
        return
    place = folder.resolve()
    if place in _own:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        fail(
            f"{option} {folder}: another run writes its results there: wait for it, or name another folder", EXIT_USAGE
        )
    except OSError:  # a file system without locks
        os.close(descriptor)
    else:
        _own[place] = descriptor


_own: dict[Path, int] = {}
"""Folders that this process has for itself, each with the descriptor that is locked. The process' end gives them back."""
CARD_WAIT = 60.0
"""Seconds to wait for a card that is being started: a shell goes on at once after `serve ... &`, which took 30 s on a busy host."""


def served_cards(folders: Iterable[Path]) -> list[CardDescription]:
    """The cards served in `folders`, once they are.

    Raises:
        FileNotFoundError: no card is served in a folder, nor comes to be within `CARD_WAIT`; the text says what to do.
    """
    places = [folder.absolute() for folder in folders]
    until = time.monotonic() + CARD_WAIT
    told = False
    while True:
        try:
            return CardDescription.read_all(places)
        except FileNotFoundError:
            if time.monotonic() >= until:
                raise
        if not told:
            say(f"waiting for a card in {', '.join(map(str, places))}")
            told = True
        time.sleep(0.1)


def check_functions(cards: Iterable[CardDescription], functions: Sequence[str] | None) -> None:
    """End with a message if `--function` names a function that the cards do not have."""
    known = sorted({function.name for description in cards for function in description.functions})
    for name in functions or []:
        if name not in known:
            fail(f"--function {name}: the card has {', '.join(known)}", EXIT_USAGE)


def chosen_root(userland: str | None, root: Path | None) -> Path | None:
    """What `--userland` and `--root` mean: the path of a root file system, or None."""
    if userland is not None and root is not None:
        fail("--userland and --root exclude each other", EXIT_USAGE)
    if userland is None:
        return root
    with explained():
        return locate_userland(userland).image
