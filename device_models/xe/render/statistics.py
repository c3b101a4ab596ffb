"""Pipeline statistics: registers of 64 bits that belong to the context (genxml IA_VERTICES_COUNT and its like)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.engines.perf_events import Event
from vfio_user_xe.device_models.xe.engines.post_sync import PS_DEPTH_COUNT
from vfio_user_xe.device_models.xe.render.fields import flag
from vfio_user_xe.device_models.xe.render.state import Op, kept

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer


class Count(IntEnum):
    """Offsets from the engine's base."""

    HS_INVOCATION = 0x300
    DS_INVOCATION = 0x308
    IA_VERTICES = 0x310
    IA_PRIMITIVES = 0x318
    VS_INVOCATION = 0x320
    GS_INVOCATION = 0x328
    GS_PRIMITIVES = 0x330
    CL_INVOCATION = 0x338
    CL_PRIMITIVES = 0x340
    PS_INVOCATION = 0x348
    PS_DEPTH = PS_DEPTH_COUNT
    MESH_PRIMITIVE = 0x6D8
    MESH_INVOCATION = 0x6E0
    TASK_INVOCATION = 0x6E8


_EVENTS = {
    Count.IA_VERTICES: Event.IA_VERTEX,
    Count.IA_PRIMITIVES: Event.IA_PRIMITIVE,
    Count.CL_PRIMITIVES: Event.CLIPPER_PRIMITIVE_OUTPUT,
}
"""Performance events that are the same, and are counted whether the context enables its statistics or not."""

_ENABLES = {
    Count.IA_VERTICES: (Op.VF_STATISTICS, 0, 0),
    Count.IA_PRIMITIVES: (Op.VF_STATISTICS, 0, 0),
    Count.HS_INVOCATION: (Op.HS, 2, 29),
    Count.DS_INVOCATION: (Op.DS, 7, 10),
    Count.VS_INVOCATION: (Op.VS, 7, 10),
    Count.GS_INVOCATION: (Op.GS, 7, 10),
    Count.GS_PRIMITIVES: (Op.GS, 7, 10),
    Count.CL_INVOCATION: (Op.CLIP, 1, 10),
    Count.CL_PRIMITIVES: (Op.CLIP, 1, 10),
    Count.PS_INVOCATION: (Op.WM, 1, 31),
    Count.PS_DEPTH: (Op.WM, 1, 31),
    Count.MESH_PRIMITIVE: (Op.MESH_CONTROL, 1, 30),
    Count.MESH_INVOCATION: (Op.MESH_CONTROL, 1, 30),
    Count.TASK_INVOCATION: (Op.TASK_CONTROL, 1, 30),
}
"""Command, dword and bit that enable each."""


def add(streamer: CommandStreamer, count: Count, number: int) -> None:
    """Count up, if the context's state says that it is to be counted."""
    lrc = streamer.lrc
    event = _EVENTS.get(count)
    if event is not None:
        streamer.engine.counted[event] += number
    if not number or not flag(kept(lrc, _ENABLES[count][0]), *_ENABLES[count][1:]):
        return
    offset = streamer.base + count
    value = (lrc.registers.get(offset, 0) | lrc.registers.get(offset + 4, 0) << 32) + number
    lrc.registers[offset] = value & 0xFFFF_FFFF
    lrc.registers[offset + 4] = value >> 32 & 0xFFFF_FFFF
