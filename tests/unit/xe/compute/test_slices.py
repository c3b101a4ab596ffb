"""Kernels in slices: preemption, reset, page faults, errors, saving."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.support import logs
from tests.support.xe.commands import sdi
from tests.support.xe.compute_kernels import LINEAR, LOOP, STORE, store
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, walker
from tests.support.xe.engine_lab import SEQNO, WA_BB, Job
from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.engines import engine, turns
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault

DONE = 0x800
RESULT = store(0, "r20").replace("r2.0", "r1.0")
FORTY_TWO = LINEAR + "mov (16|M0)  r20.0<1>:ud  42:ud\n" + RESULT
COUNTS = f"""
    (W) mov (1|M0)  r60.0<1>:ud  0:ud
    again:
    (W) add (1|M0)  r60.0<1>:ud  r60.0<0;1,0>:ud  1:ud
    (W) cmp (16|M0)  (lt)f0.0  null<1>:ud  r60.0<0;1,0>:ud  3000:ud
    (W&f0.0) jmpi (1|M0)  again
    {LINEAR}
    mov (16|M0)  r20.0<1>:ud  r60.0<0;1,0>:ud
"""
"""3,000 rounds, then stores how many."""


def job_of(lab: ComputeLab, kernel: str, **options: object) -> Job:
    """A job that is not yet submitted, with one group of 16 lanes; it writes 1 at `DONE` behind the walker."""
    return lab.compute_job(kernel + EOT, *walker(inline=[DATA, 0]), *sdi(DATA + DONE, 1), **options)  # type: ignore[arg-type]


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of one step, however fast the host is."""
    monkeypatch.setattr(turns, "SLICE", 0.0)


def test_an_endless_kernel_makes_room_when_its_quantum_is_over(lab: ComputeLab) -> None:
    endless = job_of(lab, LOOP, quantum_us=2000)
    endless.submit()
    lab.run(lambda: endless.context.resident, limit=50)
    other = job_of(lab, FORTY_TWO, quantum_us=2000)
    other.submit()
    lab.run(lambda: other.data(DONE, 1) == [1])
    assert other.data(0, 16) == [42] * 16
    lab.run(lambda: endless.context.resident, limit=50)
    assert endless.data(DONE, 1) == [0]


@pytest.mark.usefixtures("short_slices")
def test_a_preempted_kernel_goes_on_in_the_middle_of_its_threads(lab: ComputeLab) -> None:
    first, second = job_of(lab, COUNTS + RESULT, quantum_us=1), job_of(lab, COUNTS + RESULT, quantum_us=1)
    first.submit()
    second.submit()
    lab.run(lambda: first.data(DONE, 1) == [1] and second.data(DONE, 1) == [1])
    assert first.data(0, 16) == second.data(0, 16) == [3000] * 16
    assert lab.engines.scheduler.slices > 2


@pytest.mark.usefixtures("short_slices")
def test_what_follows_a_walker_runs_in_the_next_slice_when_this_one_is_over(lab: ComputeLab) -> None:
    job = job_of(lab, FORTY_TWO)
    job.submit()
    lab.run(lambda: job.data(0, 1) == [42])
    assert job.data(DONE, 1) == [0]
    lab.run()
    assert (job.data(0, 16), job.data(DONE, 1)) == ([42] * 16, [1])


def test_an_engine_reset_drops_the_kernel(lab: ComputeLab) -> None:
    endless = job_of(lab, LOOP)
    endless.submit()
    lab.run(lambda: endless.context.resident, limit=50)
    lab.engines.remove(endless.context)
    lab.run()
    assert not lab.engines.has_work()
    assert endless.context.members[0].bulk is None


