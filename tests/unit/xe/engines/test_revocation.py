"""Memory that is taken away under an engine: it notices at the next span, and the job pays for it, not the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.xe.commands import END, SOURCE_VA, TARGET_VA, mem_copy, sdi
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.emulator.fabric.interconnect import LedgerEntry
from vfio_user_xe.emulator.fabric.ledger import STALE
from vfio_user_xe.emulator.model.faults import Faults
from vfio_user_xe.emulator.model.options import check_options
from vfio_user_xe.plugins.fault import Fault
from vfio_user_xe.plugins.iov import Iov

BLOCK = 2 * MIB
SIZE = 32 * MIB
SOURCE_BLOCK, TARGET = 12, 56 * MIB
"""The source are blocks 12 to 27, VF 1's at GDPA 0 on; every piece of it is copied over the same two blocks."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    lab.vf_with_memory(1, {n: SOURCE_BLOCK + n for n in range(SIZE // BLOCK)}, (0x400_0000, 0x100_0000))
    yield lab
    lab.close()


def copying(lab: Lab) -> Job:
    """A context of the PF that copies VF 1's memory, mapped by its DPA as a dma-buf over the IOV link is."""
    job = lab.job()
    for offset in range(0, SIZE, BLOCK):
        large = 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY
        job.tables.entry(SOURCE_VA + offset, 1, SOURCE_BLOCK * BLOCK + offset | large)
        job.tables.entry(TARGET_VA + offset, 1, TARGET + offset % (2 * BLOCK) | large)
    job.batch(*mem_copy(SIZE // 256, flags=1 << 19), END)
    job.ring(*job.start())
    job.submit()
    return job


def read_over_iov(lab: Lab, owner: str, kind: str = "vram") -> LedgerEntry:
    return lab.fabric.ledger.entry("pf", owner, "iov", kind)


def in_the_middle(lab: Lab, owner: str = "vf1") -> Callable[[], bool]:
    return lambda: 0 < read_over_iov(lab, owner).bytes_read < SIZE


def test_a_copy_of_blocks_that_change_hands_goes_on_where_hardware_would_and_is_called_stale(lab: Lab) -> None:
    copying(lab)
    lab.run(until=in_the_middle(lab))
    before = read_over_iov(lab, "vf1").bytes_read
    lab.vram.assign(1, {})
    lab.run()
    assert not lab.listener.faults
    assert read_over_iov(lab, "vf1").bytes_read == before
    # What was not used before the change is not stale: nobody had a translation of it in use.
    stale, fresh = read_over_iov(lab, "pf", STALE + "vram"), read_over_iov(lab, "pf")
    assert before + stale.bytes_read + fresh.bytes_read == SIZE


def test_a_vf_that_loses_its_memory_in_the_middle_of_a_copy_faults(lab: Lab) -> None:
    vf = lab.functions[1]
    lab.vram.assign(1, {n: n + 2 for n in range(30)})
    job = lab.job(function=vf)
    for offset in range(0, SIZE, BLOCK):
        large = 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY
        job.tables.entry(SOURCE_VA + offset, 1, 4 * MIB + offset | large)
        job.tables.entry(TARGET_VA + offset, 1, 40 * MIB + offset % (2 * BLOCK) | large)
    job.batch(*mem_copy(SIZE // 256, flags=1 << 19), END)
    job.ring(*job.start())
    job.submit()
    copied = lab.fabric.ledger.entry("vf1", "vf1", "iov", "vram")
    begun = copied.bytes_read
    lab.run(until=lambda: copied.bytes_read - begun >= 8 * MIB)
    lab.vram.assign(1, {0: 2, 1: 3})
    lab.run()
    (fault,) = lab.listener.faults
    assert "LMTT gives vf1 nothing there" in str(fault)
    assert copied.bytes_read - begun < SIZE


@pytest.mark.parametrize("mode", ["fail", "revoke"])
def test_a_path_that_breaks_in_the_middle_of_a_copy_faults_the_job_and_the_next_one_runs(lab: Lab, mode: str) -> None:
    lab.card.faults = Faults()
    lab.card.make_interconnect = lambda name, options, key: Iov(lab.card, {})  # type: ignore[arg-type]
    options = check_options(Fault.OPTIONS, {"owner": "vf1", "mode": mode, "after": 2})
    lab.fabric.interconnects = [Fault(lab.card, options), *lab.fabric.interconnects]  # type: ignore[arg-type]
    copying(lab)
    lab.run()
    (fault,) = lab.listener.faults
    assert "(injected)" in str(fault)
    assert 0 < read_over_iov(lab, "vf1").bytes_read < SIZE
    assert lab.execute(*sdi(DATA_VA, 0xCAFE)).data() == [0xCAFE]
