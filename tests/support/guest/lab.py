"""The labs of our own guest tests: `vfio_user_xe.emulator.testing.lab`, skipped where there is no guest environment.

With the variable VFIO_USER_XE_TEST_BACKEND=libvfio-user, cards are served by that back end (`docs/backends.md`).

@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(["--vfs", "2"], modules=["pci-pf-stub"]) as lab:
        yield lab
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.guest.xe_programs import shared
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.programs import NoCompiler, compile_program
from vfio_user_xe.emulator.testing import lab as labs
from vfio_user_xe.emulator.testing.lab import Lab, open_card, open_guest

__all__ = ["Lab", "open_card", "open_guest", "open_lab", "program"]

PROGRAMS = Path(__file__).parents[2] / "guest" / "programs"


def program(name: str) -> dict[str, Path]:
    """Guest path and file of `programs/{name}.c`; with a name xe_... it may use what is in `programs/xe`.

    Skips where there is no guest environment or no compiler.
    """
    sources = [PROGRAMS / f"{name}.c"]
    if name.startswith("xe_"):
        sources += [PROGRAMS / "xe_alone.c", *shared()]
    try:
        file = compile_program(locate(), name, sources)
    except (MissingEnvironment, NoCompiler) as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    return {f"/usr/bin/{name.replace('_', '-')}": file}


@contextmanager
def open_lab(serve: Sequence[str] = (), **settings: Any) -> Iterator[Lab]:
    """Serve a card with these arguments of `serve`, boot a guest with it, end both; settings of `vfio_user_xe.emulator.testing.lab`."""
    try:
        locate()
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")
    backend = os.environ.get("VFIO_USER_XE_TEST_BACKEND")
    if backend and "--backend" not in serve:
        serve = [*serve, "--backend", backend]
    with labs.open_lab(serve, **settings) as lab:
        try:
            yield lab
        except BaseException:
            for title, text in lab.report():
                print(f"--- {title} ---\n{text}")
            raise
