"""`--memory`: how much memory a guest has, written alike for every command."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from vfio_user_xe.emulator.model.options import parse_size

SMALLEST = 256
"""MiB with which a kernel and its initramfs still boot."""
_MIB = 1 << 20
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|[0-9_.]+")
"""A size without a unit, as `parse_size` takes it."""


def mebibytes(text: str | int) -> int:
    """MiB of "2048", which are MiB as for QEMU's `-m`, "2G", "1.5 GiB".

    Raises:
        typer.BadParameter: it is no size, no whole number of MiB, or too little.
    """
    word = str(text).strip()
    wanted = f'want a number of MiB, or a size such as "2G", "512 MiB"; {SMALLEST} MiB at least'
    try:
        size = parse_size(f"{word} MiB" if _NUMBER.fullmatch(word) else word)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; {wanted}") from None
    if size % _MIB or size < SMALLEST * _MIB:
        raise typer.BadParameter(f'"{word}": {wanted}')
    return size // _MIB


GuestMemory = Annotated[
    int, typer.Option("--memory", metavar="SIZE", parser=mebibytes, help="Guest memory, in MiB or with a unit.")
]
OwnGuestMemory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=mebibytes,
        help="Guest memory, instead of the suite's; in MiB or with a unit.",
    ),
]
