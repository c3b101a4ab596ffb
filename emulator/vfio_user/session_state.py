"""The states of a client's connection."""

from __future__ import annotations

from enum import Enum

from vfio_user_xe.emulator.model.states import Transitions


class SessionState(Enum):
    """How far a connection is."""

    NEGOTIATING = "negotiating"
    """Only VERSION may come; the function knows of no client."""
    RUNNING = "running"
    """VERSION was answered: the function is attached, every other command may come."""
    ENDED = "ended"
    """The client is gone, or was disconnected; the function is detached."""


SESSION = Transitions(
    SessionState,
    {
        SessionState.NEGOTIATING: {SessionState.RUNNING, SessionState.ENDED},
        SessionState.RUNNING: {SessionState.ENDED},
        SessionState.ENDED: (),
    },
)
