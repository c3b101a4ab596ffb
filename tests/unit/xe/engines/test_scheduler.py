"""Scheduling: who runs when, preemption, page faults, functions, parallel contexts."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.wait import eventually
from tests.support.xe.commands import (
    ARB_CHECK,
    END,
    NOOP,
    USER_INTERRUPT,
    conditional_end,
    gpr,
    lri,
    sdi,
    semaphore,
    srm,
)
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, SEQNO, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines import scheduler as scheduler_module
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER, VIDEO_DECODE
from vfio_user_xe.emulator.model.executor import Executor

GGTT = 1 << 22
ARB_OFF, ARB_ON = 0x0400_0000, 0x0400_0001
COUNTER, STOP = DATA_VA, DATA_VA + 64


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "SLICE", 0.0)


def spinner(lab: Lab, *, preemptible: bool = True, **options: Any) -> Job:
    """A context that counts at `COUNTER` for as long as the dword at `STOP` is 0, as IGT's spinners do."""
    job = lab.job(**options)
    job.batch(
        *([ARB_CHECK] if preemptible else []),
        0x1780_0501, COUNTER, 0,
        *conditional_end(STOP, 0, 4),
        *job.start(BATCH_VA),
    )  # fmt: skip
    job.ring(*job.start(), *sdi(DATA_VA + 128, 1), USER_INTERRUPT)
    return job


def spin_for(lab: Lab, job: Job, count: int = 50) -> None:
    target = job.data()[0] + count
    lab.run(until=lambda: job.data()[0] >= target)


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


# Page faults


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


# Functions


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
    monkeypatch.setattr(scheduler_module, "SLICE", 0.0)


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


# Parallel contexts


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


# The real executor.


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
