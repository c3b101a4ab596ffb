"""SBE: attributes of vertices, as pixel shaders interpolate them, and of primitives, as mesh shaders write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.setup import Setup
from vfio_user_xe.device_models.xe.render.state import Op, has_meshes, kept, remembered

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_WORDS = 16
_SLOTS_OF_REGISTER = 5
"""Components of an attribute whose three floats fit into a register."""


@dataclass(frozen=True, slots=True)
class SetupBackend:
    """3DSTATE_SBE, 3DSTATE_SBE_SWIZ and 3DSTATE_SBE_MESH: which attributes pixel shaders get, and from where in a vertex."""

    attributes: int
    offset: int
    """Dwords of a vertex before the first."""
    flat: int
    """Bits: attributes that are the provoking vertex's."""
    sources: tuple[int, ...]
    """Attribute of the vertex, of each."""
    overrides: tuple[tuple[int, int], ...]
    """(components, constant) of each."""
    select: tuple[int, ...]
    """Swizzle select of each: 1 and 3 choose by facing."""
    primitive_id: tuple[int, int]
    """Attribute, and its components that are the primitive's number."""
    sprite: int
    """Bits: attributes that are point sprite coordinates."""
    sprite_upwards: bool = False
    """Their second one is 0 at the bottom."""
    own: tuple[int, int] = (0, 0)
    """Dwords of what mesh shaders write of a primitive: those before the first that is read, and those that are."""

    @classmethod
    @remembered(Op.SBE, Op.SBE_SWIZ, Op.SBE_MESH, Op.MESH_CONTROL)
    def of(cls, lrc: Lrc) -> SetupBackend:
        """The context's state now."""
        sbe, swiz = kept(lrc, Op.SBE), kept(lrc, Op.SBE_SWIZ)
        count = bits(sbe, 1, 27, 22)
        swizzled = flag(sbe, 1, 21)
        details = [
            bits(swiz, 1 + n // 2, 16 * (n % 2) + 15, 16 * (n % 2)) if swizzled and n < 16 else n for n in range(count)
        ]
        mesh = kept(lrc, Op.SBE_MESH) if has_meshes(lrc) else ()
        return cls(
            attributes=count,
            offset=8 * bits(mesh or sbe, 1, 10, 5),
            flat=bits(sbe, 3, 31, 0),
            sources=tuple(detail & 0x1F for detail in details),
            overrides=tuple((detail >> 12 & 0xF, detail >> 9 & 3) if swizzled else (0, 0) for detail in details),
            select=tuple(detail >> 6 & 3 if swizzled else 0 for detail in details),
            primitive_id=(bits(sbe, 1, 4, 0), bits(sbe, 1, 19, 16)),
            sprite=bits(sbe, 2, 31, 0),
            sprite_upwards=flag(sbe, 1, 20),
            own=(8 * bits(mesh, 1, 21, 16), 8 * bits(mesh, 1, 15, 11)),
        )

    def flat_dwords(self, dwords: int) -> NDArray[np.bool_]:
        """[dwords of a vertex]: those of attributes that are the provoking vertex's, which are not always floats."""
        found = np.zeros(dwords, dtype=np.bool_)
        for number, source in enumerate(self.sources):
            if self.flat >> number & 1:
                at = self.offset + 4 * source
                found[at : at + (8 if self.select[number] & 1 else 4)] = True
        return found

    @property
    def counts_primitives(self) -> bool:
        """Shaders get the number of their primitive in the draw."""
        return self.primitive_id[1] != 0 or any(
            mask and constant == len(_CONSTANTS) for mask, constant in self.overrides
        )


_CONSTANTS = ((0, 0, 0, 0), (0, 0, 0, 0x3F80_0000), (0x3F80_0000,) * 4)


_SPRITE = np.array([[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=np.float32)
"""Texture coordinates of a point's corners: right bottom, left bottom, left top."""
_SPRITE_UPWARDS = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1]], dtype=np.float32)


