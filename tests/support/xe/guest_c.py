"""C programs of guests, compiled to run on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.scenarios.guest_program import SOURCES as CLIENT
from vfio_user_xe.emulator.guest.programs import NoCompiler, compile_c, compiler

FAKE_VFIO = Path(__file__).with_name("fake_vfio.c")
"""A device of VFIO that is made of files."""


def compiled_here(factory: pytest.TempPathFactory, name: str, sources: Iterable[Path], *flags: str) -> Path:
    """The program `name`, warnings being errors; a machine without a C compiler skips the test."""
    made = factory.mktemp("program") / name
    try:
        command = [*compiler(), "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{CLIENT}"]
    except NoCompiler as error:
        pytest.skip(str(error))
    compile_c([*command, *flags, *map(str, sources), "-o", str(made)])
    return made
