"""The loop: sequences are made, played one after the other, and what fails for the first time is made short.

A sequence is played as a scenario: the runner gives it a guest, judges the kernel's log, and replaces a guest that was given up.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic

from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.results import Result, Verdict
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.generator import generate
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.shrink import Shrinker
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import Exploration, Scenario
from vfio_user_xe.emulator.scenarios.verdict import Failed

_MOST_TRIALS, _MOST_OF_A_KNOWN_ONE = 30, 12
"""Of one failure."""
_MOST_LOST = 6
"""Guests that making one failure short may cost: each is a boot."""
_MOST_UNPLAYED = 2
"""Sequences one after the other of which not one step was played, in two guests each: there is no guest to be had."""
_TRIES = 2
"""To play a shorter sequence: a guest that does not boot on a busy machine says nothing about it."""
_FOR_SHRINKING, _FOR_A_KNOWN_ONE = 0.4, 0.1
"""The part of what is left of the budget that one failure may have. Of a known defect others have made short sequences already."""
_FOR_THE_LAST = 60.0
"""Seconds that a failure without a name has to be made short when the budget is used up."""
OF_THE_JUDGE = "judge"


@dataclass
class Played:
    """How one sequence went."""

    steps: list[Step]
    done: int = 0
    """Steps that were carried out."""
    failures: list[tuple[int, Failure]] = field(default_factory=list)
    """Each with the step after which it was seen; the last step's for what only the end showed."""
    result: Result | None = None
    run: Run | None = None
    lost: str = ""
    """Why it cost the guest; empty: it did not."""

    def at(self, signature: str) -> int | None:
        """The step after which this was seen; None: it was not."""
        return next((at for at, failure in self.failures if failure.signature == signature), None)


@dataclass
class Found:
    """A failure, the shortest sequence that shows it, and where it came from."""

    failure: Failure
    steps: list[Step]
    sequence: int
    """The number of the sequence in which it was seen first."""
    length: int
    """That sequence's steps up to it."""
    trials: int = 0
    shown: int = 0
    """How many of the trials to make it short showed it."""
    seen: int = 1
    """In how many sequences it was seen."""
    besides: list[str] = field(default_factory=list)
    """What was seen in the same sequence after it: it may be what comes of it, and is not looked into."""


@dataclass
class Explored:
    """What came out."""

    seed: int
    length: int
    found: list[Found] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    results: list[Result] = field(default_factory=list)
    sequences: int = 0
    steps: int = 0
    trials: int = 0
    seconds: float = 0.0
    kernel: str = ""