def setup_data(
    backend: SetupBackend,
    setup: Setup,
    vertices: NDArray[np.uint32],
    *,
    points: bool = False,
    own: NDArray[np.uint32] | None = None,
) -> NDArray[np.float32]:
    """[primitives, registers, 16]: setup data of each primitive, the same for all its pixels.

    `own` [primitives of the draw, dwords] are data of primitives, of which what SBE reads lies before that of vertices, as it is.
    """
    count = backend.attributes
    columns = np.zeros((len(setup), 4 * count, 3), dtype=np.float32)
    first = np.take_along_axis(setup.vertices, setup.provoking[:, None], axis=1)[:, 0]
    for number in range(count):
        sprite = points and backend.sprite >> number & 1
        part = columns[:, 4 * number : 4 * number + 4]
        if backend.flat >> number & 1 and not sprite:
            part[:, :, 0] = _attribute(backend, number, vertices, first, setup.front)
        else:
            if sprite:
                corners = np.broadcast_to(_SPRITE_UPWARDS if backend.sprite_upwards else _SPRITE, (len(setup), 3, 4))
            else:
                corners = _attribute(backend, number, vertices, setup.vertices, setup.front[:, None])
            with np.errstate(invalid="ignore", over="ignore"):
                part[:, :, 0] = corners[:, 2]
                part[:, :, 1] = corners[:, 0] - corners[:, 2]
                part[:, :, 2] = corners[:, 1] - corners[:, 2]
        _override(backend, number, part, setup)
    registers = -(-4 * count // _SLOTS_OF_REGISTER)
    padded = np.zeros((len(setup), registers * _SLOTS_OF_REGISTER, 3), dtype=np.float32)
    padded[:, : 4 * count] = columns
    begin, length = backend.own if own is not None else (0, 0)
    before = -(-length // _WORDS)
    found = np.zeros((len(setup), before + registers, _WORDS), dtype=np.float32)
    found[:, before:, : 3 * _SLOTS_OF_REGISTER] = padded.reshape(len(setup), registers, 3 * _SLOTS_OF_REGISTER)
    if own is not None and length:
        read = np.zeros((len(setup), before * _WORDS), dtype=np.uint32)
        of_each = own[setup.number, begin : begin + length]
        read[:, : of_each.shape[1]] = of_each
        found[:, :before] = read.view(np.float32).reshape(len(setup), before, _WORDS)
    return found


def _attribute(
    backend: SetupBackend,
    number: int,
    vertices: NDArray[np.uint32],
    which: NDArray[np.int64],
    front: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """[..., 4]: attribute `number` of these vertices; those of primitives that face away may have another source."""
    source = backend.sources[number]
    values = _of_source(backend, vertices, which, source)
    if backend.select[number] & 1:
        return np.where(front[..., None], values, _of_source(backend, vertices, which, source + 1))
    return values


def _of_source(
    backend: SetupBackend, vertices: NDArray[np.uint32], which: NDArray[np.int64], source: int
) -> NDArray[np.float32]:
    at = backend.offset + 4 * source
    found = vertices[:, at : at + 4][which]
    if found.shape[-1] < 4:
        values = np.zeros((*which.shape, 4), dtype=np.uint32)
        values[..., : found.shape[-1]] = found
        return values.view(np.float32)
    return np.ascontiguousarray(found).view(np.float32)


def _override(backend: SetupBackend, number: int, part: NDArray[np.float32], setup: Setup) -> None:
    """Components that are constants, or the primitive's number."""
    mask, constant = backend.overrides[number]
    ids = setup.number.astype(np.uint32).view(np.float32)
    for component in range(4):
        if mask >> component & 1:
            part[:, component] = 0
            if constant == len(_CONSTANTS):
                part[:, component, 0] = ids
            else:
                part[:, component, 0] = np.array(_CONSTANTS[constant][component], dtype=np.uint32).view(np.float32)
        if backend.primitive_id[0] == number and backend.primitive_id[1] >> component & 1:
            part[:, component] = 0
            part[:, component, 0] = ids
