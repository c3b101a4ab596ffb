"""The pictures of `tests/guest/programs/gl/scenes.c`: compiled, drawn in a guest by two drivers, compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.guest.programs import SHARED_FLAGS, compile_program

FOLDER = Path(__file__).parents[2] / "guest" / "programs" / "gl"


def program(environment: Environment) -> Path:
    """The program, for a guest whose root file system has EGL and OpenGL ES."""
    return compile_program(environment, "scenes", [FOLDER / "scenes.c", FOLDER / "gl.c"], flags=SHARED_FLAGS)


def picture(pam: bytes) -> NDArray[np.int64]:
    """[rows, columns, 4] of a PAM that the program has written."""
    header, pixels = pam.split(b"ENDHDR\n", 1)
    size = {name: int(value) for name, value in (line.split() for line in header.decode().splitlines()[1:4])}
    found = np.frombuffer(pixels, dtype=np.uint8).reshape(size["HEIGHT"], size["WIDTH"], size["DEPTH"])
    return found.astype(np.int64)


@dataclass(frozen=True)
class Difference:
    """How two pictures differ, of the channels of each pixel the largest."""

    worst: int
    noticeable: int
    """Pixels that differ by more than two steps of 255: edges that are ruled otherwise, not arithmetic."""

    @classmethod
    def between(cls, one: NDArray[np.int64], other: NDArray[np.int64]) -> Difference:
        """Of pictures of one size."""
        steps = np.abs(one - other).max(axis=2)
        return cls(int(steps.max()), int(np.count_nonzero(steps > 2)))
