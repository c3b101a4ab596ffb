"""What is run, divided among machines or guests: every one computes its own part from the same list and the same times."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

from vfio_user_xe.emulator.results.times import Times

_T = TypeVar("_T")
_FORM = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> Shard:
        """From "2/4".

        Raises:
            ValueError: it is not of that form, or there is no such part.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f'"{text}" is no shard: want I/N, such as 2/4 for the second of four')
        number, count = int(match[1]), int(match[2])
        if not 1 <= number <= count:
            raise ValueError(f'"{text}": there is no shard {number} of {count} (allowed: 1/{count} to {count}/{count})')
        return Shard(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def share(
    items: Sequence[_T],
    shard: Shard,
    seconds: Callable[[_T], float],
    place: Callable[[_T], Hashable] = lambda item: None,
    boot: float = 0.0,
) -> list[_T]:
    """The items of a shard, in their order. Each item is in exactly one of the `count` shards.

    The same arguments give the same shards on any machine. `place` is the guest that an item needs; a shard that does not
    have it yet pays `boot` seconds, so items of one place stay together until a shard has its equal part of the whole.
    """
    places: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        places.setdefault(place(item), []).append(index)
    cost = [seconds(item) for item in items]
    equal = (sum(cost) + boot * len(places)) / shard.count
    loads = [0.0] * shard.count
    mine = []
    for members in sorted(places.values(), key=lambda members: -sum(cost[index] for index in members)):
        has: set[int] = set()
        for index in sorted(members, key=lambda index: -cost[index]):
            to = _shard_for(cost[index], loads, has, equal, boot)
            loads[to] += cost[index] + (0 if to in has else boot)
            has.add(to)
            if to == shard.number - 1:
                mine.append(index)
    return [items[index] for index in sorted(mine)]


def _shard_for(cost: float, loads: Sequence[float], has: Set[int], equal: float, boot: float) -> int:
    """The shard of the next item: one that has its place and room for it, else whichever would have the least to do."""
    roomy = [at for at in sorted(has) if loads[at] + cost <= equal]
    if roomy:
        return min(roomy, key=lambda at: loads[at])
    return min(range(len(loads)), key=lambda at: loads[at] + (0 if at in has else boot))


BOOT = 20.0
"""Seconds that a guest costs a part besides its tests."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Which part of a run a process does: of each of `shards` the next one's; `times` are those recorded."""

    shards: tuple[Shard, ...] = ()
    times: Times = field(default_factory=Times)

    def of(
        self, items: Sequence[_T], name: Callable[[_T], str], place: Callable[[_T], Hashable] = lambda item: None
    ) -> list[_T]:
        """The items of this part: see `share`; `name` is that of an item among the recorded times."""
        left = list(items)
        for shard in self.shards:
            left = share(left, shard, lambda item: self.times.of(name(item)), place, BOOT)
        return left
