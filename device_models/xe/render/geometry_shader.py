"""Geometry shader dispatch: strips of vertices come out of the URB.

A thread has 16 primitives, and a register for each of their vertices with the handles of that vertex, one a lane. If a shader has
several instances, a thread has instances of one primitive, whose vertices' handles are the dwords of one register
(`brw_from_nir.cpp:emit_gs_input_load`).

An entry of what comes out has the number of vertices (unless that is static), control data with a bit a vertex that says whether a strip
ends behind it, and the vertices (`brw_fs_nir.cpp:emit_gs_vertex`, `brw_fs_thread_payload.cpp`).
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
from vfio_user_xe.device_models.xe.render.stage import GEOMETRY, REGISTER, Stage, kernel_of, stage
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape, Topology
from vfio_user_xe.device_models.xe.render.urb import ROOM, Urb

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Indices = NDArray[np.int64]
Vertices = NDArray[np.uint32]
WIDTH = 16
_WORDS = REGISTER // 4
_HWORD = 8
"""Dwords of what sizes are counted in."""
_INSTANCE_SHIFT = 27


@dataclass(frozen=True, slots=True)
class GeometryState:
    """Fields of 3DSTATE_GS; sizes in dwords."""

    read_offset: int
    read_length: int
    handles: bool
    primitive_id: bool
    topology: int
    vertex: int
    header: int
    count: int | None
    """Vertices of every primitive; None: the shader says."""
    streams: bool
    """Control data are streams of vertices, not ends of strips."""
    instances: int
    entry: int
    trailing: bool = False
    """Every other triangle of a strip has its last vertex last, not its first one first."""

    @classmethod
    def of(cls, lrc: Lrc) -> GeometryState | None:
        """The context's state now; None without a geometry shader."""
        words, urb = kept(lrc, Op.GS), kept(lrc, Op.URB_ALLOC_GS)
        if not flag(words, 7, 0):
            return None
        return cls(
            read_offset=bits(words, 6, 9, 4) * _HWORD,
            read_length=bits(words, 6, 16, 11) * _HWORD,
            handles=flag(words, 6, 10),
            primitive_id=flag(words, 7, 4),
            topology=bits(words, 6, 22, 17),
            vertex=4 * (bits(words, 6, 28, 23) + 1),
            header=_HWORD * bits(words, 7, 23, 20),
            count=bits(words, 8, 26, 16) if flag(words, 8, 30) else None,
            streams=flag(words, 8, 31),
            instances=bits(words, 7, 19, 15) + 1,
            entry=_WORDS * (bits(urb, 1, 9, 0) + 1),
            trailing=flag(words, 7, 2),
        )


def geometry_stage(streamer: CommandStreamer, memory: UnitMemory) -> Stage:
    """The context's geometry shader now.

    Raises:
        TranslationFault: an address of its constants is not mapped.
        AccessFault: an address of its constants is refused, or leads nowhere.
    """
    words = kept(streamer.lrc, Op.GS)
    return stage(
        streamer,
        memory,
        GEOMETRY,
        kernel=kernel_of(words, 1),
        first_register=bits(words, 6, 3, 0) | bits(words, 6, 30, 29) << 4,
        scratch=bits(words, 4, 31, 10) << 10,
    )


