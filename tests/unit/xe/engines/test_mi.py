"""MI commands that store, copy and flush."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, gpr, sdi, srm
from tests.support.xe.engine_lab import DATA_VA, PPHWSP, SEQNO, Job, Lab
from tests.support.xe.mi_jobs import GGTT, ring_job
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER
from vfio_user_xe.emulator.model.registers import Register


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_several_dwords(lab: Lab) -> None:
    assert lab.execute(*sdi(DATA_VA + 4, 1, 2, 3)).data(0, 5) == [0, 1, 2, 3, 0]


def test_qwords(lab: Lab) -> None:
    assert lab.execute(*sdi(DATA_VA, 1, 2, 3, 4, flags=1 << 21)).data(0, 4) == [1, 2, 3, 4]


def test_the_longest_that_the_driver_writes(lab: Lab) -> None:
    values = list(range(1, 1021))
    assert lab.execute(*sdi(DATA_VA, *values, flags=1 << 21)).data(0, 1020) == values


def test_across_a_page_boundary(lab: Lab) -> None:
    job = lab.job()
    job.tables.map(DATA_VA + 0x1000, job.data_memory + 0x5000)
    job.batch(*sdi(DATA_VA + 0xFFC, 0xA, 0xB), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert (job.data(0xFFC), job.data(0x5000)) == ([0xA], [0xB])


def test_canonical_addresses(lab: Lab) -> None:
    job = lab.job()
    job.tables.map(0x8000_0000_0000, job.data_memory)
    job.batch(*sdi(0xFFFF_8000_0000_0004, 7), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(4) == [7]


def test_into_the_ggtt_from_the_ring(lab: Lab) -> None:
    job = lab.job()
    job.ring(*sdi(job.at(SEQNO), 0xFFFFFF81, flags=GGTT))
    job.submit()
    lab.run()
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xFFFFFF81


def test_store_data_index_writes_the_pphwsp(lab: Lab) -> None:
    job = ring_job(lab, 0x1080_0001 | 1 << 21, 0xD0, 0x1234)
    assert job.function.ggtt_space.read32(job.at(PPHWSP + 0xD0)) == 0x1234


def test_store_data_index_writes_the_hardware_status_page(lab: Lab) -> None:
    lab.map_ggtt(0x300_0000, 0x300_0000)
    lab.pf.registers.poke(0x22080, 0x300_0000)
    ring_job(lab, 0x1080_0001, 0x40, 0x77)
    assert lab.dword(0x300_0040) == 0x77


def test_copy_mem_mem(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 0xABCD)
    job.batch(0x1700_0003, DATA_VA + 8, 0, DATA_VA, 0, END)
    job.ring(*job.start(), 0x1700_0003 | 1 << 21, job.at(SEQNO), 0, DATA_VA, 0)
    job.ring(0x1700_0003 | 1 << 22, DATA_VA + 12, 0, job.at(SEQNO), 0)
    job.submit()
    lab.run()
    assert job.data(8, 2) == [0xABCD, 0xABCD]
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xABCD


def test_flush_dw_stores_a_dword_or_a_qword(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 9, 9, 9, 9)
    job.batch(0x1300_4002, DATA_VA, 0, 1, 0x1300_4003, DATA_VA + 8, 0, 2, 3, END)
    job.ring(*job.start(), 0x1300_4002, job.at(SEQNO) | 4, 0, 0xFFFFFF81, 0x1300_0002, 0, 0, 0)
    job.submit()
    lab.run()
    assert job.data(0, 4) == [1, 9, 2, 3]
    assert job.function.ggtt_space.read32(job.at(SEQNO)) == 0xFFFFFF81


def test_flush_dw_stores_by_index_and_timestamps(lab: Lab) -> None:
    job = ring_job(lab, 0x1320_4002, 0xD0, 0, 0x77, 0x1300_C003, DATA_VA, 0, 0, 0)
    assert job.function.ggtt_space.read32(job.at(PPHWSP + 0xD0)) == 0x77
    assert job.data64() > 0


def test_pipe_control_post_sync(lab: Lab) -> None:
    job = lab.job(engine_class=RENDER)
    job.ring(0x7A00_0404, 0x2030_4C1C, 0xD0, 0, 5, 6)  # immediate to PPHWSP + 0xd0
    job.ring(0x7A00_0004, 0x0110_4080, job.at(SEQNO), 0, 0xFFFFFF81, 0)  # immediate to the GGTT
    job.ring(0x7A00_0004, 1 << 14, DATA_VA, 0, 7, 8)  # immediate to the PPGTT
    job.ring(0x7A00_0004, 3 << 14, DATA_VA + 8, 0, 0, 0)  # timestamp
    job.ring(0x7A00_0004, 1 << 23 | 1 << 14, 0x2000 + gpr(1), 0, 0x99, 0)  # to a register
    job.ring(*srm(gpr(1), DATA_VA + 16))
    job.submit()
    lab.run()
    space = job.function.ggtt_space
    assert space.read64(job.at(PPHWSP + 0xD0)) == 6 << 32 | 5
    assert space.read64(job.at(SEQNO)) == 0xFFFFFF81
    assert job.data(0, 2) == [7, 8]
    assert job.data64(8) > 0
    assert job.data(16) == [0x99]


@pytest.mark.parametrize("flush", [(0x1304_0002, 0, 0, 0), (0x7A00_0004, 1 << 18, 0, 0, 0, 0)])
def test_a_flush_invalidates_translations_that_the_same_job_rewrote(lab: Lab, flush: tuple[int, ...]) -> None:
    # As a migration job does: it stores PTEs of its own window, flushes, and copies through the window.
    job = lab.job()
    table = 0x30_0000_0000
    job.tables.map(table, _leaf_table(job))
    pte = job.data_memory + 0x3000 | 0x803
    job.batch(
        *sdi(DATA_VA, 1),
        *sdi(table + 8 * (DATA_VA >> 12 & 0x1FF), pte & 0xFFFFFFFF, pte >> 32, flags=1 << 21),
        *flush,
        *sdi(DATA_VA, 2),
        END,
    )
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert (job.data(), job.data(0x3000)) == ([1], [2])


def _leaf_table(job: Job) -> int:
    """Device address of the page table that maps `DATA_VA`."""
    steps = list(job.tables.space().describe(DATA_VA))
    return steps[-1].table


@pytest.mark.parametrize("engine_class", [RENDER, COMPUTE, COPY])
def test_every_engine_class_runs_mi_commands(lab: Lab, engine_class: int) -> None:
    assert lab.execute(*sdi(DATA_VA, 1), engine_class=engine_class).data() == [1]


def test_only_privileged_reads_do_what_reads_do(lab: Lab) -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        return 0x77

    lab.pf.registers.add([Register("COUNTED", 0x4F200, reset=0x11, read=read)])
    assert lab.execute(*srm(0x4F200, DATA_VA, flags=0)).data() == [0x11]
    assert not reads
    assert ring_job(lab, *srm(0x4F200, DATA_VA, flags=0)).data() == [0x77]
