"""Waiting for what other threads, processes and guests do."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds: many times what any of the waits takes on a busy machine of two cores."""


def eventually(
    condition: Callable[[], object],
    otherwise: str | Callable[[], str] = "",
    *,
    seconds: float = PATIENCE,
    interval: float = 0.005,
) -> None:
    """Ask for `condition` every `interval` seconds until it holds.

    Raises:
        AssertionError: it did not hold within `seconds`; the message is `otherwise`, or what calling that gives.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = otherwise() if callable(otherwise) else otherwise
            raise AssertionError(f"not within {seconds:g} s: {said or condition}")
        time.sleep(interval)
