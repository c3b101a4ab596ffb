"""Which operations came after which: pairs and triples of operations on one topic, one directly after the other there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import World

Gram: TypeAlias = tuple[str, ...]


class Threads:
    """The operations of one sequence by topic, as it grows."""

    def __init__(self) -> None:
        self._by_topic: dict[str, list[str]] = {}

    def add(self, step: Step, topics: Iterable[str]) -> None:
        """The step was made."""
        for topic in topics:
            self._by_topic.setdefault(topic, []).append(step.operation)

    def grams(self, step: Step, topics: Iterable[str]) -> set[Gram]:
        """The pairs and triples that the step would make."""
        found = set()
        for topic in topics:
            before = self._by_topic.get(topic, [])
            for length in (1, 2):
                if len(before) >= length:
                    found.add((*before[-length:], step.operation))
        return found


@dataclass
class Coverage:
    """How often operations, pairs and triples were made."""

    counts: Counter[Gram] = field(default_factory=Counter)

    def add(self, world: World, steps: Sequence[Step]) -> None:
        """A sequence was played in a world that begins as `world`, which is changed."""
        threads = Threads()
        for step in steps:
            topics = list(world.topics(step))
            self.counts.update([(step.operation,), *threads.grams(step, topics)])
            threads.add(step, topics)
            world.apply(step)

    def rarity(self, grams: Iterable[Gram]) -> float:
        """From 0 to 1: how new the newest of these is."""
        return max((1 / (1 + self.counts[gram]) for gram in grams), default=0.0)

    def of(self, length: int) -> int:
        """How many different operations (1), pairs (2) or triples (3) were made."""
        return sum(len(gram) == length for gram in self.counts)


def reachable(world: Callable[[], World], sequences: Iterable[Callable[[World], Sequence[Step]]]) -> Coverage:
    """What sequences made by the model alone cover: an estimate of what there is to be covered."""
    coverage = Coverage()
    for generate in sequences:
        coverage.add(world(), generate(world()))
    return coverage
