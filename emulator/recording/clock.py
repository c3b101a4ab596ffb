"""The clock of a card that is recorded or replayed."""

from __future__ import annotations

import time
from collections.abc import Callable

from vfio_user_xe.emulator.model.clock import CardClock


class RecordingClock(CardClock):
    """Answers what a recorder or a player says, and the host's time to those whose looks are no part of the recording."""

    __slots__ = ()

    def __init__(self, nanoseconds: Callable[[], int | None]) -> None:
        """`nanoseconds()` is asked at each look, on the thread that looks; None: the host's time."""

        def ns() -> int:
            told = nanoseconds()
            return time.monotonic_ns() if told is None else told

        def seconds() -> float:
            told = nanoseconds()
            return time.monotonic() if told is None else told / 1e9

        super().__init__(ns, seconds)
