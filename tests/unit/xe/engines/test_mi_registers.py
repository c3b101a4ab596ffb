"""MI commands that load, store and move registers, and who may write which."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import END, gpr, lri, lrm, srm
from tests.support.xe.engine_lab import DATA_VA, Lab
from tests.support.xe.mi_jobs import ring_job
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, RENDER
from vfio_user_xe.emulator.model.registers import Register


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_registers_relative_to_the_engine(lab: Lab) -> None:
    job = lab.execute(*lri(gpr(3), 5, gpr(3) + 4, 6), *srm(gpr(3), DATA_VA), *srm(gpr(3) + 4, DATA_VA + 4))
    assert job.data(0, 2) == [5, 6]


def test_registers_by_absolute_number(lab: Lab) -> None:
    job = lab.execute(*lri(0x22000 + gpr(1), 9, flags=0), *srm(0x22000 + gpr(1), DATA_VA, flags=0))
    assert job.data() == [9]


def test_the_drivers_images_set_the_relative_flag_on_absolute_numbers(lab: Lab) -> None:
    job = lab.execute(*lri(0x22000 + gpr(1), 9), *srm(gpr(1), DATA_VA))
    assert job.data() == [9]


def test_remapped_numbers_of_rcs_mean_the_own_engine(lab: Lab) -> None:
    job = lab.execute(
        *lri(0x2000 + gpr(2), 11, flags=1 << 17), *srm(0x2000 + gpr(2), DATA_VA, flags=1 << 17), engine_class=COMPUTE
    )
    assert job.data() == [11]


def test_load_and_move_registers(lab: Lab) -> None:
    job = lab.job()
    job.set_data(0, 0x55)
    move = (0x1500_0001 | 3 << 18, gpr(0), gpr(1))
    job.batch(*lrm(gpr(0), DATA_VA), *move, *srm(gpr(1), DATA_VA + 4), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data(4) == [0x55]


def test_store_register_mem_predicated_by_result(lab: Lab) -> None:
    result = 0x418
    job = lab.execute(
        *lri(gpr(0), 1, result, 0),
        *srm(gpr(0), DATA_VA, flags=1 << 19 | 1 << 21),
        *lri(result, 1),
        *srm(gpr(0), DATA_VA + 4, flags=1 << 19 | 1 << 21),
    )
    assert job.data(0, 2) == [0, 1]


def test_engine_id_and_timestamps_can_be_stored(lab: Lab) -> None:
    job = lab.execute(
        *srm(0x8C, DATA_VA),
        *srm(0x358, DATA_VA + 8),
        *srm(0x3A8, DATA_VA + 12),
        *srm(0x358, DATA_VA + 16),
        mask=2,
    )
    engine_id, first, context, second = job.data(0)[0], job.data(8)[0], job.data(12)[0], job.data(16)[0]
    assert engine_id == 0x83
    assert (second - first) & 0xFFFFFFFF < 19_200_000
    assert context < 19_200_000


def test_another_engines_clock_is_live_too(lab: Lab) -> None:
    job = lab.execute(*srm(0x2358, DATA_VA, flags=0), *srm(0x358, DATA_VA + 4))
    assert job.data(4)[0] - job.data()[0] & 0xFFFFFFFF < 19_200_000


def test_registers_belong_to_the_context(lab: Lab) -> None:
    lab.execute(*lri(gpr(5), 0x1111))
    job = lab.execute(*srm(gpr(5), DATA_VA))
    assert job.data() == [0]


def test_a_context_keeps_its_registers(lab: Lab) -> None:
    job = lab.execute(*lri(gpr(5), 0x1111))
    job.batch(*srm(gpr(5), DATA_VA), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert job.data() == [0x1111]


def test_the_ring_writes_the_functions_registers(lab: Lab) -> None:
    hooked = []
    lab.pf.registers.add([Register("SCRATCH", 0x4F100, write=hooked.append)])
    ring_job(lab, *lri(0x4F100, 0xDEA1BEE1, 0x4F104, 0xDEA2BEE2, flags=0))
    assert hooked == [0xDEA1BEE1]
    assert lab.pf.registers.peek(0x4F104) == 0xDEA2BEE2


def test_a_user_batch_cannot_write_the_functions_registers(lab: Lab) -> None:
    lab.execute(*lri(0x4F104, 0xBAD, flags=0))
    assert lab.pf.registers.peek(0x4F104) == 0
    assert "an unprivileged batch writes 0x4f104: dropped" in lab.engine("bcs0").reports


def test_a_user_batch_may_write_what_the_driver_lists(lab: Lab) -> None:
    # RING_FORCE_TO_NONPRIV(0): four registers from 0x83a0 on, read and write.
    lab.pf.registers.poke(0x22000 + 0x4D0, 0x83A0 | 1)
    job = lab.execute(*lri(0x83A8, 0xFFFF_600D, flags=0), *srm(0x83A8, DATA_VA, flags=0))
    assert job.data() == [0x600D]


@pytest.mark.parametrize("entry", [0x83A8 | 1 << 30, 0x83A8 | 1 << 28])
def test_a_user_batch_may_not_write_what_the_driver_denies(lab: Lab, entry: int) -> None:
    lab.pf.registers.poke(0x22000 + 0x4D0, entry)
    job = lab.execute(*lri(0x83A8, 0xFFFF_600D, flags=0), *srm(0x83A8, DATA_VA, flags=0))
    assert job.data() == [0]


@pytest.mark.parametrize("offset", [0x20C0, 0x20D8, 0x2580, 0x6204, 0x6208, 0x7000, 0x7010], ids=hex)
def test_a_user_batch_changes_the_bits_that_the_mask_selects(lab: Lab, offset: int) -> None:
    job = lab.execute(
        *lri(offset, 0x0011_0011, flags=0),
        *lri(offset, 0x0001_0000, flags=0),
        *srm(offset, DATA_VA, flags=0),
        engine_class=RENDER,
    )
    assert job.data() == [0x10]
    assert lab.pf.registers.peek(offset) == 0
    assert not lab.engine("rcs0").reports


def test_a_user_batch_may_write_counters_of_the_pipeline(lab: Lab) -> None:
    counts = (0x2300, 0x2310, 0x2328, 0x2340, 0x22C8, 0x2450, 0x5200)
    writes = [dword for offset in counts for dword in lri(offset, offset, offset + 4, 1, flags=0)]
    reads = [dword for n, offset in enumerate(counts) for dword in srm(offset, DATA_VA + 4 * n, flags=0)]
    job = lab.execute(*writes, *reads, engine_class=RENDER)
    assert job.data(0, len(counts)) == list(counts)


def test_what_is_dropped_is_named(lab: Lab) -> None:
    lab.execute(*lri(0x2348, 1, flags=0), *lri(0x20E0, 1, flags=0), engine_class=RENDER)
    assert lab.engine("rcs0").reports.keys() == {
        "an unprivileged batch writes RCS0.PS_INVOCATION_COUNT (0x2348): dropped",
        "an unprivileged batch writes RCS0.FF_SLICE_CS_CHICKEN1 (0x20e0): dropped",
    }


def test_masked_engine_registers(lab: Lab) -> None:
    job = ring_job(lab, *lri(0xC0, 0x0030_0030), *lri(0xC0, 0x0010_0000), *srm(0xC0, DATA_VA))
    assert job.data() == [0x20]


def test_context_timestamp_can_be_set(lab: Lab) -> None:
    job = ring_job(lab, *lri(0x3A8, 0x1000), *srm(0x3A8, DATA_VA), *srm(0x3AC, DATA_VA + 4))
    assert 0x1000 <= job.data()[0] < 0x1000 + 19_200_000
