"""An OA unit: its registers, and the reports that it makes by time, for a register write, and at context switches (`xe_oa.c`).

The driver gives a buffer, a format and a period in OACONTROL and its neighbours, and reads reports behind OATAILPTR. Reports are
made by the executor every two milliseconds, each with the time at which it was due; what they count in between is taken to be even.
No report is written after the driver has read OACONTROL as disabled, which it does before it frees the buffer: it reads as
enabled while the executor writes, and the executor looks whether it is disabled once that is so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vfio_user_xe.device_models.xe.gt.clock import REFERENCE_CLOCK, ticks
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, TranslationFault
from vfio_user_xe.device_models.xe.oa.buffer import OaBuffer
from vfio_user_xe.device_models.xe.oa.formats import COUNTERS, Format, Reason, Samples, identity, pack
from vfio_user_xe.device_models.xe.oa.sources import Sources, Values
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import MASKED, Field, field, flag

log = logging.getLogger(__name__)

_PERIOD, _LONGEST = 0.002, 60.0
"""Seconds between two looks: at least, and at most whatever period a register asks for."""
_ENABLE = 1 << 0
_TIMER_ENABLE = 1 << 1
_NO_SWITCH_REPORTS, _LARGE, _NO_TRIGGER = 1 << 1, 1 << 12, 1 << 14
_OVERFLOW = 1 << 1
_POINTER = 0xFFFFFFC0
_SMALLEST = 128 << 10

CONTEXT_CONTROL_FIELDS = (flag(0, "COUNTER_RESUME"), flag(1, "TIMER_ENABLE"), field(2, 7, "TIMER_PERIOD"))
DEBUG_FIELDS = (
    flag(1, "DISABLE_CTX_SWITCH_REPORTS"),
    flag(5, "DISABLE_CLK_RATIO_REPORTS"),
    flag(6, "INCLUDE_CLK_RATIO"),
    flag(7, "DISABLE_START_TRG_1_COUNT_QUAL"),
    flag(8, "DISABLE_START_TRG_2_COUNT_QUAL"),
    flag(12, "BUF_SIZE_SELECT"),
    flag(13, "START_TRIGGER_SCOPE_CONTROL"),
    flag(14, "DISABLE_MMIO_TRG"),
)
STATUS_FIELDS = (
    flag(0, "REPORT_LOST"),
    flag(1, "BUFFER_OVERFLOW"),
    flag(2, "COUNTER_OVERFLOW"),
    flag(6, "MMIO_TRG_Q_FULL"),
)
BUFFER_FIELDS = (flag(0, "MEMORY_SELECT"), field(3, 5, "SIZE"), field(6, 31, "ADDRESS"))


@dataclass(frozen=True)
class Layout:
    """Where a unit's registers are in its GT (`regs/xe_oa_regs.h`), and what of OACONTROL means what.

    `selects` are the offsets of the PES registers, 8 bytes apart, a counter each; `whole`: reports do not wrap in the middle.
    """

    name: str
    head: int
    tail: int
    buffer: int
    context_control: int
    control: int
    debug: int
    status: int
    trigger: int
    format_shift: int
    control_fields: tuple[Field, ...]
    formats: Mapping[tuple[int, bool, bool], Format]
    selects: Sequence[int]
    whole: bool

    def format(self, control: int) -> Format | None:
        """What OACONTROL's value `control` chooses; None: a reserved value."""
        return self.chosen(control, self.format_shift)

    def chosen(self, control: int, shift: int) -> Format | None:
        """As `format`, with COUNTER_SEL at bit `shift`."""
        return self.formats.get((control >> shift & 7, bool(control >> 8 & 1), bool(control >> 9 & 1)))


@dataclass(slots=True)
class _Stream:
    """What is being reported: since when, and how far."""

    form: Format
    buffer: OaBuffer
    period: int
    """Ticks between reports; 0: none by time."""
    last: int
    """Ticks of the card's clock until which reports are made."""
    values: Values
    clocks: int

    def is_due(self, now: int) -> bool:
        """Whether a report by time is due; `now` in nanoseconds of the card's clock."""
        return self.period != 0 and ticks(now) // self.period > self.last // self.period


