"""Stream-out (SOL): vertices of the last geometry stage written to buffers (Mesa `gen200.xml` 3DSTATE_STREAMOUT, 3DSTATE_SO_BUFFER, SO_DECL).

A primitive is written where all of the buffers of its stream have room for all of its vertices, otherwise only counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.engines.command_streamer import BULK
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.device_models.xe.render.fields import Words, address, bits, flag
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.topology import Primitives

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

BUFFERS = STREAMS = 4
_WRITTEN, _NEEDED, _OFFSETS = 0x5200, 0x5240, 0x5280
"""SO_NUM_PRIMS_WRITTEN and SO_PRIM_STORAGE_NEEDED by stream, SO_WRITE_OFFSET by buffer."""
_FROM_MEMORY = 0xFFFF_FFFF
_SLOT = 4
"""Dwords of a register of a vertex."""
_PAIR = 8
"""Dwords that vertex read offsets count."""


class Reorder(IntEnum):
    """Which vertex of every other triangle of a strip stays where it is: the first or the last."""

    LEADING = 0
    TRAILING = 1


@dataclass(frozen=True, slots=True)
class Declaration:
    """An SO_DECL: components of a vertex that follow in a buffer, or as many that are left as they are."""

    buffer: int
    register: int
    mask: int
    hole: bool

    @property
    def components(self) -> tuple[int, ...]:
        """Those that are written, or passed over."""
        return tuple(component for component in range(_SLOT) if self.mask >> component & 1)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A stream-out buffer."""

    address: int
    size: int
    pitch: int
    """Bytes from vertex to vertex."""
    offset_address: int | None
    """Where the write offset is kept in memory."""


@dataclass(frozen=True, slots=True)
class StreamOutState:
    """3DSTATE_STREAMOUT with the buffers and declarations that it goes with."""

    renders: int | None
    """The stream whose primitives go on; None: none do."""
    counts: bool
    reorder: Reorder
    read_offsets: tuple[int, ...]
    """By stream: dwords of a vertex before its first register."""
    declarations: tuple[tuple[Declaration, ...], ...]
    """By stream."""
    buffers: tuple[Buffer | None, ...]

    @classmethod
    def of(cls, lrc: Lrc) -> StreamOutState | None:
        """The context's state now; None where there is no stream-out."""
        words = kept(lrc, Op.STREAMOUT)
        if not flag(words, 1, 31):
            return None
        return cls(
            renders=None if flag(words, 1, 30) else bits(words, 1, 28, 27),
            counts=flag(words, 1, 25),
            reorder=Reorder(bits(words, 1, 26, 26)),
            read_offsets=tuple(_PAIR * bits(words, 2, 8 * stream + 5, 8 * stream + 5) for stream in range(STREAMS)),
            declarations=tuple(_declarations(kept(lrc, Op.SO_DECL_LIST), stream) for stream in range(STREAMS)),
            buffers=tuple(_buffer(lrc, words, number) for number in range(BUFFERS)),
        )


