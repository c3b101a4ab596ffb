"""Who is next: contexts that want an engine of one class, by function, priority, and the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_models.xe.engines.context import NORMAL, Context

if TYPE_CHECKING:
    from device_models.xe.engines.engine import Engine

_LEVELS = NORMAL + 1


@dataclass
class FunctionPolicy:
    """How a function shares engines with others (VF configuration KLVs, in microseconds; 0: no limit)."""

    quantum_us: int = 0
    preempt_us: int = 0
    priority: int = 0
    """0 low, 1 normal, 2 high: functions of a higher priority come first (SCHED_PRIORITY)."""
    paused: bool = False


class RunQueue:
    """Contexts of one engine class that have work and are on no engine."""

    def __init__(self, policies: dict[int, FunctionPolicy]) -> None:
        self._policies = policies
        self._levels: dict[int, list[deque[Context]]] = {}
        self._turn: list[int] = []
        """VFIDs, the one whose turn it is first."""

    def add(self, context: Context, *, first: bool = False) -> None:
        """Queue `context`, behind others of its priority or before them."""
        vfid = context.function.vfid
        levels = self._levels.get(vfid)
        if levels is None:
            levels = self._levels[vfid] = [deque() for _ in range(_LEVELS)]
            self._turn.append(vfid)
        queue = levels[min(context.priority, NORMAL)]
        if first:
            queue.appendleft(context)
        else:
            queue.append(context)
        context.queued = True

    def remove(self, context: Context) -> None:
        """Take `context` out, if it is in."""
        if context.queued:
            for queue in self._levels[context.function.vfid]:
                if context in queue:
                    queue.remove(context)
            context.queued = False

    def rotate(self, vfid: int) -> None:
        """The turn of function `vfid` is over."""
        if vfid in self._turn:
            self._turn.remove(vfid)
            self._turn.append(vfid)

    def candidates(self, engine: Engine) -> Iterator[Context]:
        """Contexts that may run on `engine`, the one that should first."""
        for vfid in self._functions():
            for queue in self._levels[vfid]:
                yield from (context for context in queue if fits(context, engine))

    def others(self, engine: Engine, vfid: int) -> bool:
        """Whether functions other than `vfid` want `engine`."""
        return any(context.function.vfid != vfid for context in self.candidates(engine))

    def rivals(self, engine: Engine, context: Context) -> int | None:
        """The most urgent priority at which contexts of the same function want `engine`; None when none does."""
        if self._paused(context.function.vfid):
            return None
        for level, queue in enumerate(self._levels.get(context.function.vfid, ())):
            if any(fits(other, engine) for other in queue):
                return level
        return None

    def contexts(self) -> list[Context]:
        """All that are queued."""
        return [context for levels in self._levels.values() for queue in levels for context in queue]

    def _functions(self) -> list[int]:
        ready = [vfid for vfid in self._turn if not self._paused(vfid)]
        return sorted(ready, key=lambda vfid: -self._priority(vfid))

    def _priority(self, vfid: int) -> int:
        policy = self._policies.get(vfid)
        return policy.priority if policy else 0

    def _paused(self, vfid: int) -> bool:
        policy = self._policies.get(vfid)
        return policy is not None and policy.paused


def fits(context: Context, engine: Engine) -> bool:
    """Whether `context` (of a parallel one: any member) may run on `engine`."""
    mask = context.logical_mask
    for _ in range(1, len(context.members)):
        mask |= mask << 1
    return bool(mask >> engine.logical & 1)
