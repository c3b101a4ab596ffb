"""EXECUTE_INDIRECT_DRAW: draws whose parameters come from an array in memory, and their number too if it says so."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.engines.command_streamer import THREADS
from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault
from vfio_user_xe.device_models.xe.render import following
from vfio_user_xe.device_models.xe.render.draw import Draw, MeshDraw
from vfio_user_xe.device_models.xe.render.fields import Words, address, bits, flag, signed
from vfio_user_xe.device_models.xe.render.primitive import in_slices, wanted
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

_SEQUENTIAL, _INDEXED, _MESH_3D, _MESH_1D = range(4)


def _vertices(words: Words) -> Draw:
    """VkDrawIndirectCommand: extended parameters are the first vertex, the first instance, and the draw's number, which is 0."""
    count, instances, first, first_instance = words
    return Draw(0, False, count, first, instances, first_instance, 0, (first, first_instance, 0))


def _indexed(words: Words) -> Draw:
    """VkDrawIndexedIndirectCommand."""
    count, instances, first, base, first_instance = words
    return Draw(0, True, count, first, instances, first_instance, signed(base), (base, first_instance, 0))


def _groups(words: Words) -> MeshDraw:
    """VkDrawMeshTasksIndirectCommandEXT."""
    x, y, z = words
    return MeshDraw((x, y, z))


def _row_of_groups(words: Words) -> MeshDraw:
    """VkDrawMeshTasksIndirectCommandNV."""
    count, first = words
    return MeshDraw((count, 1, 1), first)


_FORMATS: dict[int, tuple[int, Callable[[Words], Draw | MeshDraw]]] = {
    _SEQUENTIAL: (4, _vertices),
    _INDEXED: (5, _indexed),
    _MESH_3D: (3, _groups),
    _MESH_1D: (2, _row_of_groups),
}
"""By argument format: dwords of a draw's parameters, and what they mean."""


def execute_indirect_draw(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """EXECUTE_INDIRECT_DRAW."""
    dwords = words[index : index + length].tolist()
    if not wanted(streamer, dwords[0]):
        return None
    streamer.lrc.bulk = in_slices(streamer, _draws(streamer, dwords, streamer.place(index)))
    return THREADS


def _draws(streamer: CommandStreamer, dwords: Words, begin: int) -> Bulk:
    count = bits(dwords, 1, 31, 0)
    size, parse = _FORMATS[bits(dwords, 0, 11, 10)]
    stride = kept(streamer.lrc, Op.STATE_BYTE_STRIDE)
    step = bits(stride, 1, 31, 2) << 2 if flag(stride, 0, 8) else 4 * size
    if flag(dwords, 2, 0):
        count = min(count, int.from_bytes((yield from _read(streamer, address(dwords, 2, 2), 4)), "little"))
    for number in range(count):
        # Also between draws of nothing: their number is the guest's.
        yield None
        data = yield from _read(streamer, address(dwords, 4, 2) + number * step, 4 * size)
        draw = parse(memoryview(data).cast("I").tolist())
        if isinstance(draw, MeshDraw):
            empty = not draw.total
        else:
            empty = not draw.vertices or not draw.instances
        if empty:
            continue
        streamer.engine.counted[Event.RENDER_ENGINE_DRAW_COUNT] += 1
        yield from following.run_one(streamer, draw, begin)
        begin = streamer.lrc.bulk_end


def _read(streamer: CommandStreamer, where: int, length: int) -> Generator[Fault | None, None, bytes]:
    while True:
        try:
            return streamer.lrc.space.read(where, length)
        except (TranslationFault, AccessFault) as fault:
            yield fault
