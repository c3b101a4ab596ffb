"""The clock that a card lives by: device models ask it, never module `time`, so that a recording can keep what they saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CardClock:
    """Time since an arbitrary start, never going back. From any thread.

    `ns()` are nanoseconds and `seconds()` are seconds of the same clock: the host's monotonic one, unless the card is recorded
    or replayed (`vfio_user_xe.emulator.recording.clock`). They are attributes so that a look costs no more than one at `time.monotonic`.
    """

    __slots__ = ("ns", "seconds", "tells")

    def __init__(
        self, ns: Callable[[], int] = time.monotonic_ns, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.ns = ns
        self.seconds = seconds
        self.tells = False
        """Whether what the card writes into a guest's memory now says how much time has passed."""

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is written meanwhile says how much time has passed, or how often it was looked at: a replay does not compare it.

        On the card's executor.
        """
        before, self.tells = self.tells, True
        try:
            yield
        finally:
            self.tells = before
