from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import logs
from vfio_user_xe.emulator.model import executor as executor_module
from vfio_user_xe.emulator.model.executor import Busy, Executor, NotRunning

PATIENCE = 30


@pytest.fixture
def executor() -> Iterator[Executor]:
    made = Executor("test")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads change so often that a wake-up that can be lost is lost."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_jobs_run_in_the_order_of_submission(executor: Executor) -> None:
    seen: list[int] = []
    for number in range(1000):
        executor.submit(lambda number=number: seen.append(number))
    executor.run_sync(lambda: None, PATIENCE)
    assert seen == list(range(1000))


def test_no_wake_up_is_lost_when_each_job_finds_the_executor_falling_asleep(
    executor: Executor, frequent_switches: None
) -> None:
    done = threading.Event()
    for number in range(20_000):
        done.clear()
        executor.submit(done.set)
        assert done.wait(PATIENCE), f"job {number} was never run"


def test_no_job_is_lost_when_many_threads_submit(executor: Executor, frequent_switches: None) -> None:
    threads, each = 8, 2000
    ran = [0] * threads
    answered = [threading.Semaphore(0) for _ in range(threads)]

    def submitter(index: int) -> None:
        def job() -> None:
            ran[index] += 1
            answered[index].release()

        for number in range(each):
            executor.submit(job)
            if number % 7 == 0:
                # Let the queue run dry, so that sleeping and submitting meet.
                for _ in range(7 if number else 1):
                    assert answered[index].acquire(timeout=PATIENCE), f"thread {index} lost job {number}"

    workers = [threading.Thread(target=submitter, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    executor.run_sync(lambda: None, PATIENCE)
    assert ran == [each] * threads


def test_timers_and_jobs_together_lose_nothing(executor: Executor, frequent_switches: None) -> None:
    rounds = 2000
    fired = threading.Semaphore(0)

    def from_timers() -> None:
        for number in range(rounds):
            executor.call_later(0.0001 * (number % 3), fired.release)

    def from_jobs() -> None:
        for _ in range(rounds):
            executor.submit(fired.release)

    workers = [threading.Thread(target=from_timers), threading.Thread(target=from_jobs)]
    for worker in workers:
        worker.start()
    for number in range(2 * rounds):
        assert fired.acquire(timeout=PATIENCE), f"only {number} of {2 * rounds} ran"
    for worker in workers:
        worker.join()


def test_a_timer_that_is_set_while_the_executor_sleeps_for_a_later_one_wakes_it(executor: Executor) -> None:
    late, early = threading.Event(), threading.Event()
    executor.call_later(3600, late.set)
    executor.run_sync(lambda: None, PATIENCE)
    executor.call_later(0.001, early.set)
    assert early.wait(PATIENCE)
    assert not late.is_set()


def test_a_timer_that_is_later_than_a_lock_can_wait_stops_nothing(executor: Executor) -> None:
    executor.call_later(4 * threading.TIMEOUT_MAX, lambda: None)
    executor.run_sync(lambda: None, PATIENCE)
    fired = threading.Event()
    executor.call_later(0.01, fired.set)
    assert fired.wait(PATIENCE)


def test_timers_fire_in_the_order_of_their_times_and_equal_ones_as_they_were_set(executor: Executor) -> None:
    seen: list[str] = []
    done = threading.Event()

    def set_all() -> None:
        clock = executor.clock
        seconds, now = clock.seconds, clock.seconds()
        clock.seconds = lambda: now  # one moment, however long this takes
        executor.call_later(0.02, lambda: seen.append("second"))
        executor.call_later(0.02, lambda: seen.append("third"))
        executor.call_later(0.04, done.set)
        executor.call_later(0, lambda: seen.append("first"))
        clock.seconds = seconds

    executor.submit(set_all)
    assert done.wait(PATIENCE)
    assert seen == ["first", "second", "third"]


def test_timers_fire_while_a_job_resubmits_itself(executor: Executor) -> None:
    fired = threading.Event()

    def spin() -> None:
        if not fired.is_set():
            executor.submit(spin)

    executor.submit(spin)
    executor.call_later(0.001, fired.set)
    assert fired.wait(PATIENCE)


def test_a_job_that_raises_is_counted_and_does_not_stop_the_next(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("planned")

    def leave() -> None:
        raise SystemExit(3)

    executor.submit(fail)
    executor.submit(leave)
    assert executor.run_sync(lambda: "alive", PATIENCE) == "alive"
    assert executor.failures == 2
    assert "planned" in logs.text(caplog, executor_module.log)


def test_run_sync_raises_what_the_job_raises(executor: Executor) -> None:
    with pytest.raises(KeyError, match="planned"):
        executor.run_sync(lambda: {}["planned"], PATIENCE)
    assert executor.failures == 0


def test_run_sync_from_the_executor_itself_is_a_call(executor: Executor) -> None:
    assert executor.run_sync(lambda: executor.run_sync(lambda: "inner"), PATIENCE) == "inner"


def test_run_sync_gives_up_after_its_timeout(executor: Executor) -> None:
    release = threading.Event()
    executor.submit(lambda: release.wait(PATIENCE) and None)
    with pytest.raises(Busy, match="did not run the job"):
        executor.run_sync(lambda: None, 0.01)
    release.set()


def test_stop_runs_what_was_queued_before_it() -> None:
    executor = Executor("test")
    seen: list[int] = []
    for number in range(100):
        executor.submit(lambda number=number: seen.append(number))
    executor.start()
    executor.stop()
    assert seen == list(range(100))


def test_stop_ends_jobs_that_resubmit_themselves_for_ever() -> None:
    executor = Executor("test")
    executor.start()

    def spin() -> None:
        executor.submit(spin)

    executor.submit(spin)
    executor.stop()
    assert executor._thread is not None
    assert not executor._thread.is_alive()


def test_stop_drops_timers() -> None:
    executor = Executor("test")
    executor.start()
    fired = threading.Event()

    def set_and_stop() -> None:
        executor.call_later(0.001, fired.set)
        time.sleep(0.005)
        executor.stop()

    executor.submit(set_and_stop)
    assert executor._thread is not None
    executor._thread.join(PATIENCE)
    assert not executor._thread.is_alive()
    assert not fired.is_set()


def test_stop_twice_and_from_a_job_is_allowed() -> None:
    executor = Executor("test")
    executor.start()
    executor.submit(executor.stop)
    executor.stop()
    executor.stop()
    assert executor._thread is not None
    assert not executor._thread.is_alive()


@pytest.mark.parametrize("started", [True, False])
def test_run_sync_after_stop_says_so(started: bool) -> None:
    executor = Executor("test")
    if started:
        executor.start()
    executor.stop()
    with pytest.raises(NotRunning, match="has stopped"):
        executor.run_sync(lambda: None, PATIENCE)


def test_run_sync_before_start_says_so_and_leaves_nothing_queued() -> None:
    executor = Executor("test")
    ran: list[int] = []
    with pytest.raises(NotRunning, match=r"'test' has not been started: call start\(\) first"):
        executor.run_sync(lambda: ran.append(1))
    executor.start()
    executor.run_sync(lambda: None, PATIENCE)
    executor.stop()
    assert not ran


def test_run_sync_while_stopping_never_hangs(frequent_switches: None) -> None:
    for _ in range(200):
        executor = Executor("test")
        executor.start()
        outcomes: list[str] = []

        def call(executor: Executor = executor, outcomes: list[str] = outcomes) -> None:
            try:
                executor.run_sync(lambda: outcomes.append("ran"), PATIENCE)
            except NotRunning:
                outcomes.append("refused")

        caller = threading.Thread(target=call)
        caller.start()
        executor.stop()
        caller.join(PATIENCE)
        assert outcomes in (["ran"], ["refused"])


def test_an_executor_starts_once(executor: Executor) -> None:
    with pytest.raises(RuntimeError, match="started before"):
        executor.start()


def test_only_its_own_thread_is_current(executor: Executor) -> None:
    assert executor.run_sync(executor.is_current, PATIENCE)
    assert not executor.is_current()


def test_settling_waits_for_the_running_job_only() -> None:
    executor = Executor("test")
    executor.start()
    started, release, second = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait(60)

    executor.submit(job)
    executor.submit(lambda: (second.wait(60), None)[1])
    started.wait(60)
    assert not executor.settle(0.01), "the job still runs"
    threading.Timer(0.05, release.set).start()
    assert executor.settle(60)
    second.set()
    executor.stop()
    assert executor.settle(0), "nothing runs any more"
