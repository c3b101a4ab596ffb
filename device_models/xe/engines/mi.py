"""MI commands: control flow, registers, single values in memory (`instructions/xe_mi_commands.h`).

Where the driver does not use a command, its fields are those of Intel's published Xe2 command definitions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from vfio_user_xe.device_models.xe.engines import register_access as regs
from vfio_user_xe.device_models.xe.engines.command_streamer import JUMPED, PREEMPTED, WAIT, CommandStreamer
from vfio_user_xe.device_models.xe.engines.engine_regs import (
    MI_PREDICATE_DATA,
    MI_PREDICATE_RESULT,
    MI_PREDICATE_RESULT_2,
    MI_PREDICATE_SRC0,
    MI_PREDICATE_SRC1,
    PR_CTR_THRSH,
    RING_HWS_PGA,
)
from vfio_user_xe.device_models.xe.gt.clock import REFERENCE_CLOCK
from vfio_user_xe.emulator.fabric.span import Revoked

GLOBAL_GTT = 1 << 22
_ADDRESS_HIGH = 0xFFFF  # addresses are cut to 48 bits, see ppgtt.VA_BITS

_COMPARE: tuple[Callable[[int, int], bool], ...] = (
    operator.gt,
    operator.ge,
    operator.lt,
    operator.le,
    operator.eq,
    operator.ne,
)
"""Compare operations of semaphores and conditional ends: memory OP immediate."""

_ALWAYS_NOOP = 0xF


def noop(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """Commands without an effect that anything could see."""
    return None


# Memory.


def store_data_imm(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_STORE_DATA_IMM: one or more dwords, or (bit 21) qwords."""
    header = words[index]
    address = (words[index + 1] & 0xFFFFFFFC) | (words[index + 2] & _ADDRESS_HIGH) << 32
    if header & GLOBAL_GTT and streamer.privileged:
        if length == 4:
            streamer.ggtt.write32(address, words[index + 3])
        else:
            streamer.ggtt.write(address, words[index + 3 : index + length])
        return None
    span = streamer.spans.get(address >> 12)
    if span is None:
        span = streamer.space.span(address, True)
    if span is not None:
        try:
            if length == 4:
                span.store32(address, words[index + 3])
                return None
            if address + (length - 3 << 2) <= span.end:
                span.store_words(address, words[index + 3 : index + length])
                return None
        except Revoked:
            pass  # What is kept of the page is out of date: the write opens it anew.
    streamer.space.write(address, words[index + 3 : index + length])
    return None


