"""SR-IOV with the stock driver: xe on the PF, xe on every VF, work on all of them at once, and no trace of it later."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest.lab import Lab
from tests.support.guest.xe import DEBUGFS, DEVICE, PF
from tests.support.guest.xe_sriov import accounting, bdf, busy, card_call, enable, held, hold, jobs, problems, start_lab
from tests.support.processes import descriptors
from tests.support.wait import eventually

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

CYCLES = int(os.environ.get("VFIO_USER_XE_SRIOV_CYCLES", "6"))
"""How often VFs are enabled and disabled by the test that looks for leaks."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with start_lab(["--vfs", "24", "--set", "vram=8GiB"]) as lab:
        lab.sh("modprobe xe", timeout=120)
        lab.sh("dmesg -c >/dev/null")
        yield lab


@pytest.fixture(autouse=True)
def _no_vfs_left(lab: Lab) -> Iterator[None]:
    yield
    lab.sh(f"rm -f /tmp/end /tmp/hold*; echo 0 > {DEVICE}/sriov_numvfs; dmesg -c >/dev/null", timeout=60)


@pytest.mark.parametrize("count", [1, 2, 4, 7, 24])
def test_xe_probes_every_vf_and_all_functions_work_at_once(lab: Lab, count: int) -> None:
    before = accounting(lab)
    enable(lab, count)
    drivers = lab.sh(f"for vf in {DEVICE}/virtfn*; do basename $(readlink $vf/driver); done").split()
    assert drivers == ["xe"] * count
    assert lab.sh("dmesg").count("Running in SR-IOV VF mode") == count
    assert len(lab.sh("ls /dev/dri | grep renderD").split()) == count + 1
    assert accounting(lab) != before
    jobs(lab, *range(count + 1))
    lab.sh(f"echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
    assert lab.sh("ls /dev/dri").split() == ["card0", "renderD128"]
    assert accounting(lab) == before
    assert problems(lab) == []


def server_resources(lab: Lab) -> tuple[int, int]:
    """Open descriptors of the server, and the KiB that are its own."""
    status = Path(f"/proc/{lab.card.pid}/status").read_text()
    resident = re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE)
    assert resident is not None
    return len(descriptors(lab.card.pid)), int(resident[1])


def test_enabling_and_disabling_again_and_again_leaks_nothing(lab: Lab) -> None:
    def cycle() -> None:
        enable(lab, 2)
        jobs(lab, 0, 1, 2)
        lab.sh(f"echo 0 > {DEVICE}/sriov_numvfs", timeout=60)

    cycle()
    before, (opened, memory) = accounting(lab), server_resources(lab)
    for _ in range(CYCLES):
        cycle()
    assert accounting(lab) == before
    eventually(lambda: server_resources(lab)[0] <= opened, "descriptors are left open")
    now = server_resources(lab)
    # What grows once (caches, the allocator's arenas) is no leak; what grows with every cycle is.
    assert now[1] - memory < 8192 + 256 * CYCLES, f"{memory} KiB before, {now[1]} KiB after {CYCLES} cycles"
    assert problems(lab) == []


def test_24_idle_vfs_cost_little_memory(lab: Lab) -> None:
    enable(lab, 24)
    memory = card_call(lab, "memory")["resident"] >> 10
    assert server_resources(lab)[1] + memory < 400 * 1024


def test_flr_of_a_vf_with_a_running_job_disturbs_nobody_else(lab: Lab) -> None:
    enable(lab, 2)
    hold(lab, 1, 2)
    lab.sh(f"echo 1 > {DEVICE}/virtfn0/reset")
    lab.sh("until dmesg | grep -q 'VF1 FLR'; do sleep 0.1; done")
    time.sleep(0.3)
    before = busy(lab, 1), busy(lab, 2)
    jobs(lab, 0)
    time.sleep(0.2)
    assert busy(lab, 1) == before[0], "a job of VF 1 outlived its reset"
    assert busy(lab, 2) > before[1]
    assert "finished" in held(lab, 2)
    lab.sh("kill $(pidof xe-functions); true")
    lab.sh(f"echo {bdf(1)} > /sys/bus/pci/drivers/xe/unbind; echo {bdf(1)} > /sys/bus/pci/drivers/xe/bind", timeout=90)
    jobs(lab, 0, 1, 2)


