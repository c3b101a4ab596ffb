"""Conditional ends, semaphores and predication."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, NOOP, conditional_end, gpr, lri, sdi, semaphore, srm
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, PPHWSP, SEQNO, Lab
from tests.support.xe.mi_jobs import GGTT
from vfio_user_xe.device_models.xe.profiles.profile import RENDER


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


CASES = [
    (0, [(5, 4, True), (5, 5, False), (5, 6, False)]),
    (1, [(5, 4, True), (5, 5, True), (5, 6, False)]),
    (2, [(5, 4, False), (5, 5, False), (5, 6, True)]),
    (3, [(5, 4, False), (5, 5, True), (5, 6, True)]),
    (4, [(5, 5, True), (5, 6, False)]),
    (5, [(5, 5, False), (5, 6, True)]),
]
COMPARISONS = [(operation, *case) for operation, cases in CASES for case in cases]


@pytest.mark.parametrize(("operation", "memory", "immediate", "goes_on"), COMPARISONS)
def test_conditional_end(lab: Lab, operation: int, memory: int, immediate: int, goes_on: bool) -> None:
    job = lab.job()
    job.set_data(4, memory)
    job.batch(*conditional_end(DATA_VA + 4, immediate, operation), *sdi(DATA_VA, 1), END)
    job.ring(*job.start(), *sdi(DATA_VA + 8, 2))
    job.submit()
    lab.run()
    assert job.data() == [int(goes_on)]
    assert job.data(8) == [2]


def test_a_conditional_end_ends_all_levels_or_one(lab: Lab) -> None:
    job = lab.job()
    nested = 0x100 | 1 << 22
    for n, flags in enumerate((0, 1 << 18)):
        job.batch(*job.start(BATCH_VA + 0x100, nested), *sdi(DATA_VA + 4 * n, 1), END)
        job.batch(*conditional_end(DATA_VA + 64, 0, 0, flags), END, offset=0x100)
        job.ring(*job.start())
        job.submit()
        lab.run()
    assert job.data(0, 2) == [0, 1]


def test_a_conditional_end_compares_under_a_mask(lab: Lab) -> None:
    job = lab.job()
    job.set_data(8, 0x1234, 0xFF00)
    job.batch(*conditional_end(DATA_VA + 8, 0x5612, 4, 1 << 19), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [0]
    job.set_data(8, 0x5634, 0xFF00)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_a_loop_with_an_atomic_and_a_conditional_end(lab: Lab) -> None:
    job = lab.job()
    increment = (0x1780_0501, DATA_VA, 0)
    job.batch(*increment, 0x0480_0003, *conditional_end(DATA_VA, 25, 5), 0x1880_0001, BATCH_VA, 0)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [25]


@pytest.mark.parametrize(("operation", "memory", "immediate", "satisfied"), COMPARISONS)
def test_semaphore_compares(lab: Lab, operation: int, memory: int, immediate: int, satisfied: bool) -> None:
    job = lab.job()
    job.set_data(4, memory)
    job.batch(*semaphore(DATA_VA + 4, immediate, operation), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: job.data() == [1] or len(lab.executor.waited) > 3)
    assert job.data() == [int(satisfied)]


def test_a_semaphore_is_released_by_the_cpu(lab: Lab) -> None:
    job = lab.job()
    job.batch(*semaphore(DATA_VA + 4, 7, 4), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 8)
    assert job.data() == [0]
    assert lab.executor.waited[0] == pytest.approx(50e-6)
    assert lab.executor.waited[-1] == pytest.approx(1e-3), "it backs off, so that waiting costs little"
    job.set_data(4, 7)
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_is_released_by_another_engine(lab: Lab) -> None:
    waiter, signaller = lab.job(), lab.job(mask=2)
    signaller.tables.map(0x7000_0000, waiter.data_memory)
    waiter.batch(*semaphore(DATA_VA + 4, 7, 1), *sdi(DATA_VA, 1), END)
    signaller.batch(*[NOOP] * 200, *sdi(0x7000_0004, 7), END)
    waiter.ring(*waiter.start())
    waiter.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 2)
    signaller.ring(*signaller.start())
    signaller.submit()
    lab.run()
    assert waiter.data() == [1]


def test_a_semaphore_in_signal_mode_looks_at_memory_too(lab: Lab) -> None:
    job = lab.job()
    job.batch(*semaphore(DATA_VA + 4, 1, 4, flags=0), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 2)
    job.set_data(4, 1)
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_on_a_register(lab: Lab) -> None:
    relative = 1 << 15 | 1 << 16 | 1 << 19
    job = lab.execute(*lri(gpr(1), 3), *semaphore(gpr(1), 3, 4, flags=relative), *sdi(DATA_VA, 1))
    assert job.data() == [1]


def test_a_semaphore_with_data_from_a_register(lab: Lab) -> None:
    job = lab.job()
    job.set_data(4, 0x42)
    job.batch(*lri(gpr(0), 0x42), *semaphore(DATA_VA + 4, 0, 4, flags=1 << 15 | 1 << 17), *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_a_semaphore_in_the_ggtt(lab: Lab) -> None:
    job = lab.job()
    job.dwords(job.at(SEQNO), 3)
    job.ring(*semaphore(job.at(SEQNO), 3, 4, flags=1 << 15 | GGTT), *sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_the_watchdog_of_a_vfs_first_job_ends_the_wait(lab: Lab) -> None:
    # xe_ring_ops.c:emit_fake_watchdog: a semaphore that nobody ever releases.
    job = lab.job()
    job.ring(
        *lri(0x17C, 2, 0x178, 0),
        *semaphore(job.at(PPHWSP), 0xDEAD, 4, flags=1 << 15 | GGTT),
        *lri(0x178, 1),
        *sdi(DATA_VA, 1),
    )
    job.submit()
    lab.run()
    assert job.data() == [1]
    assert lab.engine("bcs0").resets == 1


def test_a_stopped_watchdog_does_not_end_a_wait(lab: Lab) -> None:
    job = lab.job()
    job.ring(*lri(0x17C, 2, 0x178, 0), *lri(0x178, 1), *semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 4, 1))
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 5)
    assert job.data(4) == [0]


@pytest.mark.parametrize(
    ("mode", "result", "goes_on"),
    [(0, 0, True), (1, 1, True), (1, 0, False), (2, 1, False), (2, 0, True), (0xF, 1, False)],
)
def test_set_predicate_by_result_2(lab: Lab, mode: int, result: int, goes_on: bool) -> None:
    job = lab.execute(*lri(0x3BC, result), 0x0080_0000 | mode, *sdi(DATA_VA, 1), 0x0080_0000, *sdi(DATA_VA + 4, 2))
    assert job.data(0, 2) == [int(goes_on), 2]


@pytest.mark.parametrize(("mode", "result", "goes_on"), [(3, 1, True), (3, 0, False), (4, 1, False), (4, 0, True)])
def test_set_predicate_by_result(lab: Lab, mode: int, result: int, goes_on: bool) -> None:
    job = lab.execute(*lri(0x418, result), 0x0080_0000 | mode, *sdi(DATA_VA, 1), 0x0080_0000)
    assert job.data() == [int(goes_on)]


@pytest.mark.parametrize(("result", "jumps"), [(1, True), (0, False)])
def test_a_predicated_jump(lab: Lab, result: int, jumps: bool) -> None:
    job = lab.job()
    job.batch(
        *lri(0x3BC, result),
        0x0080_0001,
        *job.start(BATCH_VA + 0x200, 0x100 | 1 << 15),
        0x0080_0000,
        *sdi(DATA_VA, 1),
        END,
    )
    job.batch(0x0080_0000, *sdi(DATA_VA + 4, 1), END, offset=0x200)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(0, 2) == [int(not jumps), int(jumps)]


def test_an_indirect_jump(lab: Lab) -> None:
    job = lab.job()
    job.batch(*lri(gpr(0), BATCH_VA + 0x200, gpr(0) + 4, 0), *job.start(0, 0x100 | 1 << 18))
    job.batch(*sdi(DATA_VA, 1), END, offset=0x200)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [1]


@pytest.mark.parametrize(
    ("command", "source0", "source1", "before", "expected"),
    [
        (2 << 6 | 2, 5, 5, 0, 1),  # load, set, equal
        (2 << 6 | 2, 5, 6, 1, 0),
        (3 << 6 | 2, 5, 6, 0, 1),  # load inverted
        (2 << 6 | 1 << 3 | 2, 5, 5, 0, 0),  # and
        (2 << 6 | 2 << 3 | 2, 5, 6, 1, 1),  # or
        (2 << 6 | 3 << 3 | 2, 5, 5, 1, 0),  # xor
        (2 << 6 | 0, 1, 2, 0, 1),  # true
        (2 << 6 | 1, 1, 1, 1, 0),  # false
        (0 << 6 | 2, 5, 5, 0, 0),  # keep
    ],
)
def test_mi_predicate(lab: Lab, command: int, source0: int, source1: int, before: int, expected: int) -> None:
    job = lab.execute(
        *lri(0x400, source0, 0x404, 0, 0x408, source1, 0x40C, 0, 0x418, before),
        0x0600_0000 | command,
        *srm(0x418, DATA_VA),
        engine_class=RENDER,
    )
    assert job.data() == [expected]
