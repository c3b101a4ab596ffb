"""States with a table of allowed transitions: an error names the state that is, and the one that was wanted.

    class Power(Enum):
        OFF = "off"
        ON = "on"

    POWER = Transitions(Power, {Power.OFF: {Power.ON}, Power.ON: {Power.OFF}})
    power = POWER.start("pf", Power.OFF)
    power.to(Power.ON)
    power.require(Power.ON)

A `Machine` has no lock: its owner serialises transitions, as it does for the data that belongs to the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class StateError(Exception):
    """A transition that the table does not have, or a call in a state in which it is not allowed.

    `subject` is what has the state, `state` the state it is in, `wanted` the states that would have been right: for a
    refused transition its target alone.
    """

    def __init__(self, subject: str, state: Enum, wanted: tuple[Enum, ...], message: str) -> None:
        super().__init__(f"{subject}: {message}")
        self.subject = subject
        self.state = state
        self.wanted = wanted


class Transitions(Generic[S]):
    """Which state may follow which. A state may always be set again; that is no transition."""

    def __init__(self, states: type[S], table: Mapping[S, Iterable[S]]) -> None:
        """`table` has a row for each of `states`: the states that may follow, none for a final state.

        Raises:
            ValueError: A state has no row.
        """
        missing = [state.name for state in states if state not in table]
        if missing:
            raise ValueError(f"{states.__name__}: no row for {', '.join(missing)}")
        self._table = {state: frozenset(table[state]) for state in states}

    def allowed(self, state: S) -> frozenset[S]:
        """The states that may follow `state`. From any thread."""
        return self._table[state]

    def check(self, subject: str, state: S, target: S) -> None:
        """Whether `subject` may go from `state` to `target`. From any thread.

        Raises:
            StateError: It may not; the message says both states, and what may follow.
        """
        if target is state or target in self._table[state]:
            return
        following = ", ".join(sorted(_name(one) for one in self._table[state])) or "nothing"
        message = f"cannot go from {_name(state)} to {_name(target)}; allowed: {following}"
        raise StateError(subject, state, (target,), message)

    def start(self, subject: str, state: S) -> Machine[S]:
        """Something that is in `state` now; `subject` names it in errors. From any thread."""
        return Machine(self, subject, state)


class Machine(Generic[S]):
    """The state of one thing."""

    __slots__ = ("_state", "_subject", "_transitions")

    def __init__(self, transitions: Transitions[S], subject: str, state: S) -> None:
        self._transitions = transitions
        self._subject = subject
        self._state = state

    @property
    def state(self) -> S:
        """The state that it is in."""
        return self._state

    def to(self, target: S) -> S:
        """Go to `target`; returns the state before. Its owner serialises calls.

        Raises:
            StateError: The table does not allow it; the state stays.
        """
        before = self._state
        self._transitions.check(self._subject, before, target)
        self._state = target
        return before

    def require(self, *states: S) -> None:
        """Go on only in one of `states`. Its owner serialises calls.

        Raises:
            StateError: It is in another state.
        """
        if self._state not in states:
            wanted = " or ".join(_name(state) for state in states)
            raise StateError(self._subject, self._state, states, f"is {_name(self._state)}, not {wanted}")


def _name(state: Enum) -> str:
    return state.name.lower().replace("_", " ")
