"""The command `vfio-user-xe`."""

from __future__ import annotations

import gc
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import trio
import typer

from vfio_user_xe.emulator.cli.authoring import api_reference
from vfio_user_xe.emulator.cli.authoring import app as new_app
from vfio_user_xe.emulator.cli.control import register as register_control
from vfio_user_xe.emulator.cli.export import register as register_export
from vfio_user_xe.emulator.cli.guest import app as guest_app
from vfio_user_xe.emulator.cli.igt import app as igt_app
from vfio_user_xe.emulator.cli.observe import register as register_observation
from vfio_user_xe.emulator.cli.recording import register as register_recording
from vfio_user_xe.emulator.cli.scenario import app as scenario_app
from vfio_user_xe.emulator.conformance import main as run_conformance
from vfio_user_xe.emulator.guest import GuestError, locate
from vfio_user_xe.emulator.guest.accelerator import choose
from vfio_user_xe.emulator.guest.doctor import examine
from vfio_user_xe.emulator.guest.qemu_arguments import (
    CardDescription,
    as_shell,
    cards_arguments,
    iommu_arguments,
    machine_arguments,
    needs_iommu,
)
from vfio_user_xe.emulator.guest.vng import qemu_program, vng_arguments
from vfio_user_xe.emulator.model.card import Card, CardConfig, CardError
from vfio_user_xe.emulator.model.card_file import annotated_card
from vfio_user_xe.emulator.model.packaged_cards import load_card
from vfio_user_xe.emulator.model.plugin_loading import PluginError, find_plugins
from vfio_user_xe.emulator.pci.transport import Served
from vfio_user_xe.emulator.recording import RecordingError, recorded_card
from vfio_user_xe.emulator.vfio_user.libvfio_user import BackendError
from vfio_user_xe.emulator.vfio_user.libvfio_user.library import ENVIRONMENT
from vfio_user_xe.emulator.vfio_user.libvfio_user.serve import Backend, supervised_card
from vfio_user_xe.emulator.vfio_user.serve import serve_card, serve_cards
from vfio_user_xe.emulator.vfio_user.server import ServerError

EXIT_FAILED = 1
EXIT_USAGE = 2
OWN_BACKEND, LIBVFIO_USER = "own", "libvfio-user"

app = typer.Typer(
    name="vfio-user-xe",
    help="Emulates an Intel Arc Battlemage GPU with SR-IOV for QEMU, over vfio-user.",
    epilog="Exit codes: 0 success, 1 the work failed, 2 a wrong argument or card file.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(guest_app, name="guest")
app.add_typer(scenario_app, name="scenario")
app.add_typer(igt_app, name="igt")
app.add_typer(new_app, name="new")
app.command("api-reference")(api_reference)
plugins_app = typer.Typer(help="Device models and interconnects that are installed.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")

SocketDir = Annotated[Path, typer.Option("--socket-dir", metavar="DIR", help="Folder of the card's sockets.")]
SocketDirs = Annotated[
    list[Path],
    typer.Option("--socket-dir", metavar="DIR", help="Folder of a card's sockets; repeatable: cards of one machine."),
]
CardFile = Annotated[
    str | None,
    typer.Option("--card", metavar="NAME|FILE", help="A packaged card, or a card file (TOML).", show_default="xe"),
]
Vfs = Annotated[int | None, typer.Option("--vfs", metavar="N", help="Number of VFs, instead of the card file's.")]
Topology = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which guest has which functions: same-guest, split, nested or vf-only (docs/topologies.md).",
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Option of the device model; repeatable.")
]
Interconnects = Annotated[
    list[str] | None,
    typer.Option("--interconnect", metavar="NAME[:KEY=VALUE,...]", help="Interconnects in order; repeatable."),
]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Device model, without a card file.")]


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Say what went wrong and leave."""
    print(f"vfio-user-xe: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that explain themselves into a message and an exit code."""
    try:
        yield
    except (CardError, PluginError, RecordingError) as exc:
        fail(str(exc), EXIT_USAGE)
    except (ServerError, BackendError, FileNotFoundError) as exc:
        fail(str(exc))
    except BaseExceptionGroup as group:
        # What ended one of trio's tasks; the nurseries around it wrap it.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, (ServerError, BackendError, OSError)):
            fail(str(first))
        raise


def card_config(
    card: str | None,
    model: str | None,
    vfs: int | None,
    topology: str | None,
    settings: list[str] | None,
    interconnects: list[str] | None,
) -> CardConfig:
    """The card that the options describe. Raises `CardError`."""
    if card is not None and model is not None:
        raise CardError("--card and --model exclude each other: the card file names its model")
    config = load_card(card) if card is not None else CardConfig.default(model or "xe")
    return config.override(vfs=vfs, topology=topology, settings=settings or (), interconnects=interconnects or ())


