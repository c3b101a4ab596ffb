"""What engines are watched for: contexts that ignore preemption, semaphores that wait, loops that do nothing."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.engines.run_queue import FunctionPolicy
from vfio_user_xe.device_models.xe.engines.slots import Slot
from vfio_user_xe.emulator.model.clock import CardClock

FIRST_WAIT, LONGEST_WAIT = 50e-6, 1e-3
"""Seconds between looks at a semaphore: doubled each time nothing has changed."""

_PATIENCE = 0.005
"""Seconds that a context may run to get to a preemption point, however short its timeout: the driver allows 1 us when
it kills a queue, in which hardware executes what takes the engine here a thousand times as long."""

_COMMANDS_PER_JUMP = 64
_SPINNING_SLICES = 5
"""An engine that does nothing but jump for so many slices in a row is left alone for as long as it computed."""


class Watch:
    """Judges what is on an engine. Used on the executor."""

    def __init__(self, clock: CardClock, policy: Callable[[int], FunctionPolicy]) -> None:
        """`clock` is what timeouts are measured by, `policy` gives a function's by VFID."""
        self._clock = clock
        self._policy = policy

    def ask_to_preempt(self, slot: Slot) -> None:
        """Preempt the context at the next point where it may be; its preemption timeout begins."""
        slot.engine.streamer.preempt = True
        slot.preempt_since, slot.preempt_ran = self._clock.seconds(), 0.0

    def excuse(self, slot: Slot, seconds: float) -> None:
        """It spent `seconds` in one command: not a context that ignores preemption.

        A blit of gigabytes takes longer here than on hardware.
        """
        slot.preempt_since += seconds
        slot.preempt_ran -= seconds

    def overdue(self, slot: Slot, ran: float) -> int:
        """The preemption timeout in microseconds that the context has exceeded, having run `ran` seconds more; or 0."""
        engine, context = slot.engine, slot.engine.context
        assert context is not None
        if not engine.streamer.preempt:
            return 0
        slot.preempt_ran += ran
        limits = [context.preempt_us, self._policy(context.function.vfid).preempt(engine)]
        limit = min((limit for limit in limits if limit), default=0)
        # The executor may have been busy with others: it must also have had its chance.
        if not limit or slot.preempt_ran < _PATIENCE or self._clock.seconds() - slot.preempt_since < limit / 1e6:
            return 0
        return limit

    def back_off(self, slot: Slot) -> float:
        """Seconds until the next look at a semaphore that is not satisfied."""
        # What it did before it came to wait counts as progress.
        slot.wait = min(slot.wait * 2, LONGEST_WAIT) if slot.wait and not slot.engine.streamer.executed else FIRST_WAIT
        return slot.wait

    def is_spinning(self, slot: Slot) -> bool:
        """Whether the engine has done nothing but jump for some slices."""
        streamer = slot.engine.streamer
        if streamer.executed >= streamer.jumps * _COMMANDS_PER_JUMP:
            slot.spinning = 0
            return False
        slot.spinning += 1
        return slot.spinning > _SPINNING_SLICES and not streamer.preempt