class OaUnit:
    """One unit. Registers are accessed from transport threads, everything else is the executor's."""

    def __init__(self, gt: Gt, registers: RegisterFile, layout: Layout, sources: Sources, ggtt: AddressSpace) -> None:
        """`ggtt` is the PF's: the buffer's address is one there."""
        self.layout = layout
        self._gt = gt
        self._registers = registers
        self._sources = sources
        self._ggtt = ggtt
        self._clock = gt.gpu.card.clock
        self._stream: _Stream | None = None
        self._controls = self._seen = 0
        """Writes of OACONTROL, and how many of them the executor has seen: the driver may disable and enable between two looks."""
        self._writing = False
        self._timer = 0
        """Number of the timer that counts: those before it come for nothing."""
        registers.add(
            [
                gt.register(f"{layout.name}_OAHEADPTR", layout.head),
                gt.register(f"{layout.name}_OATAILPTR", layout.tail),
                gt.register(f"{layout.name}_OABUFFER", layout.buffer, fields=BUFFER_FIELDS),
                gt.register(f"{layout.name}_OACTXCTRL", layout.context_control, fields=CONTEXT_CONTROL_FIELDS),
                gt.register(
                    f"{layout.name}_OACONTROL",
                    layout.control,
                    read=self._control,
                    write=self._controlled,
                    fields=layout.control_fields,
                ),
                gt.register(f"{layout.name}_OA_DEBUG", layout.debug, access=MASKED, fields=DEBUG_FIELDS),
                gt.register(f"{layout.name}_OASTATUS", layout.status, fields=STATUS_FIELDS),
                gt.register(f"{layout.name}_MMIOTRIGGER", layout.trigger, write=self._triggered),
            ]
        )

    def reset(self) -> None:
        """A GT reset: nothing is enabled. The pointers stay: a stream that is open reads them as offsets in its buffer."""
        at = self.layout
        for offset in (at.control, at.context_control, at.debug, at.status, *at.selects):
            self._registers.poke(self._gt.offset(offset), 0)
        self._stream = None

    @property
    def enabled(self) -> bool:
        """Whether it makes reports."""
        return self._stream is not None

    def selects(self) -> list[int]:
        """The PES registers, a counter each."""
        chosen = [self._registers.peek(self._gt.offset(offset)) for offset in self.layout.selects]
        return chosen + [0] * (COUNTERS - len(chosen))

    def format(self) -> Format | None:
        """Of OACONTROL as it is."""
        return self.layout.format(self._peek(self.layout.control))

    def context_switch(self, number: int) -> None:
        """The context of this number (GuC id) is on an engine of this unit."""
        if self._stream is not None and not self._peek(self.layout.debug) & _NO_SWITCH_REPORTS:
            self._one(identity(Reason.CONTEXT_SWITCH, context=True), number)

    # Registers.

    def _peek(self, offset: int) -> int:
        return self._registers.peek(self._gt.offset(offset))

    def _control(self) -> int:
        value = self._peek(self.layout.control)
        return value | _ENABLE if self._writing else value

    def _controlled(self, value: int) -> None:
        self._controls += 1
        self._soon(self._look)

    def _triggered(self, value: int) -> None:
        self._soon(partial(self._trigger, value))

    def _soon(self, job: Callable[[], None]) -> None:
        """On the executor: at once where a command makes the access, so that commands behind it see what it did."""
        executor = self._gt.gpu.executor
        if executor.is_current():
            job()
        else:
            executor.submit(job)

    # On the executor.

    def _trigger(self, tag: int) -> None:
        if self._stream is not None and not self._peek(self.layout.debug) & _NO_TRIGGER:
            self._one(identity(Reason.NONE), tag)

    def _look(self) -> None:
        """OACONTROL was written."""
        seen, self._seen = self._seen, self._controls
        if not self._peek(self.layout.control) & _ENABLE:
            self._stream = None
        elif self._stream is None or seen != self._seen:
            self._begin()

    def _begin(self) -> None:
        form = self.format()
        if form is None:
            log.warning("%s: OACONTROL %#x chooses no format", self.layout.name, self._peek(self.layout.control))
            self._stream = None
            return
        register, timer = self._peek(self.layout.buffer), self._peek(self.layout.context_control)
        size = _SMALLEST << (register >> 3 & 7)
        if self._peek(self.layout.debug) & _LARGE:
            size *= 8
        base = register & _POINTER
        tail = ((self._peek(self.layout.tail) & _POINTER) - base) % size
        now = self._clock.ns()
        self._stream = _Stream(
            form,
            OaBuffer(base, size, form.size, self.layout.whole, tail),
            2 << (timer >> 2 & 0x3F) if timer & _TIMER_ENABLE else 0,
            ticks(now),
            *self._counters(now),
        )
        self._wait()

    def _wait(self) -> None:
        stream = self._stream
        if stream is None or not stream.period:
            return
        left = (stream.last // stream.period + 1) * stream.period - ticks(self._clock.ns())
        self._timer += 1
        self._gt.gpu.executor.call_later(
            min(_LONGEST, max(_PERIOD, left / REFERENCE_CLOCK)), partial(self._tick, self._timer)
        )

    def _tick(self, number: int) -> None:
        stream = self._stream
        if stream is not None and number == self._timer:
            now = self._clock.ns()
            if stream.is_due(now):
                self._make_due(stream, now, *self._counters(now))
            self._wait()

    def _counters(self, now: int) -> tuple[Values, int]:
        """Of the selected events, and the clocks."""
        return self._sources.values(self.selects(), now), self._sources.clocks(now)

    def _make_due(self, stream: _Stream, now: int, values: Values, clocks: int) -> None:
        """Make the reports that time has made due."""
        until = ticks(now)
        first, end = stream.last // stream.period + 1, until // stream.period + 1
        skipped = max(0, end - first - stream.buffer.most)
        times = np.arange(first + skipped, end, dtype=np.uint64) * np.uint64(stream.period)
        part = (times - np.uint64(stream.last)) / (until - stream.last)
        # Fewer than before: the driver has selected other events, or the ledger was cleared.
        before = np.where(values < stream.values, values, stream.values)
        grown = (values - before).astype(float)
        samples = Samples(
            times,
            np.zeros(len(times), dtype=np.uint64),
            np.uint64(stream.clocks) + (part * float(clocks - stream.clocks)).astype(np.uint64),
            before + (part[:, None] * grown).astype(np.uint64),
        )
        stream.last, stream.values, stream.clocks = until, values, clocks
        self._write(stream, identity(Reason.TIMER), samples, skipped)

    def _one(self, first: int, tag: int) -> None:
        """Make a report of now, behind those that are due."""
        stream = self._stream
        if stream is None:
            return
        now = self._clock.ns()
        values, clocks = self._counters(now)
        if stream.is_due(now):
            self._make_due(stream, now, values, clocks)
            if self._stream is None:
                return  # its buffer cannot be written
        samples = Samples(
            np.array([ticks(now)], dtype=np.uint64),
            np.array([tag], dtype=np.uint64),
            np.array([clocks], dtype=np.uint64),
            values[None],
        )
        self._write(stream, first, samples, 0)

    def _write(self, stream: _Stream, first: int, samples: Samples, skipped: int) -> None:
        reports = pack(stream.form, first, samples)
        self._writing = True
        try:
            if self._peek(self.layout.control) & _ENABLE and self._seen == self._controls:
                self._store(stream.buffer, reports, skipped)
        finally:
            self._writing = False

    def _store(self, buffer: OaBuffer, reports: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], skipped: int) -> None:
        head = ((self._peek(self.layout.head) & _POINTER) - buffer.base) % buffer.size
        overflows = buffer.passes(head, len(reports) + skipped)
        try:
            for address, data in buffer.add(reports, skipped):
                self._ggtt.write(address, data)
        except (TranslationFault, AccessFault) as fault:
            log.warning("%s: the driver's buffer cannot be written, no more reports: %s", self.layout.name, fault)
            self._stream = None
            return
        self._registers.poke(self._gt.offset(self.layout.tail), buffer.base + buffer.tail)
        if overflows:
            self._registers.update(self._gt.offset(self.layout.status), set=_OVERFLOW)