def test_a_kernel_without_arbitration_is_reset_in_its_preemption_timeout(lab: ComputeLab) -> None:
    endless = lab.compute_job(LOOP + EOT, 0x0400_0000, *walker(), preempt_us=1000)
    endless.submit()
    lab.run(lambda: endless.context.resident, limit=50)
    lab.run(lambda: endless.context.members[0].bulk is not None, limit=50)
    done: list[str] = []
    lab.engines.disable(endless.context, lambda: done.append("done"))
    lab.run(lambda: bool(done))
    assert lab.listener.of("context reset") == [("context reset", endless.context.guc_id, "not preempted in 1000 us")]


def test_a_page_fault_is_raised_served_and_the_access_repeated(lab: ComputeLab) -> None:
    missing = 0x4000_0000
    kernel = LINEAR + "mov (16|M0)  r20.0<1>:ud  42:ud\n" + RESULT
    job = lab.compute_job(kernel + EOT, *walker(groups=(3, 1, 1), inline=[missing, 0]), *sdi(DATA + DONE, 1))
    asked: list[tuple[int, bool]] = []

    def serve(context: Context, fault: TranslationFault) -> bool:
        asked.append((fault.address & ~0xFFF, fault.write))
        job.tables.map(missing, job.data_memory + 0x2000, 0x1000)
        lab.executor.submit(lambda: lab.engines.resume(context))
        return True

    lab.listener.serve = serve
    job.submit()
    lab.run()
    assert asked == [(missing, True)]
    assert job.data(0x2000, 16) == [42] * 16
    assert job.data(DONE, 1) == [1]


def test_threads_that_do_not_fault_go_on(lab: ComputeLab) -> None:
    # Group 0 stores to a page that is missing, group 1 to one that is there.
    missing = DATA + 0x1_0000
    kernel = (
        LINEAR
        + f"""
        (W) mul (1|M0)  r40.0<1>:ud  r0.1<0;1,0>:ud  0x1000:uw
        (W) add (1|M0)  r40.0<1>:q  r1.0<0;1,0>:q  -r40.0<0;1,0>:d
        mov (16|M0)  r20.0<1>:ud  42:ud
        add (16|M0)  r30.0<1>:uq  r40.0<0;1,0>:uq  r12.0<1;1,0>:ud
        send.ugm (16|M0)  null  r30  r20:1  0x0  {STORE}
    """
    )
    job = lab.compute_job(kernel + EOT, *walker(groups=(2, 1, 1), inline=[missing, 0]))
    seen: list[list[int]] = []

    def serve(context: Context, fault: TranslationFault) -> bool:
        seen.append(job.data(0xF000, 16))
        return False

    lab.listener.serve = serve
    job.submit()
    lab.run()
    assert seen == [[42] * 16]


