"""VFs stopped, paused, resumed and reset: what the PF's driver commands, and an FLR step by step."""

from __future__ import annotations

import threading

import pytest

from tests.support import logs
from tests.support.xe.guc_driver import DOORBELL, SCRATCH, GucDriver
from tests.support.xe.provisioning import (
    SUCCESS,
    VF_SIZE,
    VF_START,
    control,
    failure,
)
from vfio_user_xe.device_models.xe.guc import guc
from vfio_user_xe.device_models.xe.guc.sriov import FLR_FINISH, FLR_START, PAUSE, RESUME, STOP
from vfio_user_xe.emulator.fabric.interconnect import Space


def test_flr_runs_through_its_steps(driver: GucDriver, vf: GucDriver) -> None:
    vf.start_ct()
    vf.bench.gpu.functions[1].pci.function_level_reset()
    vf.bench.settle()
    assert driver.events() == [(0x90005106, 1, 1)]
    assert vf.mmio(0x5507)[0] == 0x5507, "not served before the PF has cleaned up"
    assert control(driver, 1, 4) == (SUCCESS, [(0x90005106, 1, 2)])
    assert control(driver, 1, 5) == (SUCCESS, [])
    assert vf.mmio(0x5507)[0] == SUCCESS
    vf.bench.map_ggtt(VF_START, 1 << 20, 0, vfid=1)
    vf.send(0x7002, 1, 0)
    assert vf.received() == [], "its CT buffers are forgotten"


def test_what_others_do_to_a_vf_s_memory_between_its_flr_and_the_pf_s_last_step_is_stale(
    driver: GucDriver, vf: GucDriver
) -> None:
    bench = driver.bench
    fabric = bench.gpu.fabric
    (dpa,) = [block << 21 for gdpa, block in bench.gpu.vram.blocks(1).items() if gdpa == 0]

    def read_as_pf() -> None:
        bench.run(lambda: fabric.read(bench.pf.pci, Space.DEVICE, dpa, 4))

    def stale() -> list[tuple[str, str, int]]:
        found = fabric.ledger.verdicts(["pf", "vf1", "vf2"])["stale"]
        return [(access["initiator"], access["owner"], access["reads"]) for access in found]

    read_as_pf()
    assert stale() == []
    bench.gpu.functions[1].pci.function_level_reset()
    bench.settle()
    read_as_pf()
    assert stale() == [("pf", "vf1", 1)], "before the PF has begun to clean up"
    control(driver, 1, 4)
    read_as_pf()
    control(driver, 1, 5)
    read_as_pf()
    assert stale() == [("pf", "vf1", 2)]


def test_flr_clears_the_entries_that_the_pf_cleared(driver: GucDriver, vf: GucDriver) -> None:
    gpu = driver.bench.gpu
    first = VF_START >> 12
    control(driver, 1, 4)
    assert gpu.pf.ggtt.entries[first + 1] == 0x1000 | 3 | 1 << 2
    for page in range(VF_SIZE >> 12):
        gpu.pf.ggtt.entries[first + page] = 1 << 2 | 1
    control(driver, 1, 5)
    assert set(gpu.functions[1].ggtt.entries[first : first + (VF_SIZE >> 12)]) == {1}


def test_pause_shows_the_vfs_entries_to_the_pf_and_resume_takes_them_back(driver: GucDriver, vf: GucDriver) -> None:
    gpu = driver.bench.gpu
    first = VF_START >> 12
    answer, events = control(driver, 1, 1)
    assert (answer, events) == (SUCCESS, [(0x90005106, 1, 3)])
    assert gpu.pf.ggtt.entries[first + 1] == 0x1000 | 3 | 1 << 2
    assert vf.mmio(0x5507)[0] == 0x5507, "a paused VF is not served"
    gpu.pf.ggtt.entries[first + 1] = 0x5000 | 3 | 1 << 2
    assert control(driver, 1, 2) == (SUCCESS, [])
    assert gpu.functions[1].ggtt.entries[first + 1] == 0x5000 | 3
    assert vf.bench.read(0x190240, 1) == SUCCESS, "what it asked meanwhile is answered now"


