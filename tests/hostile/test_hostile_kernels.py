"""Kernels of a VF that mean harm: they reach nothing that is not the VF's own, and disturb nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.support.xe.compute_kernels import LINEAR, store
from tests.support.xe.compute_lab import (
    DATA,
    EOT,
    KERNEL,
    SURFACES,
    ComputeLab,
    base_addresses,
    buffer_state,
    labs,
    walker,
)
from tests.support.xe.engine_lab import Job
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE

BLOCK = 2 << 20
CANARY = 0x5AFE_5AFE
OWN_BLOCKS, FOREIGN = 8, 24
"""Blocks of VRAM that the VF has, from block 8 on; the first block of another VF, which holds the canary."""
STATE, TABLE = 0x100, 0x400
RESULT = store(0, "r20").replace("r2.0", "r1.0")
WRITE = LINEAR + "mov (16|M0)  r20.0<1>:ud  0xBAD:ud\n" + RESULT


@pytest.fixture(params=["reference", "compiled"])
def lab(request: pytest.FixtureRequest) -> Iterator[ComputeLab]:
    """A lab with two VFs; every page of the second holds the canary."""
    for lab in labs(request.param):
        lab.vf_with_memory(1, {n: OWN_BLOCKS + n for n in range(8)}, (0x400_0000, 0x100_0000))
        lab.vf_with_memory(2, {n: FOREIGN + n for n in range(2)}, (0x600_0000, 0x100_0000))
        victim(lab)[:] = memoryview(CANARY.to_bytes(4, "little") * (BLOCK // 4))
        yield lab
        assert set(victim(lab).cast("I").tolist()) == {CANARY}


def victim(lab: ComputeLab) -> memoryview:
    """Memory of the second VF, by its own address."""
    found = lab.vram.resolve(lab.functions[2].pci, 0, BLOCK, True)
    assert found is not None
    return found[1]


def attack(lab: ComputeLab, kernel: str, *setup: int, job: Job | None = None, **options: object) -> Job:
    """Run a kernel of VF 1."""
    job = job or job_of(lab, 0)
    lab.load(job, kernel + EOT)
    options = {"inline": [DATA, 0], **options}
    job.batch(*base_addresses(), *setup, *walker(**options), 0x0500_0000)  # type: ignore[arg-type]
    job.ring(*job.start())
    job.submit()
    lab.run()
    return job


def job_of(lab: ComputeLab, guc_id: int) -> Job:
    job = Job(lab, guc_id, function=lab.functions[1], engine_class=COMPUTE)
    lab.jobs.append(job)
    return job


def test_addresses_that_its_page_tables_do_not_map_are_faults(lab: ComputeLab) -> None:
    attack(lab, WRITE, inline=[0x7000_0000, 0])
    assert [fault.address for fault in lab.listener.faults if isinstance(fault, TranslationFault)] == [0x7000_0000]


@pytest.mark.parametrize(
    "target", [FOREIGN * BLOCK, 8 * BLOCK, 0xFF_FFFF_F000], ids=["as DPA", "behind its own", "top"]
)
def test_page_tables_that_point_beyond_its_vram_lead_nowhere(lab: ComputeLab, target: int) -> None:
    job = job_of(lab, 0)
    job.tables.map(0x7000_0000, target)
    attack(lab, WRITE, job=job, inline=[0x7000_0000, 0])
    assert len(lab.listener.of("memory fault")) == 1


def test_a_surface_reaches_no_more_than_its_address_space(lab: ComputeLab) -> None:
    job = job_of(lab, 0)
    lab.place(job, SURFACES + STATE, *buffer_state(0x7000_0000, 1 << 20))
    lab.place(job, SURFACES + TABLE, STATE)
    kernel = LINEAR + "send.ugm (16|M0)  null  r12  r20:1  0x00000000  0x62000504\n"
    attack(lab, kernel, job=job, binding_table=TABLE)
    assert len(lab.listener.of("memory fault")) == 1


def test_offsets_that_wrap_stay_outside_of_a_surface(lab: ComputeLab) -> None:
    job = job_of(lab, 0)
    lab.place(job, SURFACES + STATE, *buffer_state(DATA + 0x800, 64))
    lab.place(job, SURFACES + TABLE, STATE)
    job.set_data(0, *[7] * 1024)
    # Offsets 4 below zero and on.
    kernel = (
        LINEAR
        + """
        add (16|M0)  r12.0<1>:d  r12.0<1;1,0>:d  -64:d
        mov (16|M0)  r20.0<1>:ud  0xBAD:ud
        send.ugm (16|M0)  null  r12  r20:1  0x00000000  0x62000504
    """
    )
    attack(lab, kernel, job=job, binding_table=TABLE)
    assert job.data(0, 1024) == [7] * 1024


def test_scratch_beyond_its_slots_and_its_pitch_is_dropped(lab: ComputeLab) -> None:
    job = job_of(lab, 0)
    scratch = (6 << 29, 0, 0, 64 - 1, 0, 0, 0, 0, DATA + 0x800, 0, 0, 0, 0, 0, 0, 0)
    lab.place(job, SURFACES + STATE, *scratch)
    job.set_data(0, *[7] * 1024)
    kernel = (
        LINEAR
        + """
        (W) shr (1|M0)  a0.2<1>:ud  r0.5<0;1,0>:ud  4:ud
        add (16|M0)  r12.0<1>:ud  r12.0<1;1,0>:ud  64:ud
        mov (16|M0)  r20.0<1>:ud  0xBAD:ud
        send.ugm (16|M0)  null  r12  r20:1  a0.2  0x42000504
    """
    )
    attack(lab, kernel, 0x72000004, STATE << 4, 0, 0, 0, 0, job=job, local=(64, 1, 1))
    assert job.data(0, 1024) == [7] * 1024


def test_shared_local_memory_ends_with_the_group(lab: ComputeLab) -> None:
    kernel = (
        LINEAR
        + """
        add (16|M0)  r13.0<1>:ud  r12.0<1;1,0>:ud  1024:ud
        mov (16|M0)  r20.0<1>:ud  0xBAD:ud
        send.slm (16|M0)  null  r13  r20:1  0x0  0x02000504
        mov (16|M0)  r20.0<1>:ud  7:ud
        send.slm (16|M0)  r20  r13  null:0  0x0  0x02100500
    """
    )
    job = attack(lab, kernel + RESULT, slm=1)
    assert job.data(0, 16) == [0] * 16


def test_nothing_is_left_in_registers_and_shared_local_memory(lab: ComputeLab) -> None:
    secret = (
        LINEAR
        + """
        mov (16|M0)  r90.0<1>:ud  0x5EC4E7:ud
        send.slm (16|M0)  null  r12  r90:1  0x0  0x02000504
    """
    )
    attack(lab, secret, slm=1, groups=(64, 1, 1))
    lab.functions[1].gpu.spaces.invalidate(1)
    other = job_of(lab, 1)
    look = (
        LINEAR
        + "send.slm (16|M0)  r20  r12  null:0  0x0  0x02100500\nadd (16|M0)  r20.0<1>:ud  r20.0<1;1,0>:ud  r90.0<1;1,0>:ud\n"
    )
    attack(lab, look + RESULT, job=other, slm=1)
    assert other.data(0, 16) == [0] * 16


def test_an_instruction_base_outside_of_its_own_is_a_fault(lab: ComputeLab) -> None:
    job = job_of(lab, 0)
    job.tables.map(0x7000_8000, FOREIGN * BLOCK)
    attack(lab, WRITE, *base_addresses(instruction=0x7000_0000), job=job)
    assert len(lab.listener.of("memory fault")) == 1


def test_code_of_nonsense_ends_or_stops_and_no_more(lab: ComputeLab) -> None:
    job = job_of(lab, 0)
    lab.load(job, EOT)
    junk = bytes((n * 73 + n // 7 * 31) & 0xFF for n in range(512))
    job._view(job.batch_memory + KERNEL, len(junk))[:] = junk
    job.batch(*base_addresses(), *walker(inline=[DATA, 0]), 0x0500_0000)
    job.ring(*job.start())
    job.submit()
    lab.run()
    good = job_of(lab, 1)
    attack(lab, LINEAR + "mov (16|M0)  r20.0<1>:ud  42:ud\n" + RESULT, job=good)
    assert good.data(0, 16) == [42] * 16


def test_a_post_sync_outside_of_its_own_is_a_fault(lab: ComputeLab) -> None:
    attack(lab, LINEAR, post_sync=(1, 0x7000_0000, 0xBAD))
    assert len(lab.listener.of("memory fault")) == 1


def endless_stores(lab: ComputeLab) -> tuple[Job, memoryview]:
    """A job that stores 1 for ever to a page of its VF's block 6, once it has begun; and that page."""
    job = job_of(lab, 0)
    job.tables.map(0x7000_0000, 6 * BLOCK)
    kernel = WRITE.replace("0xBAD:ud", "1:ud").replace("send.ugm", "again:\nsend.ugm") + "jmpi (1|M0)  again\n"
    lab.load(job, kernel + EOT)
    job.batch(*base_addresses(), *walker(inline=[0x7000_0000, 0]), 0x0500_0000)
    job.ring(*job.start())
    job.submit()
    found = lab.vram.resolve(lab.functions[1].pci, 6 * BLOCK, 0x1000, False)
    assert found is not None
    page = found[1]
    lab.run(lambda: page[0] == 1)
    return job, page


def test_a_running_kernel_does_not_reach_a_block_that_was_taken_away(lab: ComputeLab) -> None:
    endless_stores(lab)
    lab.vram.assign(1, {n: OWN_BLOCKS + n for n in range(6)})
    lab.run()
    assert len(lab.listener.of("memory fault")) == 1


def test_a_revocation_on_another_thread_waits_for_no_end_of_the_kernel(lab: ComputeLab) -> None:
    endless_stores(lab)
    revoked = threading.Thread(target=lab.fabric.revoke)
    revoked.start()
    lab.run(lambda: not revoked.is_alive())
    revoked.join()
    assert lab.engines.has_work()
