"""The executors of a card that is recorded and of one that is replayed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.model.executor import Call, Executor, Job, Result
from vfio_user_xe.emulator.recording import format as rec
from vfio_user_xe.emulator.recording.outcome import Different
from vfio_user_xe.emulator.recording.recorder import Recorder

log = logging.getLogger(__name__)


class RecordingExecutor(Executor):
    """An executor whose jobs wait for their turn, and are written down."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        super().__init__(name, recorder.clock())
        self._recorder = recorder

    def submit(self, job: Job) -> None:
        super().submit(_Job(self._recorder, self, job))

    def _queue_call(self, job: Callable[[], Result]) -> Call[Result]:
        # The control plane's: in turn as well, but no part of the recording.
        call = _Unrecorded(self._recorder, job)
        super().submit(call)
        return call

    def settle(self, timeout: float) -> bool:
        # In a turn no job runs; the thread that serves the client waits after it.
        return True if self._recorder.mine else super().settle(timeout)

    @property
    def running(self) -> bool:
        """Whether jobs are being run. Not in a turn: what would wait for one there would wait for ever."""
        return super().running and not self._recorder.mine

    def finish(self, timeout: float) -> None:
        """Wait until the jobs that are queued now have run. Not in a turn."""
        call = _Unrecorded(self._recorder, lambda: None)
        super().submit(call)
        if super().running and not self.is_current():
            call.done.wait(timeout)

    def _expire_timers(self) -> None:
        if not self._timers or self._timers[0][0] > time.monotonic():
            return
        with self._recorder.turn():
            self._recorder.emit(rec.EXPIRE, 0)
            before = len(self._jobs)
            super()._expire_timers()
            for index in range(before, len(self._jobs)):
                if not isinstance(self._jobs[index], (_Job, _Unrecorded)):
                    self._jobs[index] = _Job(self._recorder, self, self._jobs[index])


class _Job:
    """One job in its turn."""

    __slots__ = ("_executor", "_job", "_recorder")

    def __init__(self, recorder: Recorder, executor: RecordingExecutor, job: Job) -> None:
        self._recorder = recorder
        self._executor = executor
        self._job = job

    def __call__(self) -> None:
        recorder = self._recorder
        recorder.take()
        try:
            recorder.look()
            recorder.emit(rec.JOB, 0)
            self._job()
        finally:
            recorder.look()
            recorder.emit(rec.END, 0, 0 if self._executor._jobs else 1)
            recorder.save()
            recorder.give()


class _Unrecorded(Call[Result]):
    """A job in its turn that is no part of the recording."""

    def __init__(self, recorder: Recorder, job: Callable[[], Result]) -> None:
        def aside() -> Result:
            with recorder.aside():
                return job()

        super().__init__(aside)


class ReplayExecutor(Executor):
    """Runs its jobs when it is told to, on the caller's thread."""

    def start(self) -> None:
        """Nothing: there is no thread."""

    def is_current(self) -> bool:
        return self._busy

    def run_next(self) -> bool:
        """Run the next job; False when there is none."""
        if not self._jobs:
            return False
        job, busy = self._jobs.popleft(), self._busy
        self._busy = True
        try:
            job()
        except Different:
            raise
        except MISTAKES:
            self.failures += 1
            log.exception("%s: a job failed", self.name)
        finally:
            self._busy = busy
        return True

    def next_timer(self) -> float | None:
        """When the next timer is due, in seconds."""
        return self._timers[0][0] if self._timers else None

    def expire(self) -> None:
        """Queue the timers that are due."""
        self._expire_timers()
