"""Page faults of jobs: served, refused, and what their context sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, sdi, semaphore
from tests.support.xe.engine_lab import DATA_VA, Lab
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault

EQUAL = 4


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_a_page_fault_that_is_served_repeats_the_access(lab: Lab) -> None:
    job = lab.job()
    missing = 0x7000_0000
    lab.listener.serve = lambda context, fault: True
    job.batch(0x1780_0501, DATA_VA, 0, *sdi(missing + 8, 5), *sdi(DATA_VA + 4, 6), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert lab.listener.events == [("page fault", 0, missing + 8, 2, True)]
    assert lab.engine("bcs0").context is None
    job.tables.map(missing, job.data_memory + 0x2000)
    lab.engines.resume(job.context)
    lab.run()
    assert (job.data(0x2008), job.data(0, 2)) == ([5], [1, 6]), "what came before the fault is not repeated"


def test_others_run_while_one_waits_for_a_page(lab: Lab) -> None:
    job, other = lab.job(), lab.job()
    lab.listener.serve = lambda context, fault: True
    job.batch(*sdi(0x7000_0000, 5), END)
    other.batch(*sdi(DATA_VA, 1), END)
    for one in (job, other):
        one.ring(*one.start())
        one.submit()
    lab.run()
    assert other.data() == [1]


def test_a_page_fault_that_is_not_served_is_fatal(lab: Lab) -> None:
    job = lab.job()
    lab.listener.serve = lambda context, fault: True
    job.batch(*sdi(0x7000_0000, 5), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    lab.engines.resume(job.context, success=False)
    assert lab.listener.of("memory fault") == [("memory fault", 0, "bcs0")]
    job.tables.map(0x7000_0000, job.data_memory)
    lab.engines.kick(job.context)
    lab.run()
    assert job.data() == [0]


def test_a_fault_again_after_a_wrong_answer(lab: Lab) -> None:
    job = lab.job()
    lab.listener.serve = lambda context, fault: True
    job.batch(*sdi(0x7000_0000, 5), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    lab.engines.resume(job.context)
    lab.run()
    assert len(lab.listener.of("page fault")) == 2


def test_a_context_that_waits_for_a_page_can_be_disabled(lab: Lab) -> None:
    job = lab.job()
    lab.listener.serve = lambda context, fault: True
    job.batch(*sdi(0x7000_0000, 5), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(1))
    assert done == [1]
    job.tables.map(0x7000_0000, job.data_memory)
    lab.engines.resume(job.context)
    lab.run()
    assert job.data() == [0]
    lab.engines.enable(job.context)
    lab.run()
    assert job.data() == [5]


def test_a_page_that_is_missed_while_the_context_is_disabled_is_asked_for_when_it_is_back(lab: Lab) -> None:
    job = lab.job()
    lab.listener.serve = lambda context, fault: True
    polled = 0x7000_0000
    job.tables.map(polled, job.data_memory)
    job.batch(*semaphore(polled, 1, EQUAL), *sdi(DATA_VA + 4, 6), END)
    job.ring(*job.start())
    job.submit()
    lab.run(lambda: job.context.resident)
    job.tables.entry(polled, 0, 0)
    lab.engines.invalidate(job.function)
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(1))
    lab.run()
    assert (done, lab.listener.events) == ([1], []), "neither a page is asked for nor is the context lost"
    lab.engines.enable(job.context)
    lab.run()
    assert [event[0] for event in lab.listener.events] == ["page fault"]
    job.set_data(0, 1)
    job.tables.map(polled, job.data_memory)
    lab.engines.resume(job.context)
    lab.run()
    assert job.data(4) == [6]


def test_a_copy_goes_on_at_the_page_that_was_missing(lab: Lab) -> None:
    job = lab.job()
    source, target = 0x10_0000_0000, 0x20_0000_0000
    served: list[int] = []

    def serve(context: Context, fault: TranslationFault) -> bool:
        page = fault.address & -0x1000
        served.append(page)
        offset = page & 0xFFFFF
        job.tables.map(page, (0x280_0000 if page < target else 0x2C0_0000) + offset)
        lab.executor.submit(lambda: lab.engines.resume(context))
        return True

    lab.listener.serve = serve
    pattern = bytes(range(256)) * 64
    lab.vram.memory.view[0x280_0000:0x280_4000] = pattern
    job.batch(0x5688_0008, 63, 0, 0, 0, source & 0xFFFFFFFF, source >> 32, target & 0xFFFFFFFF, target >> 32, 0, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert bytes(lab.vram.memory.view[0x2C0_0000:0x2C0_4000]) == pattern
    assert len(served) == len(set(served)) == 8, "every page was asked for once"
