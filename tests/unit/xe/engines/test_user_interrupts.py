"""When an engine raises MI_USER_INTERRUPT: at once, or at the end of a ring behind the save of the context's image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import ARB_CHECK, END, NOOP, USER_INTERRUPT, sdi, semaphore
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def seen_at_interrupts(lab: Lab, job: Job) -> list[tuple[int, int]]:
    """RING_HEAD of the image and the first dword of the data at each interrupt, once the job has run."""
    seen: list[tuple[int, int]] = []
    lab.listener.on_interrupt = lambda: seen.append((job.head, job.data()[0]))
    job.submit()
    lab.run()
    return seen


@pytest.mark.parametrize("tail", [(), (ARB_CHECK,), (NOOP, ARB_CHECK, NOOP)])
def test_who_is_woken_at_the_end_of_a_ring_finds_the_context_saved(lab: Lab, tail: tuple[int, ...]) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 7), USER_INTERRUPT, *tail)
    assert seen_at_interrupts(lab, job) == [(job.tail, 7)]


def test_an_interrupt_with_work_behind_it_does_not_wait_for_that(lab: Lab) -> None:
    job = lab.job()
    job.ring(USER_INTERRUPT, *sdi(DATA_VA, 1), *sdi(DATA_VA, 2))
    assert seen_at_interrupts(lab, job) == [(0, 0)]


def test_an_interrupt_of_a_batch_does_not_wait_for_the_ring(lab: Lab) -> None:
    job = lab.job()
    job.batch(USER_INTERRUPT, *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    assert seen_at_interrupts(lab, job) == [(0, 0)]


def test_each_of_several_is_raised(lab: Lab) -> None:
    job = lab.job()
    job.ring(USER_INTERRUPT, USER_INTERRUPT)
    assert [head for head, _ in seen_at_interrupts(lab, job)] == [0, job.tail]


def test_a_context_that_waits_behind_its_interrupt_has_raised_it(lab: Lab) -> None:
    job = lab.job()
    lab.listener.on_interrupt = lambda: job.set_data(0, 1)
    job.ring(USER_INTERRUPT, *semaphore(DATA_VA, 1, 4))
    job.submit()
    lab.run()
    assert job.head == job.tail


def test_an_interrupt_is_raised_although_the_image_cannot_be_saved(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    job = lab.job()

    def fails(lrc: Lrc) -> None:
        raise AccessFault(lrc.function.pci, "ggtt", lrc.image, "the image is nowhere")

    monkeypatch.setattr(Lrc, "save", fails)
    job.ring(USER_INTERRUPT)
    job.submit()
    lab.run()
    assert [event[0] for event in lab.listener.events] == ["interrupt", "memory fault"]


def on_the_engine_with_an_interrupt_that_waits(lab: Lab) -> tuple[Engine, Job]:
    engine, job = lab.engine("bcs0"), lab.job()
    lab.engines.register(job.context)
    engine.switch_in(job.context, job.context.members[0])
    engine.user_interrupt(last=True)
    return engine, job


def test_a_context_that_is_lost_interrupts_nobody_and_the_next_one_has_nothing_to_raise(lab: Lab) -> None:
    engine, job = on_the_engine_with_an_interrupt_that_waits(lab)
    engine.switch_out(save=False)
    engine.switch_in(job.context, job.context.members[0])
    engine.switch_out()
    assert lab.listener.events == []


def test_an_interrupt_that_cannot_be_raised_leaves_the_engine_idle(lab: Lab) -> None:
    engine, _ = on_the_engine_with_an_interrupt_that_waits(lab)

    def fails() -> None:
        raise RuntimeError("nobody listens")

    lab.listener.on_interrupt = fails
    with pytest.raises(RuntimeError, match="nobody listens"):
        engine.switch_out()
    assert engine.context is None
