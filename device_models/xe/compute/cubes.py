"""Cubes: which face a direction meets and where, how fast it goes there, and what lies beyond a face's edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.texels import Coordinates

Floats = NDArray[np.float64]
Direction = tuple[Floats, Floats, Floats]
QUAD = 4
"""Lanes of a quad."""


def finite(values: Floats) -> Floats:
    """Coordinates that can be computed with."""
    return np.clip(np.nan_to_num(values, posinf=0.0, neginf=0.0), -(2.0**40), 2.0**40)


def face_of(x: Floats, y: Floats, z: Floats) -> tuple[Coordinates, Floats, Floats]:
    """Face of a direction (+x, -x, +y, -y, +z, -z), and the place on it from 0 to 1."""
    face, s, t, length = _project(finite(x), finite(y), finite(z))
    return face, (s / length + 1) / 2, (t / length + 1) / 2


def squares_of_slopes(size: int, directions: Direction) -> tuple[Floats, Floats]:
    """[lanes] each: squares of lengths in texels, to the right and down, on the face of `size` texels that each lane meets.

    The directions of a quad differ as they do on the screen; those of lanes that are not drawn may meet another face.
    """
    x, y, z = (finite(axis) for axis in directions)
    face, s, t, length = _project(x, y, z)
    quads = [axis.reshape(-1, QUAD) for axis in (x, y, z)]
    found: list[Floats] = []
    for lane in (1, 2):
        moved = [np.repeat(quad[:, lane] - quad[:, 0], QUAD) for quad in quads]
        ds, dt, away = _on_face(face, *moved)
        across = (ds * length - s * away) / (length * length) * size / 2
        down = (dt * length - t * away) / (length * length) * size / 2
        found.append(across * across + down * down)
    return found[0], found[1]


def over_the_edge(
    size: int, x: Coordinates, y: Coordinates, face: Coordinates
) -> tuple[Coordinates, Coordinates, Coordinates]:
    """Texels beyond a face's edge are those of its neighbour."""
    beyond = (x < 0) | (x >= size) | (y < 0) | (y >= size)
    if not beyond.any():
        return x, y, face
    s, t = 2 * (x[beyond] + 0.5) / size - 1, 2 * (y[beyond] + 0.5) / size - 1
    one = np.ones_like(s)
    across = face[beyond]
    other, u, v = face_of(
        np.choose(across, [one, -one, s, s, s, -s]),
        np.choose(across, [-t, -t, one, -one, -t, -t]),
        np.choose(across, [-s, s, t, -t, one, -one]),
    )
    x, y, face = x.copy(), y.copy(), face.copy()
    x[beyond] = np.clip(np.floor(u * size), 0, size - 1).astype(np.int64)
    y[beyond] = np.clip(np.floor(v * size), 0, size - 1).astype(np.int64)
    face[beyond] = other
    return x, y, face


def _major(x: Floats, y: Floats, z: Floats) -> Coordinates:
    size = np.abs(np.stack([x, y, z]))
    return np.where((size[2] >= size[0]) & (size[2] >= size[1]), 2, np.where(size[1] >= size[0], 1, 0))


def _project(x: Floats, y: Floats, z: Floats) -> tuple[Coordinates, Floats, Floats, Floats]:
    """Face, s, t and length of the major axis, which is not 0: the usual table of cube maps."""
    major = _major(x, y, z)
    face = (2 * major + (np.choose(major, [x, y, z]) < 0)).astype(np.int64)
    s, t, length = _on_face(face, x, y, z)
    return face, s, t, np.maximum(length, 1e-30)


def _on_face(face: Coordinates, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    """s, t and the distance along the major axis, of directions or of differences between such."""
    s = np.choose(face, [-z, z, x, x, x, -x])
    t = np.choose(face, [-y, -y, z, -z, -y, -y])
    return s, t, np.choose(face, [x, -x, y, -y, z, -z])