class Explorer(Generic[MachineT]):
    """Explores with one runner, on one kernel."""

    def __init__(
        self,
        exploration: Exploration[MachineT],
        runner: Runner[MachineT],
        *,
        seed: int,
        length: int,
        tell: Callable[[str], None] = lambda text: None,
        keep: Callable[[Found, Explored], None] = lambda found, explored: None,
    ) -> None:
        """`length` is the most steps of a sequence; `tell` is given lines of progress, `keep` what was found.

        A failure is given to `keep` at once, and again when it was made short.
        """
        self._exploration = exploration
        self._runner = runner
        self._tell = tell
        self._keep = keep
        self.explored = Explored(seed, length)
        self._known: dict[str, Found] = {}

    def explore(self, seconds: float, most: int | None = None) -> Explored:
        """Play sequences until `seconds` have gone by, or `most` were played; what was going on then is finished.

        KeyboardInterrupt passes through: `explored` has what came out so far.

        Raises:
            GuestError: no guest comes up.
        """
        began = time.monotonic()
        unplayed = 0
        explored = self.explored
        with self._runner.session():
            while time.monotonic() - began < seconds and (most is None or explored.sequences < most):
                number = explored.sequences + 1
                avoid = {found.failure.defect for found in explored.found if found.failure.defect}
                steps = generate(
                    self._exploration.world(),
                    random.Random(f"{explored.seed}/{number}"),
                    explored.length,
                    explored.coverage,
                    avoid,
                )
                played = self._play(steps, f"sequence {number}")
                if played.run is None:
                    # A set-up that fails on a busy machine says nothing about the kernel unless it fails again.
                    self._told(played, number)
                    played = self._play(steps, f"sequence {number}")
                explored.sequences = number
                explored.steps += played.done
                explored.seconds = time.monotonic() - began
                explored.coverage.add(self._exploration.world(), steps[: played.done])
                self._told(played, number)
                unplayed = 0 if played.done else unplayed + 1
                if unplayed >= _MOST_UNPLAYED and played.result is not None:
                    raise GuestError(f"{unplayed} sequences could not be played: {played.result.reason}")
                self._look_at(played, number, began + seconds)
                explored.seconds = time.monotonic() - began
        return explored

    def _told(self, played: Played, number: int) -> None:
        seen = ", ".join(dict.fromkeys(failure.defect or failure.signature for _, failure in played.failures))
        lost = f"; the guest is given up: {played.lost}" if played.lost else ""
        took = f"{played.result.seconds:.0f} s" if played.result is not None else ""
        self._tell(
            f"sequence {number}: {played.done} of {len(played.steps)} steps in {took}: {seen or 'nothing found'}{lost}"
        )

    def _look_at(self, played: Played, number: int, end: float) -> None:
        """What a sequence showed: what was seen before is counted, what is new is made short. The budget is used up at `end`.

        After a failure that has no name, another one may be its consequence: it waits for a sequence that shows it alone.
        """
        nameless: Found | None = None
        for signature in dict.fromkeys(failure.signature for _, failure in played.failures):
            at = played.at(signature)
            assert at is not None
            failure = next(failure for _, failure in played.failures if failure.signature == signature)
            if signature in self._known:
                self._known[signature].seen += 1
                nameless = nameless or (None if failure.defect else self._known[signature])
                continue
            if nameless is not None and not failure.defect:
                nameless.besides += [signature] * (signature not in nameless.besides)
                continue
            self._tell(f"new: {failure.text}")
            found = Found(failure, played.steps[: at + 1], number, at + 1)
            self._known[signature] = found
            nameless = nameless or (None if failure.defect else found)
            self.explored.found.append(found)
            self._keep(found, self.explored)
            if played.done:
                try:
                    self._shrink(found, at, end - time.monotonic())
                finally:
                    self._keep(found, self.explored)

    def _shrink(self, found: Found, at: int, left: float) -> None:
        lost = 0
        anew: set[tuple[Step, ...]] = set()
        """Sequences that have shown it in a guest that had played nothing before."""
        known = bool(found.failure.defect)
        share = _FOR_A_KNOWN_ONE if known else _FOR_SHRINKING
        until = time.monotonic() + max(0.0 if known else _FOR_THE_LAST, left * share)

        def fails(steps: list[Step]) -> int | None:
            nonlocal lost
            for _ in range(_TRIES):
                new = not self._runner.has_guest
                played = self._play(steps, f"shorter {found.sequence}")
                self.explored.trials += 1
                lost += bool(played.lost)
                if played.done:
                    break
            where = played.at(found.failure.signature)
            if where is not None and new:
                anew.add(tuple(steps[: where + 1]))
            shows = "shows it" if where is not None else "does not show it"
            if where is None and not played.done:
                shows = f"cannot be played: {played.result.reason if played.result else ''}"
            self._tell(f"  {len(steps)} steps: {shows}")
            return where

        shrinker = Shrinker(
            self._exploration.world,
            fails,
            _MOST_OF_A_KNOWN_ONE if known else _MOST_TRIALS,
            more=lambda: time.monotonic() < until and lost < _MOST_LOST,
        )
        whole = found.steps
        try:
            found.steps = shrinker.shrink(whole, at)
        except BaseException:  # interrupted, or no guest comes up any more
            found.steps = min((list(steps) for steps in anew), key=len, default=whole)
            raise
        finally:
            found.trials, found.shown = shrinker.trials, shrinker.failed
        if known or found.steps == whole or tuple(found.steps) in anew:
            return
        # What the kernel was left with by the sequence that met it may show it again whatever is played.
        self._runner.renew()
        found.trials += 1
        if fails(found.steps) is None:
            self._tell("  a new guest does not show it: the sequence stays as long as it was")
            found.steps, found.shown = whole, 0
        else:
            found.shown += 1

    def _play(self, steps: Sequence[Step], name: str) -> Played:
        played = Played(list(steps))
        scenario = sequence_scenario(self._exploration, played, name)
        played.result = self._runner.run_one(scenario)
        if not self._runner.has_guest:
            given_up = played.run.given_up if played.run is not None else ""
            played.lost = given_up or "it does not answer any more"
        self.explored.results.append(played.result)
        self.explored.kernel = self.explored.kernel or played.result.properties.get("kernel", "")
        of_the_judge(played)
        return played


def of_the_judge(played: Played) -> None:
    """What the judge found and no step showed (leaks, reports at the end, a scenario that broke) is a failure of the last step."""
    result = played.result
    if result is None or result.verdict is not Verdict.FAIL:
        return
    if not any(failure.text in result.reason for _, failure in played.failures):
        words = result.reason.split(":")[:2]
        played.failures.append(
            (max(0, played.done - 1), Failure(f"{OF_THE_JUDGE}: {':'.join(words).strip()}", result.reason))
        )


def sequence_scenario(
    exploration: Exploration[MachineT], played: Played, name: str, title: str = ""
) -> Scenario[MachineT]:
    """A scenario that plays the steps of `played`, and fills in how that went."""

    def play(run: Run, machine: MachineT) -> None:
        played.run = run
        player = exploration.player(run, machine)
        last = len(played.steps) - 1
        for at, step in enumerate(played.steps):
            with run.step(str(step)):
                found = player.play(step)
            played.done = at + 1
            played.failures += [(at, failure) for failure in found]
            if run.given_up or any(failure.derails for failure in found):
                last = at
                break
        if not run.given_up:
            with run.step("the end"):
                played.failures += [(last, failure) for failure in player.finish()]
        judged(run, [failure for _, failure in played.failures])

    return Scenario(
        number="x",
        name=name.replace(" ", "-"),
        title=title or name,
        expected="each step answers as the model says, in bounded time; nothing is left over",
        setup=exploration.setup,
        run=play,
    )


def judged(run: Run, failures: Sequence[Failure]) -> None:
    """Raise what the failures mean for the scenario: the first that is no known defect fails it."""
    run.fact("failures", dict(Counter(failure.signature for failure in failures)))
    for failure in failures:
        run.evidence(failure.signature, failure.text)
    if new := next((failure for failure in failures if not failure.defect), None):
        raise Failed(new.text)
    if failures:
        run.known(failures[0].defect, failures[0].text)
