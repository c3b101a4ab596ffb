"""Contexts as GuC submission hands them over, and their states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.emulator.model.states import Machine, Transitions

KMD_HIGH, HIGH, KMD_NORMAL, NORMAL = range(4)
"""Priorities, the most urgent first (xe_guc_exec_queue_types.h, GUC_CLIENT_PRIORITY_*)."""


class ContextState(Enum):
    """What a context is to the engines. Whether it is queued, on an engine, or waits for a page is beside that."""

    NEW = "not registered"
    DISABLED = "disabled"
    ENABLED = "enabled"
    FAILED = "failed"
    """After a fatal fault or a reset: it does not run again until it is registered anew."""
    REMOVED = "removed"


NEW, DISABLED, ENABLED, FAILED, REMOVED = ContextState

TRANSITIONS = Transitions(
    ContextState,
    {
        NEW: {DISABLED},
        DISABLED: {ENABLED, FAILED, REMOVED},
        ENABLED: {DISABLED, FAILED, REMOVED},
        FAILED: {REMOVED},
        REMOVED: {DISABLED},
    },
)


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
    saved_as: ContextState = DISABLED
    """Of a context that was saved elsewhere (`Engines.adopt`): what it was there, DISABLED, ENABLED or FAILED."""
    arrived: list[bytes] = field(default_factory=list)
    """Of a context that was saved elsewhere: what of each member was in the middle of something (`Lrc.in_flight`)."""
    waiting: TranslationFault | None = field(default=None, init=False)
    """The page fault whose answer it waits for."""

    # The scheduler's.
    members: list[Lrc] = field(default_factory=list, init=False, repr=False)
    queued: bool = field(default=False, init=False, repr=False)
    states: Machine[ContextState] = field(init=False, repr=False)
    _disabling: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.states = TRANSITIONS.start(self.name, NEW)

    @property
    def state(self) -> ContextState:
        """What it is to the engines now."""
        return self.states.state

    @property
    def name(self) -> str:
        """ "pf context 3": for logs and traces."""
        return f"{self.function.pci.name} context {self.guc_id}"

    def in_flight(self) -> list[bytes]:
        """What of each member is in the middle of something, to be saved; only while it is on no engine."""
        if not self.members:
            return self.arrived
        return [lrc.in_flight() if lrc.in_flight is not None else lrc.arrived for lrc in self.members]

    @property
    def resident(self) -> bool:
        """Whether any of it is on an engine."""
        return any(lrc.loaded for lrc in self.members)

    def when_disabled(self, done: Callable[[], None]) -> None:
        """Call `done` once nothing of it is on an engine."""
        self._disabling.append(done)
        self.finish_disabling()

    def finish_disabling(self) -> None:
        """Tell who wanted it disabled, if nothing of it is on an engine any more."""
        if self._disabling and not self.resident:
            waiting, self._disabling = self._disabling, []
            for done in waiting:
                done()

    def forget_disabling(self) -> None:
        """Nobody is told any more."""
        self._disabling.clear()
