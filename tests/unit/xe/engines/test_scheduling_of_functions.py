"""Functions that share engines: quanta, turns, resets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest

from tests.support.xe.commands import ARB_CHECK, END, USER_INTERRUPT, conditional_end, gpr, lri, sdi, semaphore, srm
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, SEQNO, Job, Lab
from tests.support.xe.rig import MIB
from tests.support.xe.scheduled_jobs import COUNTER, STOP, spin_for, spinner
from vfio_user_xe.device_models.xe.engines import turns
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.slots import Slot
from vfio_user_xe.device_models.xe.engines.turns import Turns
from vfio_user_xe.device_models.xe.profiles.profile import COPY, RENDER
from vfio_user_xe.emulator.model.clock import CardClock


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def vf_job(lab: Lab, vfid: int, guc_id: int, **options: Any) -> Job:
    vf = lab.vf_with_memory(vfid, {n: 16 * vfid + n - 8 for n in range(8)}, (0x400_0000, 0x100_0000))
    job = Job(lab, guc_id, function=vf, **options)
    lab.jobs.append(job)
    return job


def test_a_vf_runs_in_its_own_memory_with_its_own_interrupts(lab: Lab) -> None:
    job = vf_job(lab, 1, 0)
    job.set_image(0x50, 0x14C8_0002)
    job.set_image(0x52, job.at(SEQNO + 0x440))
    job.set_image(0x55, 0x1108_1003)
    job.set_image(0x57, 0x1234_0000)
    job.set_image(0x59, 0x1234_0400)
    job.dwords(job.at(SEQNO + 0x440), 1)
    pointers = []
    engine = lab.engine("bcs0")
    lab.listener.on_interrupt = lambda: pointers.append(
        (engine.interrupt_status_pointer, engine.interrupt_source_pointer, engine.interrupt_mask)
    )
    job.batch(*sdi(DATA_VA, 0x5AFE), END)
    job.ring(*job.start(), USER_INTERRUPT)
    job.submit()
    lab.run()
    assert job.data() == [0x5AFE]
    assert lab.listener.events == [("interrupt", "vf1", "bcs0")]
    assert pointers == [(0x1234_0000, 0x1234_0400, 1)]
    assert {entry.initiator for entry in lab.fabric.ledger if entry.kind == "vram"} == {"vf1"}


def test_a_vf_whose_registers_are_not_there_keeps_them_in_its_context(lab: Lab) -> None:
    job = vf_job(lab, 1, 0)
    job.ring(*lri(0x4F104, 7, flags=0), *srm(0x4F104, DATA_VA, flags=0))
    job.submit()
    lab.run()
    assert job.data() == [7]
    assert lab.pf.registers.peek(0x4F104) == 0


def test_functions_take_turns_by_their_quantum(lab: Lab) -> None:
    pf, vf = spinner(lab), vf_job(lab, 1, 9)
    vf.batch(ARB_CHECK, 0x1780_0501, COUNTER, 0, *conditional_end(STOP, 0, 4), *vf.start(BATCH_VA))
    vf.ring(*vf.start())
    for vfid in (0, 1):
        lab.engines.function_policy(vfid, quantum_us=1000, preempt_us=10_000)
    for job in (pf, vf):
        job.submit()
    for _ in range(3):
        spin_for(lab, pf)
        spin_for(lab, vf)
    assert not lab.listener.of("context reset")


def test_a_function_that_will_not_let_go_is_reset(lab: Lab) -> None:
    pf, vf = lab.job(), vf_job(lab, 1, 9)
    vf.batch(0x1780_0501, COUNTER, 0, *conditional_end(STOP, 0, 4), *vf.start(BATCH_VA))
    vf.ring(*vf.start())
    lab.engines.function_policy(1, quantum_us=1000, preempt_us=2000)
    vf.submit()
    spin_for(lab, vf)
    pf.ring(*sdi(DATA_VA, 1))
    pf.submit()
    lab.run()
    assert pf.data() == [1]
    assert lab.listener.of("context reset") == [("context reset", 9, "not preempted in 2000 us")]


def test_a_function_of_higher_priority_comes_first(lab: Lab) -> None:
    order: list[str] = []
    jobs = {"vf2": vf_job(lab, 2, 1), "vf1": vf_job(lab, 1, 2), "pf": lab.job()}
    lab.engines.function_policy(1, quantum_us=0, preempt_us=0, priority=2)
    for job in jobs.values():
        job.ring(USER_INTERRUPT)
    blocker = lab.job()
    blocker.ring(*semaphore(DATA_VA, 1, 4))
    blocker.submit()
    lab.run(until=lambda: bool(lab.executor.waited))
    for job in jobs.values():
        job.submit()
    blocker.set_data(0, 1)
    lab.run()
    order = [event[1] for event in lab.listener.of("interrupt")]
    assert order[0] == "vf1"
    assert sorted(order) == ["pf", "vf1", "vf2"]


def vf_spinner(lab: Lab, vfid: int, guc_id: int) -> Job:
    """As `spinner`, of a VF."""
    job = vf_job(lab, vfid, guc_id)
    job.batch(ARB_CHECK, 0x1780_0501, COUNTER, 0, *conditional_end(STOP, 0, 4), *job.start(BATCH_VA))
    job.ring(*job.start())
    return job


@pytest.fixture
def ticking(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns last for so many looks at the clock, however busy this machine is."""
    looks = itertools.count()
    lab.card.clock.seconds = lambda: next(looks) * 1e-4
    monkeypatch.setattr(turns, "SLICE", 0.0)


