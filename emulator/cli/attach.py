"""`vfio-user-xe qemu-args, vng-args`: what attaches served cards to a machine that the user starts."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import explained
from vfio_user_xe.emulator.cli.guest_memory import GuestMemory, mebibytes
from vfio_user_xe.emulator.cli.options import (
    Functions,
    Root,
    SocketDir,
    SocketDirs,
    Switches,
    Userland,
    check_functions,
    chosen_root,
    served_cards,
)
from vfio_user_xe.emulator.guest.accelerator import choose
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.machine import KVM, Iommu, Machine
from vfio_user_xe.emulator.guest.qemu_arguments import as_shell, cards_arguments, needs_iommu
from vfio_user_xe.emulator.guest.root_filesystem import RootFileSystem
from vfio_user_xe.emulator.guest.vng import enter_program, qemu_program, vng_arguments


def qemu_args(
    socket_dirs: SocketDirs,
    machine: Annotated[
        bool, typer.Option("--machine", help="Print the machine, its shared memory and CPU, too.")
    ] = False,
    memory: Annotated[
        int,
        typer.Option(metavar="SIZE", parser=mebibytes, help="Guest memory, with --machine; in MiB or with a unit."),
    ] = 2048,
    cpus: Annotated[int, typer.Option(min=1, help="Processors, with --machine.")] = 1,
    functions: Functions = None,
    port: Annotated[str, typer.Option(help="Id of the root port; must differ between cards.")] = "vfuport",
    chassis: Annotated[int, typer.Option(min=1, max=255, help="Chassis number; must differ between cards.")] = 1,
    switches: Switches = 0,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of shell words.")] = False,
) -> None:
    """Print the QEMU arguments that attach served cards."""
    with explained():
        cards = served_cards(socket_dirs)
    check_functions(cards, functions)
    described = Machine(
        memory,
        cpus,
        iommu=Iommu() if needs_iommu(cards) else None,
        arguments=cards_arguments(cards, port=port, chassis=chassis, functions=functions, switches=switches),
    )
    # The user's own command line says by what it is run.
    arguments = [*(described.whole(None) if machine else []), *described.devices()]
    print(json.dumps(arguments) if as_json else as_shell(arguments))


def vng_args(
    socket_dir: SocketDir,
    memory: GuestMemory = 2048,
    functions: Functions = None,
    userland: Userland = None,
    root: Root = None,
) -> None:
    """Print the arguments with which virtme-ng boots a kernel tree with a served card, quoted for eval.

    With a userland or a root file system of your own, [bold]DIR/in-root COMMAND[/] runs a command in it, in the guest.
    """
    root_path = chosen_root(userland, root)
    with explained():
        entered = None if root_path is None else RootFileSystem.at(root_path)
        if entered is not None:
            enter_program(entered, socket_dir.absolute())
        environment = locate()
        description = served_cards([socket_dir])[0]
        qemu = qemu_program(environment, socket_dir.absolute())
        kvm = choose(environment, "auto").name == KVM
    check_functions([description], functions)
    print(shlex.join(vng_arguments(description, qemu, memory=memory, kvm=kvm, functions=functions, root=entered)))


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command(
        "qemu-args",
        epilog="Example: qemu-system-x86_64 $(vfio-user-xe qemu-args --socket-dir /tmp/card --machine) ...",
    )(qemu_args)
    app.command(
        "vng-args",
        epilog='Example: eval "vng --run arch/x86/boot/bzImage $(vfio-user-xe vng-args --socket-dir /tmp/card) -- lspci"',
    )(vng_args)
