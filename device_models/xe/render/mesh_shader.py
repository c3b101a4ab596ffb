"""Task and mesh shaders: groups of threads in place of vertices, whose URB entries are primitives with their own vertices.

A task group's entry begins with how many mesh groups it launches, and in which dimensions; the rest is theirs to read. A mesh
group's entry has the number of primitives, their indices, data of each primitive, and vertices
(Mesa `brw_compile_mesh.cpp:brw_nir_lower_launch_mesh_workgroups_instr`, `brw_compute_mue_map`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.descriptors import BadDescriptor
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.render.draw import MeshDraw
from vfio_user_xe.device_models.xe.render.fields import bits, flag
from vfio_user_xe.device_models.xe.render.stage import MESH, TASK, Bindings, Stage, kernel_of, stage
from vfio_user_xe.device_models.xe.render.state import Op, has_meshes, kept
from vfio_user_xe.device_models.xe.render.statistics import Count, add
from vfio_user_xe.device_models.xe.render.thread_groups import Entries, GroupState, Launch, most_groups, shade
from vfio_user_xe.device_models.xe.render.topology import Primitives, Shape, listed

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Vertices = NDArray[np.uint32]
_HWORD = 8
"""Dwords of what pitches are counted in, and to which parts of an entry are aligned."""
_LAYER, _VIEWPORT, _CULLED = 1, 2, 3
"""Dwords of a primitive's header. Bit 0 of the last is of the first view, which is the only one."""
_MOST = {_LAYER: 2047, _VIEWPORT: 15}
"""A layer or viewport beyond these is 0, as Direct3D has it of those that are not there: a shader that Mesa 26.1 compiles leaves
0x3c003c00 in all dwords of the header that it has nothing for, a shading rate of 1 by 1."""
_SHAPES = {0: Shape.POINT, 1: Shape.LINE, 2: Shape.TRIANGLE}
_CORNERS = {Shape.POINT: 1, Shape.LINE: 2, Shape.TRIANGLE: 3}


class IndexFormat(IntEnum):
    """3DSTATE_MESH_SHADER dword 7, 27:25: those that are taken apart."""

    U888X = 0
    U101010X = 1
    U32 = 3


_PACKED = {IndexFormat.U888X: 8, IndexFormat.U101010X: 10}
"""Bits of an index of those that are in one dword."""


class UnknownMesh(ValueError):
    """Primitives that are not assembled; the text says of what kind."""


_MOST_GROUPS = (1 << 32) - 1
"""A group's number is a dword of its payload."""


@dataclass(frozen=True, slots=True)
class MeshState:
    """Fields of 3DSTATE_MESH_SHADER that say what entries are like; sizes in dwords."""

    groups: GroupState
    most: int
    """Primitives of a group at most."""
    primitive: int
    """Data of a primitive."""
    vertex: int
    indices: IndexFormat
    shape: Shape
    header: bool
    """Data of primitives begin with a header (3DSTATE_CLIP_MESH)."""

    @classmethod
    def of(cls, lrc: Lrc) -> MeshState:
        """The context's state now.

        Raises:
            BadDescriptor: the SLM size or the width of threads has no meaning.
            UnknownMesh: its primitives are not assembled.
        """
        words = kept(lrc, Op.MESH_SHADER)
        topology, indices = bits(words, 7, 29, 28), bits(words, 7, 27, 25)
        if topology not in _SHAPES or indices not in list(IndexFormat):
            raise UnknownMesh(f"output topology {topology} with index format {indices}")
        return cls(
            groups=GroupState.of(words, kept(lrc, Op.MESH_SHADER_DATA), kept(lrc, Op.URB_ALLOC_MESH)),
            most=bits(words, 7, 9, 0) + 1,
            primitive=_HWORD * bits(words, 7, 16, 12) if flag(words, 7, 31) else 0,
            vertex=_HWORD * bits(words, 7, 24, 20),
            indices=IndexFormat(indices),
            shape=_SHAPES[topology],
            header=flag(kept(lrc, Op.CLIP_MESH), 1, 16),
        )


@dataclass(frozen=True)
class Meshes:
    """What several groups have made."""

    vertices: Vertices
    primitives: Primitives
    own: NDArray[np.uint32]
    """[primitives, dwords]: data of each."""
    count: int
    """Primitives, with those that the shader has culled."""


