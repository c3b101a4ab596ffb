"""Rings as the driver writes them (`xe_ring_ops.c`), dword for dword: what each must leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END
from tests.support.xe.engine_lab import GGTT_BATCH, PPHWSP, SEQNO, WA_BB, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.profiles.profile import COPY, RENDER

FIRST_SEQNO = 0xFFFFFF81


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def with_utilization_batch(job: Job) -> None:
    """The work-around batch that every context has (`xe_lrc.c:setup_utilization_wa`)."""
    image = job.at(PPHWSP + 0x1000)
    job.dwords(
        job.at(WA_BB),
        0x1248_0002, 0x8C, job.at(PPHWSP + 0x400), 0,
        0x1040_0002, image + 0x8C, 0, 1,
        0x1040_0002, image + 0x94, 0, 0,
        END,
    )  # fmt: skip
    job.set_image(0x13, job.at(WA_BB) | 1)


def seqnos(job: Job) -> tuple[int, int]:
    """(seqno, start seqno)"""
    space = job.function.ggtt_space
    return space.read32(job.at(SEQNO)), space.read32(job.at(SEQNO + 8))


def loads(job: Job) -> Iterator[tuple[int, int]]:
    """The registers that a walk through the image's commands finds, to its end (`xe_lrc_lookup_default_reg_value`)."""
    index = 0
    while (command := job.image(index)) >> 23 != END >> 23:
        count = (command & 0xFF) + 1 if command >> 23 else 0
        if command >> 23 == 0x22:
            yield from ((job.image(index + n), job.image(index + n + 1)) for n in range(1, count, 2))
        index += count + 1
        assert index < 0x400


def test_a_golden_context_job_of_the_render_engine(lab: Lab) -> None:
    job = lab.job(engine_class=RENDER, ppgtt=False)
    with_utilization_batch(job)
    # Its image is the driver's template: four blocks of loads, then a batch end.
    for index, command in {
        1: 0x1108_101D,
        0x21: 0x1108_1011,
        0x36: 0x1108_1003,
        0x41: 0x1108_0001,
        0x44: END | 1,
    }.items():
        job.set_image(index, command)
    # The first job loads six registers and skips some fifty 3DSTATE commands.
    job.dwords(
        job.at(GGTT_BATCH),
        0x1100_000B, 0x6204, 0x0040_0040, 0x6208, 0x0020_0020, 0x7010, 0x4000_4000, 0x7044, 0x0420_0420,
        0x7300, 0x1000_1000, 0x83A8, 0x0001_0001,
        0x7815_0009, *[0] * 10, 0x7809_0043, *[0] * 68, 0x784A_0000, 0, 0x7800_0002, 0, 0, 0, END,
    )  # fmt: skip
    job.ring(
        0x0400_0001, 0, 0x1248_0002, 0x3A8, job.at(PPHWSP + 0x200), 0, 0x0280_0101,
        0x7A00_0404, 0x2030_4C1C, 0xD0, 0, 0, 0, 0x0280_0100,
        0x1040_0002, job.at(SEQNO + 8), 0, FIRST_SEQNO, 0x1880_0001, job.at(GGTT_BATCH), 0,
        0x0400_0000, 0x7A00_0A04, 0x1010_10A1, 0, 0, 0, 0,
        0x7A00_0004, 0x0110_4080, job.at(SEQNO), 0, FIRST_SEQNO, 0,
        0x0100_0000, 0x0400_0001, 0x0280_0000, 0,
    )  # fmt: skip
    assert job.tail == 0x98
    job.submit()
    lab.run()
    space = job.function.ggtt_space
    assert seqnos(job) == (FIRST_SEQNO, FIRST_SEQNO)
    assert lab.listener.events == [("interrupt", "pf", "rcs0")]
    assert space.read32(job.at(PPHWSP + 0x400)) == 0, "ENGINE_ID of RCS0"
    assert 0 < space.read32(job.at(PPHWSP + 0x200)) < 19_200_000, "CTX_TIMESTAMP at the job's start"
    assert job.image(0x23) > 1, "run ticks, the context is not active"
    saved = dict(loads(job))
    programmed = {0x6204: 0x40, 0x6208: 0x20, 0x7010: 0x4000, 0x7044: 0x420, 0x7300: 0x1000, 0x83A8: 1}
    assert programmed.items() <= saved.items()
    assert lab.pf.registers.peek(0x6204) == 0, "is the context's own"
    assert not lab.engine("rcs0").reports


def test_a_vfs_first_job_has_a_watchdog_that_must_bite(lab: Lab) -> None:
    vf = lab.vf_with_memory(1, {n: n + 8 for n in range(4)}, (0x400_0000, 0x10_0000))
    job = Job(lab, 0, engine_class=COPY, function=vf, ppgtt=False)
    job.dwords(job.at(GGTT_BATCH), END)
    job.ring(
        0x0400_0001, 0, 0x1108_0003, 0x17C, 2, 0x178, 0, 0x0E40_C003, 0xDEAD, job.at(PPHWSP), 0, 0,
        0x1108_0001, 0x178, 1, 0x1248_0002, 0x3A8, job.at(PPHWSP + 0x200), 0,
        0x1040_0002, job.at(SEQNO + 8), 0, FIRST_SEQNO, 0x1880_0001, job.at(GGTT_BATCH), 0, 0x0400_0000,
        0x1300_4002, job.at(SEQNO) | 4, 0, FIRST_SEQNO, 0x0100_0000, 0x0400_0001, 0x0280_0000,
    )  # fmt: skip
    job.submit()
    lab.run()
    assert seqnos(job) == (FIRST_SEQNO, FIRST_SEQNO)
    assert lab.listener.events == [("interrupt", "vf1", "bcs0")]
    assert lab.engine("bcs0").resets == 1


