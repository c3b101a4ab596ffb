"""What a soak does next: the kind of card, the scenario, who is killed. It follows from a seed, a shard and a number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV
from vfio_user_xe.emulator.scenarios.runner import select
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Suite

_IMPORTS = (
    "basic-import",
    "import-read-by-a-kernel",
    "pf-writes-vf-reads",
    "several-ranges",
    "sibling-imports",
    "two-vfs",
    "reset-with-an-unbound-import",
    "reset-while-copying",
    "reset-while-kernels-run",
    "used-after-close",
    "exporter-killed",
    "vfs-disabled",
    "gt-reset",
    "two-importers",
    "alignments",
    "imports-race-with-resets",
    "imports-race-with-memory-disable",
)
_LIFE = (
    "pf-removed-again-and-again",
    "numvfs-again-and-again",
    "reset-bursts",
    "vf-driver-unbound",
    "busy-vf-reset",
    "opened-and-closed",
    "memory-cleared-between-users",
    "users-killed",
    "vfio-user-killed",
    "vf-with-one-gt",
    "provisioning-refused",
    "saved-and-restored",
    "moved-twice-before-resfix",
    "migration-leaks-nothing",
)


class Victim(StrEnum):
    """Who is killed while a scenario goes on."""

    NOBODY = "nobody"
    QEMU = "QEMU"
    SERVER = "server"


@dataclass(frozen=True)
class Kind:
    """A kind of card, with the scenarios that it lives through."""

    suite: Suite[Any]
    scenarios: Sequence[Scenario[Any]]


@dataclass(frozen=True)
class Round:
    """One step of a soak."""

    scenario: Scenario[Any]
    victim: Victim
    after: float
    """Seconds from the scenario's beginning until the victim is killed."""


def _kind(suite: Suite[Any], names: Sequence[str]) -> Kind:
    chosen = select(suite, names)
    setups = {scenario.setup.name for scenario in chosen}
    if len(setups) != 1:
        raise ValueError(f"scenarios of one kind of card share a set-up, not {sorted(setups)}")
    return Kind(suite, chosen)


KINDS = (_kind(DMABUF, _IMPORTS), _kind(SRIOV, _LIFE))
ROUNDS_OF_A_GUEST = 5
"""A guest that nobody kills is ended after so many rounds; the server goes on with the next."""
GUESTS_OF_A_SERVER = 6
_KILLS = (Victim.NOBODY,) * 34 + (Victim.QEMU,) * 5 + (Victim.SERVER,)
_LATEST = 20.0


def round_of(kind: Kind, seed: int, shard: int, number: int) -> Round:
    """Round `number` of a shard on a card of this kind."""
    chance = Random(f"{seed}/{shard}/{number}")
    return Round(chance.choice(kind.scenarios), chance.choice(_KILLS), chance.uniform(0.1, _LATEST))
