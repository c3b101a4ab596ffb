"""Programs over the xe uAPI that are no checks: `programs/xe_*.c`. Compiled when somebody asks for them."""

from __future__ import annotations

from pathlib import Path

from emulator.guest import Environment
from emulator.guest.programs import compile_program
from tests.guest.xe_programs import shared

FOLDER = Path(__file__).parent / "programs"


def compile_alone(environment: Environment, name: str) -> dict[str, Path]:
    """Guest path and file of `programs/{name}.c`. Raises as `emulator.guest.programs.compile_program` does."""
    sources = [FOLDER / f"{name}.c", FOLDER / "xe_alone.c", *shared()]
    return {f"/usr/bin/{name.replace('_', '-')}": compile_program(environment, name, sources)}
