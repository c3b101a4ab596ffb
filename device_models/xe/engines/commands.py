"""Every command the engines know, declared once: for execution, for traces, for the documentation.

A declaration gives the value that identifies the command in its first dword, how its length is found, its fields, and
what executes it; those of the pipelines are here. `command_tables.py` turns them into what the command streamer indexes.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines import post_sync
from vfio_user_xe.device_models.xe.engines.blt_commands import BLT_COMMANDS
from vfio_user_xe.device_models.xe.engines.command import ADDRESS, BARRIER, BLT, GFXPIPE, MI, STATE, Command, Field
from vfio_user_xe.device_models.xe.engines.mi_commands import MI_COMMANDS
from vfio_user_xe.device_models.xe.engines.render_commands import RENDER_COMMANDS


def _skip(name: str, header: int, mask: int = 0xFFFF0000, *, work: bool = False, length: int = 0) -> Command:
    """A command of the 3D or media pipelines, of which nothing is emulated but its length."""
    return Command(name, header, mask, length=length, length_mask=0 if length else 0xFF, work=work)


def _compute(name: str, header: int, *fields: Field) -> Command:
    """A command of the compute pipeline; `work` where nobody executes it."""
    return Command(name, header, 0xFFFF0000, fields=fields, work=name in _DISPATCHES, pipeline="compute")


_DISPATCHES = frozenset({"COMPUTE_WALKER", "EXECUTE_INDIRECT_DISPATCH"})

COMMANDS: tuple[Command, ...] = (
    *MI_COMMANDS,
    *BLT_COMMANDS,
    Command(
        "PIPE_CONTROL",
        0x7A000000,
        0xFFFF0000,
        post_sync.pipe_control,
        fields=(
            Field("flags", 1, 31),
            Field("post_sync", 1, 15, 14),
            Field("ggtt", 1, 24, 24),
            Field("address", 2, ADDRESS),
            Field("data", 4, 63),
        ),
    ),
    # The pipelines: names for traces. Everything else of them is skipped by length too.
    _compute(
        "STATE_BASE_ADDRESS",
        0x61010000,
        Field("general", 1, ADDRESS),
        Field("surface", 4, ADDRESS),
        Field("dynamic", 6, ADDRESS),
        Field("instruction", 10, ADDRESS),
        Field("bindless_surface", 16, ADDRESS),
    ),
    _compute("STATE_SIP", 0x61020000, Field("system_routine", 1, ADDRESS)),
    _compute("STATE_COMPUTE_MODE", 0x61050000),
    _skip("STATE_SYSTEM_MEM_FENCE_ADDRESS", 0x61090000),
    _skip("STATE_CONTEXT_DATA_BASE_ADDRESS", 0x610B0000),
    _skip("PIPELINE_SELECT", 0x69040000, length=1),
    _skip("MFX_WAIT", 0x68000000, length=1),
    _compute("CFE_STATE", 0x72000000, Field("scratch", 1, 31, 10), Field("most_threads", 3, 31, 16)),
    _compute(
        "COMPUTE_WALKER",
        0x72080000,
        Field("predicate", 0, 8, 8),
        Field("indirect", 0, 10, 10),
        Field("indirect_data", 3, 31),
        Field("simd", 4, 31, 30),
        Field("x", 7, 31),
        Field("y", 8, 31),
        Field("z", 9, 31),
        Field("kernel", 19, ADDRESS),
        Field("threads", 24, 9),
        Field("post_sync", 27, 1),
        Field("post_sync_address", 28, ADDRESS),
    ),
    _skip("COMPUTE_WALKER_2", 0x72020000, work=True),
    _compute(
        "EXECUTE_INDIRECT_DISPATCH",
        0x7C010000,
        Field("predicate", 0, 8, 8),
        Field("most", 1, 31),
        Field("count_address", 2, ADDRESS),
        Field("arguments", 4, ADDRESS),
    ),
    _compute("3DSTATE_BINDING_TABLE_POOL_ALLOC", 0x79190000, Field("base", 1, ADDRESS)),
    *RENDER_COMMANDS,
    _skip("STATE_WRITE_INLINE", STATE << 29, 0xFC000000),
    _skip("RESOURCE_BARRIER", BARRIER << 29 | 3 << 26, 0xFC000000),
)

SO_DECL_LIST = 0x7917
"""Bits 31:16 of 3DSTATE_SO_DECL_LIST, whose length has 9 bits."""
_SO_DECL_LIST_LENGTH = 0x1FF
_BY_HEADER: dict[tuple[int, int], Command] = {(command.mask, command.header): command for command in COMMANDS}
_MASKS = sorted({command.mask for command in COMMANDS}, reverse=True)


def find(header: int) -> Command | None:
    """The command whose first dword is `header`; None for those that are not declared."""
    for mask in _MASKS:
        found = _BY_HEADER.get((mask, header & mask))
        if found is not None:
            return found
    return None


def length_of(header: int) -> int:
    """How many dwords the command has, declared or not (`xe_lrc.c:instr_dw`)."""
    if header >> 16 == SO_DECL_LIST:
        return (header & _SO_DECL_LIST_LENGTH) + 2
    command = find(header)
    if command is not None:
        return command.length or (header & command.length_mask) + 2
    kind = header >> 29
    if kind == MI:
        return 1 if header >> 23 & 0x3F < 0x10 else (header & 0xFF) + 2
    if kind == GFXPIPE and header >> 27 & 3 == 1:
        return 1
    if kind in (BLT, GFXPIPE, STATE, BARRIER):
        return (header & 0xFF) + 2
    return 1


def name_of(header: int) -> str:
    """The command's name, or one made of its numbers."""
    command = find(header)
    if command is not None:
        return command.name
    kind = header >> 29
    if kind == MI:
        return f"MI_{header >> 23 & 0x3F:02X}"
    if kind == BLT:
        return f"BLT_{header >> 22 & 0x7F:02X}"
    if kind == GFXPIPE:
        return f"GFXPIPE_{header >> 16:04X}"
    return f"UNKNOWN_{header:08X}"
