"""Logical ring contexts: the image in memory, by dword index, and the state of an engine that it stands for.

The image begins one page behind the PPHWSP (`xe_lrc.c:xe_lrc_regs_offset`). Its first 96 dwords are register numbers
and values at fixed places (`regs/xe_lrc_layout.h`, `xe_lrc.c:xe2_rcs_offsets`); values are read and written by index,
the register loads that they look like are not executed. At dword 0x100 follow the other registers that the context
has written, as loads up to a batch end: that is where the driver looks for what its first job has programmed
(`xe_lrc.c:xe_lrc_lookup_default_reg_value`). The rest of an engine's state has no published format; here it is a
record (`_HEADER` and what follows it) behind them, so that a context moves with its memory when a VF is migrated.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, Fault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, RENDER
from vfio_user_xe.emulator.fabric.span import Revoked

# Dword indices of values in the image (regs/xe_lrc_layout.h).
CONTEXT_CONTROL = 0x03
RING_HEAD = 0x05
RING_TAIL = 0x07
RING_START = 0x09
RING_CTL = 0x0B
BB_ADDR_UDW = 0x0D
BB_ADDR = 0x0F
BB_STATE = 0x11
BB_PER_CTX_PTR = 0x13
INDIRECT_CTX = 0x15
TIMESTAMP = 0x23
TIMESTAMP_UDW = 0x25
ASID = 0x2F
PDP0_UDW = 0x31
PDP0_LDW = 0x33
INT_MASK_LRM = 0x50
INT_MASK_PTR = 0x52
INT_REPORT_LRI = 0x55
INT_STATUS_PTR = 0x57
INT_SRC_PTR = 0x59

REGISTER_DWORDS = 96
_LOADS_INDEX = 0x100

RESTORE_INHIBIT = 1 << 0
"""CTX_CTRL_ENGINE_CTX_RESTORE_INHIBIT of CONTEXT_CONTROL: the image holds no engine state yet. Hardware clears it when
it saves, or the state recorded in a default image (`xe_gt.c:xe_gt_record_default_lrcs`) could never be restored."""
RING_VALID = 1
HEAD_MASK = 0x1FFFFC
TAIL_MASK = 0x1FFFF8
ALL_ENABLED = 0xFFFF
"""An image that loads no interrupt mask has all its interrupts enabled."""
_LRM = 0x29 << 23
_LRI = 0x22 << 23
_BATCH_END = 0x0A << 23
_OPCODE = 0x3F << 23

DESCRIPTOR_PPGTT = 1 << 8
"""LRC_PRIVILEGE of a descriptor: means that there is a PPGTT (`xe_lrc.c:xe_lrc_ctx_init`)."""

MAX_NESTING = 8
WALKER_PROGRESS = 0
"""Key of `Lrc.state` that is no command's: how far the walker came that the context was preempted in."""
_MAX_REGISTERS = 48
_MAGIC = 0x31434C58
# Precompiled, not construct: packed whenever a context leaves an engine.
_LOADS = struct.Struct(f"<{1 + 2 * _MAX_REGISTERS + 1}I")
# The record: what it holds, batches, general purpose registers.
_HEADER = struct.Struct("<4I")
_BATCHES = struct.Struct(f"<{2 * MAX_NESTING}Q")
_GPR = struct.Struct("<32I")
_RECORD_INDEX = _LOADS_INDEX + _LOADS.size // 4
_PIPELINE_INDEX = _RECORD_INDEX + (_HEADER.size + _BATCHES.size + _GPR.size) // 4
_NO_BATCHES = bytes(_BATCHES.size)
_PAGE_DWORDS = 0x400
_IMAGE_PAGES = {RENDER: 3, COMPUTE: 2}
"""By engine class, pages of the image behind the PPHWSP; others have one (`xe_lrc.c:xe_gt_lrc_size`). What follows is the driver's."""
_FLAG_PPGTT = 1
_FLAG_ARBITRATION, _FLAG_NOOP = 1, 2


@dataclass(slots=True)
class Frame:
    """A batch that commands are fetched from: where the next one is, and in which address space."""

    address: int
    ppgtt: bool
    limit: int = 0
    """First address beyond it; 0: it ends with MI_BATCH_BUFFER_END."""
    restore: bool = False
    """Part of the context restore (work-around batches): never saved."""


