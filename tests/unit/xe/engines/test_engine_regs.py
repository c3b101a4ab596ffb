"""The table of engine registers, and what each user of it makes of a row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.commands import lri, semaphore, srm
from tests.support.xe.engine_lab import DATA_VA, PPHWSP, Job, Lab
from vfio_user_xe.device_models.xe.engines import engine_regs
from vfio_user_xe.device_models.xe.engines.register_access import captured
from vfio_user_xe.emulator.model.registers import MASKED, RO

BCS0 = 0x22000
EQUAL = 4
HWS_PGA, INSTPM, PSMI_CTL = 0x80, 0xC0, 0x50


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def ring_job(lab: Lab, *commands: int) -> Job:
    job = lab.job()
    job.ring(*commands)
    job.submit()
    lab.run()
    return job


def test_no_two_rows_share_a_name_or_a_dword() -> None:
    names = [row.name_of(index) for row in engine_regs.TABLE for index in range(len(row.offsets))]
    offsets = [offset for row in engine_regs.TABLE for offset in row.offsets]
    assert len(set(names)) == len(names)
    assert len(set(offsets)) == len(offsets)


def test_what_user_batches_may_write_belongs_to_the_context() -> None:
    for engine in ("rcs0", "ccs3", "bcs8", "vcs0", "vecs0"):
        assert not engine_regs.user_offsets(engine) & engine_regs.FUNCTION_OFFSETS


def test_user_batches_write_what_their_engine_has() -> None:
    cs_chicken1, bcs_swctrl, gpr = 0x580, 0x200, 0x600
    assert engine_regs.user_offsets("rcs0") & {cs_chicken1, bcs_swctrl, gpr} == {cs_chicken1, gpr}
    assert engine_regs.user_offsets("ccs1") & {cs_chicken1, bcs_swctrl, gpr} == {cs_chicken1, gpr}
    assert engine_regs.user_offsets("bcs8") & {cs_chicken1, bcs_swctrl, gpr} == {bcs_swctrl, gpr}
    assert engine_regs.user_offsets("vcs0") & {cs_chicken1, bcs_swctrl, gpr} == {gpr}


@pytest.mark.parametrize(
    ("offset", "name", "access"),
    [
        (0x30, "RING_TAIL", RO),
        (0x9C, "RING_MI_MODE", MASKED),
        (0x35C, "RING_TIMESTAMP_UDW", RO),
        (0x4D8, "RING_FORCE_TO_NONPRIV(2)", "rw"),
        (0x60C, "CS_GPR(1)_UDW", RO),
    ],
)
def test_rows_are_registers_of_each_engine(lab: Lab, offset: int, name: str, access: str) -> None:
    for engine in lab.engines.engines:
        register = lab.pf.registers.registers[engine.info.base + offset]
        assert (register.name, register.access) == (f"{engine.name.upper()}.{name}", access)


def test_only_engines_that_have_a_register_show_it() -> None:
    lab = Lab(media=True)
    try:
        names = {register.name for register in lab.pf.registers.registers.values()}
        assert "VCS0.VDBOX_CGCTL3F08" in names
        assert "VECS0.VDBOX_CGCTL3F08" not in names
        assert "VECS0.RING_TAIL" in names
    finally:
        lab.close()


def test_the_rings_write_of_a_register_of_the_function_reaches_it(lab: Lab) -> None:
    job = ring_job(lab, *lri(HWS_PGA, 0x151D000), *srm(HWS_PGA, DATA_VA))
    assert lab.pf.registers.read(BCS0 + HWS_PGA, 4) == 0x151D000
    assert job.data() == [0x151D000]


def test_the_rings_write_of_a_masked_register_of_the_function_changes_what_it_selects(lab: Lab) -> None:
    ring_job(lab, *lri(PSMI_CTL, 0x0081_0081), *lri(PSMI_CTL, 0x0001_0000))
    assert lab.pf.registers.read(BCS0 + PSMI_CTL, 4) == 0x80


def test_a_vfs_ring_does_not_reach_the_pfs_engine_registers(lab: Lab) -> None:
    vf = lab.vf_with_memory(1, {n: n + 8 for n in range(4)}, (0x400_0000, 0x10_0000))
    job = Job(lab, 0, function=vf, ppgtt=False)
    result = job.at(PPHWSP + 0x200)
    job.ring(*lri(HWS_PGA, 0x151D000), *srm(HWS_PGA, result, flags=1 << 22 | 1 << 19))
    job.submit()
    lab.run()
    assert vf.ggtt_space.read32(result) == 0x151D000
    assert lab.pf.registers.peek(BCS0 + HWS_PGA) == 0


def test_a_context_register_stays_with_the_context(lab: Lab) -> None:
    ring_job(lab, *lri(INSTPM, 0x2000_2000))
    assert lab.pf.registers.peek(BCS0 + INSTPM) == 0
    other = ring_job(lab, *srm(INSTPM, DATA_VA))
    assert other.data() == [0]


def test_capture_takes_context_registers_from_the_context_and_others_from_the_function(lab: Lab) -> None:
    engine = lab.engine("bcs0")
    lab.pf.registers.poke(BCS0 + HWS_PGA, 0x1000)
    lab.pf.registers.poke(BCS0 + INSTPM, 0x4000)
    assert captured(engine, BCS0 + INSTPM) == 0x4000
    job = lab.job()
    job.ring(*lri(INSTPM, 0x2000_2000), *semaphore(job.at(PPHWSP + 0x200), 1, EQUAL, flags=1 << 22 | 1 << 15))
    job.submit()
    lab.run(until=lambda: engine.lrc is not None and bool(engine.lrc.registers))
    assert captured(engine, BCS0 + INSTPM) == 0x2000
    assert captured(engine, BCS0 + HWS_PGA) == 0x1000
    assert captured(engine, lab.pf.registers.size) == 0
