"""Sequences from a model and a seed: an opening, and a random walk over what is allowed, drawn to pairs and triples that are new."""

from __future__ import annotations

import random
from collections.abc import Container

from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage, Threads
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import World

_DRAW = 6.0
"""How much likelier a step is that makes a pair or triple never made before."""
_AVOIDED, _MET_AGAIN = 0.01, 0.15
"""How likely a step stays that would meet a defect that was found already: what lies behind it can be found only so.

The second is for what a sequence survives: it costs seconds, and whether all was done as it should be is still seen.
"""


def generate(
    world: World, chance: random.Random, length: int, coverage: Coverage, avoid: Container[str] = ()
) -> list[Step]:
    """Up to `length` steps, or the opening alone where that is longer; fewer when nothing is allowed any more; `world` is changed.

    The same seed, coverage and `avoid` give the same steps. `avoid` are names of defects.
    """
    steps: list[Step] = []
    threads = Threads()
    for step in world.opening(chance):
        threads.add(step, world.topics(step))
        steps.append(step)
    while len(steps) < length:
        choices = world.choices()
        if not choices:
            break
        weights = []
        for step, weight in choices:
            drawn = weight * (1 + _DRAW * coverage.rarity(threads.grams(step, world.topics(step))))
            if any(defect in avoid for defect in world.provokes(step)):
                drawn *= _MET_AGAIN if world.goes_on(step) else _AVOIDED
            weights.append(drawn)
        step = chance.choices([step for step, _ in choices], weights)[0]
        threads.add(step, world.topics(step))
        world.apply(step)
        steps.append(step)
    return steps
