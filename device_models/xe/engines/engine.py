"""One engine: what runs on it, its clocks, and the registers that show it (`xe_hw_engine.c`)."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from vfio_user_xe.device_models.xe.engines import engine_regs as regs
from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer, Tables
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.lrc import RING_VALID, Lrc
from vfio_user_xe.device_models.xe.engines.types import EngineListener, PerformanceCounters
from vfio_user_xe.device_models.xe.eu.kernel_trace import KernelTrace
from vfio_user_xe.device_models.xe.gt.clock import ticks
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import Register
from vfio_user_xe.emulator.observe.tap import Tap

log = logging.getLogger(__name__)

_ALL = 0xFFFFFFFF
_MOST_REPORTS = 200
"""Different things to tell apart: a hostile guest can think of any number."""
_MOST_THREADS = 8


class Engine:
    """One engine. `context` is what it executes now; registers go on showing the last one after it has left."""

    def __init__(
        self,
        info: EngineInfo,
        listener: EngineListener,
        registers: RegisterFile,
        vram: Vram,
        tables: Tables,
        clock: CardClock,
    ) -> None:
        """`registers` is the PF's register file: what the driver programs into the engine. `clock` is the card's."""
        self.info = info
        self.clock = clock
        self.tap = Tap("engine", "contexts that engines switch in and out")
        self.registers = registers
        self.vram = vram
        self.context: Context | None = None
        self.lrc: Lrc | None = None
        self.reports: Counter[str] = Counter()
        """Commands that are not emulated or invalid, and how often they were met."""
        self.interpreted: Counter[str] = Counter()
        """Instructions, by kind, that the compiled back end has left to the reference one, and how many threads have executed them."""
        self.threads: deque[str] = deque(maxlen=_MOST_THREADS)
        """What the last threads that faulted, or were given up in a walker, were at: with instruction, lanes and registers."""
        self.kernels = KernelTrace(info.name)
        self.resets = 0
        self.group: int | None = 0
        """The scheduling group whose quanta and timeouts count here; None: it is in none, and runs nothing."""
        self.streamer = CommandStreamer(self, tables)
        self.most_threads = 1 << 10
        """Threads that the execution units hold at once."""
        self.stalls: EuStall | None = None
        """Who samples the threads of its kernels."""
        self.counted: Counter[int] = Counter()
        self.oa: PerformanceCounters | None = None
        """Who makes reports of performance counters for its contexts."""
        self.siblings: dict[int, Callable[[], int]] = {}
        """Live registers of all engines of the GT, by absolute offset."""
        self._listener = listener
        self._since = 0
        self._since_ns = 0
        self._context_timestamp = 0
        self._busy: Counter[int] = Counter()
        self._last: Lrc | None = None
        self._interrupt_due = False
        self.live: dict[int, Callable[[], int]] = {
            regs.RING_TAIL.offset: lambda: self._ring("tail"),
            regs.RING_HEAD.offset: lambda: self._ring("head"),
            regs.RING_START.offset: lambda: ((last := self._last) and last.start) or 0,
            regs.RING_CTL.offset: self._ring_control,
            regs.RING_ACTHD.offset: lambda: self.active_head() & _ALL,
            regs.RING_ACTHD_UDW.offset: lambda: self.active_head() >> 32,
            regs.RING_IPEHR.offset: lambda: self.streamer.header,
            regs.ENGINE_ID.offset: lambda: info.engine_id,
            regs.RING_BBADDR.offset: lambda: self._batch() & _ALL,
            regs.RING_BBADDR_UDW.offset: lambda: self._batch() >> 32,
            regs.RING_EXECLIST_STATUS_LO.offset: lambda: int(self.lrc is not None) << 4,
            regs.RING_EXECLIST_STATUS_HI.offset: lambda: ((context := self.context) and context.guc_id) or 0,
            regs.RING_CURRENT_LRCA.offset: lambda: ((lrc := self.lrc) and lrc.pphwsp | 1) or 0,
            regs.RING_TIMESTAMP.offset: lambda: ticks(self.clock.ns()) & _ALL,
            regs.RING_TIMESTAMP.offset + 4: lambda: ticks(self.clock.ns()) >> 32 & _ALL,
            regs.RING_CTX_TIMESTAMP.offset: lambda: self.context_timestamp() & _ALL,
            regs.RING_CTX_TIMESTAMP.offset + 4: lambda: self.context_timestamp() >> 32 & _ALL,
        }

    @property
    def name(self) -> str:
        """ "rcs0", "bcs8", ..."""
        return self.info.name

    @property
    def engine_class(self) -> int:
        """RENDER, COMPUTE, ..."""
        return self.info.engine_class

    @property
    def logical(self) -> int:
        """Its number among the engines of its class that are present."""
        return self.info.logical

    @property
    def interrupt_status_pointer(self) -> int:
        """RING_INT_STATUS_RPT_PTR of the context that runs: a GGTT address, 0 when not set."""
        return self.lrc.interrupt_status_pointer if self.lrc else 0

    @property
    def interrupt_source_pointer(self) -> int:
        """RING_INT_SRC_RPT_PTR of the context that runs: a GGTT address, 0 when not set."""
        return self.lrc.interrupt_source_pointer if self.lrc else 0

    @property
    def interrupt_mask(self) -> int:
        """RING_IMR of the context that runs; with memory-based interrupts what is enabled has its bit set."""
        return self.lrc.interrupt_mask if self.lrc else 0

    # Context switches.

    def switch_in(self, context: Context, lrc: Lrc) -> None:
        """Run `lrc` of `context` from here on.

        Raises:
            TranslationFault: its image is not mapped.
            AccessFault: its image is nowhere.
        """
        if self.tap.on:
            self.tap(context.function.name, "in", {"engine": self.name, "context": context.guc_id})
        lrc.restore()
        lrc.loaded = True
        self.context, self.lrc, self._last = context, lrc, lrc
        self._context_timestamp = lrc.timestamp
        self._since, self._since_ns = ticks(self.clock.ns()), self.clock.ns()
        self.streamer.preempt = False
        self.streamer.load(lrc)
        if self.oa is not None:
            self.oa.switched_in(self, lrc)

    def switch_out(self, *, save: bool = True) -> None:
        """Save the context and be idle. What is not saved is lost, and so is an interrupt of it that waits.

        Raises:
            TranslationFault: its image is not mapped; the engine is idle all the same.
            AccessFault: its image is nowhere; the engine is idle all the same.
        """
        context, lrc = self.context, self.lrc
        if context is None or lrc is None:
            return
        lrc.timestamp = self.context_timestamp()
        self._busy[context.function.vfid] += self.clock.ns() - self._since_ns
        if self.tap.on:
            self.tap(context.function.name, "out", {"engine": self.name, "context": context.guc_id})
        self._interrupt_due &= save
        try:
            if self.oa is not None:
                self.oa.leaves(self, lrc)
            if save:
                lrc.save()
        finally:
            try:
                # Where it is reported stands in the context's registers.
                self.raise_interrupt()
            finally:
                self._context_timestamp = lrc.timestamp
                self.context = self.lrc = None
                lrc.loaded = False
                self.streamer.preempt = False

    def run_time(self) -> float:
        """Seconds since the context was switched in."""
        return (self.clock.ns() - self._since_ns) / 1e9

    def busy(self) -> dict[int, int]:
        """Nanoseconds that each function (by VFID) had the engine."""
        busy = dict(self._busy)
        context = self.context
        if context is not None:
            vfid = context.function.vfid
            busy[vfid] = busy.get(vfid, 0) + self.clock.ns() - self._since_ns
        return busy

    # For commands.

    def timestamp(self) -> int:
        """RING_TIMESTAMP, 64 bits."""
        return ticks(self.clock.ns())

    def context_timestamp(self) -> int:
        """CTX_TIMESTAMP, 64 bits: ticks that the context ran, in all its life."""
        if self.lrc is None:
            return self._context_timestamp
        return self._context_timestamp + ticks(self.clock.ns()) - self._since

    def set_context_timestamp(self, upper: bool, value: int) -> None:
        """A command writes one half of CTX_TIMESTAMP."""
        now = self.context_timestamp()
        now = (now & _ALL | value << 32) if upper else (now & ~_ALL | value)
        self._context_timestamp, self._since = now, ticks(self.clock.ns())

    def user_interrupt(self, *, last: bool) -> None:
        """MI_USER_INTERRUPT. The `last` of a ring waits until the context's image is saved, or the slice ends otherwise.

        An interrupt says that the writes before it are done, and not when it comes. Hardware saves a context that has nothing
        to do within microseconds; here that is interpreted code, and a host may stop it there for milliseconds, in which a
        driver that was woken would copy an image that is out of date (docs/findings/suspend-copies-contexts-that-run.md).
        """
        self.raise_interrupt()
        self._interrupt_due = True
        if not last:
            self.raise_interrupt()

    def raise_interrupt(self) -> None:
        """Raise what waits, if anything does."""
        if self._interrupt_due and self.context is not None:
            self._interrupt_due = False
            self._listener.user_interrupt(self.context.function, self)

    def watchdog_reset(self) -> None:
        """PR_CTR expired: the engine is reset, and its context continues."""
        self.resets += 1
        if self.lrc is not None:
            self.lrc.watchdog = None
            self.lrc.gpr = [0] * 32

    def report_counters(self, lrc: Lrc, identity: int) -> bytes:
        """MI_REPORT_PERF_COUNT: a report for the context; empty: nobody counts, or the driver has chosen no format."""
        return self.oa.report(self, lrc, identity) if self.oa is not None else b""

    def report(self, what: str) -> None:
        """Something is not emulated, or makes no sense: counted, and logged the first time."""
        if what not in self.reports and len(self.reports) >= _MOST_REPORTS:
            what = "more kinds of what is not emulated or makes no sense"
        self.reports[what] += 1
        if self.reports[what] == 1:
            whose = self.context.name if self.context else "no context"
            log.warning("%s (%s): %s", self.name, whose, what)

    def interpret(self, kind: str, threads: int = 1) -> None:
        """Threads execute an instruction on the reference back end, slowly: counted, and logged the first time for who wants details."""
        if kind not in self.interpreted and len(self.interpreted) >= _MOST_REPORTS:
            kind = "others"
        self.interpreted[kind] += threads
        if self.interpreted[kind] == threads:
            log.info("%s: the compiled back end has no handler for %s: it is interpreted", self.name, kind)

    def thread_report(self, function: str, what: str) -> None:
        """A thread of `function` met a fatal fault, or is given up: kept for `inspect`, traced, logged for who wants details."""
        self.threads.append(f"{function}: {what}")
        log.info("%s (%s): %s", self.name, function, what)
        self.kernels.thread(function, what)

    # Registers. Accesses read them on other threads while the executor works, so each reads a value that can change only once.

    def declared_registers(self) -> list[Register]:
        """The engine's registers, for the PF's register file."""
        return regs.declare(self.info, self.live | {offset: self._gpr(offset) for offset in regs.CS_GPR.offsets})

    def active_head(self) -> int:
        """Where the next command is: in a batch, or in the ring."""
        return self._batch() or ((last := self._last) and last.head) or 0

    def reset(self) -> None:
        """Power-up state: nothing ran here yet."""
        self.context = self.lrc = self._last = None
        self._context_timestamp = 0
        self._interrupt_due = False
        self.streamer.header = 0
        self.streamer.preempt = False

    def inspect(self) -> dict[str, Any]:
        """The engine's state, as plain data."""
        context, lrc = self.context, self._last
        return {
            "name": self.name,
            "context": context.name if context else None,
            "ring": {"start": lrc.start, "head": lrc.head - lrc.start, "tail": lrc.tail - lrc.start} if lrc else None,
            "batches": [{"address": f.address, "ppgtt": f.ppgtt} for f in lrc.stack] if lrc else [],
            "active_head": self.active_head(),
            "last_header": self.streamer.header,
            "busy_ns": self.busy(),
            "resets": self.resets,
            "group": self.group,
            "reports": dict(self.reports),
            "interpreted": dict(self.interpreted),
            "threads": list(self.threads),
        }

    def _gpr(self, offset: int) -> Callable[[], int]:
        index = (offset - regs.CS_GPR.offset) >> 2
        return lambda: ((last := self._last) and last.gpr[index]) or 0

    def _ring(self, which: str) -> int:
        last = self._last
        return 0 if last is None else int(getattr(last, which)) - last.start

    def _ring_control(self) -> int:
        last = self._last
        return 0 if last is None or last.end == last.start else last.end - last.start - 0x1000 | RING_VALID

    def _batch(self) -> int:
        last = self._last
        try:
            return last.stack[-1].address if last is not None else 0
        except IndexError:  # the executor has left the batch while this thread was looking
            return 0
