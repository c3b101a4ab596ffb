"""The run queue: contexts that wait for an engine of one class, by function, priority, and order of arrival.

Functions take turns, each for its execution quantum; their priority decides what an idle one's turn is worth
(`abi/guc_klvs_abi.h:GUC_KLV_VF_CFG_SCHED_PRIORITY`): nothing (low), its whole quantum, in which the engine does nothing
(normal), and a high one has the turn that follows any other's.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from vfio_user_xe.device_models.xe.engines.context import NORMAL, Context
from vfio_user_xe.device_models.xe.engines.engine import Engine

_LEVELS = NORMAL + 1

LOW_FUNCTION, NORMAL_FUNCTION, HIGH_FUNCTION = 0, 1, 2
"""SCHED_PRIORITY of a function."""


@dataclass
class FunctionPolicy:
    """How a function shares engines with others (VF configuration KLVs, in microseconds; 0: no limit).

    Quantum and preemption timeout are numbers by scheduling group; one number is that of them all.
    """

    quantum_us: int | Sequence[int] = 0
    preempt_us: int | Sequence[int] = 0
    priority: int = LOW_FUNCTION
    """Whether its turn is its own also when it has no work, or comes next when it has (SCHED_PRIORITY)."""
    paused: bool = False

    def quantum(self, engine: Engine) -> int:
        """Its quantum on `engine`."""
        return _of_group(self.quantum_us, engine.group)

    def preempt(self, engine: Engine) -> int:
        """Its preemption timeout on `engine`."""
        return _of_group(self.preempt_us, engine.group)

    def reserves(self, engine: Engine) -> bool:
        """Whether its turn passes even when it has no work; without a quantum it would never end."""
        return self.priority == NORMAL_FUNCTION and self.quantum(engine) > 0 and not self.paused


class RunQueue:
    """Contexts of one engine class that have work and are on no engine."""

    def __init__(self, policies: dict[int, FunctionPolicy]) -> None:
        self._policies = policies
        self._levels: dict[int, list[deque[Context]]] = {}
        self._turn: list[int] = []
        """VFIDs, the one whose turn it is first."""
        self._count = 0
        """How many contexts are queued: mostly none, and then nothing is looked at."""

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
        self._count += 1

    def remove(self, context: Context) -> None:
        """Take `context` out, if it is in."""
        if context.queued:
            for queue in self._levels[context.function.vfid]:
                if context in queue:
                    queue.remove(context)
            context.queued = False
            self._count -= 1

    def rotate(self, vfid: int) -> None:
        """The turn of function `vfid` is over."""
        if vfid in self._turn:
            self._turn.remove(vfid)
            self._turn.append(vfid)

    def turn(self, engine: Engine, holder: int, before: int) -> int | None:
        """The VFID whose turn on `engine` it is, None when no function has work for it.

        `holder` has it until now and keeps it while its turn lasts (-1: the turn is over); `before` is who had it last.
        What is named may have no work: then its turn passes with the engine doing nothing.
        """
        if not self._count:
            return None
        wanting = {vfid for vfid in self._turn if not self._paused(vfid) and self.first(engine, vfid) is not None}
        if not wanting:
            return None
        self._turn += [vfid for vfid in self._policies if self._reserves(engine, vfid) and vfid not in self._turn]
        if holder in wanting or self._reserves(engine, holder):
            return holder
        urgent = (vfid for vfid in self._turn if vfid in wanting and vfid != before and self._is_high(vfid))
        others = (vfid for vfid in self._turn if vfid in wanting or self._reserves(engine, vfid))
        return next(itertools.chain(urgent, others))

    def first(self, engine: Engine, vfid: int) -> Context | None:
        """The context of a function that should have `engine` first; None when none may run on it."""
        for queue in self._levels.get(vfid, ()):
            for context in queue:
                if fits(context, engine):
                    return context
        return None

    def others(self, engine: Engine, vfid: int) -> bool:
        """Whether functions other than `vfid` have a claim to `engine`."""
        reserved = any(policy.reserves(engine) for other, policy in self._policies.items() if other != vfid)
        return reserved or any(
            other != vfid and not self._paused(other) and self.first(engine, other) is not None for other in self._turn
        )

    def rivals(self, engine: Engine, context: Context) -> int | None:
        """The most urgent priority at which contexts of the same function want `engine`; None when none does."""
        if not self._count or self._paused(context.function.vfid):
            return None
        for level, queue in enumerate(self._levels.get(context.function.vfid, ())):
            if any(fits(other, engine) for other in queue):
                return level
        return None

    def contexts(self) -> list[Context]:
        """All that are queued."""
        return [context for levels in self._levels.values() for queue in levels for context in queue]

    def _reserves(self, engine: Engine, vfid: int) -> bool:
        policy = self._policies.get(vfid)
        return policy is not None and policy.reserves(engine)

    def _is_high(self, vfid: int) -> bool:
        policy = self._policies.get(vfid)
        return policy is not None and policy.priority == HIGH_FUNCTION

    def _paused(self, vfid: int) -> bool:
        policy = self._policies.get(vfid)
        return policy is not None and policy.paused


def _of_group(numbers: int | Sequence[int], group: int | None) -> int:
    return numbers if isinstance(numbers, int) else numbers[group or 0]


def fits(context: Context, engine: Engine) -> bool:
    """Whether `context` (of a parallel one: any member) may run on `engine`."""
    mask, members = context.logical_mask, len(context.members)
    if members > 1:
        for _ in range(1, members):
            mask |= mask << 1
    return bool(mask >> engine.logical & 1)
