"""The engines of one GT, as GuC submission sees them.

    engines = Engines(gt, listener)
    context = Context(function, guc_id, engine_class, logical_mask, [lrc descriptor])
    engines.register(context); engines.enable(context)      # runs what is between RING_HEAD and RING_TAIL
    engines.kick(context)                                    # RING_TAIL has moved on
    engines.disable(context, done)                           # preempt, save, then done()
    engines.remove(context)

Everything is called, and calls back, on the card's executor; only `wake`-like calls come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from emulator.interconnect import AccessFault
from emulator.registers import Register

from ..address_space import TranslationFault

if TYPE_CHECKING:
    from ..function import Gt, XeFunction

RCS, VCS, VECS, BCS, CCS = 0, 1, 2, 3, 5
"""Engine classes as the driver and the GuC number them (xe_hw_engine_types.h, abi of GuC: RENDER 0, VIDEO 1,
VIDEO_ENHANCE 2, COPY 3, OTHER 4, COMPUTE 5)."""


@dataclass(frozen=True)
class EngineInfo:
    """An engine that a GT may have."""

    name: str
    engine_class: int
    instance: int
    base: int
    """MMIO base, absolute in BAR0, also for the media GT."""
    media: bool = False


ENGINES: tuple[EngineInfo, ...] = (
    EngineInfo("RCS0", RCS, 0, 0x2000),
    EngineInfo("CCS0", CCS, 0, 0x1A000),
    EngineInfo("CCS1", CCS, 1, 0x1C000),
    EngineInfo("CCS2", CCS, 2, 0x1E000),
    EngineInfo("CCS3", CCS, 3, 0x26000),
    EngineInfo("BCS0", BCS, 0, 0x22000),
    EngineInfo("BCS8", BCS, 8, 0x3EE000),
    EngineInfo("VCS0", VCS, 0, 0x1C0000, media=True),
    EngineInfo("VCS1", VCS, 1, 0x1C4000, media=True),
    EngineInfo("VCS2", VCS, 2, 0x1D0000, media=True),
    EngineInfo("VCS3", VCS, 3, 0x1D4000, media=True),
    EngineInfo("VCS4", VCS, 4, 0x1E0000, media=True),
    EngineInfo("VCS5", VCS, 5, 0x1E4000, media=True),
    EngineInfo("VCS6", VCS, 6, 0x1F0000, media=True),
    EngineInfo("VCS7", VCS, 7, 0x1F4000, media=True),
    EngineInfo("VECS0", VECS, 0, 0x1C8000, media=True),
    EngineInfo("VECS1", VECS, 1, 0x1D8000, media=True),
    EngineInfo("VECS2", VECS, 2, 0x1E8000, media=True),
    EngineInfo("VECS3", VECS, 3, 0x1F8000, media=True),
)
"""xe_hw_engine.c: engine_infos; bases from regs/xe_engine_regs.h."""


Fault = TranslationFault | AccessFault


@dataclass(eq=False)
class Context:
    """What the GuC knows as a guc_id: one logical ring context, or several that run as one (parallel)."""

    function: XeFunction
    guc_id: int
    """As the function numbers it."""
    engine_class: int
    logical_mask: int
    """Bit n: may run on the class's n-th engine present (of a parallel context: where its first LRC may)."""
    lrcs: Sequence[int]
    """LRC descriptors (GGTT address of the PPHWSP and flags), one, or one for each member of a parallel context."""
    work_queue: tuple[int, int, int] | None = None
    """GGTT address of the descriptor, GGTT address and size in bytes of the work queue of a parallel context."""
    quantum_us: int = 0
    """Execution quantum; 0: until it is idle or something of a higher priority comes."""
    preempt_us: int = 0
    """How long a context may ignore a request to be preempted before it is reset; 0: for ever."""
    priority: int = 3
    """0 KMD high, 1 high, 2 KMD normal, 3 normal: lower numbers first (GUC_CLIENT_PRIORITY_*)."""
    kernel: bool = False
    enabled: bool = field(default=False, init=False)


