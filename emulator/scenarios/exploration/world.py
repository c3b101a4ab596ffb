"""What a suite brings for its exploration: a model of the world that operations change, and what plays them in a guest."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vfio_user_xe.emulator.scenarios.exploration.sequence import BadSequence, Step


class World(Protocol):
    """A model: what exists, what is allowed next, and what each operation changes. Nothing of it needs a guest."""

    def choices(self) -> Sequence[tuple[Step, float]]:
        """The steps that are allowed now, each with its weight, in an order that is always the same."""
        ...

    def opening(self, chance: random.Random) -> Sequence[Step]:
        """Steps that a sequence begins with, chosen by `chance`, which may be none; they are applied, as by `apply`."""
        ...

    def allows(self, step: Step) -> bool:
        """Whether a step is allowed now.

        Raises:
            BadSequence: no state allows it.
        """
        ...

    def apply(self, step: Step) -> None:
        """Change the model as the step changes the world of a correct kernel."""
        ...

    def topics(self, step: Step) -> Iterable[str]:
        """What the step is about (a device, say): steps that have one in common can concern each other."""
        ...

    def provokes(self, step: Step) -> Iterable[str]:
        """Defects known by name that the step would meet now on a kernel that has them."""
        ...

    def goes_on(self, step: Step) -> bool:
        """Whether a sequence can go on, in the same guest, after the step has met what it `provokes`."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that should not be: `signature` is the same for two that have one cause, as far as can be seen."""

    signature: str
    text: str
    defect: str = ""
    """The known defect's name; empty: it is none."""
    derails: bool = False
    """The guest is not in the model's state any more: steps that would come next mean nothing."""


class Player(Protocol):
    """Plays a sequence in a guest, and looks at everything after each step."""

    def play(self, step: Step) -> list[Failure]:
        """Carry out a step that the model allows.

        Raises:
            GuestError: the guest is lost.
        """
        ...

    def finish(self) -> list[Failure]:
        """End what is left, look at what must be as before, and make the guest ready for the next sequence."""
        ...


def repaired(world: World, steps: Iterable[Step]) -> list[Step]:
    """The steps of a sequence that are allowed when they come, the others left out: they hung on steps that are gone."""
    kept = []
    for step in steps:
        if world.allows(step):
            world.apply(step)
            kept.append(step)
    return kept


def checked(world: World, steps: Iterable[Step]) -> None:
    """Make sure that the model allows all of the steps.

    Raises:
        BadSequence: it does not allow one; the text says which.
    """
    for number, step in enumerate(steps, 1):
        if not world.allows(step):
            raise BadSequence(f'step {number}, "{step}", is not allowed after those before it')
        world.apply(step)
