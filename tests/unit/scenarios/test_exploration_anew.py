"""When a new guest is tried: before a failure is made shorter than it shows, and where none could be prepared."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import create_autospec

import pytest

from tests.unit.scenarios.test_exploration import EXPLORATION, SETUP, Doors, Guests, steps
from vfio_user_xe.emulator.results import Result
from vfio_user_xe.emulator.scenarios.exploration.explorer import OF_THE_JUDGE, Explorer, Found, Played
from vfio_user_xe.emulator.scenarios.exploration.sequence import Step
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.runner import Runner
from vfio_user_xe.emulator.scenarios.scenario import Exploration, Scenario
from vfio_user_xe.emulator.scenarios.verdict import Failed

WALKED = steps("a open red, a shut red, a open red, a shut red, a open blue, a paint blue")


class House:
    """Painting fails once a door was shut, in this sequence or, where it stays so, in any other of the same guest."""

    def __init__(self, *, stays: bool) -> None:
        self.stays = stays
        self.shut = False
        self.built = 0

    def build(self) -> None:
        """A new guest."""
        self.shut = False
        self.built += 1

    def player(self, run: Run, machine: Machine) -> House:
        self.shut = self.shut and self.stays
        return self

    def play(self, step: Step) -> list[Failure]:
        self.shut = self.shut or step.operation == "shut"
        return [Failure("paint sticks", f"{step}: sticks")] if step.operation == "paint" and self.shut else []

    def finish(self) -> list[Failure]:
        return []


def shortest(house: House, *, has_guest: bool = True, interrupted_at: int = 0) -> Found:
    """What becomes of a failure at the last of the steps; with `interrupted_at` the trial of that number never ends."""
    runner = create_autospec(Runner, instance=True)
    guests = Guests()

    def run_one(scenario: Scenario[Machine]) -> Result:
        if interrupted_at and len(guests.played) + 1 == interrupted_at:
            raise KeyboardInterrupt
        return guests.run_one(scenario)

    runner.run_one.side_effect = run_one
    runner.renew.side_effect = house.build
    runner.has_guest = has_guest
    exploration = Exploration[Machine](SETUP, Doors, house.player)
    made = Explorer(exploration, runner, seed=1, length=15)
    house.shut = house.stays
    walked = Played(WALKED, len(WALKED), [(len(WALKED) - 1, Failure("paint sticks", ""))])
    with pytest.raises(KeyboardInterrupt) if interrupted_at else nullcontext():
        made._look_at(walked, 1, 1e9)
    return made.explored.found[0]


def test_what_only_a_spoiled_guest_shows_is_no_shorter_sequence() -> None:
    house = House(stays=True)
    found = shortest(house)
    assert house.built == 1
    assert (found.steps, found.shown) == (WALKED, 0)


def test_what_a_new_guest_shows_is_the_shortest() -> None:
    house = House(stays=False)
    found = shortest(house)
    assert house.built == 1
    assert [step.operation for step in found.steps] == ["open", "shut", "open", "paint"]
    assert found.shown


@pytest.mark.parametrize("stays", [True, False])
def test_what_each_time_had_a_new_guest_is_not_played_again(stays: bool) -> None:
    house = House(stays=stays)
    shortest(house, has_guest=False)
    assert house.built == 0


@pytest.mark.parametrize("has_guest", [True, False])
def test_when_it_is_interrupted_what_a_new_guest_has_shown_is_kept(has_guest: bool) -> None:
    found = shortest(House(stays=False), has_guest=has_guest, interrupted_at=4)
    assert found.trials
    assert (len(found.steps) < len(WALKED)) is not has_guest


def test_a_guest_that_could_not_be_prepared_once_says_nothing_about_the_kernel() -> None:
    guests, told = Guests(), list[str]()

    def run_one(scenario: Scenario[Machine]) -> Result:
        guests.broken = "" if guests.played else "the scenario could not be run: write error: Timer expired"
        return guests.run_one(scenario)

    runner = create_autospec(Runner, instance=True)
    runner.run_one.side_effect = run_one
    made = Explorer(EXPLORATION, runner, seed=1, length=15, tell=told.append)
    explored = made.explore(60, 1)
    assert not [found for found in explored.found if OF_THE_JUDGE in found.failure.signature]
    assert explored.sequences == 1
    assert explored.steps
    assert "0 of" in told[0], "it is told all the same"


def test_a_kernel_that_panics_in_the_first_step_is_found() -> None:
    guests = Guests()

    class Panics(House):
        def play(self, step: Step) -> list[Failure]:
            if len(guests.played) == 1:
                raise Failed("GuestPanic: KASAN: slab-use-after-free in xe_bo_move")
            return []

    runner = create_autospec(Runner, instance=True)
    runner.run_one.side_effect = guests.run_one
    house = Panics(stays=False)
    made = Explorer(Exploration[Machine](SETUP, Doors, house.player), runner, seed=1, length=15)
    explored = made.explore(60, 1)
    assert any("slab-use-after-free" in found.failure.text for found in explored.found)
