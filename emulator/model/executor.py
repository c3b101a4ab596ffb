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
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from vfio_user_xe.emulator.model.clock import CardClock

log = logging.getLogger(__name__)

Job = Callable[[], None]
Result = TypeVar("Result")


class NotRunning(RuntimeError):
    """Nothing runs jobs: the executor has not been started, or it has stopped."""


class Busy(TimeoutError):
    """The executor's other jobs took so long that it did not get through with one in time."""


class Executor:
    """A thread with a queue and timers. `submit` and `call_later` may be called from any thread.

    For single use: `start` once, then `stop` once. What is submitted before `start` runs then; what is submitted after `stop` never
    does.
    """

    def __init__(self, name: str, clock: CardClock | None = None) -> None:
        """Timers run by `clock`; without one, by the host's."""
        self.name = name
        self.clock = clock or CardClock()
        self._jobs: deque[Job] = deque()
        self._timers: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._sleeping = False
        self._stopped = False
        self._ended = False
        self._thread: threading.Thread | None = None
        self._busy = False
        self._finished = 0
        self._boundary = threading.Condition()
        self._boundary_waiters = 0
        self.failures = 0
        """Jobs that raised: each was logged with its traceback, and the thread went on."""

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: It was started before.

        From any thread.
        """
        if self._thread is not None or self._stopped:
            raise RuntimeError(f"executor {self.name!r} was started before")
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs that are queued now, drop what they submit and the timers, end the thread."""
        with self._wake:
            if not self._stopped:
                self._stopped = True
                # A job of its own, not a look at the flag: jobs that submit themselves again would never let it end.
                self._jobs.append(_end)
                self._wake.notify()
        if self._thread is None:
            self._ended = True
            self._drop_jobs()
        elif self._thread is not threading.current_thread():
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
            heapq.heappush(self._timers, (self.clock.seconds() + seconds, next(self._order), job))
            self._wake.notify()

    def run_sync(self, job: Callable[[], Result], timeout: float | None = None) -> Result:
        """Run `job` on the executor and return what it returns (or raise what it raises).

        For the control plane and tests, never from an access. On the executor itself it is just a call.

        Raises:
            Busy: The job was not done within `timeout` seconds.
            NotRunning: The executor has not been started, or has stopped.

        From any thread but inside an access.
        """
        if self.is_current():
            return job()
        if self._thread is None and not self._stopped:
            # It would wait until somebody else starts it, and nobody may.
            raise NotRunning(f"executor {self.name!r} has not been started: call start() first")
        call = self._queue_call(job)
        if self._ended:
            self._drop_jobs()
        if not call.done.wait(timeout):
            raise Busy(f"executor {self.name!r} did not run the job within {timeout} s")
        if call.dropped:
            raise NotRunning(f"executor {self.name!r} has stopped")
        if call.error is not None:
            raise call.error
        return call.result

    def _queue_call(self, job: Callable[[], Result]) -> Call[Result]:
        call = Call(job)
        self.submit(call)
        return call

    def settle(self, timeout: float) -> bool:
        """Wait until the job that is running now has ended; False when it has not within `timeout` seconds.

        For revocations: a job opens windows again, so one that starts later does not use old ones.
        """
        if not self._busy or self.is_current():
            return True
        seen = self._finished
        with self._boundary:
            self._boundary_waiters += 1
            try:
                return self._boundary.wait_for(lambda: self._finished != seen or not self._busy, timeout)
            finally:
                self._boundary_waiters -= 1

    @property
    def running(self) -> bool:
        """Whether jobs are being run: started, and not ended."""
        return self._thread is not None and not self._ended

    def is_current(self) -> bool:
        """Whether the caller runs on this executor's thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        jobs = self._jobs
        try:
            while True:
                if self._timers:
                    self._expire_timers()
                try:
                    job = jobs.popleft()
                except IndexError:
                    self._sleep()
                    continue
                if job is _end:
                    return
                self._busy = True
                try:
                    job()
                except BaseException:  # not even SystemExit of a plug-in may end the card's only thread
                    self.failures += 1
                    log.exception("%s: a job failed", self.name)
                self._busy = False
                self._finished += 1
                if self._boundary_waiters:
                    with self._boundary:
                        self._boundary.notify_all()
        finally:
            # In this order: a job queued after the last look at the queue is dropped by the one who queued it.
            self._ended = True
            self._drop_jobs()

    def _expire_timers(self) -> None:
        now = self.clock.seconds()
        with self._wake:
            while self._timers and self._timers[0][0] <= now:
                self._jobs.append(heapq.heappop(self._timers)[2])

    def _sleep(self) -> None:
        """Wait for a job or a timer."""
        with self._wake:
            self._sleeping = True
            # A submit between the failed pop and here saw _sleeping unset: look again before waiting.
            if not self._jobs:
                # A device model may ask for any time; a lock waits for at most TIMEOUT_MAX.
                seconds = self._timers[0][0] - self.clock.seconds() if self._timers else None
                self._wake.wait(None if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))
            self._sleeping = False

    def _drop_jobs(self) -> None:
        """Nothing runs any more: tell those who wait for a result."""
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            if isinstance(job, Call):
                job.dropped = True
                job.done.set()


class Call(Generic[Result]):
    """A job whose result another thread waits for."""

    def __init__(self, job: Callable[[], Result]) -> None:
        self._job = job
        self.done = threading.Event()
        self.dropped = False
        self.error: BaseException | None = None
        self.result: Result

    def __call__(self) -> None:
        try:
            self.result = self._job()
        except BaseException as error:  # handed to the caller
            self.error = error
        finally:
            self.done.set()


def _end() -> None:
    """The last job."""