class Engine(Protocol):
    """One engine. `context` is what it executes now."""

    info: EngineInfo
    context: Context | None
    logical: int
    """Its number among the engines of its class that are present."""
    interrupt_status_pointer: int
    interrupt_source_pointer: int
    """RING_INT_STATUS_RPT_PTR and RING_INT_SRC_RPT_PTR of the context that runs: GGTT addresses, 0 when not set."""
    interrupt_mask: int
    """RING_IMR of the context that runs."""


class EngineListener(Protocol):
    """Whom the engines tell what happens; called on the executor, in the order in which it happened."""

    def user_interrupt(self, function: XeFunction, engine: Engine) -> None:
        """MI_USER_INTERRUPT: every memory write of commands before it was done."""
        ...

    def page_fault(self, context: Context, engine: Engine, fault: TranslationFault) -> bool:
        """A PPGTT address did not translate. True: wait until `Engines.resume(context, ...)`; False: it is fatal."""
        ...

    def memory_fault(self, context: Context, engine: Engine, fault: Fault) -> None:
        """A fatal fault (CAT error). The context is off the engine and will not run again until it is removed."""
        ...

    def context_reset(self, context: Context, engine: Engine, reason: str) -> None:
        """The engine was reset because the context would not be preempted. As after `memory_fault`."""
        ...


class Engines:
    """The engines of one GT and what runs on them."""

    def __init__(self, gt: Gt, listener: EngineListener) -> None:
        """Reads which engines are present from `gt.engine_names` (names of `ENGINES`)."""
        raise NotImplementedError

    engines: list[Engine]
    trace: Callable[[str], None] | None
    """Gets a line for every command that is executed, and every context switch."""

    def register(self, context: Context) -> None:
        """Take `context`; it runs from RING_HEAD of its image once it is enabled."""
        raise NotImplementedError

    def remove(self, context: Context) -> None:
        """Forget `context`; off the engine at once if it is on one."""
        raise NotImplementedError

    def enable(self, context: Context) -> None:
        """Let it run (MODE_SET 1): from where it was when it was disabled, even in the middle of a batch."""
        raise NotImplementedError

    def kick(self, context: Context) -> None:
        """RING_TAIL in its image (or its work queue) has changed (SCHED_CONTEXT)."""
        raise NotImplementedError

    def disable(self, context: Context, done: Callable[[], None]) -> None:
        """Preempt it and save its image (MODE_SET 0), then `done()`. At the latest after `preempt_us`, by a reset."""
        raise NotImplementedError

    def resume(self, context: Context, success: bool = True) -> None:
        """Answer to `page_fault`: repeat the access, or (not `success`) make it a `memory_fault`."""
        raise NotImplementedError

    def policy_changed(self, context: Context) -> None:
        """`quantum_us`, `preempt_us` or `priority` of a registered context has changed."""
        raise NotImplementedError

    def function_policy(self, vfid: int, *, quantum_us: int, preempt_us: int, priority: int = 0) -> None:
        """How a function shares the engines with others (KLVs EXEC_QUANTUM, PREEMPT_TIMEOUT, SCHED_PRIORITY)."""
        raise NotImplementedError

    def pause_function(self, vfid: int, done: Callable[[], None]) -> None:
        """Take every context of a function off the engines; then `done()`."""
        raise NotImplementedError

    def resume_function(self, vfid: int) -> None:
        """Let a paused function run again."""
        raise NotImplementedError

    def reset_function(self, vfid: int) -> None:
        """Drop every context of a function at once, saving nothing (FLR)."""
        raise NotImplementedError

    def reset(self) -> None:
        """GRDOM_FULL: drop every context at once, saving nothing; engine registers to their reset values."""
        raise NotImplementedError

    def invalidate(self, function: XeFunction, asid: int | None = None) -> None:
        """TLB invalidation by a function: one address space, or all of the function's."""
        raise NotImplementedError

    def registers(self) -> list[Register]:
        """Live engine registers for the PF's register file, at absolute offsets."""
        raise NotImplementedError

    def activity(self) -> dict[tuple[str, int], int]:
        """Nanoseconds that each (engine name, vfid) was running a context until now."""
        raise NotImplementedError

    def inspect(self) -> list[dict[str, Any]]:
        """What each engine does, as plain data."""
        raise NotImplementedError
