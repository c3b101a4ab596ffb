"""Contexts as GuC submission hands them over, and whom the engines tell what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.engine import Engine
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc
    from vfio_user_xe.device_models.xe.function import XeFunction

__all__ = ["AccessFault", "Context", "EngineListener", "Fault", "TranslationFault"]

KMD_HIGH, HIGH, KMD_NORMAL, NORMAL = range(4)
"""Priorities, the most urgent first (xe_guc_exec_queue_types.h, GUC_CLIENT_PRIORITY_*)."""


@dataclass(eq=False)
class Context:
    """A context, which the GuC knows by its guc_id: one logical ring context, or several that run as one (parallel)."""

    function: XeFunction
    guc_id: int
    """As the function numbers it."""
    engine_class: int
    """As the driver numbers it (`profile.RENDER` ...)."""
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
    priority: int = NORMAL
    kernel: bool = False
    enabled: bool = field(default=False, init=False)
    """Between `Engines.enable` and `Engines.disable`."""
    failed: bool = field(default=False, init=False)
    """After a fatal fault or a reset: it does not run again until it is registered anew."""
    waiting: TranslationFault | None = field(default=None, init=False)
    """The page fault whose answer it waits for."""

    # The scheduler's.
    members: list[Lrc] = field(default_factory=list, init=False, repr=False)
    queued: bool = field(default=False, init=False, repr=False)
    disabling: Callable[[], None] | None = field(default=None, init=False, repr=False)
    order: int = field(default=0, init=False, repr=False)

    @property
    def name(self) -> str:
        """ "pf context 3": for logs and traces."""
        return f"{self.function.pci.name} context {self.guc_id}"

    @property
    def resident(self) -> bool:
        """Whether any of it is on an engine."""
        return any(lrc.engine is not None for lrc in self.members)


class EngineListener(Protocol):
    """Whom the engines tell what happens; called on the executor, in the order in which it happened."""

    def user_interrupt(self, function: XeFunction, engine: Engine) -> None:
        """MI_USER_INTERRUPT: every memory write of commands before it was done."""
        ...

    def page_fault(self, context: Context, engine: Engine, fault: TranslationFault) -> bool:
        """A PPGTT address did not translate. True: wait until `Engines.resume(context, ...)`; False: it is fatal."""
        ...

    def memory_fault(self, context: Context, engine: Engine, fault: Fault) -> None:
        """A fatal fault (CAT error). The context was taken from its engine and never runs again."""
        ...

    def context_reset(self, context: Context, engine: Engine, reason: str) -> None:
        """The engine was reset because the context would not be preempted. As after `memory_fault`."""
        ...
