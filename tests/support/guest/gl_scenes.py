"""The pictures of `tests/guest/programs/gl/scenes.c`, drawn in a guest."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.device_models.xe.frames.programs import gl_flags, gl_source
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import compile_program

FOLDER = Path(__file__).parents[2] / "guest" / "programs" / "gl"


def program(environment: Environment) -> Path:
    """The program, for a guest whose root file system has EGL and OpenGL ES."""
    return compile_program(
        environment, "scenes", [FOLDER / "scenes.c", FOLDER / "stages.c", gl_source()], flags=gl_flags()
    )