def holders(lab: Lab, count: int) -> list[int | None]:
    """Which functions have the copy engine one after the other; None where it does nothing although it could."""
    seen: list[int | None] = []

    def look() -> bool:
        context = lab.engine("bcs0").context
        if context is not None or not lab.executor.jobs:
            holder = context.function.vfid if context else None
            if not seen or seen[-1] != holder:
                seen.append(holder)
        return len(seen) == count

    lab.run(until=look)
    return seen


def test_functions_of_low_priority_take_turns_and_an_idle_one_has_none(lab: Lab, ticking: None) -> None:
    jobs = [spinner(lab), vf_spinner(lab, 1, 9)]
    for vfid in (0, 1, 2):
        lab.engines.function_policy(vfid, quantum_us=1000, preempt_us=10_000)
    for job in jobs:
        job.submit()
    assert holders(lab, 6) in ([0, 1] * 3, [1, 0] * 3)


def test_an_idle_function_of_normal_priority_has_its_turn_all_the_same(lab: Lab, ticking: None) -> None:
    jobs = [spinner(lab), vf_spinner(lab, 1, 9)]
    for vfid in (0, 1, 2):
        lab.engines.function_policy(vfid, quantum_us=1000, preempt_us=10_000, priority=1)
    for job in jobs:
        job.submit()
    seen = holders(lab, 12)
    start = seen.index(0)
    assert seen[start : start + 6] in ([0, 1, None] * 2, [0, None, 1] * 2)
    lab.engines.function_policy(2, quantum_us=1000, preempt_us=10_000, priority=0)
    lab.run(until=lambda: lab.engine("bcs0").context is not None)
    assert None not in holders(lab, 6)


def test_a_normal_function_without_a_quantum_reserves_nothing(lab: Lab) -> None:
    lab.engines.function_policy(1, quantum_us=0, preempt_us=0, priority=1)
    lab.engines.function_policy(0, quantum_us=1000, preempt_us=0)
    spin = spinner(lab)
    spin.submit()
    spin_for(lab, spin, 5000)
    spin.set_data(64, 1)
    lab.run()
    assert spin.data(128) == [1]


def test_a_paused_function_of_normal_priority_has_no_turn(lab: Lab, ticking: None) -> None:
    jobs = [spinner(lab), vf_spinner(lab, 1, 9)]
    for vfid in (0, 1, 2):
        lab.engines.function_policy(vfid, quantum_us=1000, preempt_us=10_000, priority=1)
    lab.engines.pause_function(2, lambda: None)
    for job in jobs:
        job.submit()
    assert None not in holders(lab, 6)


def test_a_high_function_has_the_turn_after_any_others(lab: Lab, ticking: None) -> None:
    jobs = [spinner(lab), vf_spinner(lab, 1, 8), vf_spinner(lab, 2, 9)]
    for vfid in (0, 1, 2):
        lab.engines.function_policy(vfid, quantum_us=1000, preempt_us=10_000, priority=0 if vfid else 2)
    for job in jobs:
        job.submit()
    seen = holders(lab, 9)
    start = seen.index(0)
    assert seen[start : start + 6] in ([0, 1, 0, 2, 0, 1], [0, 2, 0, 1, 0, 2])


def test_groups_of_engines_have_quanta_of_their_own_and_engines_in_none_run_nothing(lab: Lab, ticking: None) -> None:
    lab.engines.scheduling_groups({"bcs0": 1})
    jobs = [spinner(lab), vf_spinner(lab, 1, 9)]
    for vfid in (0, 1):
        lab.engines.function_policy(vfid, quantum_us=(0, 1000), preempt_us=(0, 10_000))
    idle = lab.job(engine_class=RENDER)
    idle.ring(*sdi(DATA_VA, 1))
    for job in (idle, *jobs):
        job.submit()
    assert holders(lab, 4) in ([0, 1] * 2, [1, 0] * 2)
    assert idle.data() == [0]
    lab.engines.scheduling_groups(None)
    lab.run(until=lambda: idle.data() == [1])