def test_a_paused_vf_gets_no_engine_time_and_goes_on_when_resumed(lab: Lab) -> None:
    enable(lab, 2)
    hold(lab, 1, 2)
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf1/pause")
    before = busy(lab, 1), busy(lab, 2)
    time.sleep(0.5)
    assert busy(lab, 1) == before[0]
    assert busy(lab, 2) > before[1]
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf1/resume")
    assert "finished" in held(lab, 1)
    assert "finished" in held(lab, 2)
    jobs(lab, 0, 1, 2)
    assert problems(lab) == []


def test_a_stopped_vf_runs_again_only_after_a_reset(lab: Lab) -> None:
    enable(lab, 2)
    hold(lab, 1, 2)
    lab.sh(f"echo 1 > {DEVICE}/sriov_admin/vf1/stop")
    before = busy(lab, 1)
    assert lab.guest.run(f"echo 1 > {DEBUGFS}/sriov/vf1/resume").returncode != 0
    assert "finished" in held(lab, 2)
    assert busy(lab, 1) == before
    lab.sh("kill $(pidof xe-functions); true")
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf1/reset")
    lab.sh(f"echo {bdf(1)} > /sys/bus/pci/drivers/xe/unbind; echo {bdf(1)} > /sys/bus/pci/drivers/xe/bind", timeout=90)
    jobs(lab, 0, 1, 2)


def test_the_execution_quantum_set_in_sysfs_governs_the_shares(lab: Lab) -> None:
    enable(lab, 2)
    for vfid, quantum in ((1, 16), (2, 64)):
        lab.sh(f"echo {quantum} > {DEVICE}/sriov_admin/vf{vfid}/profile/exec_quantum_ms")
    hold(lab, 1, 2)
    first = busy(lab, 1), busy(lab, 2)
    time.sleep(3)
    ran = [now - then for now, then in zip((busy(lab, 1), busy(lab, 2)), first, strict=True)]
    assert "finished" in held(lab, 1)
    assert "finished" in held(lab, 2)
    assert 2.5 < ran[1] / ran[0] < 6.5, ran


def shares(lab: Lab, vfs: int) -> list[int]:
    """Percent of the copy engine's time that PF and VFs have, of what their quantum allots to each: the PF's PMU."""
    found = lab.sh(f"xe-functions shares 2 {vfs} {PF}")
    return [int(percent) for percent in re.findall(r"had (\d+) percent", found)]


def test_the_priority_decides_whether_the_time_of_idle_functions_is_used_by_others(lab: Lab) -> None:
    enable(lab, 2)
    hold(lab, 1)
    used = {}
    for priority in ("low", "normal"):
        lab.sh(f"echo {priority} > {DEVICE}/sriov_admin/.bulk_profile/sched_priority")
        used[priority] = shares(lab, 2)
    lab.sh(f"echo low > {DEVICE}/sriov_admin/.bulk_profile/sched_priority")
    assert "finished" in held(lab, 1)
    # PF and two VFs have 16 ms each: a third of the time. Low: VF 1 has all of it; normal: what is its own.
    assert used["low"][1] > 200, used
    assert 50 < used["normal"][1] < 150, used
    assert used["low"][::2] == used["normal"][::2] == [0, 0]


def test_a_job_that_is_not_preempted_in_the_functions_timeout_is_reset(lab: Lab) -> None:
    enable(lab, 2)
    lab.sh(f"echo 20000 > {DEVICE}/sriov_admin/vf1/profile/preempt_timeout_us")
    lab.sh("dmesg -c > /dev/null")
    lab.sh(f"(xe-functions hog {bdf(1)} > /tmp/hog 2>&1; echo exit $? >> /tmp/hog) > /dev/null 2>&1 3>&- &")
    lab.sh("until grep -q -e running -e exit /tmp/hog; do sleep 0.1; done; grep running /tmp/hog")
    jobs(lab, 2)
    assert "killed" in lab.sh("until grep exit /tmp/hog; do sleep 0.1; done; cat /tmp/hog")
    log = lab.sh("dmesg -c; rm /tmp/hog")
    # The driver calls a job timed out for either reason (xe_guc_submit.c:guc_exec_queue_timedout_job): which came first?
    before, reset, _ = log.partition("Engine reset: engine_class=bcs")
    assert reset, log
    assert "Timedout job" not in before, "the driver's own watchdog was faster"
    jobs(lab, 0, 1, 2)


