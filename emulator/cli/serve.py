"""`vfio-user-xe serve`: a card, or several, behind sockets."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import trio
import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, explained, fail
from vfio_user_xe.emulator.cli.options import SocketDir, serve_options
from vfio_user_xe.emulator.cli.standard_streams import lost_exit_code, output_lost
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription
from vfio_user_xe.emulator.guest.serve_options import OWN_BACKEND, Polling, ServeOptions
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.model.options import UnknownName
from vfio_user_xe.emulator.model.packaged_cards import load_card
from vfio_user_xe.emulator.observe.trace import parse_trace_argument
from vfio_user_xe.emulator.pci.transport import Served
from vfio_user_xe.emulator.recording.stand_ins import recorded_card
from vfio_user_xe.emulator.vfio_user.libvfio_user.serve import Backend, supervised_card
from vfio_user_xe.emulator.vfio_user.serve import serve_card, serve_cards


def card_config(serve: ServeOptions) -> CardConfig:
    """The card that the options describe.

    Raises:
        CardError: options exclude each other, or a value is not allowed.
    """
    if serve.card is not None and serve.model is not None:
        raise CardError("--card and --model exclude each other: the card file names its model")
    config = load_card(serve.card) if serve.card is not None else CardConfig.default(serve.model)
    return config.override(
        vfs=serve.vfs, topology=serve.topology, settings=serve.settings, interconnects=serve.interconnects
    )


@serve_options()
def serve_command(
    socket_dir: SocketDir,
    serve: ServeOptions,
    ready_fd: Annotated[
        int | None,
        typer.Option(metavar="FD", help="Write the ready line to this descriptor, instead of standard output."),
    ] = None,
) -> None:
    """Serve a card: [bold]pf.sock[/], [bold]vf1.sock[/] ... in a folder, until SIGTERM or Ctrl-C.

    Prints one JSON line {"ready": true, "sockets": {...}} when clients may connect.
    """
    if ready_fd is not None:
        try:
            os.fstat(ready_fd)
        except (OSError, OverflowError):
            fail(f"--ready-fd {ready_fd}: no such descriptor is open", EXIT_USAGE)
    logging.basicConfig(
        level=logging.INFO if serve.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )

    def run(library: Backend | None) -> None:
        config = card_config(serve)
        if serve.cards > 1:
            serve_made([Card(each) for each in alike(config, serve.cards)], None, library)
        elif serve.record is None:
            serve_made([Card(config)], None, library)
        else:
            with recorded_card(serve.record, config) as (recorded, stand_ins):
                serve_made([recorded], stand_ins, library)

    def serve_made(running: list[Card], served: Sequence[Served] | None, library: Backend | None) -> None:
        if serve.trace is not None:
            categories, file = parse_trace_argument(serve.trace)
            tracer = running[0].tracer
            try:
                tracer.start(tracer.categories() if categories == ["all"] else categories, file)
            except UnknownName as exc:
                fail(f"--trace {serve.trace}: {exc}", EXIT_USAGE)
            except OSError as exc:
                fail(f"--trace {serve.trace}: {file} cannot be written: {exc.strerror}", EXIT_USAGE)
        described: dict[str, CardDescription] = {}

        def ready(description: CardDescription) -> None:
            described[description.card] = description
            if len(described) < len(running):
                return
            lines = [
                {
                    "sockets": {function.name: function.socket for function in described[one.name].functions},
                    "control": described[one.name].control,
                }
                for one in running
            ]
            line = json.dumps({"ready": True, **(lines[0] if serve.cards == 1 else {"cards": lines})}) + "\n"
            if ready_fd is None:
                print(line, end="", flush=True)
            else:
                os.write(ready_fd, line.encode())
                os.close(ready_fd)

        async def main() -> None:
            folder = socket_dir.absolute()
            backend = library.serve_functions if library is not None else None
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as nursery:
                    if serve.cards == 1:
                        start = partial(serve_card, backend=backend, served=served)
                        nursery.start_soon(start, running[0], folder, ready, Polling.of(serve.poll_us))
                    else:
                        nursery.start_soon(serve_cards, running, folder, ready, Polling.of(serve.poll_us))
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

        # A full garbage collection holds the interpreter's lock while it looks at every object (9 ms for a card with 7 VFs),
        # and an access that comes meanwhile waits. What lives as long as the process need not be looked at.
        gc.collect()
        gc.freeze()
        trio.run(main)

    with explained():
        if serve.backend == OWN_BACKEND:
            run(None)
            return
        found = Backend.find(serve.libvfio_user)
        work = partial(exit_code, lambda: run(found))
        raise typer.Exit(supervised_card(work, socket_dir.absolute(), [] if ready_fd is None else [ready_fd]))


def alike(config: CardConfig, count: int) -> list[CardConfig]:
    """`count` cards of one description: with names of their own, and serial numbers where they have any."""
    made = []
    for number in range(1, count + 1):
        options = dict(config.options)
        if "serial" in options:
            options["serial"] += number - 1
        made.append(replace(config, name=f"{config.name}{number}", options=options))
    return made


def exit_code(work: Callable[[], None]) -> int:
    """Do `work` and return the exit code that it ends with: for a process that ends outside of typer."""
    try:
        with explained():
            work()
    except typer.Exit as end:
        return end.exit_code
    return lost_exit_code() if output_lost() else 0


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "serve",
        epilog="Example: vfio-user-xe serve --socket-dir /tmp/card --vfs 2, then start QEMU with what"
        " 'vfio-user-xe qemu-args --socket-dir /tmp/card' prints.",
    )(serve_command)