def _declarations(words: Words, stream: int) -> tuple[Declaration, ...]:
    found = []
    for number in range(bits(words, 2, 8 * stream + 7, 8 * stream)):
        entry = bits(words, 3 + 2 * number + stream // 2, 16 * (stream % 2) + 15, 16 * (stream % 2))
        found.append(Declaration(entry >> 12 & 3, entry >> 4 & 0x3F, entry & 0xF, bool(entry >> 11 & 1)))
    return tuple(found)


def _buffer(lrc: Lrc, streamout: Words, number: int) -> Buffer | None:
    words = kept(lrc, Op(Op.SO_BUFFER_INDEX_0 + number))
    pitch = bits(streamout, 3 + number // 2, 16 * (number % 2) + 11, 16 * (number % 2))
    if not flag(words, 1, 31) or not pitch:
        return None
    return Buffer(
        address=address(words, 2, 2),
        size=4 * (bits(words, 4, 29, 0) + 1),
        pitch=pitch,
        offset_address=address(words, 5, 2) if flag(words, 1, 20) else None,
    )


class StreamOut:
    """The stream-out of one draw. What it counts and where buffers are written next holds from `finish` on: a draw may begin again."""

    def __init__(self, registers: dict[int, int], state: StreamOutState, memory: UnitMemory) -> None:
        """`registers` are the context's, by absolute offset."""
        self.state = state
        self._registers = registers
        self._memory = memory
        self._offsets = [self._registers.get(_OFFSETS + 4 * number, 0) for number in range(BUFFERS)]
        self._written = [0] * STREAMS
        self._needed = [0] * STREAMS

    def write(self, stream: int, vertices: NDArray[np.uint32], primitives: Primitives) -> None:
        """Write a stream's primitives, as many as there is room for.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        state = self.state
        corners = primitives.last_behind() if state.reorder is Reorder.TRAILING else primitives.vertices
        count, size = corners.shape
        self._needed[stream] += count
        declarations = state.declarations[stream]
        used = {declaration.buffer for declaration in declarations}
        for number in used:
            buffer = state.buffers[number]
            room = 0 if buffer is None else max(0, buffer.size - self._offsets[number]) // (buffer.pitch * size)
            count = min(count, room)
        self._written[stream] += count
        order = corners[:count].reshape(-1)
        if not len(order):
            return
        at = dict.fromkeys(used, 0)
        for declaration in declarations:
            buffer = state.buffers[declaration.buffer]
            assert buffer is not None  # there was room in it
            first = buffer.address + self._offsets[declaration.buffer]
            places = first + buffer.pitch * np.arange(len(order), dtype=np.int64)
            for component in declaration.components:
                if not declaration.hole:
                    column = state.read_offsets[stream] + _SLOT * declaration.register + component
                    values = vertices[order, column] if column < vertices.shape[1] else np.zeros(len(order))
                    where = (places + at[declaration.buffer]).astype(np.uint64)
                    self._memory.store(where, values.astype(np.uint64), 4)
                at[declaration.buffer] += 4
        for number in used:
            buffer = state.buffers[number]
            assert buffer is not None  # there was room in it
            self._offsets[number] += buffer.pitch * len(order)

    def finish(self) -> None:
        """Keep the counts and write offsets, in memory too where the buffers say so.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        there = [(number, buffer) for number, buffer in enumerate(self.state.buffers) if buffer is not None]
        for number, buffer in there:
            if buffer.offset_address is not None:
                where = np.array([buffer.offset_address], dtype=np.uint64)
                self._memory.store(where, np.array([self._offsets[number]], dtype=np.uint64), 4)
        for number, _ in there:
            self._registers[_OFFSETS + 4 * number] = self._offsets[number] & 0xFFFF_FFFF
        if self.state.counts:
            for stream in range(STREAMS):
                _count(self._registers, _WRITTEN + 8 * stream, self._written[stream])
                _count(self._registers, _NEEDED + 8 * stream, self._needed[stream])


def _count(registers: dict[int, int], offset: int, number: int) -> None:
    if number:
        value = (registers.get(offset, 0) | registers.get(offset + 4, 0) << 32) + number
        registers[offset], registers[offset + 4] = value & 0xFFFF_FFFF, value >> 32 & 0xFFFF_FFFF


def so_buffer(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """3DSTATE_SO_BUFFER_INDEX_0 to 3: kept, and the buffer's write offset is set or loaded from memory."""
    dwords = words[index : index + length].tolist()
    number = (dwords[0] >> 16) - Op.SO_BUFFER_INDEX_0
    streamer.lrc.state[dwords[0] >> 16] = dwords
    if not flag(dwords, 1, 21):
        return None
    offset = bits(dwords, 7, 31, 0)
    if offset != _FROM_MEMORY:
        streamer.lrc.registers[_OFFSETS + 4 * number] = offset
        return None
    if not flag(dwords, 1, 20):
        return None
    streamer.lrc.bulk = _load_offset(streamer, number, address(dwords, 5, 2))
    return BULK


def _load_offset(streamer: CommandStreamer, number: int, where: int) -> Bulk:
    space = streamer.lrc.space
    memory = UnitMemory(space.fixed_functions if isinstance(space, PpgttSpace) else space)
    found = memory.load(np.array([where], dtype=np.uint64), 4)
    streamer.lrc.registers[_OFFSETS + 4 * number] = int(found[0])
    yield None
