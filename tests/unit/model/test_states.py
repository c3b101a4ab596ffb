"""States with checked transitions."""

from __future__ import annotations

from enum import Enum, auto

import pytest

from vfio_user_xe.emulator.model.states import StateError, Transitions


class Door(Enum):
    OPEN = auto()
    CLOSED = auto()
    WALLED_UP = auto()


DOOR = Transitions(Door, {Door.OPEN: {Door.CLOSED}, Door.CLOSED: {Door.OPEN, Door.WALLED_UP}, Door.WALLED_UP: ()})


def test_an_allowed_transition_returns_the_state_before() -> None:
    door = DOOR.start("the door", Door.OPEN)
    assert door.to(Door.CLOSED) is Door.OPEN
    assert door.state is Door.CLOSED


def test_a_refused_transition_says_both_states_and_what_is_allowed() -> None:
    door = DOOR.start("the door", Door.OPEN)
    with pytest.raises(StateError, match="the door: cannot go from open to walled up; allowed: closed") as error:
        door.to(Door.WALLED_UP)
    assert (error.value.state, error.value.wanted) == (Door.OPEN, (Door.WALLED_UP,))
    assert door.state is Door.OPEN


def test_nothing_follows_a_final_state() -> None:
    door = DOOR.start("the door", Door.WALLED_UP)
    with pytest.raises(StateError, match="allowed: nothing"):
        door.to(Door.OPEN)


def test_a_state_may_be_set_again() -> None:
    door = DOOR.start("the door", Door.WALLED_UP)
    assert door.to(Door.WALLED_UP) is Door.WALLED_UP


def test_a_call_in_the_wrong_state_says_which_would_be_right() -> None:
    door = DOOR.start("the door", Door.WALLED_UP)
    with pytest.raises(StateError, match="the door: is walled up, not open or closed"):
        door.require(Door.OPEN, Door.CLOSED)
    door.require(Door.OPEN, Door.WALLED_UP)


def test_a_table_without_a_row_for_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="Door: no row for WALLED_UP"):
        Transitions(Door, {Door.OPEN: (), Door.CLOSED: ()})
