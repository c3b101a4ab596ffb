"""A function as an initiator of accesses, and nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FakeInitiator:
    """An `Initiator`: `index` 0 is the PF, n VF n."""

    name: str
    index: int


PF, VF1, VF2 = FakeInitiator("pf", 0), FakeInitiator("vf1", 1), FakeInitiator("vf2", 2)
