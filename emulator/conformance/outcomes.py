"""How a conformance case ends when it does not pass."""

from __future__ import annotations

from typing import NoReturn


class Failure(Exception):
    """The server does not behave as the case wants; the text says what it did and what was wanted."""


class Skip(Exception):
    """The case does not apply to this server; the text says why."""


def fail(text: str) -> NoReturn:
    """Raise `Failure`."""
    raise Failure(text)
