"""Registers as commands reach them: an engine's own, those that belong to a context, and the rest of the GT.

A context may read and write its engine's registers; what it writes is its own and goes with it. From the ring and
from GGTT batches the function's registers can be written too, by the function's own register file, so that a VF
reaches no more than its driver could. Other batches are restricted to the user mode non-privileged registers
(`engine_regs.py` and below) and to what the driver has listed in RING_FORCE_TO_NONPRIV (`regs/xe_engine_regs.h`);
what they write elsewhere is dropped, as by hardware, and reported by the register's name.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
from vfio_user_xe.device_models.xe.engines.engine_regs import (
    CS_GPR,
    ENGINE_REGISTERS,
    FUNCTION_OFFSETS,
    MASKED_OFFSETS,
    NONPRIV_SLOTS,
    PR_CTR_CTRL,
    RING_CTX_TIMESTAMP,
    RING_FORCE_TO_NONPRIV,
    RING_IMR,
    RING_INT_SRC_RPT_PTR,
    RING_INT_STATUS_RPT_PTR,
    user_offsets,
)
from vfio_user_xe.device_models.xe.engines.types import EngineView

CTR_STOP = 1

_RCS_BASE = 0x2000
_GPR, _GPR_END = CS_GPR.offsets.start, CS_GPR.offsets.stop
_CTX_TIMESTAMP, _CTX_TIMESTAMP_UDW = RING_CTX_TIMESTAMP.offsets
_USER_STATE = ((0x5000, 0x5400), (0x6204, 0x620C), (0x7000, 0x7800), (0xE000, 0xE800))
"""Registers of the 3D pipeline that user space programs (stream output, rasterizer, caches, pixel shading): context state.

IGT's `gem_ctx_isolation.c:nonpriv_registers`; CHICKEN_RASTER_1 and CHICKEN_RASTER_2, which Mesa's Vulkan driver writes from user
batches for the quality of lines and for tile-based rendering (`genX_init_state.c:init_render_queue_state`)."""
_RENDER_STATE = ((0x5000, 0x5600), (0x6000, 0x6660), (0x7000, 0x7100), (0x7300, 0x7400), (0x83A0, 0x8400))
"""Registers that the render engine keeps per context: the driver has the first job write it (`xe_gt.c:emit_wa_job`)."""
_RENDER_UNMASKED = frozenset({0x6210, 0x6604})
"""FF_MODE and FF_MODE2: the driver's other registers of those ranges are masked (`regs/xe_gt_regs.h`)."""


def address(streamer: CommandStreamer, dword: int, relative: int, remapped: int = 0) -> int:
    """The absolute MMIO offset that a register dword means.

    `relative`: it counts from the engine's base, if it is small enough for that; the driver's own images set the flag
    on absolute numbers (`xe_lrc.c:set_offsets`). `remapped`: numbers of RCS0 mean the engine's own.
    """
    offset = dword & 0x7FFFFC
    if relative and offset < _RCS_BASE:
        return streamer.base + offset
    if remapped and _RCS_BASE <= offset < _RCS_BASE + ENGINE_REGISTERS:
        return streamer.base + offset - _RCS_BASE
    return offset


def read(streamer: CommandStreamer, offset: int) -> int:
    """The register at the absolute `offset` as the running context sees it.

    A read that does something is made from the ring and GGTT batches only; others see what is stored.
    """
    lrc = streamer.lrc
    own = offset - streamer.base
    if 0 <= own < ENGINE_REGISTERS:
        if _GPR <= own < _GPR_END:
            return lrc.gpr[(own - _GPR) >> 2]
        live = streamer.engine.live.get(own)
        if live is not None:
            return live()
    value = lrc.registers.get(offset)
    if value is not None:
        return value
    live = streamer.engine.siblings.get(offset)
    if live is not None:
        return live()
    registers = lrc.function.registers
    if offset >= registers.size:
        return 0
    declared = registers.registers.get(offset)
    if declared is not None and declared.read is not None and streamer.privileged:
        return declared.read()
    return registers.peek(offset)


