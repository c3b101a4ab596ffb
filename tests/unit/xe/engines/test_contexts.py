"""Contexts go through their states in order, and say so when they are asked for something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, sdi
from tests.support.xe.engine_lab import CONTEXT_STRIDE, DATA_VA, GGTT_BASE, RING, Job, Lab
from vfio_user_xe.device_models.xe.engines.context import DISABLED, ENABLED, FAILED, NEW, REMOVED, TRANSITIONS
from vfio_user_xe.emulator.model.states import StateError


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_a_context_is_registered_enabled_disabled_and_removed(lab: Lab) -> None:
    context, done = lab.job().context, []
    assert context.state is NEW
    lab.engines.register(context)
    assert context.state is DISABLED
    lab.engines.enable(context)
    assert context.state is ENABLED
    lab.engines.disable(context, lambda: done.append(1))
    assert (context.state, done) == (DISABLED, [1])
    lab.engines.remove(context)
    assert context.state is REMOVED


@pytest.mark.parametrize("call", ["enable", "disable", "remove"])
def test_a_context_that_is_not_registered_is_refused_with_its_name_and_state(lab: Lab, call: str) -> None:
    context = lab.job().context
    arguments = [lambda: None] if call == "disable" else []
    with pytest.raises(StateError, match="pf context 0: is new, not disabled or enabled or failed"):
        getattr(lab.engines, call)(context, *arguments)
    assert context.state is NEW


def test_a_context_is_registered_once_and_again_after_it_was_removed(lab: Lab) -> None:
    context = lab.job().context
    lab.engines.register(context)
    with pytest.raises(StateError, match="is disabled, not new or removed"):
        lab.engines.register(context)
    lab.engines.remove(context)
    lab.engines.register(context)
    assert context.state is DISABLED


def test_a_context_that_has_failed_is_neither_enabled_nor_disabled_again(lab: Lab) -> None:
    job, done = lab.job(), []
    job.ring(*sdi(DATA_VA + (1 << 40), 1))
    job.submit()
    lab.run()
    assert job.context.state is FAILED
    lab.engines.enable(job.context)
    lab.engines.disable(job.context, lambda: done.append(1))
    assert (job.context.state, done) == (FAILED, [1])
    lab.engines.remove(job.context)
    assert job.context.state is REMOVED


def test_a_failed_context_that_was_saved_elsewhere_does_not_run(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1))
    job.context.saved_as = FAILED
    lab.engines.adopt(job.context)
    lab.engines.enable(job.context)
    lab.run()
    assert (job.context.state, job.data()) == (FAILED, [0])


def test_nothing_leads_back_from_a_failure_but_removal() -> None:
    assert TRANSITIONS.allowed(FAILED) == {REMOVED}


def test_ring_whose_address_reads_as_the_end_of_a_batch_is_kept(lab: Lab) -> None:
    job = Job(lab, (END - GGTT_BASE) // (4 * CONTEXT_STRIDE))
    assert job.at(RING) == END
    for _ in range(2):
        job.batch(END)
        job.ring(*job.start())
        job.submit()
        lab.run()
    assert not lab.listener.faults
    assert job.image(0x09) == END
