"""Progress of long work: one line rewritten in place on a terminal, sparse lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Tells a person what is being done.

    On a terminal the current step is one line that is rewritten; elsewhere a step prints a line when it starts
    and then at most one per quarter of the work, so that a CI log stays readable.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._tty = self._stream.isatty()
        self._open_line = False
        self._last_drawn = 0.0
        self._last_quarter = 0

    def step(self, text: str) -> None:
        """Begin a new step."""
        self.end()
        self._last_quarter = 0
        if self._tty:
            self._draw(text)
        else:
            self._print(text)

    def update(self, fraction: float, text: str) -> None:
        """Within the current step: `fraction` (0 to 1) is done."""
        line = f"{text}: {fraction * 100:.0f} %"
        if self._tty:
            now = time.monotonic()
            if now - self._last_drawn > 0.1 or fraction >= 1:
                self._last_drawn = now
                self._draw(line)
        elif int(fraction * 4) > self._last_quarter:
            self._last_quarter = int(fraction * 4)
            self._print(f"  {line}")

    def end(self) -> None:
        """Finish the line that is being rewritten, if any."""
        if self._open_line:
            self._stream.write("\n")
            self._stream.flush()
            self._open_line = False

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._open_line = True

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Silent(Progress):
    """Says nothing."""

    def step(self, text: str) -> None:
        pass

    def update(self, fraction: float, text: str) -> None:
        pass


def megabytes(size: int) -> str:
    """A size in bytes as people read download sizes: `172 MB`."""
    return f"{size / 1e6:.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"
