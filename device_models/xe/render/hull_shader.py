"""Hull shader dispatch: 16 patches a thread, a thread for each output vertex of them; patches come out in the URB.

Payload: r0.2 is the output vertex, then handles of patches, their numbers if wanted, handles of input vertices
(Mesa `brw_thread_payload.cpp:brw_tcs_thread_payload`, MULTI_PATCH).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.memory.address_space import Fault
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import HULL, REGISTER, Stage, kernel_of, stage
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.tessellator import Domain
from vfio_user_xe.device_models.xe.render.urb import ROOM, Urb, by_lane

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Vertices = NDArray[np.uint32]
WIDTH = 16
_WORDS = REGISTER // 4
_HEADER = 8
"""Dwords of a patch that begin it: tessellation factors."""


@dataclass(frozen=True, slots=True)
class HullState:
    """Fields of 3DSTATE_HS; sizes in dwords."""

    instances: int
    """Threads of each patch: its output vertices."""
    primitive_id: bool
    entry: int

    @classmethod
    def of(cls, lrc: Lrc) -> HullState | None:
        """The context's state now; None without a hull shader."""
        words, urb = kept(lrc, Op.HS), kept(lrc, Op.URB_ALLOC_HS)
        if not flag(words, 2, 31):
            return None
        entry = max(_HEADER, _WORDS * (bits(urb, 1, 9, 0) + 1))
        return cls(instances=bits(words, 2, 4, 0) + 1, primitive_id=flag(words, 7, 0), entry=entry)


def hull_stage(streamer: CommandStreamer, memory: UnitMemory) -> Stage:
    """The context's hull shader now.

    Raises:
        TranslationFault: an address of its constants is not mapped.
        AccessFault: an address of its constants is refused, or leads nowhere.
    """
    words = kept(streamer.lrc, Op.HS)
    return stage(
        streamer,
        memory,
        HULL,
        kernel=kernel_of(words, 3),
        first_register=bits(words, 7, 23, 19) | bits(words, 7, 28, 28) << 5,
        scratch=bits(words, 5, 31, 10) << 10,
    )


def shade(
    shader: Stage, state: HullState, vertices: Vertices, patches: NDArray[np.int64]
) -> Generator[Fault | None, None, Vertices]:
    """Run the shader for `patches` [patches, vertices of one]; returns what it wrote: [patches, dwords]."""
    entries = np.zeros((len(patches), state.entry), dtype=np.uint32)
    each = 4 * (state.entry + patches.shape[1] * vertices.shape[1])
    most = max(1, min(threads.MOST // state.instances * WIDTH, ROOM // each))
    for first in range(0, len(patches), most):
        inputs = vertices[patches[first : first + most]]
        count = len(inputs)
        urb = Urb(1, count * each)
        urb.dwords[count * state.entry :] = inputs.reshape(-1)
        rows, lanes = _payload(shader, state, inputs, first)
        yield from threads.run(shader, rows, lanes, ShaderPort(shader, urb))
        entries[first : first + most] = urb.dwords[: count * state.entry].reshape(count, -1)
    return entries


def _payload(shader: Stage, state: HullState, inputs: Vertices, first: int) -> tuple[NDArray[np.uint8], list[int]]:
    """[threads, bytes] for `inputs` [patches, corners, dwords], of which the first has this number; and lanes."""
    count, corners, dwords = inputs.shape
    rows = -(-count // WIDTH)
    place = np.arange(count)
    columns = [4 * state.entry * place]
    if state.primitive_id:
        columns.append(first + place)
    begin = 4 * count * state.entry
    columns += [begin + 4 * dwords * (corners * place + corner) for corner in range(corners)]
    laid = by_lane(np.stack(columns, axis=1).astype(np.uint32), WIDTH)
    registers = np.zeros((rows, max(shader.data_register, 1 + len(columns)), _WORDS), dtype=np.uint32)
    registers[:, 0] = shader.header(rows)
    registers[:, 1 : 1 + len(columns)] = laid
    constants = np.frombuffer(shader.constants.tobytes(), dtype=np.uint32).reshape(-1, _WORDS)
    registers[:, shader.first_register : shader.data_register] = constants
    every = np.repeat(registers, state.instances, axis=0)
    every[:, 0, 2] = np.tile(np.arange(state.instances), rows) | state.instances << 24
    lanes = [(1 << WIDTH) - 1] * rows
    lanes[-1] = (1 << count - (rows - 1) * WIDTH) - 1
    return every.reshape(len(every), -1).view(np.uint8), [lane for lane in lanes for _ in range(state.instances)]


_LEGACY = {Domain.QUAD: (7, 6, 5, 4, 3, 2), Domain.TRIANGLE: (7, 6, 5, 4), Domain.ISOLINE: (6, 7)}
_REVERSED = {Domain.QUAD: (0, 1, 2, 3, 4, 5), Domain.TRIANGLE: (0, 1, 2, 3), Domain.ISOLINE: (1, 0)}
_SEPARATE = {**_REVERSED, Domain.TRIANGLE: (0, 1, 2, 4)}


def factors(domain: Domain, layout: int, entries: Vertices) -> NDArray[np.float32]:
    """[patches, factors]: of patch headers, in the tessellator's order; the layout is 3DSTATE_TE's.

    Where they are: Mesa `brw_nir.c:remap_tess_levels_legacy`, `remap_tess_levels_reversed`.
    """
    places = {2: _REVERSED, 3: _SEPARATE}.get(layout, _LEGACY)[domain]
    return np.ascontiguousarray(entries[:, list(places)]).view(np.float32)
