"""Domain shader dispatch: 16 points of one patch a thread.

Payload: r0.0 is the patch's handle, r0.1 its number; then u, v, w, handles of the vertices, and behind push constants what is read of
the patch (Mesa `brw_thread_payload.cpp:brw_tes_thread_payload`).
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
from vfio_user_xe.device_models.xe.render.hull_shader import factors
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import DOMAIN, REGISTER, Stage, kernel_of, stage
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.tessellator import Domain, Output, Partitioning, Tessellated, tessellate
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape
from vfio_user_xe.device_models.xe.render.urb import ROOM, Urb

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Vertices = NDArray[np.uint32]
WIDTH = 16
_WORDS = REGISTER // 4
_PAIR = 8
"""Dwords that read offsets and lengths count."""
_COORDINATES, _HANDLES = 1, 4
"""Registers."""


@dataclass(frozen=True, slots=True)
class DomainState:
    """Fields of 3DSTATE_TE and 3DSTATE_DS; sizes in dwords."""

    domain: Domain
    partitioning: Partitioning
    output: Output
    layout: int
    """Of patch headers: 0 legacy, 2 reversed, 3 reversed with a triangle's factor inside in a place of its own."""
    read_offset: int
    read_length: int
    entry: int

    @classmethod
    def of(cls, lrc: Lrc) -> DomainState | None:
        """The context's state now; None without tessellation."""
        te, ds, urb = kept(lrc, Op.TE), kept(lrc, Op.DS), kept(lrc, Op.URB_ALLOC_DS)
        domain = bits(te, 1, 5, 4)
        if not flag(te, 1, 0) or not flag(ds, 7, 0) or domain > Domain.ISOLINE:
            return None
        return cls(
            domain=Domain(domain),
            partitioning=Partitioning(bits(te, 1, 13, 12)),
            output=Output(bits(te, 1, 9, 8)),
            layout=bits(te, 1, 23, 22),
            read_offset=_PAIR * bits(ds, 6, 9, 4),
            read_length=_PAIR * bits(ds, 6, 17, 11),
            entry=_WORDS * (bits(urb, 1, 9, 0) + 1),
        )

    @property
    def shape(self) -> Shape:
        """Of what comes out."""
        if self.output is Output.POINT:
            return Shape.POINT
        return Shape.LINE if self.domain is Domain.ISOLINE else Shape.TRIANGLE


def domain_stage(streamer: CommandStreamer, memory: UnitMemory) -> Stage:
    """The context's domain shader now.

    Raises:
        TranslationFault: an address of its constants is not mapped.
        AccessFault: an address of its constants is refused, or leads nowhere.
    """
    words = kept(streamer.lrc, Op.DS)
    return stage(
        streamer,
        memory,
        DOMAIN,
        kernel=kernel_of(words, 1),
        first_register=bits(words, 6, 24, 20),
        scratch=bits(words, 4, 31, 10) << 10,
    )


def tessellated(state: DomainState, patches: Vertices) -> tuple[list[Tessellated], Primitives]:
    """Points of each of `patches` [patches, dwords], and the primitives of all their points, one patch behind the other."""
    values = factors(state.domain, state.layout, patches)
    found = [tessellate(state.domain, state.partitioning, state.output, tuple(row)) for row in values.tolist()]
    size = {Shape.POINT: 1, Shape.LINE: 2}.get(state.shape, 3)
    starts = np.cumsum([0, *(len(part.places) for part in found)])
    corners = [part.primitives.reshape(-1, size) + start for part, start in zip(found, starts[:-1], strict=True)]
    vertices = np.concatenate(corners) if corners else np.zeros((0, size), dtype=np.int64)
    count = len(vertices)
    owners = np.repeat(np.arange(len(found)), [len(part) for part in corners])
    nothing = np.zeros(count, dtype=np.int64)
    return found, Primitives(
        state.shape, vertices, nothing, np.full(count, min(1, size - 1)), np.full(count, size - 1), number=owners
    )


def shade(
    shader: Stage, state: DomainState, patches: Vertices, points: list[Tessellated]
) -> Generator[Fault | None, None, Vertices]:
    """Run the shader for the points of each of `patches`; returns their vertices: [points, dwords]."""
    owners = [number for number, part in enumerate(points) for _ in range(-(-len(part.places) // WIDTH))]
    total = sum(len(part.places) for part in points)
    shaded = np.zeros((total, state.entry), dtype=np.uint32)
    if not total:
        return shaded
    places = np.concatenate([_padded(part.places) for part in points])
    live = np.concatenate([_live(len(part.places)) for part in points])
    each = 4 * (WIDTH * state.entry + patches.shape[1])
    most = max(1, min(threads.MOST, ROOM // each))
    ends = np.cumsum(live)
    for first in range(0, len(owners), most):
        owned = np.array(owners[first : first + most])
        lanes = live[first : first + most]
        urb = Urb(1, len(owned) * each)
        outputs = len(owned) * WIDTH * state.entry
        urb.dwords[outputs:] = patches[owned].reshape(-1)
        rows = _payload(shader, state, places[first : first + most], patches, owned)
        yield from threads.run(shader, rows, [(1 << int(count)) - 1 for count in lanes], ShaderPort(shader, urb))
        made = urb.dwords[:outputs].reshape(len(owned), WIDTH, state.entry)
        begin, end = ends[first] - live[first], ends[first + len(owned) - 1]
        shaded[begin:end] = made[np.arange(WIDTH) < lanes[:, None]]
    return shaded


def _padded(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """[threads, 3, lanes]"""
    rows = -(-len(places) // WIDTH)
    found = np.zeros((rows * WIDTH, 3), dtype=np.float32)
    found[: len(places)] = places
    return found.reshape(rows, WIDTH, 3).transpose(0, 2, 1)


def _live(count: int) -> NDArray[np.int64]:
    """Lanes of each thread."""
    rows = -(-count // WIDTH)
    return np.minimum(WIDTH, count - WIDTH * np.arange(rows, dtype=np.int64))


def _payload(
    shader: Stage, state: DomainState, places: NDArray[np.float32], patches: Vertices, owners: NDArray[np.int64]
) -> NDArray[np.uint8]:
    rows = len(owners)
    data = -(-state.read_length // _WORDS)
    registers = np.zeros((rows, max(shader.data_register + data, _HANDLES + 1), _WORDS), dtype=np.uint32)
    registers[:, 0] = shader.header(rows)
    registers[:, 0, 0] = 4 * (rows * WIDTH * state.entry + np.arange(rows) * patches.shape[1])
    registers[:, 0, 1] = owners
    registers[:, _COORDINATES:_HANDLES] = np.ascontiguousarray(places).view(np.uint32)
    registers[:, _HANDLES] = (4 * state.entry * np.arange(rows * WIDTH)).reshape(rows, WIDTH)
    constants = np.frombuffer(shader.constants.tobytes(), dtype=np.uint32).reshape(-1, _WORDS)
    registers[:, shader.first_register : shader.data_register] = constants
    read = patches[owners, state.read_offset : state.read_offset + state.read_length]
    flat = registers.reshape(rows, -1)
    start = shader.data_register * _WORDS
    flat[:, start : start + read.shape[1]] = read
    return flat.view(np.uint8)
