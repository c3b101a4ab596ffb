"""States with a table of the transitions that are allowed.

    class Door(Enum):
        OPEN = "open"
        CLOSED = "closed"

    DOOR = Transitions({Door.OPEN: {Door.CLOSED}, Door.CLOSED: {Door.OPEN}})

    self.state = DOOR.move("the front door", self.state, Door.CLOSED)

An owner keeps the state in an attribute of its own, which anybody may read; it changes through the table only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class StateError(RuntimeError):
    """A transition, or a call, that the present state does not allow. The text names the state, and those that would do."""


class Transitions(Generic[S]):
    """Which states may follow each state. To stay in a state is a transition too, and has to be in the table."""

    def __init__(self, allowed: Mapping[S, Collection[S]]) -> None:
        """Raises ValueError when a state that may be reached has no entry of its own."""
        self._allowed = {state: frozenset(following) for state, following in allowed.items()}
        missing = {following for reached in self._allowed.values() for following in reached} - set(self._allowed)
        if missing:
            raise ValueError(f"no entry for {_names(missing)}")

    def allows(self, state: S, new: S) -> bool:
        """Whether `new` may follow `state`."""
        return new in self._allowed[state]

    def move(self, whose: str, state: S, new: S) -> S:
        """`new`, the state of `whose` from now on. From any thread; the caller keeps two from moving at once.

        Raises:
            StateError: `new` may not follow `state`.
        """
        if new not in self._allowed[state]:
            before = {other for other, following in self._allowed.items() if new in following}
            raise StateError(f"{whose} is {state.value}: it becomes {new.value} only when it is {_names(before)}")
        return new


def require(whose: str, call: str, state: S, *allowed: S) -> None:
    """Check that `call` may be made now. From any thread.

    Raises:
        StateError: `state` is none of `allowed`.
    """
    if state not in allowed:
        raise StateError(f"{whose} is {state.value}: {call} needs it to be {_names(allowed)}")


def _names(states: Collection[Enum]) -> str:
    return " or ".join(sorted(str(state.value) for state in states)) or "in no state at all"
