"""The scheduler on the card's executor, and how long it keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wait import eventually
from tests.support.xe.commands import END, NOOP, sdi, semaphore
from tests.support.xe.engine_lab import DATA_VA, Lab
from tests.support.xe.rig import MIB
from tests.support.xe.scheduled_jobs import spinner
from vfio_user_xe.device_models.xe.engines import turns
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE
from vfio_user_xe.emulator.model.executor import Executor


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)


def test_on_the_real_executor_a_waiting_engine_costs_little(lab: Lab) -> None:
    executor = Executor("card")
    lab.engines.scheduler.slots.executor = executor
    executor.start()
    try:
        spin, waiter = spinner(lab, engine_class=COMPUTE), lab.job()
        waiter.ring(*semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 4, 1))
        executor.run_sync(waiter.submit, 5)
        executor.run_sync(spin.submit, 5)
        eventually(lambda: spin.data()[0] >= 100, "it does not spin")
        spin.set_data(64, 1)
        waiter.set_data(0, 1)
        eventually(lambda: waiter.data(4) == [1], "its semaphore is not seen")
        eventually(lambda: lab.engine("ccs0").context is None, "the engine does not get idle")
        assert executor.failures == 0
    finally:
        executor.stop()


@pytest.mark.parametrize("commands", ["copies", "long stores"])
def test_many_commands_of_any_kind_do_not_keep_the_executor(lab: Lab, commands: str) -> None:
    job = lab.job()
    target = DATA_VA + 0x4000
    if commands == "copies":
        one = (0x5680_0008, 0xFFF, 0, 0, 0, DATA_VA, 0, target, 0, 0)
    else:
        one = sdi(target, *range(1000))
    job.tables.map(0x9000_0000, 48 * MIB, 8 * MIB)
    words = list(one) * (500_000 // len(one)) + [END]
    lab.poke(48 * MIB, *words)
    job.ring(*job.start(0x9000_0000))
    job.submit()
    turns = 0

    def other_work() -> None:
        nonlocal turns
        turns += 1
        if lab.engine("bcs0").context is not None or turns < 2:
            lab.executor.submit(other_work)

    lab.executor.submit(other_work)
    lab.run()
    assert turns > 3


def test_invalidation_by_asid_and_by_function(lab: Lab) -> None:
    job, other = lab.job(), lab.job()
    for one in (job, other):
        one.ring(*sdi(DATA_VA, 1))
        one.submit()
    lab.run()
    kept = [one.context.members[0].space for one in (job, other)]
    assert all(space.writable for space in kept)
    lab.engines.invalidate(lab.pf, 1)
    assert [bool(space.writable) for space in kept] == [False, True]
    lab.engines.invalidate(lab.pf)
    assert not kept[1].writable


def test_contexts_of_one_vm_share_translations(lab: Lab) -> None:
    job, other = lab.job(), lab.job()
    for index in (0x2F, 0x31, 0x33):
        other.set_image(index, job.image(index))
    for one in (job, other):
        one.ring(NOOP, NOOP)
        one.submit()
    lab.run()
    assert job.context.members[0].space is other.context.members[0].space


def test_the_tracer_switches_the_trace_of_commands_and_of_context_switches(lab: Lab, tmp_path: Path) -> None:
    lab.card.tracer.start(["cs", "engine"], tmp_path / "t")
    job = lab.execute(*sdi(DATA_VA, 1))
    lab.card.tracer.stop()
    job.ring(NOOP, NOOP)
    job.submit()
    lab.run()
    lines = [line.split()[1:4] for line in (tmp_path / "t").read_text().splitlines()]
    assert lines == [
        ["pf", "engine", "in"],
        ["pf", "cs", "MI_BATCH_BUFFER_START"],
        ["pf", "cs", "MI_STORE_DATA_IMM"],
        ["pf", "cs", "MI_BATCH_BUFFER_END"],
        ["pf", "cs", "MI_NOOP"],
        ["pf", "engine", "out"],
    ]


def test_a_trace_that_begins_and_ends_in_the_middle_of_a_job_tells_what_is_between(
    lab: Lab, short_slices: None, tmp_path: Path
) -> None:
    job = spinner(lab)
    job.submit()
    lab.run(until=lambda: job.data()[0] > 5)
    lab.card.tracer.start(["cs"], tmp_path / "t")
    began = job.data()[0]
    lab.run(until=lambda: job.data()[0] > began + 5)
    lab.card.tracer.stop()
    job.set_data(64, 1)
    lab.run()
    told = {line.split()[3] for line in (tmp_path / "t").read_text().splitlines()}
    assert "MI_CONDITIONAL_BATCH_BUFFER_END" in told
    assert "MI_BATCH_BUFFER_END" not in told