class Lrc:
    """One logical ring context, and the state of the engine that runs it or last did."""

    def __init__(self, function: XeFunction, descriptor: int, engine_class: int) -> None:
        self.function = function
        self._most_state = _IMAGE_PAGES.get(engine_class, 1) * _PAGE_DWORDS - _PIPELINE_INDEX
        """Dwords of `state` that the image has room for."""
        self.descriptor = descriptor
        self.pphwsp = descriptor & 0xFFFFF000
        self.image = self.pphwsp + 0x1000
        self.ggtt = function.ggtt_space
        self.space: AddressSpace = self.ggtt
        """What addresses without the GGTT flag are in: the PPGTT, or the GGTT of a context without one."""
        self.loaded = False
        """Whether an engine has it."""
        self.start = self.end = self.head = self.tail = 0
        """The ring: all GGTT addresses, `head` and `tail` absolute too."""
        self.stack: list[Frame] = []
        """Batches, the innermost last; empty while commands come from the ring."""
        self.gpr = [0] * 32
        self.registers: dict[int, int] = {}
        """Other registers that commands have written, by absolute MMIO offset."""
        self.timestamp = 0
        self.arbitration = True
        self.predicate = 0
        """Mode of MI_SET_PREDICATE."""
        self.noop = False
        """Whether it makes commands no-ops now."""
        self.bulk: Iterator[Fault | None] | None = None
        """The rest of a command that works in steps; `bulk_end` is where the next command is."""
        self.bulk_end = 0
        self.bulk_preemptible = False
        self.in_flight: Callable[[], bytes] | None = None
        """Gives what of `bulk` is in the middle of something, for a context that is saved and goes on on another card."""
        self.arrived = b""
        """What that gave, of a context that was saved elsewhere."""
        self.state: dict[int, list[int]] = {}
        """State of the pipelines: dwords of the commands that set it, behind the first, by bits 31:16 of that."""
        self.latest: object | None = None
        """What the render engine keeps from one draw to the next; it must not refer to the context."""
        self.drawn: dict[Hashable, int] = {}
        """Surfaces that the 3-D pipeline drew to, the latest last, each with its time (`render/drawn.py`)."""
        self.interrupt_mask = ALL_ENABLED
        self.interrupt_status_pointer = self.interrupt_source_pointer = 0
        self.watchdog: float | None = None
        """When PR_CTR was started, while it counts."""
        self.adopted = False
        """Saved elsewhere: the engine state in the image counts, once."""
        self.stopped = False
        """Preempted, not done with its ring, when it last left an engine."""
        self._left_at = -1
        self._new = True
        """Never restored: general purpose and other registers come from the image, a copy of what another context left
        (`xe_gt.c:xe_gt_record_default_lrcs`), as real hardware would load them."""
        self._continued = False
        """The image goes on where the driver's template ends it."""
        self._saved_registers: list[tuple[int, int]] | None = None
        self._loads = b""
        """`registers` as they were saved last, and the loads of them: most jobs change none."""

    def restore(self) -> None:
        """Load the image. What was executed before goes on where it stopped, unless the driver has moved RING_HEAD.

        Raises:
            TranslationFault: the image is not mapped.
            AccessFault: the image is nowhere.
        """
        words = self._read(0, REGISTER_DWORDS)
        self.start = words[RING_START] & 0xFFFFF000
        self.end = self.start + (words[RING_CTL] & 0x1FF000) + 0x1000
        size_mask = self.end - self.start - 1
        head = words[RING_HEAD] & HEAD_MASK & size_mask
        self.head = self.start + head
        self.tail = (
            self.start + (words[RING_TAIL] & TAIL_MASK & size_mask) if words[RING_CTL] & RING_VALID else self.head
        )
        self.timestamp = words[TIMESTAMP] | words[TIMESTAMP_UDW] << 32
        if self.descriptor & DESCRIPTOR_PPGTT:
            self._use_ppgtt(words[PDP0_LDW] | words[PDP0_UDW] << 32, words[ASID])
        self.latest = None
        if not self.adopted and head != self._left_at:
            self.stack.clear()
            self.bulk = None
            self.state.pop(WALKER_PROGRESS, None)
        if (self.adopted or self._new) and not words[CONTEXT_CONTROL] & RESTORE_INHIBIT:
            self._load_state(everything=self.adopted)
        self.adopted = self._new = False
        self.interrupt_mask = ALL_ENABLED
        self.interrupt_status_pointer = self.interrupt_source_pointer = 0
        if words[INT_MASK_LRM] & _OPCODE == _LRM:
            self.interrupt_mask = self.ggtt.read32(words[INT_MASK_PTR])
        if words[INT_REPORT_LRI] & _OPCODE == _LRI:
            self.interrupt_status_pointer = words[INT_STATUS_PTR]
            self.interrupt_source_pointer = words[INT_SRC_PTR]
        per_context, indirect = words[BB_PER_CTX_PTR], words[INDIRECT_CTX]
        # The last that is pushed runs first: INDIRECT_CTX in the middle of the restore, BB_PER_CTX at its end.
        if per_context & 1:
            self.stack.append(Frame(per_context & 0xFFFFF000, ppgtt=False, restore=True))
        if indirect & 0x3F:
            address = indirect & 0xFFFFFFC0
            self.stack.append(Frame(address, ppgtt=False, limit=address + (indirect & 0x3F) * 64, restore=True))

    def save(self) -> None:
        """Store what the image holds of this context.

        Raises:
            TranslationFault: the image is not mapped.
            AccessFault: the image is nowhere, or too small for the state that commands have set.
        """
        while self.stack and self.stack[-1].restore:
            self.stack.pop()
        # A batch that the ring's last command has started leaves it at its end, which is its beginning.
        head = (self.head - self.start) % (self.end - self.start)
        self._left_at = head
        values = {
            CONTEXT_CONTROL: self.ggtt.read32(self.image + 4 * CONTEXT_CONTROL) & ~RESTORE_INHIBIT,
            RING_HEAD: head,
            TIMESTAMP: self.timestamp & 0xFFFFFFFF,
            TIMESTAMP_UDW: self.timestamp >> 32 & 0xFFFFFFFF,
        }
        if self.stack:
            batch = self.stack[-1]
            values |= {
                BB_ADDR: batch.address & 0xFFFFFFFF,
                BB_ADDR_UDW: batch.address >> 32,
                BB_STATE: batch.ppgtt << 5,
            }
        if not self._continued:
            self._continue()
        self._store(values, self._engine_state())

    def read_tail(self) -> int:
        """RING_TAIL of the image, as an absolute GGTT address: the driver moves it without telling."""
        tail = self._read(RING_TAIL, 1)[0] & TAIL_MASK
        self.tail = self.start + (tail & (self.end - self.start - 1))
        return self.tail

    def write_tail(self, tail: int) -> None:
        """Set RING_TAIL of the image (an offset in bytes): what the GuC does for members of parallel contexts."""
        self.ggtt.write32(self.image + 4 * RING_TAIL, tail)

    def has_work(self) -> bool:
        """Whether there is anything to run: by the image, so only while it is on no engine."""
        head, _, tail = self._read(RING_HEAD, 3)
        return head & HEAD_MASK != tail & TAIL_MASK or bool(self.stack)

    def _use_ppgtt(self, root: int, asid: int) -> None:
        space = self.space
        if not isinstance(space, PpgttSpace) or space.root != root & ~0xFFF & (1 << 52) - 1 or space.asid != asid:
            self.space = self.function.gpu.spaces.ppgtt(self.function, root, asid)

    # Of the image the first page is what mostly matters, and its dwords are mostly at hand.

    def _read(self, index: int, count: int) -> list[int]:
        here = max(0, min(count, _PAGE_DWORDS - index))
        if here < count:
            first = self._read(index, here) if here else []
            more = self.ggtt.read(self.image + 4 * (index + here), 4 * (count - here))
            return first + memoryview(more).cast("I").tolist()
        span = self.ggtt.span(self.image, False)
        if span is None:
            return memoryview(self.ggtt.read(self.image + 4 * index, 4 * count)).cast("I").tolist()
        try:
            return span.load_words(self.image + 4 * index, count)
        except Revoked:
            return self._read(index, count)

    def _store(self, values: dict[int, int], state: bytes) -> None:
        """Store dwords by index, and the engine's state."""
        span = self.ggtt.span(self.image, True)
        if span is not None:
            try:
                for index, value in values.items():
                    span.store32(self.image + 4 * index, value)
                room = 4 * (_PAGE_DWORDS - _LOADS_INDEX)
                span.store(self.image + 4 * _LOADS_INDEX, state[:room])
                if len(state) > room:
                    self.ggtt.write(self.image + 4 * _PAGE_DWORDS, state[room:])
                return
            except Revoked:
                pass  # What is kept of the page is out of date: the writes open it anew.
        for index, value in values.items():
            self.ggtt.write32(self.image + 4 * index, value)
        self.ggtt.write(self.image + 4 * _LOADS_INDEX, state)

    def _continue(self) -> None:
        """Take away the batch end behind the driver's template (`xe_lrc.c:set_offsets`)."""
        words = self._read(0, REGISTER_DWORDS)
        index = 0
        while index < REGISTER_DWORDS:
            opcode = words[index] & _OPCODE
            if opcode == _BATCH_END:
                self.ggtt.write32(self.image + 4 * index, 0)
                break
            index += (words[index] & 0xFF) + 2 if opcode else 1
        self._continued = True

    def _engine_state(self) -> bytes:
        """What the image holds from `_LOADS_INDEX` on: loads of registers, and the record."""
        items = list(self.registers.items())[-_MAX_REGISTERS:]
        if items != self._saved_registers:
            self._saved_registers, self._loads = items, _register_loads(items)
        frames = [frame for frame in self.stack if not frame.restore][-MAX_NESTING:]
        pipelines = self._pipeline_state()
        header = _HEADER.pack(
            _MAGIC,
            len(frames) | len(items) << 8,
            (_FLAG_ARBITRATION if self.arbitration else 0) | (_FLAG_NOOP if self.noop else 0) | self.predicate << 8,
            len(pipelines) // 4,
        )
        return b"".join((self._loads, header, _batches(frames), _GPR.pack(*self.gpr), pipelines))

    def _pipeline_state(self) -> bytes:
        """`state` for the image: each command's upper half with its number of dwords, then these."""
        if not self.state:
            return b""
        packed: list[int] = []
        for opcode, dwords in self.state.items():
            if len(packed) + 1 + len(dwords) > self._most_state:
                reason = f"state of {len(self.state)} commands is more than the {self._most_state} dwords that an image holds"
                raise AccessFault(self.function.pci, "ggtt", self.image + 4 * _PIPELINE_INDEX, reason)
            packed += [opcode << 16 | len(dwords), *dwords]
        return array("I", packed).tobytes()

    def _load_pipeline_state(self, count: int) -> None:
        packed = self._read(_PIPELINE_INDEX, min(count, self._most_state)) if count else []
        self.state = {}
        at = 0
        while at < len(packed):
            length = packed[at] & 0xFFFF
            self.state[packed[at] >> 16] = packed[at + 1 : at + 1 + length]
            at += 1 + length

    def _load_state(self, everything: bool) -> None:
        """Read registers back from the image, and if wanted `everything`: where it was in which batches too."""
        image = array("I", self._read(_LOADS_INDEX, _PIPELINE_INDEX - _LOADS_INDEX)).tobytes()
        magic, counts, flags, pipelines = _HEADER.unpack_from(image, _LOADS.size)
        if everything:
            self.stack.clear()
        if magic != _MAGIC:
            return
        frames, registers = min(counts & 0xFF, MAX_NESTING), min(counts >> 8 & 0xFF, _MAX_REGISTERS)
        pairs = _LOADS.unpack_from(image)[1 : 1 + 2 * registers]
        self.registers = dict(zip(pairs[0::2], pairs[1::2], strict=True))
        self.gpr = list(_GPR.unpack_from(image, _LOADS.size + _HEADER.size + _BATCHES.size))
        self._load_pipeline_state(pipelines)
        if not everything:
            return
        self.arbitration, self.noop = bool(flags & _FLAG_ARBITRATION), bool(flags & _FLAG_NOOP)
        self.predicate = flags >> 8 & 0xF
        places = _BATCHES.unpack_from(image, _LOADS.size + _HEADER.size)
        for place, limit in zip(places[0 : 2 * frames : 2], places[1 : 2 * frames : 2], strict=True):
            self.stack.append(Frame(place & ~3, ppgtt=bool(place & _FLAG_PPGTT), limit=limit))


def _register_loads(items: list[tuple[int, int]]) -> bytes:
    """The image's loads of registers, up to the batch end and its space's."""
    pairs = [number for item in items for number in item]
    return _LOADS.pack(
        _LRI | len(pairs) - 1 if pairs else 0,
        *pairs,
        _BATCH_END,
        *[0] * (2 * _MAX_REGISTERS - len(pairs)),
    )


def _batches(frames: list[Frame]) -> bytes:
    """The record's part of where it was in which batches."""
    if not frames:
        return _NO_BATCHES
    places: list[int] = []
    for frame in frames:
        places += [frame.address | (_FLAG_PPGTT if frame.ppgtt else 0), frame.limit]
    return _BATCHES.pack(*places, *[0] * (2 * MAX_NESTING - len(places)))
