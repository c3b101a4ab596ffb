"""Whether a core of the host is free: polling gains there, and takes time from others elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from os import sysconf
from pathlib import Path
from time import perf_counter

_STAT = Path("/proc/stat")
_WINDOW = 0.2
"""Seconds that are looked at: the kernel counts idle time in hundredths of a second."""
_FREE = 0.9
"""Of a core: what must have had nothing to do."""


def _idle_seconds() -> float:
    """Seconds that the host's processors have had nothing to do since it was booted, all together; proc_stat(5)."""
    words = _STAT.read_text().split(maxsplit=6)
    return (int(words[4]) + int(words[5])) / sysconf("SC_CLK_TCK")


class FreeCore:
    """Whether a core of the host had nothing to do lately but to run this thread's polling. For one thread."""

    def __init__(self, idle: Callable[[], float] = _idle_seconds, clock: Callable[[], float] = perf_counter) -> None:
        self._idle = idle
        self._clock = clock
        self._since, self._idle_then, self._polled = clock(), idle(), 0.0
        self._is_free = False

    def polled(self, seconds: float) -> None:
        """This thread has polled so long: a core that would have been idle otherwise."""
        self._polled += seconds

    def is_free(self) -> bool:
        """Whether one is; looked at a few times a second."""
        now = self._clock()
        took = now - self._since
        if took >= _WINDOW:
            idle = self._idle()
            self._is_free = idle - self._idle_then + self._polled >= _FREE * took
            self._since, self._idle_then, self._polled = now, idle, 0.0
        return self._is_free
