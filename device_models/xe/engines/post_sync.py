"""Flushes, and the write that follows them: MI_FLUSH_DW, PIPE_CONTROL, MI_MEM_FENCE.

There are no caches to flush here, so what is left of a flush is the invalidation of translations, and the write.
"""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines import register_access as regs
from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
from vfio_user_xe.device_models.xe.engines.engine_regs import MI_PREDICATE_RESULT

TLB_INVALIDATE = 1 << 18
STORE_DATA_INDEX = 1 << 21
PS_DEPTH_COUNT = 0x350
"""Register of two dwords, from the engine's base."""
_NO_WRITE, _IMMEDIATE, _PS_DEPTH_COUNT, _TIMESTAMP = range(4)


def flush_dw(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MI_FLUSH_DW: bits 15:14 say what to write; 4 dwords long it writes a dword, 5 dwords long a qword."""
    header = words[index]
    if header & TLB_INVALIDATE:
        streamer.space.flush()
    operation = header >> 14 & 3
    if operation == _NO_WRITE:
        return None
    address = (words[index + 1] & ~7) | (words[index + 2] & 0xFFFF) << 32
    in_ggtt = words[index + 1] & 4
    if operation == _TIMESTAMP:
        _store(streamer, header, address, in_ggtt, streamer.engine.timestamp(), 8)
    elif length >= 5:
        _store(streamer, header, address, in_ggtt, words[index + 3] | words[index + 4] << 32, 8)
    else:
        _store(streamer, header, address, in_ggtt, words[index + 3], 4)
    return None


def pipe_control(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """PIPE_CONTROL: flags in dword 1; bit 8 of the header makes it depend on MI_PREDICATE_RESULT."""
    flags = words[index + 1]
    if words[index] & 1 << 8 and not regs.read(streamer, streamer.base + MI_PREDICATE_RESULT.offset) & 1:
        return None
    if flags & TLB_INVALIDATE:
        streamer.space.flush()
    operation = flags >> 14 & 3
    value = words[index + 4] | words[index + 5] << 32 if length >= 6 else 0
    if flags & 1 << 23:
        regs.write(streamer, words[index + 2] & 0x7FFFFC, value & 0xFFFFFFFF)
    elif operation != _NO_WRITE:
        address = (words[index + 2] & ~3) | (words[index + 3] & 0xFFFF) << 32
        if operation == _TIMESTAMP:
            value = streamer.engine.timestamp()
        elif operation == _PS_DEPTH_COUNT:
            value = _depth_count(streamer)
        _store(streamer, flags, address, flags & 1 << 24, value, 8)
    return None


def _depth_count(streamer: CommandStreamer) -> int:
    """PS_DEPTH_COUNT of the context: samples that have passed the depth test."""
    registers, offset = streamer.lrc.registers, streamer.base + PS_DEPTH_COUNT
    return registers.get(offset, 0) | registers.get(offset + 4, 0) << 32


def _store(streamer: CommandStreamer, flags: int, address: int, in_ggtt: int, value: int, size: int) -> None:
    """A post-sync write: to memory, or with STORE_DATA_INDEX to that offset of the PPHWSP."""
    if flags & STORE_DATA_INDEX:
        space, address = streamer.ggtt, streamer.lrc.pphwsp + (address & 0xFFC)
    else:
        space = streamer.address_space(in_ggtt)
    if size == 8:
        space.write64(address, value)
    else:
        space.write32(address, value)
