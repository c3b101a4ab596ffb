"""The error by which a command refuses what it was asked."""

from __future__ import annotations

from collections.abc import Iterable


class CommandError(Exception):
    """A command that cannot be carried out as it was asked: the message says why, `allowed` lists what is allowed.

    A command of a device model raises it for a wrong argument. Errors of other classes count as defects of the
    command: they are logged, and whoever asked is told of an internal error.
    """

    def __init__(self, message: str, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.allowed = list(allowed)
