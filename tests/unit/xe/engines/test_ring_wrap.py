"""Commands that the driver wraps in the middle: it copies jobs into the ring as they come (xe_lrc_write_ring)."""

from __future__ import annotations

import pytest

from tests.support.xe.commands import END, NOOP, sdi
from tests.support.xe.engine_lab import DATA_VA, RING_SIZE, Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.mark.parametrize("before_the_end", [1, 2, 3])
def test_a_store_that_wraps_in_the_middle_is_one_store(lab: Lab, before_the_end: int) -> None:
    job = lab.job()
    job.ring(*[NOOP] * (RING_SIZE // 4 - 4))
    job.submit()
    lab.run()
    job.ring(*[NOOP] * (4 - before_the_end), *sdi(DATA_VA, 0xC0FFEE), *sdi(DATA_VA + 4, 7))
    job.submit()
    lab.run()
    assert job.data(0, 2) == [0xC0FFEE, 7]
    assert job.head == job.tail < RING_SIZE


@pytest.mark.parametrize("before_the_end", [1, 2])
def test_a_batch_started_by_a_wrapped_command_comes_back_behind_it(lab: Lab, before_the_end: int) -> None:
    job = lab.job()
    job.batch(*sdi(DATA_VA, 1), END)
    job.ring(*[NOOP] * (RING_SIZE // 4 - 4))
    job.submit()
    lab.run()
    job.ring(*[NOOP] * (4 - before_the_end), *job.start(), *sdi(DATA_VA + 4, 2))
    job.submit()
    lab.run()
    assert job.data(0, 2) == [1, 2]
    assert job.head == job.tail < RING_SIZE
