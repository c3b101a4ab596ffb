"""Whose turn an engine is: functions by their quanta, contexts by their priorities (`run_queue.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from vfio_user_xe.device_models.xe.engines.context import ENABLED, Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.run_queue import FunctionPolicy, RunQueue
from vfio_user_xe.device_models.xe.engines.slots import Slot
from vfio_user_xe.emulator.model.clock import CardClock

SLICE, _LEAST_SLICE = 0.001, 0.0001
"""Seconds that an engine computes before the executor may do something else: no more, and no less."""
_SHORTEST = 50e-6
"""Seconds that an idle turn takes at least."""


class Turns:
    """The run queues of one GT, one a class of engines, and the policies of its functions. Used on the executor."""

    def __init__(self, engines: Sequence[Engine], clock: CardClock) -> None:
        """`clock` is what quanta are measured by."""
        self._clock = clock
        self._policies: dict[int, FunctionPolicy] = {}
        self._queues = {engine.info.engine_class: RunQueue(self._policies) for engine in engines}

    def policy(self, vfid: int) -> FunctionPolicy:
        """The function's policy, to be changed in place."""
        return self._policies.setdefault(vfid, FunctionPolicy())

    def forget_policies(self) -> None:
        """Functions share engines as they do before anybody said how."""
        self._policies.clear()

    def add(self, context: Context, *, first: bool = False) -> None:
        """Queue `context`, behind others of its priority or before them."""
        self._queues[context.engine_class].add(context, first=first)

    def remove(self, context: Context) -> None:
        """Take `context` out, if it is in."""
        if context.queued:
            self._queues[context.engine_class].remove(context)

    def begin(self, slot: Slot, vfid: int) -> None:
        """Function `vfid` has the engine; its turn begins unless it has it already."""
        if slot.function != vfid:
            slot.function, slot.function_since = vfid, self._clock.seconds()

    def left(self, slot: Slot) -> float:
        """Seconds of the turn; without a quantum functions take turns by job, and nothing is left after one."""
        return self.policy(slot.function).quantum(slot.engine) / 1e6 - (self._clock.seconds() - slot.function_since)

    def slice(self, slot: Slot) -> float:
        """Seconds that the engine may compute now: it stops where its function's turn does, if others may be waiting.

        A slice that only began in the turn would take the rest of its time from them.
        """
        if not self.policy(slot.function).quantum(slot.engine):
            return SLICE
        left = self.left(slot)
        # Nobody waits if the turn is over already.
        return SLICE if left <= 0 else min(SLICE, max(left, _LEAST_SLICE))

    def end(self, slot: Slot) -> int:
        """End the turn on an idle engine if its time is over; returns the VFID that had it, -1 for none."""
        before = slot.function
        if before >= 0 and self.left(slot) <= 0:
            self._queues[slot.engine.info.engine_class].rotate(before)
            slot.function = -1
        return before

    def next(self, slot: Slot, before: int) -> tuple[Context | None, float]:
        """The context that should have the engine; without one, the seconds until a turn ends that passes idle, or 0.

        `before` is what `end` gave.
        """
        engine = slot.engine
        queue = self._queues[engine.info.engine_class]
        vfid = queue.turn(engine, slot.function, before)
        if vfid is None:
            return None, 0.0
        self.begin(slot, vfid)
        context = queue.first(engine, vfid)
        # A function of normal priority without work: its turn passes all the same.
        return context, 0.0 if context is not None else max(self.left(slot), _SHORTEST)

    def is_leaving(self, context: Context) -> bool:
        """Whether the context will not come back by itself: it is disabled, or its function paused."""
        return context.state is not ENABLED or self.policy(context.function.vfid).paused

    def must_yield(self, slot: Slot) -> bool:
        """Whether the context on the engine must make room, or must stop."""
        engine, context = slot.engine, slot.engine.context
        assert context is not None
        vfid = context.function.vfid
        policy = self.policy(vfid)
        # Members of a parallel context that was preempted, or waits for a page, all stop.
        if context.state is not ENABLED or policy.paused or context.waiting is not None or engine.group is None:
            return True
        if len(context.members) > 1 and any(lrc.stopped and not lrc.loaded for lrc in context.members):
            return True
        queue = self._queues[context.engine_class]
        rival = queue.rivals(engine, context)
        if rival is not None and rival < context.priority:
            return True
        run_time = engine.run_time()
        if slot.begins:
            # On a busy host a quantum may be over before the first slice, and contexts would only take turns.
            return False
        if rival == context.priority and context.quantum_us and run_time * 1e6 >= context.quantum_us:
            return True
        return bool(policy.quantum(engine)) and self.left(slot) <= 0 and queue.others(engine, vfid)
