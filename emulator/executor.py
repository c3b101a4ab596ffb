"""The card's executor: the one thread on which everything happens that must not happen inside an access.

An access (a register write) may only queue: `submit(job)`. Engines, firmware models and DMA run here, one job after
the other, so device models need no locks against each other. Jobs should be short or yield: a long job hands the
thread back by submitting its continuation.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Executor:
    """A thread with a queue and timers. `submit` and `call_later` may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: deque[Job] = deque()
        self._timers: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._sleeping = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.failures = 0
        """Jobs that raised: each was logged with its traceback, and the thread went on."""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs that are queued, drop the timers, end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Queue `job`. Cheap: safe on the access path."""
        self._jobs.append(job)
        if self._sleeping:
            with self._wake:
                self._wake.notify()

    def call_later(self, seconds: float, job: Job) -> None:
        """Queue `job` after `seconds`."""
        with self._wake:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), job))
            self._wake.notify()

    def run_sync(self, job: Callable[[], object], timeout: float | None = None) -> object:
        """Run `job` on the executor and return what it returns (or raise what it raises).

        For the control plane and tests; never from an access or from the executor itself. Raises TimeoutError.
        """
        done = threading.Event()
        box: list[object] = []
        error: list[BaseException] = []

        def wrapped() -> None:
            try:
                box.append(job())
            except BaseException as exc:  # handed to the caller
                error.append(exc)
            finally:
                done.set()

        self.submit(wrapped)
        if not done.wait(timeout):
            raise TimeoutError(f"executor {self.name!r} did not run the job within {timeout} s")
        if error:
            raise error[0]
        return box[0]

    def is_current(self) -> bool:
        """Whether the caller runs on this executor's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            self._expire_timers()
            try:
                job = jobs.popleft()
            except IndexError:
                if not self._sleep():
                    return
                continue
            try:
                job()
            except Exception:
                self.failures += 1
                log.exception("%s: a job failed", self.name)

    def _expire_timers(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        with self._wake:
            while self._timers and self._timers[0][0] <= now:
                self._jobs.append(heapq.heappop(self._timers)[2])

    def _sleep(self) -> bool:
        """Wait for a job or a timer; False when it is time to end."""
        with self._wake:
            self._sleeping = True
            try:
                # A submit between the failed pop and here saw _sleeping unset: look again before waiting.
                if self._jobs:
                    return True
                if self._stopping:
                    return False
                timeout = None
                if self._timers:
                    timeout = max(0.0, self._timers[0][0] - time.monotonic())
                self._wake.wait(timeout)
                return True
            finally:
                self._sleeping = False
