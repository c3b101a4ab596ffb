"""How long is long enough on a machine that may be busy: in work that the guest and the card have done, and not in seconds alone.

A host with other guests makes every call late, and a task that waits for an answer sleeps meanwhile as one that waits for ever does.
What tells them apart: the guest's processors had time for work of their own, the card has done all that it was asked, and still the
task was not woken once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios import lateness
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.emulator.scenarios.machine import Machine

TURNS = 8
"""Pieces of work during which something must be late before it is taken to be late for ever."""
MOST_TURNS = 10 * TURNS
"""Pieces of work during which what runs, or sleeps so that a signal wakes it, may go on."""
SECONDS = 2.0
"""At least so long, on a machine that is fast."""


class Patience:
    """Waits in one guest. Not safe to use from several threads."""

    def __init__(self, machine: Machine, seconds: float = SECONDS) -> None:
        self._machine = machine
        self._seconds = seconds

    def turn(self) -> None:
        """Let the guest do a piece of work, and the card all that it was asked to do before.

        Raises:
            GuestError: the guest does not do it.
        """
        lateness.turn(self._machine)

    def busy(self) -> bool:
        """Whether the machine is so busy now that a driver's own limits of time say nothing."""
        return lateness.busy(self._machine)

    def within(self, seconds: float, ended: Callable[[], bool]) -> bool:
        """Whether `ended` comes true within `seconds`, or within so many turns where those take longer."""
        deadline = time.monotonic() + seconds
        turns = 0
        while not ended():
            if turns >= TURNS and time.monotonic() >= deadline:
                return False
            self.turn()
            turns += 1
        return True

    def standing(
        self, ended: Callable[[], bool], process: int = 0, most_turns: int | None = None
    ) -> dict[str, str] | None:
        """Stacks of tasks that sleep and are not woken, by "name (pid)", one of them of `process` (0: whichever).

        None: `ended` came true. Empty: it does not within `most_turns` (None: `MOST_TURNS`), and yet nobody sleeps so: who is waited for runs, or signals can
        wake it.
        """
        seen: dict[str, tuple[str, float, int]] = {}
        for _ in range(most_turns or MOST_TURNS):
            if ended():
                return None
            tasks = s.sleeping_tasks(self._machine)
            now = time.monotonic()
            before, seen = seen, {}
            for name, task in tasks.items():
                switches, since, turns = before.get(name, ("", now, 0))
                seen[name] = (switches, since, turns + 1) if switches == task.switches else (task.switches, now, 0)
            still = {
                name: tasks[name]
                for name, (_, since, turns) in seen.items()
                if turns >= TURNS and now - since >= self._seconds
            }
            if any(not process or task.process == process for task in still.values()):
                return {name: task.stack for name, task in still.items()}
            self.turn()
        return None if ended() else {}
