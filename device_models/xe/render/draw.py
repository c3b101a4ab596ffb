"""3DPRIMITIVE, 3DMESH_1D, 3DMESH_3D: what a draw says of its vertices and instances, or of its thread groups."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag, signed

_SIZE = 7
"""Dwords of the form without extended parameters."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The fields of a 3DPRIMITIVE."""

    topology: int
    """0: that of 3DSTATE_VF_TOPOLOGY."""
    indexed: bool
    vertices: int
    """Of each instance."""
    first: int
    instances: int
    first_instance: int
    base_vertex: int
    extended: tuple[int, int, int]
    """Parameters that 3DSTATE_VF_SGVS_2 hands to shaders."""

    @classmethod
    def of(cls, words: Words) -> Draw:
        """The dwords of the command, header first."""
        more = tuple(bits(words, _SIZE + number, 31, 0) for number in range(3))
        return cls(
            topology=bits(words, 1, 5, 0),
            indexed=flag(words, 1, 8),
            vertices=bits(words, 2, 31, 0),
            first=bits(words, 3, 31, 0),
            instances=bits(words, 4, 31, 0),
            first_instance=bits(words, 5, 31, 0),
            base_vertex=signed(bits(words, 6, 31, 0)),
            extended=(more[0], more[1], more[2]),
        )


@dataclass(frozen=True, slots=True)
class MeshDraw:
    """The fields of a 3DMESH_1D or 3DMESH_3D."""

    groups: tuple[int, int, int]
    """Thread groups of the task shader, or of the mesh shader if there is none, in each dimension."""
    first: int = 0
    """Number of the first of them."""
    draw: int = 0
    """Extended parameter 0, the number of the draw."""

    @property
    def total(self) -> int:
        """All groups."""
        x, y, z = self.groups
        return x * y * z
