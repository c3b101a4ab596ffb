"""Scheduling: who runs when, preemption, hangs, and what is traced of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.xe.commands import ARB_CHECK, END, NOOP, conditional_end, sdi, semaphore
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, RING_SIZE, Lab
from tests.support.xe.rig import MIB
from tests.support.xe.scheduled_jobs import COUNTER, STOP, spin_for, spinner
from vfio_user_xe.device_models.xe.engines import turns
from vfio_user_xe.device_models.xe.profiles.profile import RENDER, VIDEO_DECODE

ARB_OFF, ARB_ON = 0x0400_0000, 0x0400_0001


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)


def test_a_spinner_does_not_block_other_engines(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    other = lab.job(engine_class=RENDER)
    other.ring(*sdi(DATA_VA, 1))
    other.submit()
    lab.run(until=lambda: other.data() == [1])
    assert lab.engine("bcs0").context is spin.context


def test_a_spinner_ends_when_the_cpu_says_so(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    spin.set_data(64, 1)
    lab.run()
    assert spin.data(128) == [1]
    assert lab.listener.of("interrupt")


def test_spinners_share_the_executor_with_everything_else(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    turns = []

    def other_work() -> None:
        turns.append(spin.data()[0])
        if len(turns) < 20:
            lab.executor.submit(other_work)

    lab.executor.submit(other_work)
    lab.run(until=lambda: len(turns) == 20)
    assert len(set(turns)) > 4, "spinner and other work took turns"


def test_a_loop_that_only_jumps_leaves_the_executor_alone_half_of_the_time(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    lab.run(until=lambda: len(lab.executor.waited) >= 3)
    assert all(seconds > 0 for seconds in lab.executor.waited)


def test_a_preempted_batch_goes_on_where_it_stopped(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(spin.data()[0]))
    lab.run(until=lambda: bool(done))
    lab.run()
    assert spin.data() == done, "nothing runs while it is disabled"
    assert lab.engine("bcs0").context is None
    assert spin.image(0x05) == 12, "RING_HEAD: behind MI_BATCH_BUFFER_START"
    lab.engines.enable(spin.context)
    spin_for(lab, spin)
    spin.set_data(64, 1)
    lab.run()
    assert spin.data(128) == [1]


def test_a_preempted_batch_goes_on_whose_start_was_the_last_command_before_the_rings_end(lab: Lab) -> None:
    spin = lab.job()
    spin.ring(*[NOOP] * (RING_SIZE // 4 - 4))
    spin.submit()
    lab.run()
    spin.batch(ARB_CHECK, 0x1780_0501, COUNTER, 0, *conditional_end(STOP, 0, 4), *spin.start())
    spin.ring(NOOP, *spin.start(), *sdi(DATA_VA + 128, 1))
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))
    before = spin.data()[0]
    assert spin.image(0x05) == 0, "RING_HEAD: at the ring's beginning again"
    lab.engines.enable(spin.context)
    spin_for(lab, spin)
    spin.set_data(64, 1)
    lab.run()
    assert spin.data()[0] > before
    assert spin.data(128) == [1]


def test_a_context_registered_anew_starts_at_the_ring_head(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))
    lab.engines.remove(spin.context)
    spin.batch(*sdi(DATA_VA + 256, 9), *conditional_end(STOP, 0, 4), END)
    lab.engines.register(spin.context)
    lab.engines.enable(spin.context)
    lab.run()
    # The rest of the ring, not the rest of the batch.
    assert (spin.data(128), spin.data(256)) == ([1], [0])


def test_a_context_whose_head_the_driver_moved_starts_there(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))
    spin.ring(*sdi(DATA_VA + 256, 5))
    spin.set_image(0x05, spin.tail - 16)
    lab.engines.enable(spin.context)
    lab.run()
    assert (spin.data(128), spin.data(256)) == ([0], [5])


def test_disable_is_answered_at_once_when_nothing_runs(lab: Lab) -> None:
    job = lab.job()
    job.submit()
    lab.run()
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(1))
    assert done == [1]


def test_a_waiting_semaphore_can_be_preempted(lab: Lab) -> None:
    job = lab.job()
    job.batch(*semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 4, 1), END)
    job.ring(*job.start())
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 3)
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))
    job.set_data(0, 1)
    lab.run()
    assert job.data(4) == [0]
    lab.engines.enable(job.context)
    lab.run()
    assert job.data(4) == [1]


def test_nothing_is_preempted_while_arbitration_is_off(lab: Lab, short_slices: None) -> None:
    job = lab.job(preempt_us=10_000_000)
    job.ring(ARB_OFF, *[NOOP] * 500, ARB_CHECK, *sdi(DATA_VA, 1), ARB_ON, ARB_CHECK, *sdi(DATA_VA, 2))
    job.submit()
    lab.run(until=lambda: job.lab.engine("bcs0").context is not None)
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(job.data()[0]))
    lab.run()
    assert done == [1], "preempted at the second MI_ARB_CHECK"


def test_a_context_that_will_not_be_preempted_is_reset(lab: Lab) -> None:
    spin = spinner(lab, preemptible=False, preempt_us=1)
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))
    assert lab.listener.of("context reset") == [("context reset", 0, "not preempted in 1 us")]
    lab.engines.enable(spin.context)
    lab.run()
    assert lab.engine("bcs0").context is None, "it does not run again"
    assert lab.engine("bcs0").resets == 1


def test_without_a_preemption_timeout_it_may_go_on_for_ever(lab: Lab) -> None:
    spin = spinner(lab, preemptible=False)
    spin.submit()
    spin_for(lab, spin)
    done: list[int] = []
    lab.engines.disable(spin.context, lambda: done.append(1))
    spin_for(lab, spin, 20_000)
    assert not done
    spin.set_data(64, 1)
    lab.run()
    assert done == [1]
    assert not lab.listener.of("context reset")


def test_two_contexts_share_an_engine_by_their_quantum(lab: Lab) -> None:
    first, second = (spinner(lab, quantum_us=1000) for _ in range(2))
    for job in (first, second):
        job.submit()
    for _ in range(3):
        spin_for(lab, first)
        spin_for(lab, second)
    assert not lab.listener.events


def test_without_a_quantum_the_first_keeps_the_engine(lab: Lab) -> None:
    first, second = (spinner(lab) for _ in range(2))
    for job in (first, second):
        job.submit()
    spin_for(lab, first, 5000)
    assert second.data() == [0]
    first.set_data(64, 1)
    spin_for(lab, second)


def test_one_that_will_not_let_go_at_the_end_of_its_quantum_is_reset(lab: Lab) -> None:
    bad = spinner(lab, preemptible=False, quantum_us=1000, preempt_us=2000)
    bad.submit()
    spin_for(lab, bad)
    good = lab.job(quantum_us=1000)
    good.ring(*sdi(DATA_VA, 1))
    good.submit()
    lab.run()
    assert good.data() == [1]
    assert lab.listener.of("context reset") == [("context reset", 0, "not preempted in 2000 us")]


def test_a_more_urgent_context_comes_first(lab: Lab) -> None:
    spin = spinner(lab, priority=3)
    spin.submit()
    spin_for(lab, spin)
    urgent = lab.job(priority=1)
    urgent.ring(*sdi(DATA_VA, 1))
    urgent.submit()
    lab.run(until=lambda: urgent.data() == [1])
    spin_for(lab, spin)


def test_a_less_urgent_context_waits(lab: Lab) -> None:
    spin = spinner(lab, priority=1, quantum_us=100)
    spin.submit()
    other = lab.job(priority=3)
    other.ring(*sdi(DATA_VA, 1))
    other.submit()
    spin_for(lab, spin, 5000)
    assert other.data() == [0]
    spin.context.priority = 3
    lab.engines.policy_changed(spin.context)
    lab.run(until=lambda: other.data() == [1])


def test_two_engines_of_a_class_run_two_contexts_at_once(lab: Lab) -> None:
    jobs = [spinner(lab, mask=3) for _ in range(2)]
    for job in jobs:
        job.submit()
    for job in jobs:
        spin_for(lab, job)
    assert {lab.engine(name).context for name in ("bcs0", "bcs8")} == {job.context for job in jobs}


def test_a_context_stays_within_its_mask(lab: Lab) -> None:
    first, second = spinner(lab, mask=1), lab.job(mask=1)
    first.submit()
    second.ring(*sdi(DATA_VA, 1))
    second.submit()
    spin_for(lab, first, 2000)
    assert second.data() == [0]
    assert lab.engine("bcs8").context is None


def test_an_engine_class_that_is_not_there_is_refused(lab: Lab) -> None:
    with pytest.raises(ValueError, match="no engine of class 1"):
        lab.engines.register(lab.job(engine_class=VIDEO_DECODE).context)


def test_removing_takes_it_off_the_engine(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    lab.engines.remove(spin.context)
    lab.run()
    assert lab.engine("bcs0").context is None
    assert not lab.engines.contexts


def test_a_reset_drops_everything_and_engines_work_again(lab: Lab) -> None:
    spin = spinner(lab)
    waiting = lab.job()
    waiting.ring(*semaphore(DATA_VA, 1, 4))
    for job in (spin, waiting):
        job.submit()
    spin_for(lab, spin)
    lab.engines.reset()
    lab.run()
    assert all(engine.context is None for engine in lab.engines.engines)
    assert lab.pf.registers.read(0x22034, 4) == 0
    job = lab.job()
    job.ring(*sdi(DATA_VA, 1))
    job.submit()
    lab.run()
    assert job.data() == [1]


def test_activity_says_who_had_which_engine(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin, 1000)
    first = lab.engines.activity()[("bcs0", 0)]
    spin_for(lab, spin, 1000)
    assert lab.engines.activity()[("bcs0", 0)] > first > 0
    spin.set_data(64, 1)
    lab.run()
    still = lab.engines.activity()[("bcs0", 0)]
    time.sleep(0.002)
    assert lab.engines.activity()[("bcs0", 0)] == still


def test_inspect_shows_where_it_is(lab: Lab) -> None:
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin)
    shown = next(engine for engine in lab.engines.inspect() if engine["name"] == "bcs0")
    assert shown["context"] == "pf context 0"
    assert BATCH_VA <= shown["active_head"] < BATCH_VA + 64
    assert shown["batches"][0]["ppgtt"] is True


def test_a_long_copy_is_finished_before_its_context_is_disabled(lab: Lab, short_slices: None) -> None:
    job = lab.job()
    target = 0x9000_0000
    job.tables.map(target, 32 * MIB, 16 * MIB)
    job.batch(0x56C0_0005, 16 * MIB - 1, 0, 0, target, 0, 0xAB << 24, ARB_CHECK, *sdi(DATA_VA, 1), END)
    job.ring(*job.start())
    job.context.preempt_us = 1
    job.submit()
    lab.run(until=lambda: lab.vram.memory.view[32 * MIB] == 0xAB)
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(lab.vram.memory.view[48 * MIB - 1]))
    lab.run(until=lambda: bool(done))
    assert done == [0xAB]
    assert not lab.listener.of("context reset")
