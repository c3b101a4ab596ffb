"""`vfio-user-xe guest ...`: fetch what guests need, run one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, explained, fail
from vfio_user_xe.emulator.cli.options import (
    Functions,
    Root,
    Userland,
    check_functions,
    check_outputs,
    chosen_root,
    serve_options,
)
from vfio_user_xe.emulator.guest import environment
from vfio_user_xe.emulator.guest.errors import KernelError
from vfio_user_xe.emulator.guest.guest import GuestSpec, boot
from vfio_user_xe.emulator.guest.initramfs import known_firmware
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Iommu, Machine
from vfio_user_xe.emulator.guest.packaged_kernels import fetch_kernel, named_kernel
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, cards_arguments, needs_iommu
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.guest.served import served_card
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
    accept_expired: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUITE", help="Take a userland's packages from a suite whose Release file has expired; repeatable."
        ),
    ] = None,
) -> None:
    """Download QEMU, a kernel, firmware and tools into the user's cache (once, about 180 MB, no root needed)."""
    with explained():
        found = environment.fetch(update=update and not userlands, progress=Progress())
        for series in kernels or []:
            print(f"kernel {series}: {fetch_kernel(series, progress=Progress()).image}")
        for name in userlands or []:
            userland = fetch_userland(name, update=update, accept_expired=accept_expired or (), progress=Progress())
            print(f"userland {name}: {userland.image}")
    print(f"guest environment: {found.root}\nQEMU: {found.qemu}")


@app.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: vfio-user-xe guest run --vfs 2 --module vfio-pci -- 'modprobe vfio-pci; lspci -k'",
)
@serve_options()
def run_command(
    serve: ServeOptions,
    command: Annotated[
        list[str] | None, typer.Argument(help="Shell command for the guest; none: a line of lspci.")
    ] = None,
    socket_dirs: Annotated[
        list[Path] | None,
        typer.Option(
            "--socket-dir",
            metavar="DIR",
            help="Attach this served card, instead of starting one; repeatable.",
        ),
    ] = None,
    functions: Functions = None,
    modules: Annotated[
        list[str] | None,
        typer.Option("--module", metavar="NAME", help="Put a kernel module into the guest; repeatable."),
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="BZIMAGE|SERIES", help="Your own kernel, or a fetched one such as 6.18.")
    ] = None,
    modules_dir: Annotated[
        Path | None,
        typer.Option("--modules", metavar="DIR", help="The kernel's modules, as modules_install made them."),
    ] = None,
    firmware: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Firmware file, below /lib/firmware; the default is what the modules request."
        ),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", metavar="GUEST=HOST", help="Put a file into the guest; repeatable.")
    ] = None,
    userland: Userland = None,
    root: Root = None,
    append: Annotated[str, typer.Option(metavar="WORDS", help="Add to the kernel's command line.")] = "",
    memory: Annotated[int, typer.Option(metavar="MIB", min=256, help="Guest memory.")] = 2048,
    cpus: Annotated[int, typer.Option(min=1, help="Processors.")] = 1,
    cpu: Annotated[str | None, typer.Option(metavar="MODEL", help="QEMU's -cpu.")] = None,
    iommu: Annotated[bool, typer.Option("--iommu", help="With a vIOMMU.")] = False,
    ovmf: Annotated[bool, typer.Option("--ovmf", help="OVMF instead of SeaBIOS.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, kvm or tcg.")] = "auto",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="Time limit of the command.")] = 300,
    console: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the guest's console.")] = None,
) -> None:
    """Boot a guest with a card, run a command in it, exit with its exit code."""
    check_outputs(console=console)
    contents = dict(_file(item) for item in files or [])
    wanted = set(modules or [])

    def spec_for(descriptions: list[CardDescription]) -> GuestSpec:
        check_functions(descriptions, functions)
        return GuestSpec(
            machine=Machine(
                memory=memory,
                cpus=cpus,
                cpu=cpu,
                iommu=Iommu() if iommu or needs_iommu(descriptions) else None,
                ovmf=ovmf,
                arguments=cards_arguments(descriptions, functions=functions),
            ),
            modules=tuple(sorted(wanted)),
            firmware=tuple(firmware or known_firmware(sorted(wanted))),
            files={name: Path(host) for name, host in contents.items()},
            kernel=chosen,
            append=append,
            accelerator=accelerator,
            console_log=console,
            root=root_path,
        )

    root_path = chosen_root(userland, root)
    line = shlex.join(command) if command and len(command) > 1 else "".join(command or ["lspci -nn"])
    with explained():
        chosen = chosen_kernel(kernel, modules_dir)
        if socket_dirs:
            descriptions = CardDescription.read_all([folder.absolute() for folder in socket_dirs])
            code = trio.run(_run, spec_for(descriptions), line, timeout)
        else:
            with served_card(serve) as served:
                code = trio.run(_run, spec_for(served.descriptions), line, timeout)
    raise typer.Exit(code)


def chosen_kernel(kernel: str | None, modules: Path | None) -> Kernel | None:
    """What `--kernel` and `--modules` mean.

    Raises:
        KernelError: there is no such image or folder of modules, or `--modules` is there alone.
        MissingEnvironment: the named kernel is not in the cache.
    """
    if kernel is None:
        if modules is not None:
            raise KernelError("--modules is for --kernel: the packaged kernel has modules of its own")
        return None
    return named_kernel(kernel, modules)


def _file(item: str) -> tuple[str, str]:
    guest, equals, host = item.partition("=")
    if not equals or not guest or not host:
        fail(f"--file {item}: want GUEST=HOST, such as /root/tool=./tool", EXIT_USAGE)
    return guest, host


async def _run(spec: GuestSpec, command: str, timeout: float) -> int:
    async with boot(spec) as guest:
        result = await guest.run(command, timeout=timeout)
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.write(result.stderr)
        return result.returncode
