"""Commands of the copy engines, declared (`instructions/xe_gpu_commands.h`, genxml); `blitter.py` executes them."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines import blitter
from vfio_user_xe.device_models.xe.engines.command import ADDRESS, BLT, Command, Field
from vfio_user_xe.device_models.xe.engines.command_streamer import Handler


def _blt(name: str, opcode: int, execute: Handler, *fields: Field) -> Command:
    return Command(name, BLT << 29 | opcode << 22, 0xFFC00000, execute, fields=fields)


BLT_COMMANDS: tuple[Command, ...] = (
    _blt(
        "XY_BLOCK_COPY_BLT",
        0x41,
        blitter.xy_block_copy,
        Field("depth", 0, 21, 19),
        Field("pitch", 1, 17),
        Field("tiling", 1, 31, 30),
        Field("top_left", 2, 31),
        Field("bottom_right", 3, 31),
        Field("destination", 4, ADDRESS),
        Field("source_top_left", 7, 31),
        Field("source_pitch", 8, 17),
        Field("source_tiling", 8, 31, 30),
        Field("source", 9, ADDRESS),
    ),
    _blt(
        "XY_FAST_COPY_BLT",
        0x42,
        blitter.xy_fast_copy,
        Field("source_tiling", 0, 21, 20),
        Field("tiling", 0, 14, 13),
        Field("depth", 1, 26, 24),
        Field("pitch", 1, 15),
        Field("top_left", 2, 31),
        Field("bottom_right", 3, 31),
        Field("destination", 4, ADDRESS),
        Field("source_top_left", 6, 31),
        Field("source_pitch", 7, 15),
        Field("source", 8, ADDRESS),
    ),
    _blt(
        "XY_FAST_COLOR_BLT",
        0x44,
        blitter.xy_fast_color,
        Field("depth", 0, 21, 19),
        Field("pitch", 1, 17),
        Field("tiling", 1, 31, 30),
        Field("top_left", 2, 31),
        Field("bottom_right", 3, 31),
        Field("destination", 4, ADDRESS),
        Field("color", 7, 31),
    ),
    _blt(
        "XY_CTRL_SURF_COPY_BLT",
        0x48,
        blitter.xy_ctrl_surf_copy,
        Field("source_direct", 0, 21, 21),
        Field("destination_direct", 0, 20, 20),
        Field("pages_minus_1", 0, 18, 9),
        Field("source", 1, ADDRESS),
        Field("destination", 3, ADDRESS),
    ),
    _blt(
        "MEM_COPY",
        0x5A,
        blitter.mem_copy,
        Field("page_mode", 0, 19, 19),
        Field("matrix", 0, 17, 17),
        Field("width_minus_1", 1, 23),
        Field("height_minus_1", 2, 17),
        Field("source_pitch_minus_1", 3, 17),
        Field("pitch_minus_1", 4, 17),
        Field("source", 5, ADDRESS),
        Field("destination", 7, ADDRESS),
    ),
    _blt(
        "MEM_SET",
        0x5B,
        blitter.mem_set,
        Field("mode", 0, 20, 19),
        Field("matrix", 0, 17, 17),
        Field("width_minus_1", 1, 23),
        Field("height_minus_1", 2, 17),
        Field("pitch_minus_1", 3, 17),
        Field("destination", 4, ADDRESS),
        Field("byte", 6, 31, 24),
    ),
)
