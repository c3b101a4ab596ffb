"""The scheduler of one GT: which context has which engine, for how long, and what happens when it will not let go.

Engines run on the card's executor in slices of a millisecond, each by a job of its own, so that they, and everything
else that the executor does, take turns. A context keeps its engine until its ring is empty, or until it is preempted:
because something more urgent came, its quantum is over and others wait, its function's quantum is over, or it is to be
disabled. As on hardware it is preempted only at MI_ARB_CHECK and at a semaphore that is not satisfied, and only while
MI_ARB_ON_OFF allows it; one that does not get there in its preemption timeout is reset with its engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.engines import command_streamer as cs
from vfio_user_xe.device_models.xe.engines import work_queue
from vfio_user_xe.device_models.xe.engines.context import Context, EngineListener
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.run_queue import FunctionPolicy, RunQueue, fits
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.engine import Engine
    from vfio_user_xe.emulator.model.clock import CardClock
    from vfio_user_xe.emulator.model.executor import Executor

log = logging.getLogger(__name__)

SLICE = 0.001
"""Seconds that an engine computes before the executor may do something else."""

_FIRST_WAIT, _LONGEST_WAIT = 50e-6, 1e-3
"""Seconds between looks at a semaphore: doubled each time nothing has changed."""

_PATIENCE = 0.005
"""Seconds that a context may run to get to a preemption point, however short its timeout: the driver allows 1 us when
it kills a queue, in which hardware executes what takes the engine here a thousand times as long."""

_COMMANDS_PER_JUMP = 64
_SPINNING_SLICES = 5
"""An engine that does nothing but jump for so many slices in a row is left alone for as long as it computed."""


class _Slot:
    """What the scheduler knows of an engine."""

    __slots__ = (
        "engine",
        "function",
        "function_since",
        "preempt_ran",
        "preempt_since",
        "scheduled",
        "spinning",
        "timer",
        "wait",
    )

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.scheduled = False
        self.timer = 0
        self.wait = 0.0
        """Seconds until the next look at what it waits for; 0 while it does not wait."""
        self.spinning = 0
        self.preempt_since = self.preempt_ran = 0.0
        """When it was asked to preempt (seconds of the card's clock), and the seconds that it ran since then."""
        self.function = -1
        self.function_since = 0.0
        """Whose turn it is by function, and since when (seconds of the card's clock)."""


class Scheduler:
    """Runs contexts on engines. Everything is called on the executor."""

    def __init__(self, engines: list[Engine], executor: Executor, listener: EngineListener, clock: CardClock) -> None:
        """`clock` is what quanta and timeouts are measured by."""
        self._clock = clock
        self.policies: dict[int, FunctionPolicy] = {}
        self._executor = executor
        self._listener = listener
        self._slots = {engine: _Slot(engine) for engine in engines}
        self._queues = {engine.info.engine_class: RunQueue(self.policies) for engine in engines}
        self._pausing: dict[int, list[Callable[[], None]]] = {}
        self.contexts: set[Context] = set()
        self.slices = 0

    # Contexts come and go.

    def register(self, context: Context) -> None:
        """Take `context`. Raises ValueError for an engine class that is not there."""
        if context.engine_class not in self._queues:
            raise ValueError(f"{context.name}: there is no engine of class {context.engine_class}")
        context.members = [Lrc(context.function, descriptor) for descriptor in context.lrcs]
        context.enabled = context.failed = context.queued = False
        context.waiting = None
        self.contexts.add(context)

    def remove(self, context: Context) -> None:
        """Forget `context`, at once."""
        self._drop(context)
        self._finish(context)

    def enable(self, context: Context) -> None:
        """Let it run."""
        context.enabled = True
        self.kick(context)

    def kick(self, context: Context) -> None:
        """It may have got work."""
        if not context.enabled or context.failed:
            return
        try:
            if context.work_queue is not None:
                wrong = work_queue.consume(context)
                if wrong is not None:
                    log.warning("%s: %s", context.name, wrong)
            if context.resident or context.queued or context.waiting is not None:
                return
            ready = any(lrc.has_work() for lrc in context.members)
        except (TranslationFault, AccessFault) as fault:
            self._fail(context, self._any_engine(context), fault)
            return
        if ready:
            self._queue(context)

    def disable(self, context: Context, done: Callable[[], None]) -> None:
        """Preempt it and save its image, then `done()`."""
        context.enabled = False
        self._queues[context.engine_class].remove(context)
        before = context.disabling

        def finished() -> None:
            if before is not None:
                before()
            done()

        context.disabling = finished
        self._finish(context)
        self._wake_engines(context)

    def resume(self, context: Context, success: bool) -> None:
        """The answer to its page fault."""
        fault, context.waiting = context.waiting, None
        if fault is None or context.failed:
            return
        if not success:
            self._fail(context, self._any_engine(context), fault)
        elif context.enabled and not context.resident and not context.queued:
            self._queue(context, first=True)

    def requeue(self, context: Context) -> None:
        """Its priority may have changed."""
        if context.queued:
            self._queues[context.engine_class].remove(context)
            self._queue(context)
        self._wake_engines(context)

    # Functions.

    def policy(self, vfid: int) -> FunctionPolicy:
        """The function's policy, to be changed in place."""
        return self.policies.setdefault(vfid, FunctionPolicy())

    def groups_changed(self) -> None:
        """Engines belong to other scheduling groups than before."""
        for slot in self._slots.values():
            self._wake(slot)

    def pause(self, vfid: int, done: Callable[[], None]) -> None:
        """Take the function off the engines, then `done()`."""
        self.policy(vfid).paused = True
        self._pausing.setdefault(vfid, []).append(done)
        for context in list(self.contexts):
            if context.function.vfid == vfid:
                self._wake_engines(context)
        self._check_paused(vfid)

    def unpause(self, vfid: int) -> None:
        """Let a paused function run again."""
        self.policy(vfid).paused = False
        for slot in self._slots.values():
            self._wake(slot)

    def reset_function(self, vfid: int) -> None:
        """Drop every context of a function."""
        for context in [context for context in self.contexts if context.function.vfid == vfid]:
            self._drop(context)
            context.disabling = None
        self._check_paused(vfid)

    def reset(self) -> None:
        """Drop everything, policies too; engines are told by their owner."""
        for context in list(self.contexts):
            self._drop(context)
            context.disabling = None
        self.policies.clear()
        self._pausing.clear()
        for slot in self._slots.values():
            slot.timer += 1
            slot.scheduled = False
            slot.wait = 0.0
            slot.function = -1

    def has_work(self) -> bool:
        """Whether a context is on an engine or wants one."""
        return any(context.queued or context.resident for context in self.contexts)

    # An engine's slice.

    def _run(self, slot: _Slot) -> None:
        context = self._run_slice(slot)
        if context is None or len(context.members) == 1:
            return
        # Members of a parallel context run at the same time on hardware: each writes the job's fence, and whoever sees
        # the first one's may take away what the others still use (a VM_UNBIND in a long-running VM waits for nothing).
        for lrc in context.members:
            if lrc.engine is not None:
                other = self._slots[lrc.engine]
                if other is not slot and other.scheduled:
                    self._run_slice(other)

    def _run_slice(self, slot: _Slot) -> Context | None:
        """Run what is on the slot's engine, or what is next; returns whose context that was."""
        engine = slot.engine
        slot.scheduled = False
        slot.timer += 1
        if engine.context is None and not self._dispatch(slot):
            return None
        context = engine.context
        assert context is not None
        streamer = engine.streamer
        if not streamer.preempt and self._should_yield(slot):
            streamer.preempt = True
            streamer.leaving = not context.enabled or self.policy(context.function.vfid).paused
            slot.preempt_since, slot.preempt_ran = self._clock.seconds(), 0.0
        self.slices += 1
        in_one_command = _in_one_command(streamer.lrc)
        start = self._clock.seconds()
        outcome = streamer.run(start + SLICE)
        elapsed = self._clock.seconds() - start
        if in_one_command or _in_one_command(streamer.lrc):
            # Not a context that ignores preemption: a blit of gigabytes takes longer here than on hardware.
            slot.preempt_since += elapsed
            slot.preempt_ran -= elapsed
        if outcome == cs.WAITING:
            self._waiting(slot, elapsed)
        else:
            slot.wait = 0.0
            if streamer.executed:
                self._poke_waiting(slot)
            if outcome == cs.IDLE:
                self._leave(slot, requeue=False)
            elif outcome == cs.STOPPED:
                self._leave(slot, requeue=True)
            elif outcome == cs.FAULTED:
                self._faulted(slot)
            else:
                self._slice_over(slot, elapsed)
        return context

    def _slice_over(self, slot: _Slot, elapsed: float) -> None:
        streamer = slot.engine.streamer
        if self._preemption_failed(slot, elapsed):
            return
        if streamer.executed < streamer.jumps * _COMMANDS_PER_JUMP:
            slot.spinning += 1
            if slot.spinning > _SPINNING_SLICES and not streamer.preempt:
                self._wake_later(slot, elapsed)
                return
        else:
            slot.spinning = 0
        self._wake(slot)

    def _waiting(self, slot: _Slot, elapsed: float) -> None:
        """A semaphore is not satisfied: look again soon, or make room for others."""
        engine = slot.engine
        lrc = engine.lrc
        assert lrc is not None
        if engine.streamer.preempt and lrc.arbitration:
            self._leave(slot, requeue=True)
            return
        # What it did before it came to wait counts as progress.
        slot.wait = min(slot.wait * 2, _LONGEST_WAIT) if slot.wait and not engine.streamer.executed else _FIRST_WAIT
        if not self._preemption_failed(slot, elapsed + slot.wait):
            self._wake_later(slot, slot.wait)

    def _preemption_failed(self, slot: _Slot, elapsed: float) -> bool:
        """Reset a context that has ignored preemption for too long."""
        engine, context = slot.engine, slot.engine.context
        assert context is not None
        if not engine.streamer.preempt:
            return False
        slot.preempt_ran += elapsed
        limits = [context.preempt_us, self.policy(context.function.vfid).preempt(engine)]
        limit = min((limit for limit in limits if limit), default=0)
        # The executor may have been busy with others: it must also have had its chance.
        if not limit or slot.preempt_ran < _PATIENCE or self._clock.seconds() - slot.preempt_since < limit / 1e6:
            return False
        self._reset_engine(slot, context, f"not preempted in {limit} us")
        return True

    def _should_yield(self, slot: _Slot) -> bool:
        engine, context = slot.engine, slot.engine.context
        assert context is not None
        vfid = context.function.vfid
        policy = self.policy(vfid)
        # Members of a parallel context that was preempted, or waits for a page, all stop.
        if not context.enabled or policy.paused or context.waiting is not None or engine.group is None:
            return True
        if len(context.members) > 1 and any(lrc.stopped and lrc.engine is None for lrc in context.members):
            return True
        queue = self._queues[context.engine_class]
        rival = queue.rivals(engine, context)
        if rival is not None and rival < context.priority:
            return True
        run_time = engine.run_time()
        if rival == context.priority and context.quantum_us and run_time * 1e6 >= context.quantum_us:
            return True
        return bool(policy.quantum(engine)) and self._turn_left(slot) <= 0 and queue.others(engine, vfid)

    def _dispatch(self, slot: _Slot) -> bool:
        """Give the engine to whoever should have it next; whether it has got something to do."""
        engine = slot.engine
        if engine.group is None:
            return False
        queue = self._queues[engine.info.engine_class]
        before = slot.function
        if before >= 0 and self._turn_left(slot) <= 0:
            queue.rotate(before)
            slot.function = -1
        while True:
            vfid = queue.turn(engine, slot.function, before)
            if vfid is None:
                return False
            if slot.function != vfid:
                slot.function, slot.function_since = vfid, self._clock.seconds()
            context = next(queue.candidates(engine, vfid), None)
            if context is None:
                # A function of normal priority without work: its turn passes all the same.
                self._wake_later(slot, max(self._turn_left(slot), _FIRST_WAIT))
                return False
            places = self._places(context, engine)
            if places is None:
                # A parallel context that is next waits for all its engines; this one is kept for it.
                return False
            queue.remove(context)
            if self._start(context, places) and engine.context is not None:
                return True

    def _turn_left(self, slot: _Slot) -> float:
        """Seconds; without a quantum functions take turns by job, and nothing is left after one."""
        return self.policy(slot.function).quantum(slot.engine) / 1e6 - (self._clock.seconds() - slot.function_since)

    def _places(self, context: Context, engine: Engine) -> list[tuple[Lrc, Engine]] | None:
        """Free engines for every member, next to each other; None while they are not all free."""
        if len(context.members) == 1:
            return [(context.members[0], engine)]
        row = {e.logical: e for e in self._slots if e.info.engine_class == context.engine_class}
        for first in range(context.logical_mask.bit_length()):
            if not context.logical_mask >> first & 1:
                continue
            places = [row.get(first + n) for n in range(len(context.members))]
            if all(place is not None and place.context is None for place in places):
                return [(lrc, place) for lrc, place in zip(context.members, places, strict=True) if place is not None]
        return None

    def _start(self, context: Context, places: list[tuple[Lrc, Engine]]) -> bool:
        for lrc, engine in places:
            try:
                engine.switch_in(context, lrc)
            except (TranslationFault, AccessFault) as fault:
                self._fail(context, engine, fault)
                return False
            lrc.stopped = False
            slot = self._slots[engine]
            slot.wait = 0.0
            slot.spinning = 0
            if slot.function != context.function.vfid:
                slot.function, slot.function_since = context.function.vfid, self._clock.seconds()
            self._wake(slot)
        return True

    # Contexts leave engines.

    def _leave(self, slot: _Slot, *, requeue: bool) -> None:
        """The engine's LRC is done with its ring, or preempted (`requeue`)."""
        engine, context, lrc = slot.engine, slot.engine.context, slot.engine.lrc
        assert context is not None
        assert lrc is not None
        lrc.stopped = requeue
        try:
            engine.switch_out()
        except (TranslationFault, AccessFault) as fault:
            self._fail(context, engine, fault)
            return
        self._left(slot, context)

    def _left(self, slot: _Slot, context: Context) -> None:
        if not context.resident:
            again = any(lrc.stopped for lrc in context.members) or context.work_queue is not None
            if again and context.enabled and not context.failed and context.waiting is None and self._ready(context):
                self._queue(context)
            self._finish(context)
            self._check_paused(context.function.vfid)
        self._wake(slot)

    def _ready(self, context: Context) -> bool:
        try:
            return any(lrc.has_work() for lrc in context.members)
        except (TranslationFault, AccessFault) as fault:
            self._fail(context, self._any_engine(context), fault)
            return False

    def _faulted(self, slot: _Slot) -> None:
        engine, context, fault = slot.engine, slot.engine.context, slot.engine.streamer.fault
        assert context is not None
        served = (
            isinstance(fault, TranslationFault)
            and fault.asid is not None
            and context.enabled
            and self._listener.page_fault(context, engine, fault)
        )
        if not served or not isinstance(fault, TranslationFault):
            self._fail(context, engine, fault)
            return
        context.waiting = fault
        # The others of a parallel context stop too: they go on together.
        self._wake_engines(context)
        self._leave(slot, requeue=True)

    def _fail(self, context: Context, engine: Engine, fault: Fault) -> None:
        """A fatal fault: the context never runs again."""
        log.info("%s on %s: %s", context.name, engine.name, "\n".join([str(fault), *getattr(fault, "__notes__", ())]))
        self._throw_off(context)
        self._listener.memory_fault(context, engine, fault)
        self._finish(context)
        self._check_paused(context.function.vfid)

    def _reset_engine(self, slot: _Slot, context: Context, reason: str) -> None:
        log.info("%s on %s: engine reset: %s", context.name, slot.engine.name, reason)
        slot.engine.resets += 1
        self._throw_off(context)
        self._listener.context_reset(context, slot.engine, reason)
        self._finish(context)
        self._check_paused(context.function.vfid)

    def _throw_off(self, context: Context) -> None:
        context.failed = True
        context.waiting = None
        self._queues[context.engine_class].remove(context)
        for lrc in context.members:
            if lrc.engine is not None:
                slot = self._slots[lrc.engine]
                try:
                    lrc.engine.switch_out()
                except (TranslationFault, AccessFault) as fault:
                    log.info("%s: its image cannot be saved: %s", context.name, fault)
                slot.wait = 0.0
                self._wake(slot)

    def _drop(self, context: Context) -> None:
        context.enabled = False
        context.waiting = None
        self.contexts.discard(context)
        queue = self._queues.get(context.engine_class)
        if queue is not None:
            queue.remove(context)
        for lrc in context.members:
            lrc.bulk = None
            if lrc.engine is not None:
                slot = self._slots[lrc.engine]
                lrc.engine.switch_out(save=False)
                slot.wait = 0.0
                self._wake(slot)

    def _finish(self, context: Context) -> None:
        """Tell who wanted it disabled, if nothing of it runs any more."""
        done = context.disabling
        if done is not None and not context.resident:
            context.disabling = None
            done()

    def _check_paused(self, vfid: int) -> None:
        if vfid not in self._pausing:
            return
        if not any(context.resident for context in self.contexts if context.function.vfid == vfid):
            for done in self._pausing.pop(vfid):
                done()

    # Jobs on the executor.

    def _queue(self, context: Context, *, first: bool = False) -> None:
        self._queues[context.engine_class].add(context, first=first)
        for engine, slot in self._slots.items():
            if engine.info.engine_class == context.engine_class and fits(context, engine):
                self._wake(slot)

    def _wake_engines(self, context: Context) -> None:
        for lrc in context.members:
            if lrc.engine is not None:
                self._wake(self._slots[lrc.engine])

    def _poke_waiting(self, but: _Slot) -> None:
        """Something was executed: others may wait for it."""
        for slot in self._slots.values():
            if slot.wait and slot is not but:
                self._wake(slot)

    def _wake(self, slot: _Slot) -> None:
        if not slot.scheduled:
            slot.scheduled = True
            slot.timer += 1
            expected = slot.timer

            def run() -> None:
                if slot.timer == expected:
                    self._run(slot)

            self._executor.submit(run)

    def _wake_later(self, slot: _Slot, seconds: float) -> None:
        slot.timer += 1
        expected = slot.timer

        def run() -> None:
            if slot.timer == expected:
                self._run(slot)

        self._executor.call_later(seconds, run)

    def _any_engine(self, context: Context) -> Engine:
        """Where it is, or might have been: for reports."""
        engines = [engine for engine in self._slots if engine.info.engine_class == context.engine_class]
        return next(
            (e for e in engines if e.context is context), next((e for e in engines if fits(context, e)), engines[0])
        )


def _in_one_command(lrc: Lrc) -> bool:
    """In the middle of a command that is no preemption point, however long it takes."""
    return lrc.bulk is not None and not lrc.bulk_preemptible
