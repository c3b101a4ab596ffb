"""Parallel contexts: several engines, one work queue."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.xe.commands import sdi, semaphore
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from vfio_user_xe.device_models.xe.profiles.profile import VIDEO_DECODE


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def media() -> Iterator[Lab]:
    lab = Lab(media=True)
    yield lab
    lab.close()


def queue_item(job: Job, tails: list[int], at: int) -> int:
    """Append a multi-LRC item as xe_guc_submit.c:wq_item_append does; returns the new tail."""
    descriptor, base, _ = job.context.work_queue or (0, 0, 0)
    item = [5 | (len(tails) + 2) << 16, job.context.lrcs[0], job.context.guc_id | (tails[0] // 8) << 18, 0]
    item += [tail // 8 for tail in tails[1:]]
    job.dwords(base + at, *item)
    job.dwords(descriptor + 4, at + 4 * len(item))
    return at + 4 * len(item)


def parallel(lab: Lab, **options: Any) -> Job:
    return lab.job(engine_class=VIDEO_DECODE, mask=1, members=2, work_queue=True, **options)


def ring_only(job: Job, member: int, *commands: int) -> int:
    """Write to a member's ring without moving RING_TAIL of its image; returns the tail."""
    before = job.image(0x07, member)
    job.ring(*commands, member=member)
    tail = job.image(0x07, member)
    job.set_image(0x07, before, member)
    return tail


def test_a_parallel_context_runs_its_members_at_once(media: Lab) -> None:
    job = parallel(media)
    # Each member waits for the other: neither could finish alone.
    tails = [
        ring_only(job, 0, *sdi(DATA_VA, 1), *semaphore(DATA_VA + 4, 1, 4), *sdi(DATA_VA + 8, 1)),
        ring_only(job, 1, *sdi(DATA_VA + 4, 1), *semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 12, 1)),
    ]
    queue_item(job, tails, 0)
    job.submit()
    media.run()
    assert job.data(8, 2) == [1, 1]
    descriptor = (job.context.work_queue or (0, 0, 0))[0]
    assert job.function.ggtt_space.read32(descriptor) == 20, "the item was consumed"
    assert all(engine.context is None for engine in media.engines.engines)


def test_nobody_sees_one_member_done_and_the_other_not_begun(media: Lab) -> None:
    blocker = media.job(engine_class=VIDEO_DECODE, mask=2)
    blocker.ring(*semaphore(DATA_VA, 1, 4))
    blocker.submit()
    job = parallel(media)
    queue_item(job, [ring_only(job, n, *sdi(DATA_VA + 4 * n, 1)) for n in range(2)], 0)
    job.submit()
    media.run(until=lambda: len(media.executor.waited) > 4)
    seen: set[tuple[int, ...]] = set()

    def look() -> None:
        seen.add(tuple(job.data(0, 2)))
        media.executor.submit(look)

    blocker.set_data(0, 1)
    media.executor.jobs.appendleft(look)
    media.executor.now += 1
    _, _, wake = heapq.heappop(media.executor.timers)
    media.executor.submit(wake)
    media.run(until=lambda: (1, 1) in seen)
    assert seen == {(0, 0), (1, 1)}


def test_a_parallel_context_runs_again_for_the_next_item(media: Lab) -> None:
    job = parallel(media)
    place = 0
    for value in (1, 2):
        tails = [ring_only(job, n, *sdi(DATA_VA + 4 * n, value)) for n in range(2)]
        place = queue_item(job, tails, place)
        job.submit()
        media.run()
        assert job.data(0, 2) == [value, value]


def test_an_item_that_comes_while_a_member_runs_is_not_forgotten(media: Lab) -> None:
    job = parallel(media)
    tails = [
        ring_only(job, 0, *semaphore(DATA_VA + 64, 1, 4), *sdi(DATA_VA, 1)),
        ring_only(job, 1, *sdi(DATA_VA + 4, 1)),
    ]
    place = queue_item(job, tails, 0)
    job.submit()
    media.run(until=lambda: job.data(4) == [1] and len(media.executor.waited) > 2)
    tails = [ring_only(job, n, *sdi(DATA_VA + 4 * n, 2)) for n in range(2)]
    queue_item(job, tails, place)
    job.submit()
    job.set_data(64, 1)
    media.run()
    assert job.data(0, 2) == [2, 2]


def test_a_parallel_context_waits_until_all_its_engines_are_free(media: Lab) -> None:
    blocker = media.job(engine_class=VIDEO_DECODE, mask=2)
    blocker.ring(*semaphore(DATA_VA, 1, 4))
    blocker.submit()
    job = parallel(media)
    queue_item(job, [ring_only(job, n, *sdi(DATA_VA + 4 * n, 1)) for n in range(2)], 0)
    job.submit()
    media.run(until=lambda: len(media.executor.waited) > 4)
    assert job.data(0, 2) == [0, 0]
    blocker.set_data(0, 1)
    media.run()
    assert job.data(0, 2) == [1, 1]


def test_a_parallel_context_is_disabled_as_a_whole_and_goes_on_as_a_whole(media: Lab) -> None:
    job = parallel(media)
    wait = semaphore(DATA_VA + 64, 1, 4)
    queue_item(job, [ring_only(job, n, *wait, *sdi(DATA_VA + 4 * n, 1)) for n in range(2)], 0)
    job.submit()
    media.run(until=lambda: len(media.executor.waited) > 2)
    done: list[int] = []
    media.engines.disable(job.context, lambda: done.append(1))
    media.run(until=lambda: bool(done))
    assert not job.context.resident
    job.set_data(64, 1)
    media.engines.enable(job.context)
    media.run()
    assert job.data(0, 2) == [1, 1]


def test_a_fault_of_one_member_stops_them_all(media: Lab) -> None:
    job = parallel(media)
    tails = [ring_only(job, 0, *sdi(0x7000_0000, 1)), ring_only(job, 1, *semaphore(DATA_VA, 1, 4))]
    queue_item(job, tails, 0)
    job.submit()
    media.run()
    assert len(media.listener.faults) == 1
    assert all(engine.context is None for engine in media.engines.engines)


@pytest.mark.parametrize("header", [9 | 4 << 16, 5 | 0x7FF << 16])
def test_a_bad_work_queue_item_is_marked_in_the_descriptor(media: Lab, header: int) -> None:
    job = parallel(media)
    descriptor, base, _ = job.context.work_queue or (0, 0, 0)
    job.dwords(base, header)
    job.dwords(descriptor + 4, 20)
    job.submit()
    media.run()
    assert job.function.ggtt_space.read32(descriptor + 12) == 3


def test_noop_items_are_passed(media: Lab) -> None:
    job = parallel(media)
    _, base, _ = job.context.work_queue or (0, 0, 0)
    job.dwords(base, 4 | 2 << 16, 0xDEAD, 0xDEAD)
    queue_item(job, [ring_only(job, n, *sdi(DATA_VA + 4 * n, 1)) for n in range(2)], 12)
    job.submit()
    media.run()
    assert job.data(0, 2) == [1, 1]
