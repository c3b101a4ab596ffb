"""`vfio-user-xe guest ...`: fetch what guests need, run one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import trio
import typer

from vfio_user_xe.emulator.guest import GuestError, GuestSpec, Iommu, Kernel, KernelError, Machine, boot, environment
from vfio_user_xe.emulator.guest.initramfs import known_firmware
from vfio_user_xe.emulator.guest.packaged_kernels import fetch_kernel, find_kernel
from vfio_user_xe.emulator.guest.progress import Progress
from vfio_user_xe.emulator.guest.qemu_arguments import CardDescription, cards_arguments, needs_iommu
from vfio_user_xe.emulator.guest.served import ServedCardError, served_card

app = typer.Typer(help="Guests: QEMU with a kernel, and a card of ours in it.", no_args_is_help=True)


@app.command(epilog="Example: vfio-user-xe guest fetch --kernel 6.18, then guest run --kernel 6.18 ...")
def fetch(
    update: Annotated[bool, typer.Option("--update", help="Fetch the newest packages even if all is there.")] = False,
    kernels: Annotated[
        list[str] | None,
        typer.Option("--kernel", metavar="SERIES", help="Also Debian's kernel of a series; repeatable."),
    ] = None,
) -> None:
    """Download QEMU, a kernel, firmware and tools into the user's cache (once, about 180 MB, no root needed)."""
    try:
        found = environment.fetch(update=update, progress=Progress())
        for series in kernels or []:
            print(f"kernel {series}: {fetch_kernel(series, progress=Progress()).image}")
    except GuestError as exc:
        print(f"vfio-user-xe: {exc}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"guest environment: {found.root}\nQEMU: {found.qemu}")


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: vfio-user-xe guest run --vfs 2 --module xe -- 'modprobe xe; dmesg | tail'",
)
def run(
    command: Annotated[
        list[str] | None, typer.Argument(help="Shell command for the guest; none: a line of lspci.")
    ] = None,
    socket_dirs: Annotated[
        list[Path] | None,
        typer.Option(
            "--socket-dir",
            metavar="DIR",
            help="A card that is served already, instead of one of the run's own; repeatable.",
        ),
    ] = None,
    functions: Annotated[
        list[str] | None,
        typer.Option("--function", metavar="NAME", help="Only these functions of the card; repeatable."),
    ] = None,
    card: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A packaged card, or a card file, for the run's own card.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Device model, without a card file.")] = None,
    vfs: Annotated[int | None, typer.Option(metavar="N", help="Number of VFs.")] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="NAME", help="same-guest, split, nested or vf-only (docs/topologies.md).")
    ] = None,
    cards: Annotated[int, typer.Option(metavar="N", min=1, max=8, help="So many of the run's own cards.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Option of the model.")
    ] = None,
    trace: Annotated[str | None, typer.Option(metavar="CATEGORY,...:FILE", help="Trace to a file.")] = None,
    modules: Annotated[
        list[str] | None, typer.Option("--module", metavar="NAME", help="Module to have in the guest; repeatable.")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="BZIMAGE|SERIES", help="Your own kernel, or a fetched one such as 6.18.")
    ] = None,
    modules_dir: Annotated[
        Path | None, typer.Option("--modules", metavar="DIR", help="Its modules (what modules_install made).")
    ] = None,
    firmware: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Firmware file, e.g. xe/bmg_guc_70.bin.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", metavar="GUEST=HOST", help="A file to have in the guest; repeatable.")
    ] = None,
    append: Annotated[str, typer.Option(metavar="WORDS", help="More words for the kernel's command line.")] = "",
    memory: Annotated[int, typer.Option(metavar="MIB", min=256, help="Guest memory.")] = 2048,
    cpus: Annotated[int, typer.Option(min=1, help="Processors.")] = 1,
    cpu: Annotated[str | None, typer.Option(metavar="MODEL", help="QEMU's -cpu.")] = None,
    iommu: Annotated[bool, typer.Option("--iommu", help="With an Intel vIOMMU.")] = False,
    ovmf: Annotated[bool, typer.Option("--ovmf", help="OVMF instead of SeaBIOS.")] = False,
    accelerator: Annotated[str, typer.Option(help="auto, kvm or tcg.")] = "auto",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For the command.")] = 300,
    console: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the guest's console.")] = None,
) -> None:
    """Boot a guest with a card, run a command in it, exit with its exit code."""
    contents = dict(item.partition("=")[::2] for item in files or [])
    wanted = set(modules or [])

    def spec_for(descriptions: list[CardDescription]) -> GuestSpec:
        known = sorted({function.name for description in descriptions for function in description.functions})
        for name in functions or []:
            if name not in known:
                print(f"vfio-user-xe: --function {name}: the card has {', '.join(known)}", file=sys.stderr)
                raise typer.Exit(2)
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
            kernel=chosen_kernel(kernel, modules_dir),
            append=append,
            accelerator=accelerator,
            console_log=console,
        )

    line = shlex.join(command) if command and len(command) > 1 else "".join(command or ["lspci -nn"])
    try:
        if socket_dirs:
            descriptions = CardDescription.read_all([folder.absolute() for folder in socket_dirs])
            code = trio.run(_run, spec_for(descriptions), line, timeout)
        else:
            arguments = [*(["--card", card] if card else []), *(["--vfs", str(vfs)] if vfs is not None else [])]
            arguments += ["--model", model] if model else []
            arguments += [word for setting in settings or [] for word in ("--set", setting)]
            arguments += ["--topology", topology] if topology else []
            arguments += ["--cards", str(cards)] if cards > 1 else []
            arguments += ["--trace", trace] if trace else []
            with served_card(arguments) as served:
                code = trio.run(_run, spec_for(served.descriptions), line, timeout)
    except (GuestError, ServedCardError, FileNotFoundError) as exc:
        print(f"vfio-user-xe: {exc}", file=sys.stderr)
        raise typer.Exit(1) from None
    raise typer.Exit(code)


def chosen_kernel(kernel: str | None, modules: Path | None) -> Kernel | None:
    """What `--kernel` and `--modules` mean. Raises `KernelError`."""
    if kernel is None:
        return None
    if "/" in kernel or Path(kernel).exists() or modules is not None:
        return Kernel.custom(Path(kernel), modules)
    found = find_kernel(kernel)
    if found is None:
        raise KernelError(f"kernel {kernel} is not in the cache: vfio-user-xe guest fetch --kernel {kernel}")
    return found


async def _run(spec: GuestSpec, command: str, timeout: float) -> int:
    async with boot(spec) as guest:
        result = await guest.run(command, timeout=timeout)
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.write(result.stderr)
        return result.returncode