def meshes(state: MeshState, entries: Entries) -> Meshes:
    """Vertices and primitives of entries. An index behind the entry's last vertex makes its primitive disappear."""
    count, corners = len(entries), _CORNERS[state.shape]
    stride = corners if state.indices is IndexFormat.U32 else 1
    begin = -(-(1 + stride * state.most) // _HWORD) * _HWORD
    middle = begin + state.primitive * state.most
    room = (entries.shape[1] - middle) // state.vertex if state.vertex else 0
    if room <= 0:
        nothing = np.zeros((0, max(state.vertex, 1)), dtype=np.uint32)
        return Meshes(nothing, listed(state.shape, np.zeros((0, corners), dtype=np.int64)), nothing, 0)
    there = np.arange(state.most) < entries[:, :1]
    written = entries[:, 1 : 1 + stride * state.most].reshape(count, state.most, stride)
    packed = _PACKED.get(state.indices)
    if packed is not None:
        shifts = np.arange(corners, dtype=np.uint32) * np.uint32(packed)
        written = written >> shifts & np.uint32((1 << packed) - 1)
    own = entries[:, begin:middle].reshape(count, state.most, state.primitive)
    seen = there & (written < room).all(axis=2)
    headed = state.header and state.primitive >= _HWORD
    if headed:
        seen &= own[:, :, _CULLED] & 1 == 0
    group, which = np.nonzero(seen)
    vertices = entries[:, middle : middle + room * state.vertex].reshape(count * room, state.vertex)
    places = written[group, which].astype(np.int64) + room * group[:, None]
    chosen = own[group, which]
    selected = {at: np.where(chosen[:, at] <= most, chosen[:, at], 0) for at, most in _MOST.items()} if headed else {}
    if any(numbers.any() for numbers in selected.values()):
        # Layers and viewports are the primitives', and stages behind look for them in vertices.
        vertices = vertices[places.reshape(-1)]
        vertices[:, 0] = 0
        for at, numbers in selected.items():
            vertices[:, at] = np.repeat(numbers, corners)
        places = np.arange(len(vertices), dtype=np.int64).reshape(-1, corners)
    else:
        vertices = vertices.copy()
        vertices[:, : _VIEWPORT + 1] = 0
    return Meshes(vertices, listed(state.shape, places), chosen, int(np.count_nonzero(there)))


def draw(streamer: CommandStreamer, memory: UnitMemory, mesh_draw: MeshDraw, then: Callable[[Meshes], Bulk]) -> Bulk:
    """All groups of a draw, in their order; `then` draws what some of them have made."""
    lrc, report = streamer.lrc, streamer.engine.report
    if not has_meshes(lrc):
        report("a draw of meshes is skipped: 3DSTATE_MESH_CONTROL enables no mesh shader")
        return
    try:
        state, task = MeshState.of(lrc), _task(lrc)
    except (UnknownMesh, BadDescriptor) as unknown:
        report(f"a draw of meshes is skipped: {unknown} is not drawn")
        return
    if mesh_draw.total > _MOST_GROUPS:
        report(f"a draw of {mesh_draw.total} thread groups of meshes is skipped: {_MOST_GROUPS} are drawn at most")
        return
    shader = _stage(streamer, memory, MESH, Op.MESH_CONTROL)
    x, y, z = mesh_draw.groups
    first = Launch(
        np.array([[x, y, z]], dtype=np.uint32),
        np.array([mesh_draw.total], dtype=np.int64),
        mesh_draw.first,
        mesh_draw.draw,
    )
    if task is None:
        yield from _launched(streamer, shader, state, first, None, then)
        return
    tasks = _stage(streamer, memory, TASK, Op.TASK_CONTROL)
    for groups in first.pieces(most_groups(task)):
        add(streamer, Count.TASK_INVOCATION, len(groups) * task.invocations)
        entries = yield from shade(tasks, task, groups)
        dimensions, totals = entries[:, 1:4], entries[:, 0].astype(np.int64)
        launch = Launch(dimensions, totals, 0, mesh_draw.draw)
        yield from _launched(streamer, shader, state, launch, entries, then)


def _launched(
    streamer: CommandStreamer,
    shader: Stage,
    state: MeshState,
    launch: Launch,
    inputs: Entries | None,
    then: Callable[[Meshes], Bulk],
) -> Bulk:
    """Mesh groups, of a draw or of tasks."""
    most = most_groups(state.groups, 0 if inputs is None else inputs.shape[1])
    for groups in launch.pieces(most):
        add(streamer, Count.MESH_INVOCATION, len(groups) * state.groups.invocations)
        entries = yield from shade(shader, state.groups, groups, inputs)
        made = meshes(state, entries)
        add(streamer, Count.MESH_PRIMITIVE, made.count)
        yield None
        yield from then(made)


def _task(lrc: Lrc) -> GroupState | None:
    """The task shader's groups; None: there is none.

    Raises:
        BadDescriptor: the SLM size or the width of threads has no meaning.
    """
    if not flag(kept(lrc, Op.TASK_CONTROL), 1, 31):
        return None
    return GroupState.of(kept(lrc, Op.TASK_SHADER), kept(lrc, Op.TASK_SHADER_DATA), kept(lrc, Op.URB_ALLOC_TASK))


def _stage(streamer: CommandStreamer, memory: UnitMemory, bindings: Bindings, control: Op) -> Stage:
    return stage(
        streamer,
        memory,
        bindings,
        kernel=kernel_of(kept(streamer.lrc, bindings.command), 1),
        first_register=1,
        scratch=bits(kept(streamer.lrc, control), 2, 31, 10) << 10,
    )
