"""What engines, commands and submission need of each other, as Protocols: so that none imports who imports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.eu.kernel_trace import KernelTrace
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall
from vfio_user_xe.device_models.xe.memory.address_space import Fault, TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.memory.vram import Vram
from vfio_user_xe.device_models.xe.profiles.profile import EngineInfo
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.register_file import RegisterFile


class EngineView(Protocol):
    """An engine as its commands and its listener see it; `engine.Engine` is one. Used on the executor."""

    @property
    def info(self) -> EngineInfo:
        """What it is and where its registers are."""
        ...

    @property
    def name(self) -> str:
        """ "rcs0", "bcs8", ..."""
        ...

    @property
    def clock(self) -> CardClock:
        """The card's."""
        ...

    @property
    def registers(self) -> RegisterFile:
        """The PF's registers: what the driver has programmed."""
        ...

    @property
    def vram(self) -> Vram:
        """The card's."""
        ...

    @property
    def context(self) -> Context | None:
        """What it executes."""
        ...

    @property
    def lrc(self) -> Lrc | None:
        """Which member of it."""
        ...

    @property
    def most_threads(self) -> int:
        """Threads that the execution units hold at once."""
        ...

    @property
    def stalls(self) -> EuStall | None:
        """Who samples the threads of its kernels; None: nobody."""
        ...

    @property
    def live(self) -> Mapping[int, Callable[[], int]]:
        """Registers that show the engine, by offset from its base."""
        ...

    @property
    def siblings(self) -> Mapping[int, Callable[[], int]]:
        """Those of all engines of the GT, by absolute offset."""
        ...

    @property
    def interrupt_mask(self) -> int:
        """RING_IMR of the context that runs; with memory-based interrupts what is enabled has its bit set."""
        ...

    @property
    def interrupt_status_pointer(self) -> int:
        """RING_INT_STATUS_RPT_PTR of the context that runs: a GGTT address, 0 when not set."""
        ...

    @property
    def interrupt_source_pointer(self) -> int:
        """RING_INT_SRC_RPT_PTR of the context that runs: a GGTT address, 0 when not set."""
        ...

    def timestamp(self) -> int:
        """RING_TIMESTAMP, 64 bits."""
        ...

    def context_timestamp(self) -> int:
        """CTX_TIMESTAMP, 64 bits."""
        ...

    def set_context_timestamp(self, upper: bool, value: int, /) -> None:
        """A command writes one half of CTX_TIMESTAMP."""
        ...

    def user_interrupt(self, *, last: bool) -> None:
        """MI_USER_INTERRUPT; `last`: nothing of weight follows in the ring."""
        ...

    def watchdog_reset(self) -> None:
        """PR_CTR ran out."""
        ...

    def report(self, what: str, /) -> None:
        """Something is not emulated, or makes no sense."""
        ...

    def interpret(self, kind: str, threads: int = 1, /) -> None:
        """The reference back end executes an instruction of this kind for so many threads, in place of the compiled one."""
        ...

    def thread_report(self, function: str, what: str, /) -> None:
        """A thread of `function` on the execution units met a fatal fault, or is given up; `what` says where it was."""
        ...

    @property
    def kernels(self) -> KernelTrace:
        """The trace of what runs on the execution units."""
        ...

    @property
    def counted(self) -> Counter[int]:
        """Performance events (`perf_events.Event`) that its commands have made; they only grow."""
        ...

    def report_counters(self, lrc: Lrc, identity: int, /) -> bytes:
        """A report of performance counters for the context; empty: nobody counts."""
        ...


class CountedEngine(Protocol):
    """An engine as who makes reports of it sees it."""

    @property
    def info(self) -> EngineInfo:
        """What it is and where its registers are."""
        ...

    @property
    def engine_class(self) -> int:
        """RENDER, COMPUTE, ..."""
        ...

    @property
    def context(self) -> Context | None:
        """What it executes."""
        ...

    @property
    def counted(self) -> Counter[int]:
        """Performance events that its commands have made."""
        ...

    def busy(self) -> Mapping[int, int]:
        """Nanoseconds that each function (by VFID) had it."""
        ...

    def timestamp(self) -> int:
        """RING_TIMESTAMP, 64 bits."""
        ...


class PerformanceCounters(Protocol):
    """Who makes reports of what an engine does; `oa.oa.Oa` is one. On the executor."""

    def switched_in(self, engine: CountedEngine, lrc: Lrc, /) -> None:
        """The context of `lrc` is on `engine`."""
        ...

    def leaves(self, engine: CountedEngine, lrc: Lrc, /) -> None:
        """The context of `lrc` is about to leave `engine`."""
        ...

    def report(self, engine: CountedEngine, lrc: Lrc, identity: int, /) -> bytes:
        """A report for the context, with this identity; empty: no format is chosen."""
        ...


class EngineListener(Protocol):
    """Whom the engines tell what happens; called on the executor, in the order in which it happened."""

    def user_interrupt(self, function: XeFunction, engine: EngineView) -> None:
        """MI_USER_INTERRUPT: every memory write of commands before it was done.

        At the end of a ring the context's image is saved before, so that whoever is woken finds it.
        """
        ...

    def page_fault(self, context: Context, engine: EngineView, fault: TranslationFault) -> bool:
        """A PPGTT address did not translate. True: wait until `Engines.resume(context, ...)`; False: it is fatal."""
        ...

    def memory_fault(self, context: Context, engine: EngineView, fault: Fault) -> None:
        """A fatal fault (CAT error). The context is off the engine and will not run again until it is removed."""
        ...

    def context_reset(self, context: Context, engine: EngineView, reason: str) -> None:
        """The engine was reset because the context would not be preempted. As after `memory_fault`."""
        ...
