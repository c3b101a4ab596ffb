"""What is fuzzed: a target makes its cases from random numbers, and says when something is not as it must be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar


class Target(ABC):
    """One target. A case depends on its random numbers alone, so that a finding can be repeated by its number.

    Whatever a case raises is a finding: a broken invariant (AssertionError), or a mistake of the code's (anything else).
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    """What `case` counts."""
    seconds: ClassVar[float] = 120.0
    """A case that takes longer hangs."""
    fresh: ClassVar[int] = 50
    """Cases until the target is closed, checked for leaks, and opened again."""

    @abstractmethod
    def open(self) -> None:
        """Make what the cases need."""

    @abstractmethod
    def case(self, random: Random) -> int:
        """Run one case, check what must hold after it, and return how many units it was."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; called after a finding too."""


NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 0xFF, 0x100, 0xFFF, 0x1000, 0xFFFF, 0x10000, 0x1FFFFF, 0x200000)
EDGES = (0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFFFFF)


def dword(random: Random) -> int:
    """A number of 32 bits: small, at an edge, a few bits, or anything."""
    kind = random.randrange(8)
    if kind < 3:
        return random.choice(NUMBERS)
    if kind == 3:
        return random.choice(EDGES)
    if kind == 4:
        return 1 << random.randrange(32)
    if kind == 5:
        return random.getrandbits(32) & random.getrandbits(32) & random.getrandbits(32)
    return random.getrandbits(32)
