"""How many sequences begin: an exporter and importers that have mapped its memory. What is done then is for chance.

Chance alone comes to two importers of one buffer in few of the sequences of forty steps, and has no steps left then.
"""

from __future__ import annotations

import random

from vfio_user_xe.device_models.xe.scenarios.lifetimes.exporting import RANGES, SEEDS
from vfio_user_xe.device_models.xe.scenarios.lifetimes.importing import MOST_FILES
from vfio_user_xe.device_models.xe.scenarios.lifetimes.operation import ACTORS, new
from vfio_user_xe.device_models.xe.scenarios.lifetimes.state import VFS, State
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import World

_OPENED = 0.65
"""How many of the sequences begin so."""
_FILLED, _BOUND, _USED, _TWO_BUFFERS = 0.8, 0.9, 0.3, 0.3
_IMPORTERS = (1, 2, 2, 3)


def opening(world: World, state: State, chance: random.Random) -> list[Step]:
    """Steps to begin with, which `world` has applied to its `state`; none for some sequences."""
    steps: list[Step] = []

    def do(actor: str, operation: str, *arguments: str) -> None:
        step = Step(actor, operation, arguments)
        world.apply(step)
        steps.append(step)

    if chance.random() >= _OPENED:
        return steps
    exporter, vf = chance.choice(ACTORS), chance.choice(VFS)
    do(exporter, "start")
    do(exporter, "open", vf)
    if chance.random() < _FILLED:
        do(exporter, "fill", vf, chance.choice(SEEDS))
    buffers = []
    for ranges in chance.sample(RANGES, 1 + (chance.random() < _TWO_BUFFERS)):
        buffers.append(new(state, "d"))
        do(exporter, "export", vf, buffers[-1], ranges)
    for _ in range(chance.choice(_IMPORTERS)):
        actor, buffer = chance.choice(ACTORS), chance.choice(buffers)
        if sum(gpu.opener == actor for gpu in state.gpus.values()) >= MOST_FILES:
            continue
        if actor not in state.processes:
            do(actor, "start")
        if actor not in state.buffers[buffer].holders:
            do(actor, "take", buffer, exporter)
        gpu = new(state, "g")
        do(actor, "gpu", gpu)
        imported = new(state, "i")
        do(actor, "import", gpu, buffer, imported)
        if chance.random() < _BOUND:
            do(actor, "bind", imported)
            if chance.random() < _USED:
                do(actor, "job", imported)
    return steps