def test_a_function_keeps_its_turn_for_its_next_job(lab: Lab) -> None:
    """Many short jobs of one are worth no more than a long one of another."""
    spin = vf_spinner(lab, 1, 9)
    for vfid in (0, 1):
        lab.engines.function_policy(vfid, quantum_us=2_000_000, preempt_us=10_000_000)
    first, second = lab.job(), lab.job()
    for job in (first, second):
        job.ring(USER_INTERRUPT)
    first.submit()
    spin.submit()
    second.submit()
    lab.run(until=lambda: len(lab.listener.of("interrupt")) == 2)
    assert spin.data() == [0]


def test_pausing_a_function_takes_it_off_the_engines_and_resuming_puts_it_back(lab: Lab) -> None:
    spin = spinner(lab)
    queued = lab.job()
    queued.ring(*sdi(DATA_VA, 1))
    for job in (spin, queued):
        job.submit()
    spin_for(lab, spin)
    paused: list[int] = []
    lab.engines.pause_function(0, lambda: paused.append(spin.data()[0]))
    lab.run(until=lambda: bool(paused))
    lab.run()
    assert spin.data() == paused
    assert queued.data() == [0]
    lab.engines.resume_function(0)
    spin.set_data(64, 1)
    lab.run()
    assert (spin.data(128), queued.data()) == ([1], [1])


def test_pausing_an_idle_function_is_done_at_once(lab: Lab) -> None:
    done: list[int] = []
    lab.engines.pause_function(3, lambda: done.append(1))
    assert done == [1]


def test_resetting_a_function_drops_its_contexts_only(lab: Lab) -> None:
    spin, vf = spinner(lab), vf_job(lab, 1, 9)
    vf.ring(*semaphore(DATA_VA, 1, 4), *sdi(DATA_VA + 4, 1))
    vf.context.engine_class, vf.context.logical_mask = RENDER, 1
    for job in (spin, vf):
        job.submit()
    spin_for(lab, spin)
    lab.engines.reset_function(1)
    vf.set_data(0, 1)
    spin_for(lab, spin)
    assert vf.data(4) == [0]
    assert lab.engine("rcs0").context is None
    assert lab.engine("bcs0").context is spin.context


def test_a_saved_context_goes_on_on_another_card(lab: Lab) -> None:
    """What migration needs: everything of a context is in its memory."""
    job = lab.job()
    nested = 0x100 | 1 << 22
    job.batch(*lri(gpr(7), 0x1234), *job.start(BATCH_VA + 0x100, nested), *srm(gpr(7), DATA_VA + 8), END)
    job.batch(ARB_CHECK, *conditional_end(STOP, 0, 4, 1 << 18), *job.start(BATCH_VA + 0x100), offset=0x100)
    job.ring(*job.start(), *sdi(DATA_VA + 12, 1))
    job.submit()
    lab.run(until=lambda: len(lab.executor.waited) > 2)
    done: list[int] = []
    lab.engines.disable(job.context, lambda: done.append(1))
    lab.run(until=lambda: bool(done))

    other = Lab()
    try:
        other.vram.memory.view[: 8 * MIB] = lab.vram.memory.view[: 8 * MIB]
        other.pf.ggtt.entries[:] = lab.pf.ggtt.entries
        context = Context(other.pf, 5, COPY, 1, job.context.lrcs)  # type: ignore[arg-type]
        other.engines.adopt(context)
        other.vram.memory.view[job.data_memory + 64] = 1
        other.engines.enable(context)
        other.run()
        assert other.dwords(job.data_memory + 8, 2) == [0x1234, 1]
    finally:
        other.close()


def test_functions_without_a_quantum_take_turns_by_job(lab: Lab) -> None:
    blocker = lab.job()
    blocker.ring(*semaphore(DATA_VA, 1, 4))
    blocker.submit()
    lab.run(until=lambda: bool(lab.executor.waited))
    jobs = [lab.job() for _ in range(3)] + [vf_job(lab, 1, 10 + n) for n in range(1)]
    for job in jobs:
        job.ring(USER_INTERRUPT)
        job.submit()
    blocker.set_data(0, 1)
    lab.run()
    order = [event[1] for event in lab.listener.of("interrupt")]
    assert order.index("vf1") <= 1, "not behind everything that the PF had queued before"


def test_a_slice_ends_with_the_turn_of_its_function() -> None:
    now = 10.0
    clock = CardClock(lambda: int(now * 1e9), lambda: now)
    engine = create_autospec(Engine, instance=True, spec_set=False, group=0)
    engine.info = Lab().engine("bcs0").info
    slot = Slot(engine)
    shared = Turns([engine], clock)
    shared.begin(slot, 1)
    assert shared.slice(slot) == turns.SLICE
    shared.policy(1).quantum_us = 2000
    assert shared.slice(slot) == turns.SLICE
    now += 0.0015
    assert shared.slice(slot) == pytest.approx(0.0005)
    now += 0.00049
    assert shared.slice(slot) == pytest.approx(0.0001)
    now += 1.0
    # Nobody waits: otherwise the turn would have ended.
    assert shared.slice(slot) == turns.SLICE
