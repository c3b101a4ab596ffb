"""Progress of long work: live lines on a terminal, by rich; sparse lines in a log."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as Live


class Progress:
    """Tells a person what is being done; a context manager that ends the display.

    On a terminal the current step is a live line with a bar, and those before it are lines above; elsewhere a step
    prints a line when it starts and then at most one per quarter of the work, so that a CI log stays readable. To be
    used by one thread.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._live: Live | None = None
        self._step: TaskID | None = None
        self._line = ""
        if self._stream.isatty():
            self._live = Live(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(20),
                TaskProgressColumn(),
                console=Console(file=self._stream, highlight=False),
                transient=True,
            )
        self._last_quarter = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.end()

    def step(self, text: str) -> None:
        """Begin a new step."""
        self._last_quarter = 0
        if self._live is None:
            self._print(text)
            return
        self._finish_step()
        self._line = text
        self._live.start()
        self._step = self._live.add_task(escape(text), total=None)

    def update(self, fraction: float, text: str) -> None:
        """Within the current step: `fraction` (0 to 1) is done."""
        if self._live is not None:
            if self._step is not None:
                self._line = f"{text}: {fraction * 100:.0f} %"
                self._live.update(self._step, description=escape(text), completed=fraction, total=1.0)
        elif int(fraction * 4) > self._last_quarter:
            self._last_quarter = int(fraction * 4)
            self._print(f"  {text}: {fraction * 100:.0f} %")

    def end(self) -> None:
        """Give the terminal back; the line of the last step stays. Further steps may follow."""
        if self._live is not None:
            self._finish_step()
            self._live.stop()

    def _finish_step(self) -> None:
        if self._live is not None and self._step is not None:
            self._live.remove_task(self._step)
            self._live.refresh()
            self._live.console.print(escape(self._line), soft_wrap=True)
            self._step = None

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
