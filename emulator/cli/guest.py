"""`vfio-user-xe guest fetch|plug|unplug`: what guests need, and cards for guests that run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, explained, fail, say
from vfio_user_xe.emulator.cli.options import (
    Functions,
    check_functions,
    served_cards,
)
from vfio_user_xe.emulator.guest import environment, hotplug
from vfio_user_xe.emulator.guest.bundle import read_bundle, write_bundle
from vfio_user_xe.emulator.guest.debian.packages import MIRROR_VARIABLE, Source
from vfio_user_xe.emulator.guest.hotplug import QmpClient
from vfio_user_xe.emulator.guest.packaged_kernels import fetch_kernel
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.guest.qemu_arguments import DEFAULT_PORT, device_properties
from vfio_user_xe.emulator.guest.userland import fetch_userland

app = typer.Typer(help="Guests: QEMU with a kernel, and a card of ours in it.", no_args_is_help=True)


@app.command(epilog="Example: vfio-user-xe guest fetch --kernel 6.18, then guest run --kernel 6.18 ...")
def fetch(
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Fetch the newest packages, even if the environment is complete; with --userland: the userland's.",
        ),
    ] = False,
    kernels: Annotated[
        list[str] | None,
        typer.Option("--kernel", metavar="SERIES", help="Also Debian's kernel of a series; repeatable."),
    ] = None,
    userlands: Annotated[
        list[str] | None,
        typer.Option(
            "--userland", metavar="NAME", help="Also a userland: compute or graphics (about 220 MB each); repeatable."
        ),
    ] = None,
    bundle_file: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Out of a file that `guest bundle` made; without apt or a network."
        ),
    ] = None,
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HEX", help="With --from: refuse a file with another checksum.")
    ] = "",
    accept_expired: Annotated[
        list[str] | None,
        typer.Option(metavar="SUITE", help="Take packages from a suite whose Release file has expired; repeatable."),
    ] = None,
    mirror: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar=MIRROR_VARIABLE,
            show_envvar=False,
            help=f"A Debian mirror with its path (http://HOST/debian), in place of apt's own; also {MIRROR_VARIABLE}.",
        ),
    ] = "",
    keyring: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys that the mirror's Release files are signed with, if not Debian's."),
    ] = None,
    no_apt: Annotated[
        bool, typer.Option("--no-apt", help="Fetch by Python alone, as on machines without apt; needs --mirror.")
    ] = False,
) -> None:
    """Download QEMU, a kernel, firmware and tools into the user's cache (once, about 180 MB, no root needed)."""
    if bundle_file is None and sha256:
        fail("--sha256 is for --from: it is the checksum of that file", EXIT_USAGE)
    source = Source(mirror, keyring, False if no_apt else None)
    expired = accept_expired or ()
    with explained():
        if bundle_file is not None:
            if update or kernels or userlands:
                fail("--from takes everything that is in the file: no --update, --kernel or --userland", EXIT_USAGE)
            print(f"taken from {bundle_file}: {', '.join(read_bundle(bundle_file, sha256))}")
        found = environment.fetch(
            update=update and not userlands, source=source, accept_expired=expired, progress=Progress()
        )
        for series in kernels or []:
            kernel = fetch_kernel(series, source=source, accept_expired=expired, progress=Progress())
            print(f"kernel {series}: {kernel.image}")
        for name in userlands or []:
            userland = fetch_userland(name, update=update, source=source, accept_expired=expired, progress=Progress())
            print(f"userland {name}: {userland.image}")
    print(f"guest environment: {found.root}\nQEMU: {found.qemu}")


@app.command(epilog="Example: vfio-user-xe guest bundle guest.tar.zst, and elsewhere guest fetch --from guest.tar.zst")
def bundle(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file: OUT.tar.zst, OUT.tar.xz, OUT.tar.gz or OUT.tar.")
    ],
    kernels: Annotated[
        list[str] | None,
        typer.Option("--kernel", metavar="SERIES", help="Also a kernel that was fetched; repeatable."),
    ] = None,
    userlands: Annotated[
        list[str] | None,
        typer.Option("--userland", metavar="NAME", help="Also a userland that was fetched; repeatable."),
    ] = None,
) -> None:
    """Write the guest environment to a file, for machines without apt or without a network."""
    with explained():
        made = write_bundle(output, kernels or (), userlands or ())
        if environment.locate().manifest.qemu is None:
            say("the environment has no QEMU of its own, as there was one on PATH when it was fetched")
    print(f"{output}: {', '.join(made.parts)}; {decimal(made.size)}\nSHA-256: {made.sha256}")


Qmp = Annotated[Path, typer.Option("--qmp", metavar="SOCKET", help="That of 'guest run --qmp SOCKET'.")]
Port = Annotated[str, typer.Option(metavar="ID", help="The root port's id in QEMU.")]
Card = Annotated[Path, typer.Option("--socket-dir", metavar="DIR", help="Folder of the served card's sockets.")]


@app.command(epilog="Example: vfio-user-xe guest plug --qmp /tmp/qmp --socket-dir /tmp/card")
def plug(qmp: Qmp, socket_dir: Card, functions: Functions = None, port: Port = DEFAULT_PORT) -> None:
    """Plug a served card into a free root port of a running guest, such as one of `guest run --unplugged`."""
    with explained(), QmpClient.at(qmp) as client:
        devices = _devices(socket_dir, functions, port)
        hotplug.plug(client, devices)
    print(f"plugged in: {', '.join(device['id'] for device in devices)}")


@app.command(epilog="Example: vfio-user-xe guest unplug --qmp /tmp/qmp --socket-dir /tmp/card")
def unplug(
    qmp: Qmp,
    socket_dir: Card,
    functions: Functions = None,
    port: Port = DEFAULT_PORT,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit for the guest to give it up.")
    ] = 60,
) -> None:
    """Take a card out of a running guest: its slot's button is pressed, and the guest has to give the card up."""
    with explained(), QmpClient.at(qmp) as client:
        devices = _devices(socket_dir, functions, port)
        hotplug.unplug(client, devices, timeout)
    print(f"taken out: {', '.join(device['id'] for device in devices)}")


def _devices(folder: Path, functions: list[str] | None, port: str) -> list[dict[str, Any]]:
    """The functions as QEMU's devices.

    Raises:
        FileNotFoundError: no card is served there.
    """
    card = served_cards([folder])[0]
    check_functions([card], functions)
    return device_properties(card, port=port, functions=functions)