def test_a_vf_that_misbehaves_is_counted_by_the_pfs_driver(lab: Lab) -> None:
    enable(lab, 2)
    gt = f"{DEBUGFS}/sriov/vf1/tile0/gt0"
    lab.sh(f"echo 60000 > {DEBUGFS}/sriov/pf/tile0/gt0/sample_period_ms; echo 1 > {gt}/threshold_guc_time_us")
    jobs(lab, 1, 2)
    told = lab.sh(f"cat {DEBUGFS}/sriov/pf/tile0/gt0/adverse_events")
    lab.sh(f"echo 0 > {DEBUGFS}/sriov/pf/tile0/gt0/sample_period_ms")
    assert re.search(r"VF1:.*guc_time_us:[1-9]", told), told
    assert "VF2" not in told, told


def vram_of(lab: Lab, vfid: int) -> str:
    """A hash of the first 16 MiB that a VF has."""
    made = hashlib.sha256()
    for address in range(0, 16 << 20, 1 << 20):
        made.update(
            card_call(lab, "read", function=f"vf{vfid}", space="device", address=address, length=1 << 20).encode()
        )
    return made.hexdigest()


def test_a_vf_with_a_job_in_flight_is_saved_wiped_and_restored_and_the_job_finishes(lab: Lab) -> None:
    vf, quota = f"{DEBUGFS}/sriov/vf1", f"{DEVICE}/sriov_admin/vf1/profile/vram_quota"
    lab.sh(f"echo {16 << 20} > {quota}")
    try:
        enable(lab, 1)
        # The VF's driver is not stopped with it, as it is in a machine that moves: its watchdog must be patient.
        lab.sh(f"echo 10000 > {DEVICE}/virtfn0/tile0/gt0/engines/bcs/job_timeout_ms")
        hold(lab, 1)
        lab.sh(f"echo 1 > {vf}/pause")
        saved = vram_of(lab, 1)
        lab.sh(f"echo 1 > {vf}/save; cat {vf}/migration_data > /tmp/state && cat {vf}/save", timeout=120)
        lab.sh(f"echo 1 > {vf}/reset")
        for address in range(0, 16 << 20, 2 << 20):
            wiped = card_call(lab, "read", function="vf1", space="device", address=address, length=64 << 10)
            assert not wiped.strip("0"), "the reset left something of the VF"
        # The end of the stream (a header of 24 bytes) when the rest is restored: the driver may look at its queue and at that
        # in the wrong order, and then leaves VRAM as it is (xe_gt_sriov_pf_control.c:pf_handle_vf_restore).
        lab.sh(
            f"rm -f /tmp/there; echo 1 > {vf}/pause; echo 1 > {vf}/restore; size=$(($(stat -c %s /tmp/state) - 24));"
            " ((head -c $size /tmp/state; until test -e /tmp/there; do sleep 0.1; done; tail -c 24 /tmp/state)"
            f" > {vf}/migration_data && cat {vf}/restore; echo exit $?) > /tmp/restored 2>&1 3>&- &"
        )
        eventually(lambda: vram_of(lab, 1) == saved, "the VF's VRAM is not what was saved", interval=0.2)
        lab.sh("touch /tmp/there")
        ended = lab.sh("until grep -q exit /tmp/restored; do sleep 0.1; done; cat /tmp/restored", timeout=120)
        assert "exit 0" in ended, ended
        lab.sh(f"echo 1 > {vf}/resume")
        lab.sh("until dmesg | grep 'migration recovery ended'; do sleep 0.1; done")
        assert "finished" in held(lab, 1)
        jobs(lab, 0, 1)
        assert problems(lab) == []
    finally:
        lab.sh(
            f"rm -f /tmp/state /tmp/restored; touch /tmp/there; echo 0 > {DEVICE}/sriov_numvfs; echo 0 > {quota}",
            timeout=60,
        )