def write(streamer: CommandStreamer, offset: int, value: int) -> None:
    """Store `value` in the register at the absolute `offset` on behalf of the running context."""
    lrc = streamer.lrc
    own = offset - streamer.base
    if 0 <= own < ENGINE_REGISTERS:
        if _GPR <= own < _GPR_END:
            lrc.gpr[(own - _GPR) >> 2] = value
        elif streamer.privileged or own in user_offsets(streamer.engine.name) or _listed(streamer, offset):
            _write_own(streamer, offset, own, value)
        else:
            _drop(streamer, offset)
    elif streamer.base == _RCS_BASE and streamer.privileged and _within(offset, _RENDER_STATE):
        _write_state(streamer, offset, value)
    elif streamer.privileged:
        _write_function(streamer, offset, value)
    elif _within(offset, _USER_STATE):
        _write_state(streamer, offset, value)
    elif _listed(streamer, offset):
        register = lrc.function.registers.registers.get(offset)
        # One that does something when it is written does it for whoever may write it.
        (_write_function if register is not None and register.write else _write_state)(streamer, offset, value)
    else:
        _drop(streamer, offset)


def captured(engine: EngineView, offset: int) -> int:
    """The register at the absolute `offset` for error capture: of the context that `engine` runs if it is part of one, else the PF's.

    Reads nothing that a read would change: what a read computes is computed for the engine's own registers only. On the executor.
    """
    own = offset - engine.info.base
    lrc = engine.lrc
    if lrc is not None and 0 <= own < ENGINE_REGISTERS and own not in FUNCTION_OFFSETS and own not in engine.live:
        value = lrc.registers.get(offset)
        if value is not None:
            return value
    registers = engine.registers
    if not 0 <= offset < registers.size:
        return 0
    register = registers.registers.get(offset)
    return register.read() if register is not None and register.read else registers.peek(offset)


def _write_own(streamer: CommandStreamer, offset: int, own: int, value: int) -> None:
    lrc = streamer.lrc
    if own in FUNCTION_OFFSETS:
        _write_function(streamer, offset, value)
        return
    if own in (_CTX_TIMESTAMP, _CTX_TIMESTAMP_UDW):
        streamer.engine.set_context_timestamp(own == _CTX_TIMESTAMP_UDW, value)
        return
    if own in MASKED_OFFSETS:
        change = value >> 16
        value = lrc.registers.get(offset, 0) & ~change | value & change
    lrc.registers[offset] = value
    if own == PR_CTR_CTRL.offset:
        lrc.watchdog = None if value & CTR_STOP else streamer.engine.clock.seconds()
    elif own == RING_IMR.offset:
        lrc.interrupt_mask = value
    elif own == RING_INT_STATUS_RPT_PTR.offset:
        lrc.interrupt_status_pointer = value
    elif own == RING_INT_SRC_RPT_PTR.offset:
        lrc.interrupt_source_pointer = value


def _write_function(streamer: CommandStreamer, offset: int, value: int) -> None:
    lrc = streamer.lrc
    registers = lrc.function.registers
    if offset in registers.registers:
        registers.write(offset, 4, value)
    elif lrc.function.vfid or offset >= registers.size:
        lrc.registers[offset] = value  # a VF has no such register; what it writes stays with its context
    else:
        registers.poke(offset, value)


def _write_state(streamer: CommandStreamer, offset: int, value: int) -> None:
    """Of the 3D pipeline: kept with the context."""
    if offset >= 0x5500 and offset not in _RENDER_UNMASKED and _within(offset, _RENDER_STATE):
        change = value >> 16
        value = read(streamer, offset) & ~change & 0xFFFF | value & change
    streamer.lrc.registers[offset] = value


def _drop(streamer: CommandStreamer, offset: int) -> None:
    register = streamer.engine.registers.registers.get(offset)
    name = f"{register.name} ({offset:#x})" if register is not None else f"{offset:#x}"
    streamer.engine.report(f"an unprivileged batch writes {name}: dropped")


def _within(offset: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= offset < end for first, end in ranges)


def _listed(streamer: CommandStreamer, offset: int) -> bool:
    """Whether the driver lets unprivileged batches write the register (RING_FORCE_TO_NONPRIV)."""
    registers = streamer.engine.registers
    first = streamer.base + RING_FORCE_TO_NONPRIV.offset
    for slot in range(NONPRIV_SLOTS):
        entry = registers.peek(first + 4 * slot)
        size = 4 << 2 * (entry & 3)
        if entry & 0x3FFFFFC and entry & 0x3FFFFFC & -size == offset & -size:
            # Bit 30 denies; bits 29:28: 0 read and write, 1 read only, 2 write only.
            return not entry & 1 << 30 and entry >> 28 & 3 in (0, 2)
    return False
