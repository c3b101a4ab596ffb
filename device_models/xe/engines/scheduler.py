"""The scheduler of one GT: runs contexts on engines, slice by slice, and says what happens to one that cannot go on.

Engines run in slices of a millisecond. A context keeps its engine until its ring is empty, or until it is preempted:
because something more urgent came, its quantum is over and others wait, its function's quantum is over (`turns.py`), or
it is to be disabled. As on hardware it is preempted only at MI_ARB_CHECK and at a semaphore that is not satisfied, and
only while MI_ARB_ON_OFF allows it; one that does not get there in its preemption timeout (`watch.py`) is reset with its
engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from vfio_user_xe.device_models.xe.engines import command_streamer as cs
from vfio_user_xe.device_models.xe.engines.context import ENABLED, FAILED, Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.slots import Slot, Slots
from vfio_user_xe.device_models.xe.engines.turns import Turns
from vfio_user_xe.device_models.xe.engines.types import EngineListener
from vfio_user_xe.device_models.xe.engines.watch import Watch
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault
from vfio_user_xe.emulator.model.clock import CardClock
from vfio_user_xe.emulator.model.executor import Executor

log = logging.getLogger(__name__)


class Scheduler:
    """Runs what is queued. Everything is called on the executor."""

    def __init__(
        self, engines: Sequence[Engine], executor: Executor, listener: EngineListener, clock: CardClock
    ) -> None:
        """`clock` is what quanta and timeouts are measured by."""
        self._clock = clock
        self._listener = listener
        self.turns = Turns(engines, clock)
        self.slots = Slots(engines, executor, self._run)
        self._watch = Watch(clock, self.turns.policy)
        self._pausing: dict[int, list[Callable[[], None]]] = {}
        self.slices = 0

    def queue(self, context: Context, *, first: bool = False) -> None:
        """It has work: run it when it is its turn, or (`first`) before others of its priority."""
        self.turns.add(context, first=first)
        self.slots.wake_fitting(context)

    def drop(self, context: Context) -> None:
        """Take it off the engines and out of the queue at once, saving nothing."""
        context.waiting = None
        self.turns.remove(context)
        for lrc in context.members:
            lrc.bulk = None
        self.slots.take_off(context, save=False)

    def pause(self, vfid: int, done: Callable[[], None]) -> None:
        """Take a function off the engines, then `done()`."""
        self.turns.policy(vfid).paused = True
        self._pausing.setdefault(vfid, []).append(done)
        for slot in self.slots.of_function(vfid):
            self.slots.wake(slot)
        self.check_paused(vfid)

    def unpause(self, vfid: int) -> None:
        """Let a paused function run again."""
        self.turns.policy(vfid).paused = False
        self.slots.wake_all()

    def check_paused(self, vfid: int) -> None:
        """Tell who wanted a function paused, if nothing of it runs any more."""
        if vfid in self._pausing and not self.slots.of_function(vfid):
            for done in self._pausing.pop(vfid):
                done()

    def reset(self) -> None:
        """Forget policies and who waits for a function to pause; contexts were dropped before."""
        self.turns.forget_policies()
        self._pausing.clear()
        self.slots.reset()

    # An engine's slice.

    def _run(self, slot: Slot) -> None:
        context = self._run_slice(slot)
        if context is None or len(context.members) == 1:
            return
        # Members of a parallel context run at the same time on hardware: each writes the job's fence, and whoever sees
        # the first one's may take away what the others still use (a VM_UNBIND in a long-running VM waits for nothing).
        for other in self.slots.holding(context):
            if other is not slot and other.scheduled:
                self._run_slice(other)

    def _run_slice(self, slot: Slot) -> Context | None:
        """Run what is on the slot's engine, or what is next; returns whose context that was."""
        engine = slot.engine
        slot.scheduled = False
        slot.timer += 1
        if engine.context is None and not self._dispatch(slot):
            return None
        context = engine.context
        assert context is not None
        streamer = engine.streamer
        if not streamer.preempt and self.turns.must_yield(slot):
            self._watch.ask_to_preempt(slot)
            streamer.leaving = self.turns.is_leaving(context)
        slot.begins = False
        self.slices += 1
        in_one_command = _in_one_command(streamer.lrc)
        start = self._clock.seconds()
        outcome = streamer.run(start + self.turns.slice(slot))
        elapsed = self._clock.seconds() - start
        leaves = outcome in (cs.IDLE, cs.STOPPED)
        if not leaves and not (outcome == cs.SLICE_OVER and streamer.is_done()):
            engine.raise_interrupt()
        if in_one_command or _in_one_command(streamer.lrc):
            self._watch.excuse(slot, elapsed)
        if outcome == cs.WAITING:
            self._waiting(slot, elapsed)
        else:
            slot.wait = 0.0
            if streamer.executed:
                self.slots.wake_waiting(but=slot)
            if outcome == cs.IDLE:
                self._leave(slot, requeue=False)
            elif outcome == cs.STOPPED:
                self._leave(slot, requeue=True)
            elif outcome == cs.FAULTED:
                self._faulted(slot)
            else:
                self._slice_over(slot, elapsed)
        return context

    def _slice_over(self, slot: Slot, elapsed: float) -> None:
        if self._was_reset(slot, elapsed):
            return
        if self._watch.is_spinning(slot):
            self.slots.wake_later(slot, elapsed)
        else:
            self.slots.wake(slot)

    def _waiting(self, slot: Slot, elapsed: float) -> None:
        """A semaphore is not satisfied: look again soon, or make room for others."""
        lrc = slot.engine.lrc
        assert lrc is not None
        if slot.engine.streamer.preempt and lrc.arbitration:
            self._leave(slot, requeue=True)
            return
        wait = self._watch.back_off(slot)
        if not self._was_reset(slot, elapsed + wait):
            self.slots.wake_later(slot, wait)

    def _was_reset(self, slot: Slot, elapsed: float) -> bool:
        """Reset a context that has ignored preemption for too long."""
        limit = self._watch.overdue(slot, elapsed)
        if limit:
            self._reset_engine(slot, f"not preempted in {limit} us")
        return limit > 0

    def _dispatch(self, slot: Slot) -> bool:
        """Give the engine to whoever should have it next; whether it has got something to do."""
        if slot.engine.group is None:
            return False
        before = self.turns.end(slot)
        while True:
            context, idle = self.turns.next(slot, before)
            if context is None:
                if idle:
                    self.slots.wake_later(slot, idle)
                return False
            places = self.slots.places(context, slot)
            if places is None:
                # A parallel context that is next waits for all its engines; this one is kept for it.
                return False
            self.turns.remove(context)
            if self._start(context, places) and slot.engine.context is not None:
                return True

    def _start(self, context: Context, places: list[tuple[Lrc, Slot]]) -> bool:
        for lrc, slot in places:
            try:
                slot.engine.switch_in(context, lrc)
            except (TranslationFault, AccessFault) as fault:
                self.fail(context, fault, slot.engine)
                return False
            lrc.stopped = False
            slot.begins = True
            slot.wait = 0.0
            slot.spinning = 0
            self.turns.begin(slot, context.function.vfid)
            self.slots.wake(slot)
        return True

    # Contexts leave engines.

    def _leave(self, slot: Slot, *, requeue: bool) -> None:
        """The engine's LRC is done with its ring, or preempted (`requeue`)."""
        engine, context, lrc = slot.engine, slot.engine.context, slot.engine.lrc
        assert context is not None
        assert lrc is not None
        lrc.stopped = requeue
        try:
            engine.switch_out()
        except (TranslationFault, AccessFault) as fault:
            self.fail(context, fault, engine)
            # The context had left the engine before: nothing else gives it to the next one.
            self.slots.wake(slot)
            return
        if not context.resident:
            again = any(lrc.stopped for lrc in context.members) or context.work_queue is not None
            if again and context.state is ENABLED and context.waiting is None and self._ready(context):
                self.queue(context)
            self._gone(context)
        self.slots.wake(slot)

    def _ready(self, context: Context) -> bool:
        try:
            return any(lrc.has_work() for lrc in context.members)
        except (TranslationFault, AccessFault) as fault:
            self.fail(context, fault)
            return False

    def _faulted(self, slot: Slot) -> None:
        engine, context, fault = slot.engine, slot.engine.context, slot.engine.streamer.fault
        assert context is not None
        if not isinstance(fault, TranslationFault) or fault.asid is None:
            self.fail(context, fault, engine)
            return
        if context.state is not ENABLED:
            # It is to leave the engine, so its access can wait: the page is asked for when the context is back, if ever.
            self._leave(slot, requeue=True)
            return
        if not self._listener.page_fault(context, engine, fault):
            self.fail(context, fault, engine)
            return
        context.waiting = fault
        # The others of a parallel context stop too: they go on together.
        self.slots.wake_holding(context)
        self._leave(slot, requeue=True)

    def fail(self, context: Context, fault: Fault, engine: Engine | None = None) -> None:
        """A fatal fault, on `engine` if it is known: the context never runs again."""
        engine = engine or self.slots.last_known(context)
        log.info("%s on %s: %s", context.name, engine.name, fault)
        notes: Sequence[str] = getattr(fault, "__notes__", ())
        if notes:
            # They describe the thread of a kernel that met it.
            engine.thread_report(context.function.name, "\n".join([str(fault), *notes]))
        self._throw_off(context)
        self._listener.memory_fault(context, engine, fault)
        self._gone(context)

    def _reset_engine(self, slot: Slot, reason: str) -> None:
        engine, context = slot.engine, slot.engine.context
        assert context is not None
        log.info("%s on %s: engine reset: %s", context.name, engine.name, reason)
        engine.resets += 1
        self._throw_off(context)
        self._listener.context_reset(context, engine, reason)
        self._gone(context)

    def _throw_off(self, context: Context) -> None:
        context.states.to(FAILED)
        context.waiting = None
        self.turns.remove(context)
        self.slots.take_off(context, save=True)

    def _gone(self, context: Context) -> None:
        context.finish_disabling()
        self.check_paused(context.function.vfid)


def _in_one_command(lrc: Lrc) -> bool:
    """In the middle of a command that is no preemption point, however long it takes."""
    return lrc.bulk is not None and not lrc.bulk_preemptible