def test_without_an_answer_the_context_alone_is_lost_and_its_thread_reported(
    lab: ComputeLab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bad, good = job_of(lab, LINEAR + RESULT), job_of(lab, FORTY_TWO)
    lab.load(
        bad, (LINEAR + "mov (16|M0)  r20.0<1>:ud  42:ud\n" + RESULT).replace("r1.0<0;1,0>:uq", "r5.0<0;1,0>:uq") + EOT
    )
    bad.submit()
    good.submit()
    lab.run()
    assert lab.listener.of("memory fault") == [("memory fault", bad.context.guc_id, "ccs0")]
    assert good.data(0, 16) == [42] * 16
    assert bad.data(DONE, 1) == [0]
    text = logs.text(caplog, engine.log)
    assert "group (0, 0, 0), kernel at 0x8000" in text
    assert "send.ugm" in text
    assert "lanes 0x0000ffff" in text
    assert "r20.0: 0000002a 0000002a" in text


def test_an_instruction_base_outside_of_the_address_space_is_a_fault(lab: ComputeLab) -> None:
    job = lab.compute_job(FORTY_TWO + EOT, *walker(kernel=0x4000_0000, inline=[DATA, 0]))
    job.submit()
    lab.run()
    assert [fault.address for fault in lab.listener.faults] == [0x4010_0000]


def test_an_illegal_instruction_ends_its_threads_with_a_report(lab: ComputeLab) -> None:
    job = lab.compute_job("illegal\n", *walker(), *sdi(DATA + DONE, 1))
    job.submit()
    lab.run()
    assert job.data(DONE, 1) == [1]
    reports = list(lab.engine("ccs0").reports)
    assert len(reports) == 1
    assert "cannot go on" in reports[0]
    assert "illegal" in reports[0]


def test_state_of_the_pipeline_is_saved_with_the_image(lab: ComputeLab) -> None:
    job = job_of(lab, FORTY_TWO)
    job.submit()
    lab.run()
    state = {opcode: list(words) for opcode, words in job.context.members[0].state.items()}
    assert 0x6101 in state
    again = lab.engines
    again.remove(job.context)
    again.adopt(job.context)
    again.enable(job.context)
    job.ring(*job.start())
    again.kick(job.context)
    lab.run()
    assert job.context.members[0].state == state


def test_groups_that_have_ended_do_not_run_again_where_the_context_is_adopted(lab: ComputeLab) -> None:
    # Each group adds one to its own word, after a while.
    kernel = COUNTS.replace("3000:ud", "300:ud") + (
        """
        (W) shl (1|M0)  r40.0<1>:ud  r0.1<0;1,0>:ud  2:ud
        (W) add (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq  r40.0<0;1,0>:ud
        (W) send.ugm (1|M0)  null  r30  null:0  0x0  0x02000588
        """
    )
    groups = 3000
    job = lab.compute_job(kernel + EOT, *walker(groups=(groups, 1, 1), inline=[DATA + 0x1000, 0]), *sdi(DATA + DONE, 1))
    job.submit()
    lab.run(lambda: any(job.data(0x1000, groups)))
    done: list[str] = []
    lab.engines.pause_function(0, lambda: done.append("paused"))
    lab.run(lambda: bool(done))
    counted = job.data(0x1000, groups)
    assert 0 < sum(counted) < groups
    lab.engines.remove(job.context)
    lab.engines.adopt(job.context)
    lab.engines.resume_function(0)
    lab.engines.enable(job.context)
    lab.run(lambda: job.data(DONE, 1) == [1])
    assert job.data(0x1000, groups) == [1] * groups
    assert 0 not in job.context.members[0].state


BOTH_ENDS = (
    LINEAR
    + """
    (W) send.ugm (1|M0)  null  r1  null:0  0x0  0x02000588
    mov (16|M0)  r61.0<1>:ud  r12.0<1;1,0>:ud
    (W) mov (1|M0)  r60.0<1>:ud  0:ud
    again:
    (W) add (1|M0)  r60.0<1>:ud  r60.0<0;1,0>:ud  1:ud
    (W) cmp (1|M0)  (lt)f0.0  null<1>:ud  r60.0<0;1,0>:ud  2000000:ud
    (W&f0.0) jmpi (1|M0)  again
    (W) add (1|M0)  r30.0<1>:uq  r1.0<0;1,0>:uq  64:ud
    (W) send.ugm (1|M0)  null  r30  null:0  0x0  0x02000588
    add (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  128:ud
"""
    + store(0, "r61").replace("r2.", "r1.")
)
"""Adds one to the first dword, after many rounds one to that 64 bytes further, and stores what it kept meanwhile."""


def moved(lab: ComputeLab, job: Job, change: Callable[[bytes], bytes]) -> None:
    """Save a context in the middle of its threads, and let it go on as if it came from another card."""
    job.submit()
    lab.run(lambda: job.data(0, 1) == [1])
    paused: list[str] = []
    lab.engines.pause_function(0, lambda: paused.append("paused"))
    lab.run(lambda: bool(paused))
    in_flight = job.context.in_flight()
    lab.engines.remove(job.context)
    job.context.arrived = [change(part) for part in in_flight]
    lab.engines.adopt(job.context)
    lab.engines.resume_function(0)
    lab.engines.enable(job.context)
    lab.run(lambda: job.data(DONE, 1) == [1], limit=50_000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for groups in flight to end."""
    monkeypatch.setattr(dispatch, "_LEAVING_PATIENCE_NS", 0)


@pytest.fixture
def compiled(lab: ComputeLab) -> ComputeLab:
    """The lab of the compiled back end alone: batches of the reference one are too large to be moved."""
    if dispatch.units is ReferenceUnits:
        pytest.skip("the reference back end moves no groups in flight")
    return lab


@pytest.mark.usefixtures("impatient")
def test_a_group_in_flight_goes_on_in_the_middle_where_its_context_is_adopted(compiled: ComputeLab) -> None:
    job = job_of(compiled, BOTH_ENDS)
    moved(compiled, job, lambda part: part)
    assert job.data(0, 1) == [1], "it did not begin anew"
    assert job.data(64, 1) == [1]
    assert job.data(128, 16) == [4 * lane for lane in range(16)]
    assert not compiled.engine("ccs0").reports
    assert job.context.in_flight() == [b""]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "change",
    [
        lambda part: part[:-1],
        lambda part: part[:40],
        lambda part: part[:60] + bytes(64) + part[124:],
        lambda part: part[:20] + b"XXXX" + part[24:],
    ],
)
def test_a_group_in_flight_that_arrives_damaged_begins_anew(
    compiled: ComputeLab, change: Callable[[bytes], bytes]
) -> None:
    job = job_of(compiled, BOTH_ENDS)
    moved(compiled, job, change)
    assert job.data(0, 1) == [2]
    assert job.data(64, 1) == [1]
    assert any("begin anew" in text for text in compiled.engine("ccs0").reports)


def test_progress_of_a_walker_is_not_taken_for_that_of_another_run(lab: ComputeLab) -> None:
    job = job_of(lab, FORTY_TWO)
    job.submit()
    lab.run()
    member = job.context.members[0]
    member.state[0] = [1, 0, 0x12345678, 0]
    job.set_data(0, *[0] * 16)
    job.ring(*job.start())
    lab.engines.kick(job.context)
    lab.run()
    assert job.data(0, 16) == [42] * 16


def test_the_ledger_has_what_a_kernel_accessed_that_was_dropped(lab: ComputeLab) -> None:
    kernel = LINEAR + "mov (16|M0)  r20.0<1>:ud  1:ud\n" + RESULT.replace("send.ugm", "again:\nsend.ugm")
    job = job_of(lab, kernel + "jmpi (1|M0)  again\n")
    job.submit()
    lab.run(lambda: job.data(0, 1) == [1])
    lab.engines.remove(job.context)
    lab.run()
    entry = next(entry for entry in lab.fabric.ledger.entries() if entry.kind == "eu vram" and entry.writes)
    assert entry.bytes_written >= 64


def test_work_around_batches_of_the_restore_run_before_a_preempted_kernel_goes_on(lab: ComputeLab) -> None:
    first, second = job_of(lab, COUNTS + RESULT, quantum_us=1000), job_of(lab, COUNTS + RESULT, quantum_us=1000)
    for job in (first, second):
        # BB_PER_CTX_PTR: adds to a word of the context each time it is restored, and ends.
        job.set_image(0x13, job.at(WA_BB) | 1)
        job.dwords(job.at(WA_BB), 0x1000_0002 | 1 << 22, job.at(SEQNO), 0, 0x5AFE, 0x0500_0000)
    first.submit()
    second.submit()
    lab.run(lambda: first.data(DONE, 1) == [1] and second.data(DONE, 1) == [1])
    assert first.data(0, 16) == second.data(0, 16) == [3000] * 16
    assert not lab.listener.faults
    assert first.function.ggtt_space.read32(first.at(SEQNO)) == 0x5AFE
