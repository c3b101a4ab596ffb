"""A failing sequence made short: everything is left out that the failure does not need (delta debugging).

After each cut the model takes out what is not allowed any more, so a cut takes what hangs on it along. Trials cost seconds of a
guest: first what comes after the failure goes, then all that one actor did, then all that was done with one thing, then ever smaller
parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import World, repaired


class Shrinker:
    """Makes one sequence short. `fails(steps)` plays one, and says at which step it failed the same way; None: it did not."""

    def __init__(
        self,
        world: Callable[[], World],
        fails: Callable[[list[Step]], int | None],
        most: int,
        more: Callable[[], bool] = lambda: True,
    ) -> None:
        """`most` is how many trials there may be; `more` says whether there is time for another."""
        self._world = world
        self._fails = fails
        self._left = most
        self._more = more
        self._tried: set[tuple[Step, ...]] = set()
        self.failed = 0
        self.trials = 0

    def shrink(self, steps: Sequence[Step], failed_at: int) -> list[Step]:
        """The shortest sequence that was seen to fail the same way; the given one's beginning where no other did."""
        best = self._without_each(list(steps[: failed_at + 1]), lambda step: (step.actor,))
        best = self._without_each(best, lambda step: step.arguments)
        return self._in_parts(best)

    def _without_each(self, best: list[Step], names: Callable[[Step], Sequence[str]]) -> list[Step]:
        """Leave out all steps that have one of their `names`, for each name that the last step has not; the last names first."""
        gone: set[str] = set(names(best[-1]))
        while True:
            left = [name for step in reversed(best) for name in names(step) if name not in gone]
            if not left:
                return best
            gone.add(left[0])
            best = self._try([step for step in best if left[0] not in names(step)]) or best

    def _in_parts(self, best: list[Step]) -> list[Step]:
        parts = 2
        while self._left and len(best) > 1:
            size = -(-len(best) // parts)
            for start in range(0, len(best), size):
                found = self._try(best[:start] + best[start + size :])
                if found is not None:
                    best = found
                    parts = max(2, parts - 1)
                    break
            else:
                if size == 1:
                    break
                parts = min(len(best), 2 * parts)
        return best

    def _try(self, steps: Sequence[Step]) -> list[Step] | None:
        candidate = repaired(self._world(), steps)
        key = tuple(candidate)
        if not candidate or key in self._tried or not self._left or not self._more():
            return None
        self._tried.add(key)
        self._left -= 1
        self.trials += 1
        at = self._fails(candidate)
        if at is None:
            return None
        self.failed += 1
        return candidate[: at + 1]