def test_a_clear_by_the_migration_engine(lab: Lab) -> None:
    job = lab.job(engine_class=COPY, mask=2)
    with_utilization_batch(job)
    identity = 0x40_0000_0000
    for n in range(32):
        job.tables.entry(identity + n * 2 * MIB, 1, n * 2 * MIB | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    batch, target = 0x38_0000 + 0x100, 32 * MIB
    lab.poke(batch, END, 0x56C2_0005, 0xFFF, 0xF, 0xFFF, (identity + target) & 0xFFFFFFFF, 0x40, 0x18, END)
    lab.vram.memory.view[target : target + 0x2_0000] = b"\x5a" * 0x2_0000
    place = identity + batch
    job.ring(
        0x0400_0001, 0, 0x1248_0002, 0x3A8, job.at(PPHWSP + 0x200), 0, 0x1040_0002, job.at(SEQNO + 8), 0, FIRST_SEQNO,
        0x0400_0000, 0x1880_0101, place & 0xFFFFFFFF, place >> 32, 0x0280_0101,
        0x1300_4002, job.at(SEQNO + 8) | 4, 0, FIRST_SEQNO, 0x0280_0100,
        0x1880_0101, (place + 4) & 0xFFFFFFFF, place >> 32,
        0x1300_4002, job.at(SEQNO) | 4, 0, FIRST_SEQNO, 0x0100_0000, 0x0400_0001, 0x0280_0000,
    )  # fmt: skip
    assert job.tail == 0x78
    job.submit()
    lab.run()
    assert seqnos(job) == (FIRST_SEQNO, FIRST_SEQNO)
    assert lab.listener.events == [("interrupt", "pf", "bcs8")]
    cleared = bytes(lab.vram.memory.view[target : target + 0x2_0000])
    assert cleared == bytes(0x1_0000) + b"\x5a" * 0x1_0000
    assert job.function.ggtt_space.read32(job.at(PPHWSP + 0x400)) == 0x83, "ENGINE_ID of BCS8"


def test_a_migration_through_a_window_whose_entries_it_writes_itself(lab: Lab) -> None:
    """Batch 1 stores the page-table entries of a window, the flush between invalidates, batch 2 copies through it."""
    job = lab.job(engine_class=COPY, mask=2)
    identity, window = 0x40_0000_0000, 0x20_0000
    for n in range(32):
        job.tables.entry(identity + n * 2 * MIB, 1, n * 2 * MIB | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    job.tables.map(window, 0x3000, system=True)
    leaf = list(job.tables.space().describe(window))[-1].table
    source = 32 * MIB
    pattern = bytes(range(256)) * 256
    lab.vram.memory.view[source : source + 0x1_0000] = pattern
    batch = 0x38_0000 + 0x100
    for chunk, system in enumerate((0x10_0000, 0x20_0000)):
        ptes = [word for n in range(16) for word in ((system + n * 0x1000) | 0x13, 0)]
        first = [0x1020_0000 | (len(ptes) + 1), (identity + leaf) & 0xFFFFFFFF, 0x40, *ptes, END]
        second = [
            0x5688_0008, 0xFF, 0, 0, 0, (identity + source) & 0xFFFFFFFF, 0x40, window, 0, 0x3000_0018, END,
        ]  # fmt: skip
        lab.poke(batch, *first, *second)
        one, two = identity + batch, identity + batch + 4 * len(first)
        job.ring(
            0x1880_0101, one & 0xFFFFFFFF, one >> 32, 0x0280_0101,
            0x1304_4002, job.at(SEQNO + 8) | 4, 0, chunk, 0x0280_0100, 0x1880_0101, two & 0xFFFFFFFF, two >> 32,
            0x1300_4002, job.at(SEQNO) | 4, 0, chunk, 0x0100_0000, 0x0400_0001, 0x0280_0000,
        )  # fmt: skip
        job.submit()
        lab.run()
    ram = lab.ram.of("pf")
    assert bytes(ram[0x10_0000:0x11_0000]) == pattern
    assert bytes(ram[0x20_0000:0x21_0000]) == pattern
    assert not lab.listener.faults


def test_a_user_job_with_a_user_fence(lab: Lab) -> None:
    job = lab.job()
    va, fence = 0x10_0000, 0x100_0040
    job.batch(0x1000_0002, 0x100_0000, 0, 0xC0FFEE, END)
    job.ring(
        0x1248_0002, 0x3A8, job.at(PPHWSP + 0x200), 0, 0x1040_0002, job.at(SEQNO + 8), 0, FIRST_SEQNO,
        0x1880_0101, va, 0, 0x0400_0000, 0x1300_0002, 0, 0, 0, 0x1020_0003, fence, 0, 0x11, 0x22,
        0x1300_4002, job.at(SEQNO) | 4, 0, FIRST_SEQNO, 0x0100_0000, 0x0400_0001, 0x0280_0000,
    )  # fmt: skip
    job.submit()
    lab.run()
    assert job.data() == [0xC0FFEE]
    assert job.data64(0x40) == 0x22 << 32 | 0x11
    assert seqnos(job) == (FIRST_SEQNO, FIRST_SEQNO)
