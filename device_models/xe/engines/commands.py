"""Every command the engines know, declared once: for execution, for traces, for the documentation.

A declaration gives the value that identifies the command in its first dword, how its length is found, its fields, and
what executes it. `Tables` turns the declarations into what the command streamer indexes by bits 31:22.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.engines import blitter, mi, mi_atomic, mi_math, post_sync
from vfio_user_xe.device_models.xe.engines.command_streamer import JUMPED, CommandStreamer, Entry, Handler

MI, BLT, GFXPIPE, STATE, BARRIER = 0, 2, 3, 4, 5
"""Bits 31:29 of a command (instructions/xe_instr_defs.h)."""


@dataclass(frozen=True)
class Field:
    """Bits `high`:`low` of dword `dword` of a command; `high` may reach into the next dword."""

    name: str
    dword: int
    high: int
    low: int = 0

    def of(self, words: memoryview | list[int], index: int = 0) -> int:
        """Its value in the command at `words[index]`."""
        value = words[index + self.dword]
        if self.high > 31 and index + self.dword + 1 < len(words):
            value |= words[index + self.dword + 1] << 32
        return value >> self.low & ((2 << self.high - self.low) - 1)


@dataclass(frozen=True)
class Command:
    """A command: its first dword is `header` in the bits of `mask`.

    `length` is its number of dwords, or 0: then it is two more than the bits of `length_mask` say. With `predicable`
    off it is executed even where MI_SET_PREDICATE makes commands no-ops. Without `execute` it is skipped; `work` says
    that a driver requested something that the device cannot do.
    """

    name: str
    header: int
    mask: int
    execute: Handler | None = None
    length: int = 0
    length_mask: int = 0xFF
    fields: tuple[Field, ...] = ()
    predicable: bool = True
    work: bool = False
    note: str = ""
    pipeline: str = ""
    """The package that executes it, which gives its handler to `Tables`."""


_ADDRESS = 63


def _mi(
    name: str,
    opcode: int,
    execute: Handler | None = None,
    *fields: Field,
    length_mask: int = 0xFF,
    predicable: bool = True,
    note: str = "",
) -> Command:
    """An MI command; opcodes below 0x10 are one dword."""
    single = opcode < 0x10
    return Command(
        name,
        opcode << 23,
        0xFF800000,
        execute,
        length=1 if single else 0,
        length_mask=0 if single else length_mask,
        fields=fields,
        predicable=predicable,
        note=note,
    )


def _blt(name: str, opcode: int, execute: Handler, *fields: Field) -> Command:
    return Command(name, BLT << 29 | opcode << 22, 0xFFC00000, execute, fields=fields)


def _skip(name: str, header: int, mask: int = 0xFFFF0000, *, work: bool = False, length: int = 0) -> Command:
    """A command of the 3D or media pipelines, of which nothing is emulated but its length."""
    return Command(name, header, mask, length=length, length_mask=0 if length else 0xFF, work=work)


def _compute(name: str, header: int, *fields: Field) -> Command:
    """A command of the compute pipeline; `work` where nobody executes it."""
    return Command(name, header, 0xFFFF0000, fields=fields, work=name in _DISPATCHES, pipeline="compute")


_DISPATCHES = frozenset({"COMPUTE_WALKER", "EXECUTE_INDIRECT_DISPATCH"})
GTT, REL = Field("ggtt", 0, 22, 22), Field("cs_relative", 0, 19, 19)

COMMANDS: tuple[Command, ...] = (
    _mi("MI_NOOP", 0x00, mi.noop),
    _mi("MI_SET_PREDICATE", 0x01, mi.set_predicate, Field("mode", 0, 3), predicable=False),
    _mi("MI_USER_INTERRUPT", 0x02, mi.user_interrupt),
    _mi("MI_WAIT_FOR_EVENT", 0x03, mi.noop, note="there is no display to wait for"),
    _mi("MI_FLUSH", 0x04, mi.noop),
    _mi("MI_ARB_CHECK", 0x05, mi.arb_check, Field("preparser_disable", 0, 0), Field("mask", 0, 15, 8)),
    _mi("MI_RS_CONTROL", 0x06, mi.noop),
    _mi("MI_REPORT_HEAD", 0x07, mi.noop),
    _mi("MI_ARB_ON_OFF", 0x08, mi.arb_on_off, Field("enable", 0, 0)),
    _mi("MI_MEM_FENCE", 0x09, mi.noop, Field("type", 0, 1), note="writes are never out of order"),
    _mi("MI_BATCH_BUFFER_END", 0x0A, mi.batch_buffer_end, Field("predicate", 0, 15, 15), predicable=False),
    _mi("MI_SUSPEND_FLUSH", 0x0B, mi.noop),
    _mi("MI_PREDICATE", 0x0C, mi.predicate, Field("load", 0, 7, 6), Field("combine", 0, 4, 3), Field("compare", 0, 1)),
    _mi("MI_TOPOLOGY_FILTER", 0x0D, mi.noop),
    _mi("MI_SET_APPID", 0x0E, mi.noop),
    _mi("MI_RS_CONTEXT", 0x0F, mi.noop),
    _mi("MI_LOAD_SCAN_LINES_INCL", 0x12, mi.noop),
    _mi("MI_LOAD_SCAN_LINES_EXCL", 0x13, mi.noop),
    _mi("MI_DISPLAY_FLIP", 0x14, mi.noop),
    _mi("MI_SET_CONTEXT", 0x18, mi.noop),
    _mi("MI_MATH", 0x1A, mi_math.execute),
    _mi("MI_SEMAPHORE_SIGNAL", 0x1B, mi.noop, note="a semaphore that waits reads memory"),
    _mi(
        "MI_SEMAPHORE_WAIT",
        0x1C,
        mi.semaphore_wait,
        GTT,
        Field("indirect", 0, 17, 17),
        Field("register", 0, 16, 16),
        Field("poll", 0, 15, 15),
        Field("compare", 0, 14, 12),
        Field("data", 1, 31),
        Field("address", 2, _ADDRESS),
    ),
    _mi("MI_FORCE_WAKEUP", 0x1D, mi.noop),
    _mi(
        "MI_STORE_DATA_IMM",
        0x20,
        mi.store_data_imm,
        GTT,
        Field("qword", 0, 21, 21),
        Field("address", 1, _ADDRESS),
        Field("data", 3, 31),
        length_mask=0x3FF,
    ),
    _mi("MI_STORE_DATA_INDEX", 0x21, mi.store_data_index, Field("offset", 1, 11), Field("data", 2, 31)),
    _mi("MI_LOAD_REGISTER_IMM", 0x22, mi.load_register_imm, REL, Field("register", 1, 22), Field("value", 2, 31)),
    _mi(
        "MI_STORE_REGISTER_MEM",
        0x24,
        mi.store_register_mem,
        GTT,
        Field("predicate", 0, 21, 21),
        REL,
        Field("register", 1, 22),
        Field("address", 2, _ADDRESS),
    ),
    _mi(
        "MI_FLUSH_DW",
        0x26,
        post_sync.flush_dw,
        Field("store_index", 0, 21, 21),
        Field("tlb_invalidate", 0, 18, 18),
        Field("flush_ccs", 0, 16, 16),
        Field("post_sync", 0, 15, 14),
        Field("ggtt", 1, 2, 2),
        Field("address", 1, _ADDRESS),
        Field("data", 3, 31),
        length_mask=0x3F,
    ),
    _mi("MI_CLFLUSH", 0x27, mi.noop, length_mask=0x3FF),
    _mi(
        "MI_REPORT_PERF_COUNT",
        0x28,
        mi.noop,
        Field("address", 1, _ADDRESS),
        length_mask=0x3F,
        note="no performance counters",
    ),
    _mi(
        "MI_LOAD_REGISTER_MEM",
        0x29,
        mi.load_register_mem,
        GTT,
        REL,
        Field("register", 1, 22),
        Field("address", 2, _ADDRESS),
    ),
    _mi(
        "MI_LOAD_REGISTER_REG",
        0x2A,
        mi.load_register_reg,
        Field("destination_relative", 0, 19, 19),
        Field("source_relative", 0, 18, 18),
        Field("source", 1, 22),
        Field("destination", 2, 22),
    ),
    _mi(
        "MI_COPY_MEM_MEM",
        0x2E,
        mi.copy_mem_mem,
        Field("source_ggtt", 0, 22, 22),
        Field("destination_ggtt", 0, 21, 21),
        Field("destination", 1, _ADDRESS),
        Field("source", 3, _ADDRESS),
    ),
    _mi(
        "MI_ATOMIC",
        0x2F,
        mi_atomic.execute,
        GTT,
        Field("inline", 0, 18, 18),
        Field("return", 0, 16, 16),
        Field("opcode", 0, 15, 8),
        Field("address", 1, _ADDRESS),
    ),
    _mi(
        "MI_BATCH_BUFFER_START",
        0x31,
        mi.batch_buffer_start,
        Field("nested", 0, 22, 22),
        Field("indirect", 0, 18, 18),
        Field("predicate", 0, 15, 15),
        Field("ppgtt", 0, 8, 8),
        Field("address", 1, _ADDRESS),
        predicable=False,
    ),
    _mi(
        "MI_CONDITIONAL_BATCH_BUFFER_END",
        0x36,
        mi.conditional_batch_buffer_end,
        GTT,
        Field("mask_mode", 0, 19, 19),
        Field("current_level", 0, 18, 18),
        Field("compare", 0, 14, 12),
        Field("data", 1, 31),
        Field("address", 2, _ADDRESS),
        predicable=False,
    ),
    _blt(
        "XY_BLOCK_COPY_BLT",
        0x41,
        blitter.xy_block_copy,
        Field("depth", 0, 21, 19),
        Field("pitch", 1, 17),
        Field("tiling", 1, 31, 30),
        Field("top_left", 2, 31),
        Field("bottom_right", 3, 31),
        Field("destination", 4, _ADDRESS),
        Field("source_top_left", 7, 31),
        Field("source_pitch", 8, 17),
        Field("source_tiling", 8, 31, 30),
        Field("source", 9, _ADDRESS),
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
        Field("destination", 4, _ADDRESS),
        Field("source_top_left", 6, 31),
        Field("source_pitch", 7, 15),
        Field("source", 8, _ADDRESS),
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
        Field("destination", 4, _ADDRESS),
        Field("color", 7, 31),
    ),
    _blt(
        "XY_CTRL_SURF_COPY_BLT",
        0x48,
        blitter.xy_ctrl_surf_copy,
        Field("source_direct", 0, 21, 21),
        Field("destination_direct", 0, 20, 20),
        Field("pages_minus_1", 0, 18, 9),
        Field("source", 1, _ADDRESS),
        Field("destination", 3, _ADDRESS),
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
        Field("source", 5, _ADDRESS),
        Field("destination", 7, _ADDRESS),
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
        Field("destination", 4, _ADDRESS),
        Field("byte", 6, 31, 24),
    ),
    Command(
        "PIPE_CONTROL",
        0x7A000000,
        0xFFFF0000,
        post_sync.pipe_control,
        fields=(
            Field("flags", 1, 31),
            Field("post_sync", 1, 15, 14),
            Field("ggtt", 1, 24, 24),
            Field("address", 2, _ADDRESS),
            Field("data", 4, 63),
        ),
    ),
    # The pipelines: names for traces. Everything else of them is skipped by length too.
    _compute(
        "STATE_BASE_ADDRESS",
        0x61010000,
        Field("general", 1, _ADDRESS),
        Field("surface", 4, _ADDRESS),
        Field("dynamic", 6, _ADDRESS),
        Field("instruction", 10, _ADDRESS),
        Field("bindless_surface", 16, _ADDRESS),
    ),
    _compute("STATE_SIP", 0x61020000, Field("system_routine", 1, _ADDRESS)),
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
        Field("kernel", 19, _ADDRESS),
        Field("threads", 24, 9),
        Field("post_sync", 27, 1),
        Field("post_sync_address", 28, _ADDRESS),
    ),
    _skip("COMPUTE_WALKER_2", 0x72020000, work=True),
    _compute(
        "EXECUTE_INDIRECT_DISPATCH",
        0x7C010000,
        Field("predicate", 0, 8, 8),
        Field("most", 1, 31),
        Field("count_address", 2, _ADDRESS),
        Field("arguments", 4, _ADDRESS),
    ),
    _compute("3DSTATE_BINDING_TABLE_POOL_ALLOC", 0x79190000, Field("base", 1, _ADDRESS)),
    _skip("3DSTATE_SO_DECL_LIST", 0x79170000),
    _skip("3DPRIMITIVE", 0x7B000000, work=True),
    _skip("3DPRIMITIVE_EXTENDED", 0x7B010000, work=True),
    _skip("3DMESH_1D", 0x7B020000, work=True),
    _skip("STATE_WRITE_INLINE", STATE << 29, 0xFC000000),
    _skip("RESOURCE_BARRIER", BARRIER << 29 | 3 << 26, 0xFC000000),
)

_SO_DECL_LIST = 0x7917
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
    if header >> 16 == _SO_DECL_LIST:
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


class Tables:
    """Dispatch tables by bits 31:22 of a command: `normal`, and `noop` for where predication makes no-ops."""

    def __init__(self, commands: Iterable[Command] = COMMANDS, pipelines: Mapping[str, Handler] | None = None) -> None:
        """`pipelines` executes commands of the pipelines (GFXPIPE) by name; without it they are skipped.

        Raises:
            ValueError: a name is not declared.
        """
        self.traced = self
        """The table that is used while commands are traced."""
        self.pipelines: dict[int, Handler] = {}
        """By bits 31:16 of the first dword."""
        unknown: Entry = (_unknown, 1, 0)
        self.normal: list[Entry] = [unknown] * 1024
        for slot in range(1024):
            kind = slot >> 7
            if kind == MI:
                self.normal[slot] = (_unknown, 1, 0) if slot >> 1 & 0x3F < 0x10 else (_unknown, 0, 0xFF)
            elif kind in (BLT, STATE, BARRIER):
                self.normal[slot] = (_unknown if kind == BLT else _skipped, 0, 0xFF)
            elif kind == GFXPIPE:
                self.normal[slot] = (_skipped, 1, 0) if slot >> 5 & 3 == 1 else (_skipped, 0, 0xFF)
        self.noop: list[Entry] = [(_nothing, length, mask) for _, length, mask in self.normal]
        commands = tuple(commands)
        by_name = {command.name: command for command in commands if command.mask == 0xFFFF0000}
        for name, handler in (pipelines or {}).items():
            if name not in by_name:
                raise ValueError(f"{name} is not a declared command of the pipelines")
            self.pipelines[by_name[name].header >> 16] = handler
        for command in commands:
            if command.execute is None:
                continue
            for slot in range(1024):
                header = slot << 22
                if header & command.mask == command.header & command.mask & 0xFFC00000:
                    self._set(slot, command, command.execute)

    def _set(self, slot: int, command: Command, execute: Handler) -> None:
        # Several GFXPIPE commands share a slot with PIPE_CONTROL.
        handler = _pipe_control if command.name == "PIPE_CONTROL" else execute
        self.normal[slot] = (handler, command.length, command.length_mask)
        nothing = _nothing if command.predicable else execute
        self.noop[slot] = (nothing, command.length, command.length_mask)

    def with_trace(self, before: Callable[[CommandStreamer, memoryview, int, int], None]) -> Tables:
        """The same tables, with others for while commands are traced: those call `before` ahead of every command."""
        plain, traced = copy(self), copy(self)
        traced.normal = [(_traced(before, handler), length, mask) for handler, length, mask in self.normal]
        traced.noop = [(_traced(before, handler), length, mask) for handler, length, mask in self.noop]
        plain.traced = traced.traced = traced
        return plain


def _traced(before: Callable[[CommandStreamer, memoryview, int, int], None], handler: Handler) -> Handler:
    def execute(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
        before(streamer, words, index, length)
        return handler(streamer, words, index, length)

    return execute


def _nothing(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    return None


def _unknown(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    streamer.engine.report(f"unknown command {name_of(words[index])} ({words[index]:#010x}) skipped")
    return None


def _skipped(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """A command of the pipelines: executed by who has registered for it, else skipped (SO_DECL_LIST is longer)."""
    header = words[index]
    handler = streamer.tables.pipelines.get(header >> 16)
    if handler is not None:
        return handler(streamer, words, index, length)
    if header >> 16 == _SO_DECL_LIST and header & 0x100:
        streamer.set_place(streamer.place(index + length_of(header)))
        return JUMPED
    command = _BY_HEADER.get((0xFFFF0000, header & 0xFFFF0000))
    if command is not None and command.work:
        streamer.engine.report(f"{command.name} needs execution units, which are not emulated: skipped")
    return None


def _pipe_control(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    if words[index] >> 16 != 0x7A00:
        return _skipped(streamer, words, index, length)
    return post_sync.pipe_control(streamer, words, index, length)


TABLES = Tables()
"""Those of engines that are not traced."""
