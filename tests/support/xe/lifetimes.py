"""Worlds of the model of lifetimes, some steps on."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.lifetimes.world import Lifetimes
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step

IMPORTED = (
    "a start",
    "a open v1",
    "a fill v1 1",
    "a export v1 d1 0+0x200000",
    "b start",
    "b take d1 a",
    "b gpu g2",
    "b import g2 d1 i3",
    "b bind i3",
)
"""`a` exports, `b` imports and binds."""
HANDED_ON = (
    "a start",
    "a open v1",
    "a export v1 d1 0+0x200000",
    "b start",
    "b take d1 a",
    "b open-path d1",
    "b close d1",
)
"""`a` exports, `b` has nothing but an O_PATH descriptor."""


def after(*lines: str) -> Lifetimes:
    world = Lifetimes()
    for line in lines:
        step = Step.of(line)
        assert world.allows(step), line
        world.apply(step)
    return world
