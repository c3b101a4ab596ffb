"""Samples of EU stalls: rings in the driver's buffer, pointers of each Xe core, and what a record says."""

from __future__ import annotations

import struct
from typing import Any
from unittest.mock import NonCallableMock

import pytest

from tests.support.xe.compute_kernels import BARRIER, offsets, store
from tests.support.xe.compute_lab import DATA, EOT, KERNEL, ComputeLab, walker
from vfio_user_xe.device_models.xe.gt.eu_stall import BASE, CTRL, REPORT, REPORT1, EuStall, Stall
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.gt.mcr import MCR_SELECTOR, Steering
from vfio_user_xe.device_models.xe.memory.formats.ggtt import PRESENT
from vfio_user_xe.device_models.xe.memory.function import Device
from vfio_user_xe.device_models.xe.profiles.parts import Part
from vfio_user_xe.device_models.xe.profiles.profile import Profile
from vfio_user_xe.emulator.model.registers import Register

GGTT, MEMORY = 0x80_0000, 0x10_0000
BUFFER_BYTES = 256 << 10
CORES, PER_SLICE = 16, 4
MULTICAST = 1 << 31
LOOP = """
    mov (16|M0)  r40.0<1>:ud  0:ud
    again:
    add (16|M0)  r40.0<1>:ud  r40.0<1;1,0>:ud  1:ud
    cmp (16|M0)  (lt)f0.0  null<1>:ud  r40.0<1;1,0>:ud  400:ud
    (f0.0) goto (16|M0)  again  again
"""
KERNEL_TEXT = offsets(16) + LOOP + store(0, "r40") + EOT


class Sampling:
    """The stall registers of a lab's GT, driven as `xe_eu_stall.c` drives them."""

    def __init__(self, lab: ComputeLab) -> None:
        self.lab = lab
        registers = lab.pf.registers
        gt: Any = NonCallableMock(spec=Gt)
        gt.gpu = NonCallableMock(spec=Device)
        gt.gpu.profile = NonCallableMock(spec=Profile, part=Part("G21", xe_cores=CORES, memory_bits=128))
        gt.register.side_effect, gt.offset.side_effect = Register, lambda at: at
        self.block = EuStall(gt, registers, Steering(gt, registers), lab.pf.ggtt_space)
        for engine in lab.engines.engines:
            engine.stalls = self.block
        for page in range(CORES * BUFFER_BYTES // 0x1000):
            lab.pf.ggtt.entries[(GGTT >> 12) + page] = (MEMORY + page * 0x1000) | PRESENT

    def enable(self, rate: int = 1) -> None:
        self.write(MULTICAST, CTRL, 7 << 16 | rate)
        self.write(MULTICAST, BASE, GGTT | 1 << 3 | 1 << 1)

    def write(self, selector: int, offset: int, value: int) -> None:
        self.lab.pf.registers.write(MCR_SELECTOR, 4, selector)
        self.lab.pf.registers.write(offset, 4, value)

    def report(self, core: int) -> int:
        self.lab.pf.registers.write(MCR_SELECTOR, 4, core // PER_SLICE << 8 | core % PER_SLICE)
        return self.lab.pf.registers.read(REPORT, 4)

    def records(self) -> list[tuple[int, list[int]]]:
        """Instruction address and counts of all records, from the beginning of each buffer."""
        found = []
        for core in range(CORES):
            start = GGTT + core * BUFFER_BYTES
            for number in range(self.report(core) >> 2):
                low, high = struct.unpack("<QQ", self.lab.pf.ggtt_space.read(start + 64 * number, 16))
                value = low | high << 64
                found.append(((value & (1 << 29) - 1) << 3, [value >> 29 + 8 * n & 0xFF for n in range(10)]))
        return found


def run(lab: ComputeLab, kernel: str = KERNEL_TEXT, **options: Any) -> None:
    job = lab.compute_job(kernel, *walker(ids=[0], inline=[DATA, 0], **options))
    job.submit()
    lab.run()
    assert not lab.listener.faults


def test_a_loop_is_sampled_where_it_spends_its_time(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    sampling.enable()
    run(lab)
    records = sampling.records()
    assert 2 <= len(records) <= 10
    assert {address for address, _ in records} <= set(range(KERNEL + 0x40, KERNEL + 0xA0, 8))
    assert all(sum(counts) == counts[9] > 0 for _, counts in records)


def test_a_higher_rate_gives_fewer_samples(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    sampling.enable(rate=7)
    run(lab)
    assert len(sampling.records()) <= 1


def test_nothing_is_sampled_while_it_is_off(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    run(lab)
    assert sampling.records() == []


def test_a_barrier_that_others_do_not_reach_counts_as_sync(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    sampling.enable()
    # The second thread loops before it comes to the barrier at which the first is.
    late = "(W) and (1|M0)  r50.0<1>:ud  r0.2<0;1,0>:ud  0xFF:ud\n(W) cmp (1|M0) (eq)f1.0  null<1>:ud  r50.0<0;1,0>:ud  0:ud\n"
    kernel = offsets(32) + late + "(W&f1.0) jmpi (1|M0)  meet\n" + LOOP + "meet:\n" + BARRIER + EOT
    run(lab, kernel, local=(32, 1, 1), barriers=1)
    assert sampling.records()


def test_a_full_buffer_drops_and_says_so_until_it_is_cleared(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    sampling.enable()
    size = BUFFER_BYTES // 64
    for _ in range(size + 1):
        sampling.block.keep(3, 0x40, Stall.ACTIVE, 1)
    assert sampling.report(3) == size << 2 | 1 << 1
    assert sampling.report(2) == 0
    sampling.write(3, REPORT1, 0xFFFC << 16 | 5 << 2)
    sampling.write(3, REPORT, 1 << 17)
    sampling.block.keep(3, 0x40, Stall.ACTIVE, 1)
    assert sampling.report(3) == size + 1 << 2


def test_a_reset_of_the_gt_turns_sampling_off(lab: ComputeLab) -> None:
    sampling = Sampling(lab)
    sampling.enable()
    sampling.block.reset()
    assert lab.pf.registers.read(BASE, 4) == 0
    assert not sampling.block.enabled


@pytest.mark.parametrize("rate", [1, 4])
def test_a_buffer_that_is_not_mapped_loses_samples_with_a_report(lab: ComputeLab, rate: int) -> None:
    sampling = Sampling(lab)
    lab.pf.ggtt.entries[GGTT >> 12 : (GGTT >> 12) + 1024] = memoryview(bytes(8 * 1024)).cast("Q")
    sampling.enable(rate)
    run(lab)
    assert any("sample of EU stalls is lost" in text for text in lab.engine("ccs0").reports)
