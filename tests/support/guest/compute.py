"""A card with several compute engines, and processes that run kernels on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, compiled
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

MIB = 1 << 20
MADE, COPIED = 0x1000_0000, 0x2000_0000
"""Virtual addresses of the buffers that `begin` makes."""


@contextlib.contextmanager
def opened(vfs: int) -> Iterator[Lab]:
    """A card with four compute engines under xe; skips the test where the guest program cannot be made."""
    try:
        files = compiled(locate())
    except (NoCompiler, MissingEnvironment) as error:
        pytest.skip(f"{error} (or run scripts/setup)")
    with open_lab(["--vfs", str(vfs), "--set", "ccs=4"], modules=["xe"], memory=1536, files=files) as made:
        made.guest.run("modprobe xe", check=True, timeout=180)
        yield made


def begin(program: Program, function: str) -> None:
    """Start a process with buffers `made` and `copied`, of a MiB each, in the VRAM of the function at this address."""
    program.start()
    program.do(
        f"gpu g {function}",
        f"buffer g made {MADE:#x} {MIB:#x} vram",
        f"buffer g copied {COPIED:#x} {MIB:#x} vram",
    )
