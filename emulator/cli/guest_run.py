"""`vfio-user-xe guest run`: boot a guest with a card, and run a command in it or type in it."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import trio
import typer

from vfio_user_xe.emulator.cli.errors import EXIT_FAILED, EXIT_USAGE, explained, fail, say
from vfio_user_xe.emulator.cli.guest import app
from vfio_user_xe.emulator.cli.guest_memory import GuestMemory
from vfio_user_xe.emulator.cli.interrupts import run as run_to_its_end
from vfio_user_xe.emulator.cli.options import (
    Append,
    Functions,
    Root,
    Switches,
    Userland,
    check_functions,
    check_outputs,
    chosen_root,
    serve_options,
    served_cards,
)
from vfio_user_xe.emulator.guest import environment
from vfio_user_xe.emulator.guest.errors import CommandTimeout, GuestError, KernelError
from vfio_user_xe.emulator.guest.extras import (
    SHARE_MODULES,
    Share,
    check_hugepages,
    gdb_arguments,
    qmp_arguments,
    symbols_of,
    words_of,
)
from vfio_user_xe.emulator.guest.guest import Guest, GuestSpec, boot
from vfio_user_xe.emulator.guest.initramfs import known_firmware
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Iommu, Machine
from vfio_user_xe.emulator.guest.packaged_kernels import named_kernel
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, cards_arguments, needs_iommu
from vfio_user_xe.emulator.guest.serve_options import ServeOptions
from vfio_user_xe.emulator.guest.served import served_card
from vfio_user_xe.emulator.guest.terminal import interact, require_terminal

__all__ = ["app", "run_command"]


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
    shares: Annotated[
        list[str] | None,
        typer.Option("--share", metavar="FOLDER[:PATH]", help="Mount a folder, by default at /mnt/NAME; repeatable."),
    ] = None,
    append: Append = None,
    direct_boot: Annotated[
        bool,
        typer.Option(
            "--direct-boot/--no-direct-boot",
            help="Start the unpacked kernel. Without it the bzImage is booted, as suspend to RAM needs it.",
        ),
    ] = True,
    memory: GuestMemory = 2048,
    cpus: Annotated[int, typer.Option(min=1, help="Processors.")] = 1,
    cpu: Annotated[str | None, typer.Option(metavar="MODEL", help="QEMU's -cpu.")] = None,
    iommu: Annotated[bool, typer.Option("--iommu", help="With a vIOMMU.")] = False,
    ovmf: Annotated[bool, typer.Option("--ovmf", help="OVMF instead of SeaBIOS.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, kvm or tcg.")] = "auto",
    hugepages: Annotated[bool, typer.Option("--hugepages", help="Guest memory of the host's huge pages.")] = False,
    switches: Switches = 0,
    unplugged: Annotated[
        bool, typer.Option("--unplugged", help="Leave the card out: its root port is there, for 'guest plug'.")
    ] = False,
    qmp: Annotated[
        Path | None, typer.Option("--qmp", metavar="SOCKET", help="QEMU's monitor, for 'guest plug' and others.")
    ] = None,
    qemu_args: Annotated[
        list[str] | None, typer.Option("--qemu-args", metavar="WORDS", help="Further arguments of QEMU; repeatable.")
    ] = None,
    gdb: Annotated[
        int | None, typer.Option("--gdb", metavar="PORT", min=1, max=65535, help="QEMU's stub for gdb, on 127.0.0.1.")
    ] = None,
    gdb_wait: Annotated[
        bool, typer.Option("--gdb-wait", help="With --gdb: do not start before gdb says `continue`.")
    ] = False,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="A console to type in; Ctrl-] ends it. Without a command: a shell."),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="If the command fails, keep the guest: with a console to type in, or until Ctrl-C."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit of the command; --interactive has none.")
    ] = 300,
    boot_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time limit of the boot; --gdb-wait has none.")
    ] = GuestSpec.boot_timeout,
    console: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the guest's console.")] = None,
) -> None:
    """Boot a guest with a card, run a command in it, exit with its exit code."""
    check_outputs(console=console)
    contents = dict(_file(item) for item in files or [])
    wanted = set(modules or [])
    root_path = chosen_root(userland, root)
    if gdb_wait and gdb is None:
        fail("--gdb-wait is for --gdb: name its port", EXIT_USAGE)
    if unplugged and qmp is None:
        fail("--unplugged is for 'guest plug', which needs --qmp SOCKET", EXIT_USAGE)
    line = shlex.join(command) if command and len(command) > 1 else "".join(command or [])
    with explained():
        chosen = chosen_kernel(kernel, modules_dir)
        if interactive:
            require_terminal()
        if hugepages:
            check_hugepages(memory)
        shared = [Share.parse(text, number) for number, text in enumerate(shares or (), 1)]
        extra = [word for share in shared for word in share.arguments()]
        extra += qmp_arguments(qmp) if qmp is not None else []
        extra += gdb_arguments(gdb, wait=gdb_wait) if gdb is not None else []
        extra += [word for text in qemu_args or () for word in words_of(text)]
        modules_of_shares = SHARE_MODULES if shared else ()

        def spec_for(descriptions: list[CardDescription]) -> GuestSpec:
            check_functions(descriptions, functions)
            devices = cards_arguments(descriptions, functions=functions, unplugged=unplugged, switches=switches)
            return GuestSpec(
                machine=Machine(
                    memory=memory,
                    cpus=cpus,
                    cpu=cpu,
                    iommu=Iommu() if iommu or needs_iommu(descriptions) else None,
                    ovmf=ovmf,
                    arguments=[*devices, *extra],
                    hugepages=hugepages,
                ),
                modules=(*sorted(wanted), *modules_of_shares),
                firmware=tuple(firmware or known_firmware(sorted(wanted))),
                files={name: Path(host) for name, host in contents.items()},
                kernel=chosen,
                append=" ".join([*(append or ()), *(["nokaslr"] if gdb is not None else [])]),
                accelerator=accelerator,
                boot_timeout=math.inf if gdb_wait else boot_timeout,
                console_log=console,
                direct_boot=direct_boot,
                root=root_path,
                interactive=interactive or (keep and sys.stdin.isatty()),
            )

        work = _Work(line, timeout, tuple(shared), gdb, interactive, keep)
        if socket_dirs:
            descriptions = served_cards(socket_dirs)
            code = run_to_its_end(_run, spec_for(descriptions), work)
        else:
            with served_card(serve) as served:
                code = run_to_its_end(_run, spec_for(served.descriptions), work)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Work:
    """What is done in the guest: `command` is "" for none."""

    command: str
    timeout: float
    shares: tuple[Share, ...]
    gdb: int | None
    interactive: bool
    keep: bool


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


async def _run(spec: GuestSpec, work: _Work) -> int:
    if work.gdb is not None:
        _tell_debugger(spec, work.gdb)
    async with boot(spec) as guest:
        for share in work.shares:
            await guest.run(share.mount(), check=True)
        if work.interactive:
            assert guest.terminal is not None
            say("the guest's console; Ctrl-] ends it")
            ended = await interact(guest, guest.terminal, work.command)
            if ended is None:
                return 0
            sys.stderr.write(ended.stderr)
            return ended.returncode
        failed: GuestError | None = None
        code = EXIT_FAILED
        try:
            result = await guest.run(work.command or "lspci -nn", timeout=work.timeout)
            sys.stdout.write(result.stdout)
            sys.stdout.flush()
            sys.stderr.write(result.stderr)
            code = result.returncode
        except CommandTimeout as error:
            sys.stdout.write(error.output.decode(errors="replace"))
            failed = error
        except GuestError as error:
            failed = error
        if work.keep and (failed is not None or code):
            say(failed if failed is not None else f"the command ended with exit code {code}")
            await _keep(guest)
            return code or EXIT_FAILED
        if failed is not None:
            raise failed
        return code


async def _keep(guest: Guest) -> None:
    """Leave the guest to the person: a shell in it where there is a terminal and the guest answers, else until Ctrl-C."""
    if guest.terminal is not None:
        say("the guest is kept, with a shell in it; Ctrl-] ends it")
        try:
            await interact(guest, guest.terminal)
        except GuestError as error:
            say(error)
        else:
            return
    say(f"the guest is kept until Ctrl-C: QEMU is process {guest.pid}")
    with contextlib.suppress(KeyboardInterrupt):
        await trio.sleep_forever()


def _tell_debugger(spec: GuestSpec, port: int) -> None:
    """The line that attaches gdb."""
    kernel = spec.kernel if spec.kernel is not None else Kernel.packaged(environment.locate())
    symbols, whole = symbols_of(kernel)
    if not whole:
        say("the kernel comes without symbols: build it with CONFIG_DEBUG_INFO, and name OBJ/arch/x86/boot/bzImage")
    file = f"{shlex.quote(str(symbols))} " if symbols is not None else ""
    say(f"gdb {file}-ex 'target remote 127.0.0.1:{port}'")
