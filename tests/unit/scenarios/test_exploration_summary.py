"""The summary of an exploration, and its estimate of what there is to cover."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.scenarios.test_exploration import EXPLORATION, Doors, Guests, explorer, guests, steps
from vfio_user_xe.emulator.scenarios.exploration.coverage import Coverage
from vfio_user_xe.emulator.scenarios.exploration.explorer import Explored, Found
from vfio_user_xe.emulator.scenarios.exploration.summary import SAMPLE, coverable, exploration_data, kept_name, summary
from vfio_user_xe.emulator.scenarios.exploration.world import Failure

__all__ = ["guests"]


def test_the_summary_has_failures_seed_and_coverage(guests: Guests) -> None:
    explored = explorer(guests).explore(60, 5)
    there = coverable(EXPLORATION, explored.length)
    text, data = summary(explored, there), exploration_data(explored, there)
    assert "known: creaks" in text
    assert "NEW: " in text
    assert "seed 1" in text
    assert "3 of 3 operations" in text
    assert data["coverage"] == {
        "operations": {"made": 3, "model": 3},
        "pairs": {"made": explored.coverage.of(2), "model": explored.coverage.of(2)},
        "triples": {"made": explored.coverage.of(3), "model": explored.coverage.of(3)},
    }


def test_what_there_is_to_cover_is_estimated_once_by_a_few_sequences() -> None:
    made: list[Doors] = []

    class Counted(Doors):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    there = coverable(replace(EXPLORATION, world=Counted), 5)
    assert len(made) <= 2 * SAMPLE, "one to make a sequence, and one to play it in"
    assert SAMPLE <= 50, "a world of many calls takes 0.2 s a sequence, and ten times that on a busy host"
    summary(Explored(1, 5), there), exploration_data(Explored(1, 5), there)
    assert len(made) <= 2 * SAMPLE


def test_no_more_is_covered_than_there_is() -> None:
    explored = Explored(1, 5)
    explored.coverage.add(Doors(), steps("a open red"))
    assert "1 of 1 operations" in summary(explored, Coverage())


def test_a_summary_without_failures_says_so() -> None:
    assert summary(Explored(1, 5), coverable(EXPLORATION, 5)).startswith("nothing found")
    found = Found(Failure("a/b", "t"), steps("a open red"), 1, 1)
    assert kept_name(found, Explored(1, 5, [found])) == "01-a-b.steps"