def shade(
    shader: Stage, state: GeometryState, vertices: Vertices, primitives: Primitives
) -> Generator[Fault | None, None, Vertices]:
    """Run the shader for primitives; returns what it wrote: [primitives, dwords]."""
    seen = primitives.adjacent
    if seen is None:
        seen = primitives.last_behind() if state.trailing else primitives.vertices
    corners = np.repeat(seen, state.instances, axis=0)
    numbers = np.arange(len(seen)) if primitives.number is None else primitives.number
    ids = np.repeat(numbers, state.instances)
    instances = np.tile(np.arange(state.instances), len(primitives.vertices))
    entries = np.zeros((len(corners), state.entry), dtype=np.uint32)
    each = 4 * (state.entry + corners.shape[1] * vertices.shape[1])
    most = max(1, min(threads.MOST * WIDTH, ROOM // each))
    if state.instances > 1:
        # Threads are not shared by primitives: whole ones, each of as many threads as its instances take.
        most = max(1, min(threads.MOST // -(-state.instances // WIDTH), most // state.instances)) * state.instances
    for first in range(0, len(corners), most):
        part = slice(first, first + most)
        count = len(corners[part])
        urb = Urb(1, count * each)
        inputs = vertices[corners[part]].reshape(-1)
        urb.dwords[count * state.entry :] = inputs
        items = _dispatched(count, state.instances)
        rows = _payload(shader, state, items, vertices[corners[part]], ids[part], instances[part])
        lanes = ((items >= 0) << np.arange(WIDTH)).sum(axis=1).tolist()
        yield from threads.run(shader, rows, lanes, ShaderPort(shader, urb))
        entries[part] = urb.dwords[: count * state.entry].reshape(count, -1)
    return entries


def _dispatched(count: int, instances: int) -> Indices:
    """[threads, lanes]: which of `count` items, the instances of each primitive one behind the other, a lane has; -1: none."""
    together = count if instances == 1 else instances
    rows = -(-together // WIDTH)
    within = np.arange(rows * WIDTH)
    items = np.where(within < together, np.arange(0, count, together)[:, None] + within, -1)
    return items.reshape(-1, WIDTH)


def _payload(
    shader: Stage, state: GeometryState, items: Indices, inputs: Vertices, ids: Indices, instances: Indices
) -> NDArray[np.uint8]:
    """[threads, bytes] for `inputs` [items, corners, dwords]; `items`: of each lane (`_dispatched`)."""
    count, corners, dwords = inputs.shape
    rows = len(items)
    place = np.arange(count)
    columns: list[NDArray[np.uint32]] = [
        (4 * state.entry * place).astype(np.uint32) | (instances << _INSTANCE_SHIFT).astype(np.uint32)
    ]
    if state.primitive_id:
        columns.append(ids.astype(np.uint32))
    handles = 4 * count * state.entry + 4 * dwords * np.arange(count * corners).reshape(count, corners)
    if state.handles and state.instances == 1:
        columns += list(handles.T.astype(np.uint32))
    pushed = np.zeros((count, corners, state.read_length), dtype=np.uint32)
    part = inputs[:, :, state.read_offset : state.read_offset + state.read_length]
    pushed[:, :, : part.shape[2]] = part
    registers = np.zeros((rows, shader.data_register + corners * state.read_length, _WORDS), dtype=np.uint32)
    registers[:, 0] = shader.header(rows)
    for number, column in enumerate(columns[: max(0, registers.shape[1] - 1)]):
        registers[:, 1 + number] = np.where(items < 0, 0, column[items])
    if state.handles and state.instances > 1:
        behind = registers.reshape(rows, -1)[:, (1 + len(columns)) * _WORDS :][:, :corners]
        behind[:] = handles[items[:, 0], : behind.shape[1]]
    constants = np.frombuffer(shader.constants.tobytes(), dtype=np.uint32).reshape(-1, _WORDS)
    registers[:, shader.first_register : shader.data_register] = constants
    by_item = np.where(items[:, :, None] < 0, 0, pushed.reshape(count, -1)[items])
    registers[:, shader.data_register :] = by_item.transpose(0, 2, 1)
    return registers.reshape(rows, -1).view(np.uint8)


def strips(state: GeometryState, entries: Vertices, stream: int = 0) -> tuple[Vertices, Primitives]:
    """Vertices, and primitives of one stream, of what the shader wrote: [primitives, dwords]."""
    begin = 0 if state.count is not None else _HWORD
    start = begin + state.header
    room = max(0, (entries.shape[1] - start) // state.vertex)
    counts = np.full(len(entries), state.count) if state.count is not None else entries[:, 0].astype(np.int64)
    counts = np.minimum(counts, room)
    vertices = entries[:, start : start + room * state.vertex].reshape(-1, state.vertex)
    size = {Topology.POINTLIST: 1, Topology.LINESTRIP: 2, Topology.LINELIST: 2}.get(_known(state.topology), 3)
    since = np.zeros(len(entries), dtype=np.int64)
    found: list[Indices] = []
    owners: list[Indices] = []
    odds: list[NDArray[np.bool_]] = []
    for number in range(int(counts.max()) if len(counts) else 0):
        there = (number < counts) & (_control(state, entries, begin, number) == stream if state.streams else True)
        since += there
        complete = np.nonzero(there & (since >= size))[0]
        if len(complete):
            # Of several streams primitives are points.
            window = complete[:, None] * room + number + np.arange(1 - size, 1)
            odd = (since[complete] - size) % 2 == 1
            if size == 3:
                window = np.where(odd[:, None], window[:, [0, 2, 1]], window)
            found.append(window)
            owners.append(complete)
            odds.append(odd)
        if state.header and not state.streams:
            since[there & (_control(state, entries, begin, number) != 0)] = 0
    if not found:
        nothing = np.zeros(0, dtype=np.int64)
        return vertices, Primitives(_shape(size), np.zeros((0, size), dtype=np.int64), nothing, nothing, nothing)
    order = np.argsort(np.concatenate(owners), kind="stable")
    windows, odd = np.concatenate(found)[order], np.concatenate(odds)[order]
    first = np.zeros(len(windows), dtype=np.int64)
    last = np.full(len(windows), size - 1)
    middle = np.full(len(windows), min(1, size - 1))
    if size == 3:
        middle, last = np.where(odd, 2, 1), np.where(odd, 1, 2)
    return vertices, Primitives(_shape(size), windows, first, middle, last)


def _control(state: GeometryState, entries: Vertices, begin: int, number: int) -> NDArray[np.uint32]:
    """Control data of a vertex: one bit, or two that are a stream."""
    width = 2 if state.streams else 1
    dword = begin + width * number // 32
    if dword >= min(begin + state.header, entries.shape[1]):
        return np.zeros(len(entries), dtype=np.uint32)
    return np.asarray(entries[:, dword] >> np.uint32(width * number % 32) & np.uint32((1 << width) - 1))


def _known(topology: int) -> Topology:
    try:
        return Topology(topology)
    except ValueError:
        return Topology.TRISTRIP


def _shape(size: int) -> Shape:
    return {1: Shape.POINT, 2: Shape.LINE}.get(size, Shape.TRIANGLE)
