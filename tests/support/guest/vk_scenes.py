"""The pictures of `tests/guest/programs/vk/meshes.c`, drawn in a guest."""

from __future__ import annotations

from pathlib import Path

from tests.support.guest.spirv import FOLDER
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import SHARED_FLAGS, compile_program


def program(environment: Environment) -> Path:
    """The program, for a guest whose root file system has Vulkan."""
    return compile_program(environment, "meshes", [FOLDER / "meshes.c", FOLDER / "vk.c"], flags=SHARED_FLAGS)