@app.command(
    epilog="Example: vfio-user-xe serve --socket-dir /tmp/card --vfs 2, then start QEMU with what"
    " 'vfio-user-xe qemu-args --socket-dir /tmp/card' prints."
)
def serve(
    socket_dir: SocketDir,
    card: CardFile = None,
    model: Model = None,
    vfs: Vfs = None,
    topology: Topology = None,
    cards: Annotated[
        int, typer.Option(metavar="N", min=1, max=8, help="So many such cards, in folders card1, card2, ... of DIR.")
    ] = 1,
    settings: Settings = None,
    interconnects: Interconnects = None,
    ready_fd: Annotated[
        int | None, typer.Option(metavar="FD", help="Where the ready line goes, instead of standard output.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="CATEGORY,...:FILE", help="Trace these categories (or 'all') to a file.")
    ] = None,
    poll_us: Annotated[
        int, typer.Option(metavar="N", min=0, max=1000, help="Microseconds to poll for an access before sleeping.")
    ] = 0,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep all that happens, for 'vfio-user-xe replay FILE'.")
    ] = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Who speaks to the clients: 'own', or 'libvfio-user'.")
    ] = OWN_BACKEND,
    libvfio_user: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The library for --backend libvfio-user.", show_default=f"${ENVIRONMENT}"),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log connections and refused requests.")] = False,
) -> None:
    """Serve a card: [bold]pf.sock[/], [bold]vf1.sock[/] ... in a folder, until SIGTERM or Ctrl-C.

    Prints one JSON line {"ready": true, "sockets": {...}} when clients may connect.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if backend not in (OWN_BACKEND, LIBVFIO_USER):
        fail(f"--backend {backend}: there are {OWN_BACKEND} and {LIBVFIO_USER}", EXIT_USAGE)
    if backend == OWN_BACKEND and libvfio_user is not None:
        fail(f"--libvfio-user is for --backend {LIBVFIO_USER}", EXIT_USAGE)
    if cards > 1 and (record is not None or trace is not None):
        fail(f"--cards {cards}: --record and --trace are for one card; 'control trace_on' traces any", EXIT_USAGE)
    if backend != OWN_BACKEND and cards > 1:
        fail(f"--cards {cards} is for --backend {OWN_BACKEND}", EXIT_USAGE)
    if backend != OWN_BACKEND and poll_us:
        fail(f"--poll-us is for --backend {OWN_BACKEND}", EXIT_USAGE)

    def run(library: Backend | None) -> None:
        config = card_config(card, model, vfs, topology, settings, interconnects)
        if cards > 1:
            serve_made([Card(each) for each in alike(config, cards)], None, library)
        elif record is None:
            serve_made([Card(config)], None, library)
        else:
            with recorded_card(record, config) as (recorded, stand_ins):
                serve_made([recorded], stand_ins, library)

    def serve_made(running: list[Card], served: Sequence[Served] | None, library: Backend | None) -> None:
        if trace is not None:
            categories, _, file = trace.rpartition(":")
            if not categories or not file:
                fail(f"--trace {trace}: want CATEGORY,...:FILE, such as mmio,guc:trace.log", EXIT_USAGE)
            tracer = running[0].tracer
            tracer.start(tracer.categories() if categories == "all" else categories.split(","), file)
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
            line = json.dumps({"ready": True, **(lines[0] if cards == 1 else {"cards": lines})}) + "\n"
            os.write(1 if ready_fd is None else ready_fd, line.encode())
            if ready_fd is not None:
                os.close(ready_fd)

        async def main() -> None:
            folder = socket_dir.absolute()
            backend = library.serve_functions if library is not None else None
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with trio.open_nursery() as nursery:
                    if cards == 1:
                        start = partial(serve_card, backend=backend, served=served)
                        nursery.start_soon(start, running[0], folder, ready, poll_us * 1e-6)
                    else:
                        nursery.start_soon(serve_cards, running, folder, ready, poll_us * 1e-6)
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

        # A full garbage collection holds the interpreter's lock while it looks at every object (9 ms for a card with 7 VFs),
        # and an access that comes meanwhile waits. What lives as long as the process need not be looked at.
        gc.collect()
        gc.freeze()
        trio.run(main)

    with explained():
        if backend == OWN_BACKEND:
            run(None)
            return
        found = Backend.find(libvfio_user)
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
    """Do `work` and return the exit code that it ends with: for a process that typer does not see the end of."""
    try:
        with explained():
            work()
    except typer.Exit as end:
        return end.exit_code
    return 0


@app.command(
    "qemu-args", epilog="Example: qemu-system-x86_64 $(vfio-user-xe qemu-args --socket-dir /tmp/card --machine) ..."
)
def qemu_args(
    socket_dirs: SocketDirs,
    machine: Annotated[bool, typer.Option("--machine", help="Also the machine, its shared memory and CPU.")] = False,
    memory: Annotated[str, typer.Option(help="Guest memory, with --machine.")] = "2G",
    cpus: Annotated[int, typer.Option(min=1, help="Processors, with --machine.")] = 1,
    functions: Annotated[
        list[str] | None,
        typer.Option("--function", metavar="NAME", help="Only these functions, for a guest of their own; repeatable."),
    ] = None,
    port: Annotated[str, typer.Option(help="Id of the root port; must differ between cards.")] = "vfuport",
    chassis: Annotated[int, typer.Option(min=1, max=255, help="Chassis number; must differ between cards.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of shell words.")] = False,
) -> None:
    """Print the QEMU arguments that attach served cards."""
    with explained():
        cards = CardDescription.read_all([folder.absolute() for folder in socket_dirs])
    known = {function.name for description in cards for function in description.functions}
    for name in functions or []:
        if name not in known:
            fail(f"--function {name}: the card has {', '.join(sorted(known))}", EXIT_USAGE)
    iommu = needs_iommu(cards)
    arguments = machine_arguments(memory, cpus, iommu=iommu) if machine else []
    arguments += iommu_arguments() if iommu else []
    arguments += cards_arguments(cards, port=port, chassis=chassis, functions=functions)
    print(json.dumps(arguments) if as_json else as_shell(arguments))


@app.command(
    "vng-args",
    epilog='Example: eval "vng --run arch/x86/boot/bzImage $(vfio-user-xe vng-args --socket-dir /tmp/card) -- lspci"',
)
def vng_args(
    socket_dir: SocketDir,
    memory: Annotated[str, typer.Option(help="Guest memory.")] = "2G",
    functions: Annotated[
        list[str] | None, typer.Option("--function", metavar="NAME", help="Only these functions; repeatable.")
    ] = None,
) -> None:
    """Print the arguments with which virtme-ng boots a kernel tree with a served card, quoted for eval."""
    with explained():
        try:
            environment = locate()
            description = CardDescription.read(socket_dir.absolute())
            qemu = qemu_program(environment, socket_dir.absolute())
            kvm = choose(environment, "auto").name == "kvm"
        except GuestError as exc:
            fail(str(exc))
    known = {function.name for function in description.functions}
    for name in functions or []:
        if name not in known:
            fail(f"--function {name}: the card has {', '.join(sorted(known))}", EXIT_USAGE)
    print(shlex.join(vng_arguments(description, qemu, memory=memory, kvm=kvm, functions=functions)))


@plugins_app.command("list")
def plugins_list(
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """List device models and interconnects, where they come from, and why one cannot be loaded."""
    found = find_plugins()
    if as_json:
        print(json.dumps([plugin.as_dict() for plugin in found], indent=2))
        return
    for plugin in found:
        state = f"  [{plugin.error}]" if plugin.error else ""
        print(f"{plugin.kind:14} {plugin.name:14} {plugin.distribution} {plugin.version}  {plugin.doc}{state}")


register_control(app)
register_observation(app)
register_export(app)
register_recording(app)


@app.command("card", epilog="Example: vfio-user-xe card --default > my-card.toml")
def card_command(
    file: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE", help="A card file to check, or a packaged card.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Print a card file with every option and its help.")
    ] = False,
    model: Annotated[str, typer.Option(metavar="NAME", help="Device model, with --default.")] = "xe",
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
    socket: Annotated[str, typer.Option(metavar="PATH", help="Socket of the server; nobody else may use it.")],
    profile: Annotated[
        str | None, typer.Option(metavar="FILE", help="What the device has that is to be tested.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Results as JUnit XML.")] = None,
    cases: Annotated[
        list[str] | None, typer.Option("--case", metavar="PATTERN", help="Only these; repeatable.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Also the cases that take seconds.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the cases.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For a case.")] = 30.0,
    start: Annotated[
        str, typer.Option("--start", metavar="COMMAND", help="Start the server, and again whenever it has ended.")
    ] = "",
) -> None:
    """Test any vfio-user server against the specification."""
    raise typer.Exit(
        run_conformance(
            socket, profile, junit, cases=cases or (), slow=slow, list_only=list_only, timeout=timeout, start=start
        )
    )


@app.command()
def doctor() -> None:
    """Look at this machine: what is here, what is missing, what to do."""
    good = True
    for finding in examine():
        print(f"{finding.mark:5} {finding.what}: {finding.text}")
        if finding.cure:
            print(f"      -> {finding.cure}")
        good = good and not finding.fatal
    raise typer.Exit(0 if good else EXIT_FAILED)


def main() -> None:
    """Entry point."""
    app()
