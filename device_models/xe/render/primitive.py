"""3DPRIMITIVE, 3DMESH_1D, 3DMESH_3D: predicated, indirect or neither, handed to the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.engines import register_access as regs
from vfio_user_xe.device_models.xe.engines.command_streamer import THREADS
from vfio_user_xe.device_models.xe.engines.engine_regs import MI_PREDICATE_RESULT
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.render import following
from vfio_user_xe.device_models.xe.render.draw import Draw, MeshDraw
from vfio_user_xe.device_models.xe.render.fields import bits, signed
from vfio_user_xe.device_models.xe.render.topology import PATCHLIST_1

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

_PREDICATE, _INDIRECT, _EXTENDED = 1 << 8, 1 << 10, 1 << 11
_JOINED, _JOINED_VERTICES = 512, 1 << 16
"""Commands, and vertices, that become one draw at most."""
_PATIENCE_NS = 500_000_000
"""How long a draw goes on whose context is to leave the engine."""
_START_VERTEX, _VERTICES, _INSTANCES, _START_INSTANCE, _BASE_VERTEX = 0x430, 0x434, 0x438, 0x43C, 0x440
"""3DPRIM_* registers, from the engine's base."""
_PARAMETERS = (0x690, 0x694, 0x698)
"""3DPRIM_XP0 to XP2."""
_GROUPS, _FIRST_GROUP = 0x6F0, 0x6F4
"""3DMESH_TG_COUNT, and where the groups of a 3DMESH_1D begin; those of a 3DMESH_3D have their Y and Z in 3DPRIM_XP1 and XP2
(Mesa `genX_cmd_draw.c:mesh_load_indirect_parameters_3dmesh_3d`)."""
_HAS_DRAW = 1 << 14
"""Extended parameter 0 is there."""


def wanted(streamer: CommandStreamer, header: int) -> bool:
    """MI_PREDICATE_RESULT lets a command with this header draw."""
    return not header & _PREDICATE or bool(regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1)


def mesh_1d(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DMESH_1D."""
    dwords = words[index : index + length].tolist()
    count, first = bits(dwords, 1, 31, 0), bits(dwords, 2, 31, 0)
    if dwords[0] & _INDIRECT:
        count, first = (regs.read(streamer, streamer.base + offset) for offset in (_GROUPS, _FIRST_GROUP))
    return _meshes(streamer, dwords, index, MeshDraw((count, 1, 1), first, _draw_of(streamer, dwords, 3)))


def mesh_3d(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DMESH_3D."""
    dwords = words[index : index + length].tolist()
    x, y, z = (bits(dwords, dword, 31, 0) for dword in (1, 2, 3))
    if dwords[0] & _INDIRECT:
        x, y, z = (regs.read(streamer, streamer.base + offset) for offset in (_GROUPS, *_PARAMETERS[1:]))
    return _meshes(streamer, dwords, index, MeshDraw((x, y, z), 0, _draw_of(streamer, dwords, 4)))


def _draw_of(streamer: CommandStreamer, dwords: list[int], dword: int) -> int:
    """Extended parameter 0 of a mesh draw; 0 if it has none."""
    if not dwords[0] & _HAS_DRAW:
        return 0
    return regs.read(streamer, streamer.base + _PARAMETERS[0]) if dwords[0] & _INDIRECT else bits(dwords, dword, 31, 0)


def _meshes(streamer: CommandStreamer, dwords: list[int], index: int, draw: MeshDraw) -> int | None:
    if not draw.total or not wanted(streamer, dwords[0]):
        return None
    streamer.engine.counted[Event.RENDER_ENGINE_DRAW_COUNT] += 1
    streamer.lrc.bulk = in_slices(streamer, following.run_one(streamer, draw, streamer.place(index)))
    return THREADS


def primitive(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DPRIMITIVE, with or without extended parameters."""
    dwords = words[index : index + length].tolist()
    if not wanted(streamer, dwords[0]):
        return None
    draw = Draw.of(dwords)
    if dwords[0] & _INDIRECT:
        first, vertices, instances, first_instance, base = (
            regs.read(streamer, streamer.base + offset)
            for offset in (_START_VERTEX, _VERTICES, _INSTANCES, _START_INSTANCE, _BASE_VERTEX)
        )
        extended = draw.extended
        if dwords[0] & _EXTENDED:
            x, y, z = (regs.read(streamer, streamer.base + offset) for offset in _PARAMETERS)
            extended = (x, y, z)
        draw = replace(
            draw,
            extended=extended,
            first=first,
            vertices=vertices,
            instances=instances,
            first_instance=first_instance,
            base_vertex=signed(base),
        )
    if not draw.vertices or not draw.instances:
        return None
    draws = [draw, *_following(streamer, draw, words, index, length)]
    streamer.engine.counted[Event.RENDER_ENGINE_DRAW_COUNT] += len(draws)
    begin = streamer.place(index)
    streamer.lrc.bulk = in_slices(streamer, following.run(streamer, draws, begin, length))
    return THREADS


def _following(streamer: CommandStreamer, draw: Draw, words: memoryview, index: int, length: int) -> Iterator[Draw]:
    """Draws of the commands behind it that differ in their vertices alone, as far as they lie in this piece of a batch."""
    header, kind, stack = words[index], words[index + 1], streamer.lrc.stack
    if header & (_PREDICATE | _INDIRECT) or draw.instances != 1 or draw.topology >= PATCHLIST_1:
        return
    if not stack or stack[-1].limit or streamer.tap.on:
        return
    vertices = draw.vertices
    for at in range(index + length, min(len(words), index + _JOINED * length) - length + 1, length):
        if words[at] != header or words[at + 1] != kind:
            return
        found = Draw.of(words[at : at + length].tolist())
        alike = replace(found, vertices=draw.vertices, first=draw.first) == draw
        vertices += found.vertices
        if not alike or not found.vertices or vertices > _JOINED_VERTICES:
            return
        yield found


def in_slices(streamer: CommandStreamer, steps: Bulk) -> Bulk:
    """Steps of a draw, between which others may have the engine; the draw goes on where it was.

    A context that is to leave for good (its function is paused, or it is disabled) may be saved for another card, where the draw would
    begin anew: it first has time to end.
    """
    lrc, clock = streamer.lrc, streamer.engine.clock
    asked: int | None = None
    for step in steps:
        asked = (asked or clock.ns()) if streamer.preempt and streamer.leaving else None
        lrc.bulk_preemptible = asked is None or clock.ns() - asked >= _PATIENCE_NS
        yield step