def store_data_index(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_STORE_DATA_INDEX: into the hardware status page, with bit 21 into the context's own (PPHWSP)."""
    page = streamer.lrc.pphwsp
    if not words[index] & 1 << 21:
        page = streamer.engine.registers.peek(streamer.base + RING_HWS_PGA.offset) & 0xFFFFF000
    streamer.ggtt.write(page + (words[index + 1] & 0xFFC), words[index + 2 : index + length])
    return None


def copy_mem_mem(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_COPY_MEM_MEM: one dword; bit 22 source, bit 21 destination in the GGTT."""
    header = words[index]
    destination = (words[index + 1] & ~3) | (words[index + 2] & _ADDRESS_HIGH) << 32
    source = (words[index + 3] & ~3) | (words[index + 4] & _ADDRESS_HIGH) << 32
    value = streamer.address_space(header & GLOBAL_GTT).read32(source)
    streamer.address_space(header & 1 << 21).write32(destination, value)
    return None


# Registers.


def load_register_imm(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_LOAD_REGISTER_IMM."""
    header = words[index]
    relative, remapped = header & 1 << 19, header & 1 << 17
    for pair in range(index + 1, index + length - 1, 2):
        regs.write(streamer, regs.address(streamer, words[pair], relative, remapped), words[pair + 1])
    return None


def load_register_mem(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_LOAD_REGISTER_MEM."""
    header = words[index]
    address = (words[index + 2] & ~3) | (words[index + 3] & _ADDRESS_HIGH) << 32
    value = streamer.address_space(header & GLOBAL_GTT).read32(address)
    regs.write(streamer, regs.address(streamer, words[index + 1], header & 1 << 19, header & 1 << 17), value)
    return None


def store_register_mem(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_STORE_REGISTER_MEM; with bit 21 only if MI_PREDICATE_RESULT is set."""
    header = words[index]
    if header & 1 << 21 and not regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1:
        return None
    address = (words[index + 2] & ~3) | (words[index + 3] & _ADDRESS_HIGH) << 32
    value = regs.read(streamer, regs.address(streamer, words[index + 1], header & 1 << 19, header & 1 << 17))
    streamer.address_space(header & GLOBAL_GTT).write32(address, value)
    return None


def load_register_reg(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_LOAD_REGISTER_REG: dword 1 is the source, dword 2 the destination."""
    header = words[index]
    value = regs.read(streamer, regs.address(streamer, words[index + 1], header & 1 << 18, header & 1 << 16))
    regs.write(streamer, regs.address(streamer, words[index + 2], header & 1 << 19, header & 1 << 17), value)
    return None


# Control flow.


def batch_buffer_start(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_BATCH_BUFFER_START: bit 8 PPGTT, bit 15 predicated, bit 18 address from R0, bit 22 one level deeper.

    Without bit 22 execution continues in the other batch and does not return.
    """
    header = words[index]
    if header & 1 << 15 and _predicated_off(streamer):
        return None
    if header & 1 << 18:
        gpr = streamer.lrc.gpr
        address = gpr[0] & ~3 | (gpr[1] & _ADDRESS_HIGH) << 32
    else:
        address = (words[index + 1] & ~3) | (words[index + 2] & _ADDRESS_HIGH) << 32
    streamer.start_batch(address, bool(header & 1 << 8), streamer.place(index + length), nested=bool(header & 1 << 22))
    return JUMPED


def batch_buffer_end(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_BATCH_BUFFER_END."""
    if words[index] & 1 << 15 and _predicated_off(streamer):
        return None
    if not streamer.lrc.stack:
        streamer.engine.report("MI_BATCH_BUFFER_END in a ring")
        return None
    streamer.end_batch()
    return JUMPED


def conditional_batch_buffer_end(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_CONDITIONAL_BATCH_BUFFER_END: continues while memory OP immediate is true; else the batch ends.

    All levels end, with bit 18 only the current one. Bit 19 compares under a mask: the dword behind the one in memory.
    """
    header = words[index]
    if header & 1 << 15 and _predicated_off(streamer):
        return None
    address = (words[index + 2] & ~3) | (words[index + 3] & _ADDRESS_HIGH) << 32
    space = streamer.address_space(header & GLOBAL_GTT)
    value, immediate = space.read32(address), words[index + 1]
    if header & 1 << 19:
        mask = space.read32(address + 4)
        value, immediate = value & mask, immediate & mask
    operation = header >> 12 & 7
    if operation >= len(_COMPARE):
        streamer.engine.report(f"MI_CONDITIONAL_BATCH_BUFFER_END has no operation {operation}")
        return None
    if _COMPARE[operation](value, immediate):
        return None
    if not streamer.lrc.stack:
        streamer.engine.report("MI_CONDITIONAL_BATCH_BUFFER_END in a ring")
        return None
    streamer.end_batch(all_levels=not header & 1 << 18)
    return JUMPED


def semaphore_wait(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_SEMAPHORE_WAIT: until memory (bit 16: a register) OP immediate. A preemption point while it is not.

    Signal mode (bit 15 clear) polls memory too.
    """
    header = words[index]
    if header & 1 << 16:
        value = regs.read(streamer, regs.address(streamer, words[index + 2], header & 1 << 19))
    else:
        address = (words[index + 2] & ~3) | (words[index + 3] & _ADDRESS_HIGH) << 32
        value = streamer.address_space(header & GLOBAL_GTT).read32(address)
    data = streamer.lrc.gpr[0] if header & 1 << 17 else words[index + 1]
    operation = header >> 12 & 7
    if operation >= len(_COMPARE):
        streamer.engine.report(f"MI_SEMAPHORE_WAIT has no operation {operation}")
        return None
    if _COMPARE[operation](value, data):
        return None
    return None if _watchdog_bites(streamer) else WAIT


def arb_check(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_ARB_CHECK: a preemption point. (Its pre-parser control has no counterpart: nothing is fetched ahead.)"""
    return PREEMPTED if streamer.preempt and streamer.lrc.arbitration else None


def arb_on_off(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_ARB_ON_OFF: bit 0 says whether preemption is allowed."""
    streamer.lrc.arbitration = bool(words[index] & 1)
    return None


def user_interrupt(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_USER_INTERRUPT."""
    streamer.engine.user_interrupt(last=streamer.ends_with(index + length))
    return None


# Predication.


def set_predicate(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_SET_PREDICATE: from here on commands are no-ops, or not, by a result register."""
    lrc = streamer.lrc
    mode = words[index] & 0xF
    lrc.predicate = mode
    if mode in (1, 2):
        result = regs.read(streamer, streamer.base + MI_PREDICATE_RESULT_2.offset) & 1
        lrc.noop = result == (0 if mode == 1 else 1)
    elif mode in (3, 4):
        result = regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1
        lrc.noop = result == (0 if mode == 3 else 1)
    else:
        lrc.noop = mode == _ALWAYS_NOOP
    streamer.set_place(streamer.place(index + length))
    return JUMPED


def predicate(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_PREDICATE: compare (bits 1:0), combine with the state so far (4:3), load the result (7:6)."""
    header, base = words[index], streamer.base

    def read64(offset: int) -> int:
        return regs.read(streamer, base + offset) | regs.read(streamer, base + offset + 4) << 32

    source0, source1 = read64(MI_PREDICATE_SRC0.offset), read64(MI_PREDICATE_SRC1.offset)
    compare = header & 3
    if compare == 0:
        result = True
    elif compare == 1:
        result = False
    elif compare == 2:
        result = source0 == source1
    else:
        delta = (source0 - source1) & (1 << 64) - 1
        result = (delta & 0xFFFFFFFF) == regs.read(streamer, base + MI_PREDICATE_DATA.offset)
    state = bool(regs.read(streamer, base + MI_PREDICATE_RESULT.offset) & 1)
    combine = header >> 3 & 3
    result = (result, state and result, state or result, state != result)[combine]
    load = header >> 6 & 3
    if load in (2, 3):
        regs.write(streamer, base + MI_PREDICATE_RESULT.offset, int(result if load == 2 else not result))
    return None


def _predicated_off(streamer: CommandStreamer) -> bool:
    """Whether a command with its predicate bit set is a no-op: by MI_SET_PREDICATE, else by MI_PREDICATE_RESULT."""
    if streamer.lrc.predicate:
        return streamer.lrc.noop
    return not regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1


def _watchdog_bites(streamer: CommandStreamer) -> bool:
    """Whether PR_CTR has run out while a semaphore waits.

    The driver makes every first job of a VF do that on purpose, to have the GuC reset the engine
    (`xe_ring_ops.c:emit_fake_watchdog`); it expects the ring to go on behind the wait.
    """
    lrc = streamer.lrc
    if lrc.watchdog is None:
        return False
    threshold = lrc.registers.get(streamer.base + PR_CTR_THRSH.offset, 0)
    if (streamer.engine.clock.seconds() - lrc.watchdog) * REFERENCE_CLOCK < threshold:
        return False
    streamer.engine.watchdog_reset()
    return True
