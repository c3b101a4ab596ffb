"""`--kernel` and `--modules`, both repeatable: the kernels that a run is to be done on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vfio_user_xe.emulator.cli.errors import EXIT_USAGE, exit_code_of, fail
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.packaged_kernels import named_kernel

KernelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        metavar="BZIMAGE|SERIES",
        help="Your own kernel, or a fetched one such as 6.18; repeatable: on each of them.",
    ),
]
ModulesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--modules",
        metavar="DIR",
        help="Its modules (what modules_install made); repeatable, in the order of the BZIMAGEs.",
    ),
]


@dataclass(frozen=True)
class NamedKernel:
    """A kernel as the command line has it, and what results call it (empty: by the release that the guest tells)."""

    given: str | None
    modules: Path | None
    name: str = ""


def suite_kernels(given: Sequence[str], modules: Sequence[Path]) -> list[tuple[Kernel | None, str]]:
    """The kernels that a suite is to be run on, each with what results call it; None is the fetched one.

    Without an environment the fetched one has no name: the run itself says what is missing.
    """
    if not given and not modules:
        try:
            return [(None, Kernel.packaged(locate()).release)]
        except GuestError:
            return [(None, "")]
    named = named_kernels(given, modules, named=True)
    return [(named_kernel(str(each.given), each.modules, locate()), each.name) for each in named]


def named_kernels(given: Sequence[str], modules: Sequence[Path], *, named: bool) -> list[NamedKernel]:
    """The kernels that are asked for, with their modules. `named`: also one kernel has a name before it is booted."""
    images = [kernel for kernel in given if "/" in kernel or Path(kernel).exists()]
    if modules and not given:
        fail("--modules is for --kernel: the packaged kernel has modules of its own", EXIT_USAGE)
    if len(given) == 1 and len(modules) == 1:
        images = list(given)
    if modules and len(modules) != len(images):
        fail(
            f"--modules: {len(modules)} folders, but {len(images)} of the kernels are images: want one for each",
            EXIT_USAGE,
        )
    folders = iter(modules)
    paired: list[tuple[str | None, Path | None]] = [
        (kernel, next(folders, None) if kernel in images else None) for kernel in given
    ]
    paired = paired or [(None, None)]
    if len(paired) == 1 and not named:
        return [NamedKernel(*paired[0])]
    try:
        environment = locate()
        releases = [
            (named_kernel(kernel, folder, environment) if kernel else Kernel.packaged(environment)).release
            for kernel, folder in paired
        ]
    except GuestError as error:
        fail(error, exit_code_of(error))
    often = Counter(releases)
    return [
        NamedKernel(kernel, folder, release if often[release] == 1 else f"{release} ({kernel})")
        for (kernel, folder), release in zip(paired, releases, strict=True)
    ]
