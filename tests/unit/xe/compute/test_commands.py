"""Post-sync writes, predication, indirect dispatch, state."""

from __future__ import annotations

from tests.support.xe.commands import lri, sdi
from tests.support.xe.compute_kernels import LINEAR
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import Job
from vfio_user_xe.device_models.xe.engines.perf_events import Event

COUNT_GROUPS = (
    LINEAR
    + """
    (W) mov (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq
    (W) send.ugm (1|M0)  null  r30  null:0  0x0  0x02000588
"""
)
"""Adds one to the word at inline data for each thread."""
DISPATCH, PREDICATE_RESULT = 0x500, 0x418
PREDICATED, INDIRECT_COUNTS = 1 << 8, 1 << 10


def run(lab: ComputeLab, *commands: int, data: tuple[int, ...] = ()) -> Job:
    job = lab.compute_job(COUNT_GROUPS + EOT, *commands)
    job.set_data(0, *data)
    job.submit()
    lab.run()
    assert not lab.listener.faults
    return job


def test_an_immediate_is_written_behind_the_last_group(lab: ComputeLab) -> None:
    job = run(lab, *walker(groups=(5, 1, 1), inline=[DATA, 0], post_sync=(1, DATA + 8, 0x1122334455667788)))
    assert job.data(0, 1) == [5]
    assert job.data64(8) == 0x1122334455667788


def test_timestamps_are_four_qwords_of_context_and_global_time(lab: ComputeLab) -> None:
    job = run(lab, *walker(groups=(5, 1, 1), inline=[DATA, 0], post_sync=(3, DATA + 0x40, 0)), data=(0,) * 64)
    begun, begun_global, ended, ended_global = (job.data64(0x40 + 8 * n) for n in range(4))
    assert begun <= ended
    assert 0 < begun_global <= ended_global <= lab.engine("ccs0").timestamp()
    assert job.data64(0x60) == 0


def test_a_predicated_walker_runs_only_if_the_result_says_so(lab: ComputeLab) -> None:
    one = walker(inline=[DATA, 0], flags=PREDICATED)
    assert run(lab, *lri(PREDICATE_RESULT, 0), *one).data(0, 1) == [0]
    assert run(lab, *lri(PREDICATE_RESULT, 1), *one).data(0, 1) == [1]


def test_group_counts_come_from_registers_if_the_walker_says_so(lab: ComputeLab) -> None:
    counts = lri(DISPATCH, 3, DISPATCH + 4, 2, DISPATCH + 8, 2)
    job = run(lab, *counts, *walker(groups=(0, 0, 0), inline=[DATA, 0], flags=INDIRECT_COUNTS))
    assert job.data(0, 1) == [12]


def test_groups_that_ran_are_counted_and_those_of_a_skipped_walker_are_not(lab: ComputeLab) -> None:
    run(lab, *walker(groups=(5, 1, 1), inline=[DATA, 0]))
    counted = lab.engine("ccs0").counted
    assert counted[Event.ASYNC_GPGPU_THREADGROUP_COUNT] == 5
    most = 0xFFFF_FFFF
    job = run(lab, *walker(groups=(most, most, most), inline=[DATA, 0]), *sdi(DATA + 8, 1))
    assert job.data(0, 4) == [0, 0, 1, 0]
    assert counted[Event.ASYNC_GPGPU_THREADGROUP_COUNT] == 5
    assert [report for report in lab.engine("ccs0").reports if "nobody could wait" in report]


def test_a_walker_without_groups_writes_its_post_sync_all_the_same(lab: ComputeLab) -> None:
    job = run(lab, *walker(groups=(0, 1, 1), inline=[DATA, 0], post_sync=(1, DATA + 8, 7)))
    assert job.data(0, 4) == [0, 0, 7, 0]


def execute_indirect(most: int, arguments: int, count: int = 0, flags: int = 0) -> tuple[int, ...]:
    """EXECUTE_INDIRECT_DISPATCH; `count` is the address of how many, if there is one."""
    body = walker(groups=(0, 0, 0), inline=[DATA, 0])[1:]
    return (0x7C01002B | flags, most, count | bool(count), count >> 32, arguments, arguments >> 32, *body)


def test_an_indirect_dispatch_runs_the_walkers_that_memory_describes(lab: ComputeLab) -> None:
    arguments = DATA + 0x100
    data = (0,) * 64 + (2, 1, 1, 3, 2, 1, 100, 1, 1)
    assert run(lab, *execute_indirect(2, arguments), data=data).data(0, 1) == [8]


def test_the_number_of_walkers_comes_from_memory_too_up_to_the_most(lab: ComputeLab) -> None:
    data = (0, 0, 1) + (0,) * 61 + (2, 1, 1, 3, 2, 1)
    assert run(lab, *execute_indirect(2, DATA + 0x100, DATA + 8), data=data).data(0, 1) == [2]
    more = (0, 0, 9) + (0,) * 61 + (2, 1, 1, 3, 2, 1)
    assert run(lab, *execute_indirect(2, DATA + 0x100, DATA + 8), data=more).data(0, 1) == [8]


def test_a_predicated_indirect_dispatch_does_nothing(lab: ComputeLab) -> None:
    command = execute_indirect(1, DATA + 0x100, flags=PREDICATED)
    assert run(lab, *lri(PREDICATE_RESULT, 0), *command, data=(0,) * 64 + (2, 1, 1)).data(0, 1) == [0]


def test_bases_stay_until_their_modify_bit_is_set(lab: ComputeLab) -> None:
    nothing = (0x61010014, *[0xDEAD000 if n % 2 else 0 for n in range(21)])
    job = run(lab, *nothing, *walker(inline=[DATA, 0]))
    assert job.data(0, 1) == [1]


def test_state_outlives_the_batch_that_set_it(lab: ComputeLab) -> None:
    job = run(lab, *walker(inline=[DATA, 0]))
    again = job.batch(*walker(inline=[DATA, 0]), 0x0500_0000)
    job.ring(*job.start(again))
    lab.engines.kick(job.context)
    lab.run()
    assert job.data(0, 1) == [2]


def test_addresses_are_canonical(lab: ComputeLab) -> None:
    high = base_addresses()
    words = [0xFFFF_0000 | word if n in (2, 5, 7, 9, 11) else word for n, word in enumerate(high)]
    job = lab.compute_job(COUNT_GROUPS + EOT, *walker(inline=[DATA, 0xFFFF_0000]), setup=words)
    job.submit()
    lab.run()
    assert job.data(0, 1) == [1]


def test_a_walker_that_means_nothing_is_reported_and_skipped(lab: ComputeLab) -> None:
    bad = list(walker(inline=[DATA, 0]))
    bad[4] |= 7 << 22
    job = run(lab, *bad, *sdi(DATA + 8, 1))
    assert job.data(0, 4) == [0, 0, 1, 0]
    assert [report for report in lab.engine("ccs0").reports if "walk order 7" in report]


def test_walkers_in_no_op_stretches_do_nothing(lab: ComputeLab) -> None:
    job = run(lab, 0x0080_000F, *walker(inline=[DATA, 0]), 0x0080_0000, *sdi(DATA + 8, 1))
    assert job.data(0, 4) == [0, 0, 1, 0]
