"""What is on the engines of one GT: who has which, switching in and out, and the jobs that run them.

An engine runs in slices, each by a job of its own on the card's executor, so that engines and everything else that the
executor does take turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.run_queue import fits
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.emulator.model.executor import Executor

log = logging.getLogger(__name__)


class Slot:
    """An engine, and what the scheduler knows of it. Times are seconds of the card's clock."""

    __slots__ = (
        "begins",
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
        self.begins = False
        """Whether its context was switched in and has not had a slice since."""
        self.scheduled = False
        """Whether a job of the executor will run it as soon as it can."""
        self.timer = 0
        """Counts jobs: one that finds another number than its own was superseded."""
        self.wait = 0.0
        """Seconds until the next look at what it waits for; 0 while it does not wait."""
        self.spinning = 0
        """Slices in a row that did nothing but jump."""
        self.preempt_since = self.preempt_ran = 0.0
        """When its context was asked to preempt, and the seconds that it ran since then."""
        self.function = -1
        self.function_since = 0.0
        """Whose turn it is by function, and since when."""


class Slots:
    """The slots of one GT. Used on the executor."""

    def __init__(self, engines: Sequence[Engine], executor: Executor, run: Callable[[Slot], None]) -> None:
        """`run(slot)` is a slice of an engine."""
        self.executor = executor
        self._run = run
        self._slots = [Slot(engine) for engine in engines]
        self._of_class: dict[int, list[Slot]] = {}
        for slot in self._slots:
            self._of_class.setdefault(slot.engine.info.engine_class, []).append(slot)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def has_class(self, engine_class: int) -> bool:
        """Whether there is an engine of that class."""
        return engine_class in self._of_class

    def holding(self, context: Context) -> list[Slot]:
        """Those whose engines `context` is on."""
        return [slot for slot in self._of_class.get(context.engine_class, ()) if slot.engine.context is context]

    def of_function(self, vfid: int) -> list[Slot]:
        """Those whose engines have a context of a function."""
        return [
            slot
            for slot in self._slots
            if (context := slot.engine.context) is not None and context.function.vfid == vfid
        ]

    def last_known(self, context: Context) -> Engine:
        """The engine that it is on, or may have been on: for reports."""
        engines = [slot.engine for slot in self._of_class[context.engine_class]]
        return next(
            (e for e in engines if e.context is context), next((e for e in engines if fits(context, e)), engines[0])
        )

    # Switching.

    def places(self, context: Context, slot: Slot) -> list[tuple[Lrc, Slot]] | None:
        """Free engines for every member, next to each other; None while they are not all free."""
        if len(context.members) == 1:
            return [(context.members[0], slot)]
        row = {other.engine.logical: other for other in self._of_class[context.engine_class]}
        for first in range(context.logical_mask.bit_length()):
            if not context.logical_mask >> first & 1:
                continue
            places = [row.get(first + n) for n in range(len(context.members))]
            if all(place is not None and place.engine.context is None for place in places):
                return [(lrc, place) for lrc, place in zip(context.members, places, strict=True) if place is not None]
        return None

    def take_off(self, context: Context, *, save: bool) -> None:
        """Take `context` off every engine that it is on, now; an image that cannot be saved is lost."""
        for slot in self.holding(context):
            try:
                slot.engine.switch_out(save=save)
            except (TranslationFault, AccessFault) as fault:
                log.info("%s: its image cannot be saved: %s", context.name, fault)
            slot.wait = 0.0
            self.wake(slot)

    def reset(self) -> None:
        """Forget whose turn it was, and every job."""
        for slot in self._slots:
            slot.timer += 1
            slot.scheduled = False
            slot.wait = 0.0
            slot.function = -1

    # Jobs on the executor.

    def wake(self, slot: Slot) -> None:
        """Run the engine as soon as it is its turn."""
        if not slot.scheduled:
            slot.scheduled = True
            slot.timer += 1
            expected = slot.timer

            def run() -> None:
                if slot.timer == expected:
                    self._run(slot)

            self.executor.submit(run)

    def wake_later(self, slot: Slot, seconds: float) -> None:
        """Run the engine after `seconds`, unless it is woken before."""
        slot.timer += 1
        expected = slot.timer

        def run() -> None:
            if slot.timer == expected:
                self._run(slot)

        self.executor.call_later(seconds, run)

    def wake_all(self) -> None:
        """Run every engine."""
        for slot in self._slots:
            self.wake(slot)

    def wake_holding(self, context: Context) -> None:
        """Run the engines that `context` is on."""
        for slot in self.holding(context):
            self.wake(slot)

    def wake_fitting(self, context: Context) -> None:
        """Run the engines that may execute `context`."""
        for slot in self._of_class[context.engine_class]:
            if fits(context, slot.engine):
                self.wake(slot)

    def wake_waiting(self, but: Slot) -> None:
        """Something was executed: run those that may wait for it."""
        for slot in self._slots:
            if slot.wait and slot is not but:
                self.wake(slot)