def test_a_request_that_a_late_card_took_before_it_noticed_the_flr_is_answered_after_it(
    driver: GucDriver, vf: GucDriver
) -> None:
    bench, hold = vf.bench, threading.Event()
    bench.card.executor.submit(hold.wait)
    bench.gpu.functions[1].pci.function_level_reset()
    bench.write(SCRATCH[0], 0x5507, 1)
    bench.write(DOORBELL[0], 0, 1)
    hold.set()
    bench.settle()
    # The PF's driver clears the VF's registers, of which xe_guc_mmio_send_recv tells.
    for offset in (0x190240 + 0x400 + 4 * n for n in range(4)):
        driver.bench.write(offset, 0)
    assert control(driver, 1, FLR_START)[0] == SUCCESS
    assert bench.read(SCRATCH[0], 1) == 0, "not before the PF has cleaned up"
    assert control(driver, 1, FLR_FINISH)[0] == SUCCESS
    assert bench.read(SCRATCH[0], 1) == SUCCESS


def test_what_a_vf_had_in_its_mailbox_is_gone_after_an_flr(driver: GucDriver, vf: GucDriver) -> None:
    vf.mmio(0x5500, 0x00010200)
    vf.bench.gpu.functions[1].pci.function_level_reset()
    vf.bench.settle()
    for command in (FLR_START, FLR_FINISH):
        assert control(driver, 1, command)[0] == SUCCESS
    assert [vf.bench.read(offset, 1) for offset in range(SCRATCH[0], SCRATCH[0] + 16, 4)] == [0, 0, 0, 0]


def state_of(driver: GucDriver, name: str) -> str:
    return next(c["state"] for c in driver.bench.gpu.gts[0].guc.inspect()["clients"] if c["function"] == name)


@pytest.mark.parametrize(
    ("first", "state", "then"),
    [
        (STOP, "stopped", PAUSE),
        (STOP, "stopped", RESUME),
        (STOP, "stopped", FLR_FINISH),
        (FLR_START, "flr", PAUSE),
        (FLR_START, "flr", RESUME),
        (PAUSE, "paused", FLR_FINISH),
    ],
)
def test_a_command_that_the_state_of_a_vf_does_not_allow_is_refused_and_changes_nothing(
    driver: GucDriver, vf: GucDriver, caplog: pytest.LogCaptureFixture, first: int, state: str, then: int
) -> None:
    assert control(driver, 1, first)[0] == SUCCESS
    with caplog.at_level("INFO"):
        assert control(driver, 1, then)[0] == failure(0x0A)
    said = logs.text(caplog, guc.log)
    assert "vf1: " in said
    assert state in said
    assert state_of(driver, "vf1") == state


def test_a_stopped_vf_runs_again_after_a_reset(driver: GucDriver, vf: GucDriver) -> None:
    for command, state in ((STOP, "stopped"), (FLR_START, "flr"), (FLR_FINISH, "running")):
        assert control(driver, 1, command)[0] == SUCCESS
        assert state_of(driver, "vf1") == state
    assert vf.mmio(0x5507)[0] == SUCCESS


def test_resume_of_a_running_vf_leaves_its_entries_alone(driver: GucDriver, vf: GucDriver) -> None:
    before = driver.bench.gpu.functions[1].ggtt.entries[VF_START >> 12]
    assert control(driver, 1, 2) == (SUCCESS, [])
    assert driver.bench.gpu.functions[1].ggtt.entries[VF_START >> 12] == before


def test_control_of_a_function_that_is_no_vf_is_refused(driver: GucDriver) -> None:
    assert control(driver, 0, 1)[0] == failure(0x0C)
    assert control(driver, 9, 1)[0] == failure(0x0C)
    assert control(driver, 1, 6)[0] == failure(0x60)
