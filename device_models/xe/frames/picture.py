"""Pictures that the programs in a guest have written (PAM), and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.emulator.observe.png import png


def picture(pam: bytes) -> NDArray[np.int64]:
    """[rows, columns, 4]: red, green, blue, alpha of a PAM, in its order of rows."""
    header, pixels = pam.split(b"ENDHDR\n", 1)
    size = {name: int(value) for name, value in (line.split() for line in header.decode().splitlines()[1:4])}
    found = np.frombuffer(pixels, dtype=np.uint8).reshape(size["HEIGHT"], size["WIDTH"], size["DEPTH"])
    return found.astype(np.int64)


def as_png(pam: bytes) -> bytes:
    """The same as a PNG file, without alpha."""
    pixels = picture(pam)[:, :, :3].astype(np.uint8)
    return png(pixels.shape[1], pixels.shape[0], pixels.tobytes())


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
