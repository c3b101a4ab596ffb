"""Exploration: sequences of operations made from a model of what is allowed, played in a guest, and made short when they fail.

A suite that has a model offers it as `Suite.exploration`; `vfio-user-xe scenario explore` plays it, and `scenario run FILE` replays
what it kept. docs/exploring.md tells how to use it and how a model is written.
"""

from __future__ import annotations

from vfio_user_xe.emulator.scenarios.exploration.sequence import Kept, Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure, Player, World

__all__ = ["Failure", "Kept", "Player", "Step", "World"]
