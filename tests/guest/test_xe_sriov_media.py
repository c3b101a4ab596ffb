"""SR-IOV on a card with a media GT: two GuCs, which have to do everything in step."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab
from tests.support.guest.xe import DEBUGFS, DEVICE
from tests.support.guest.xe_sriov import accounting, bdf, busy, card_call, enable, held, hold, jobs, problems, start_lab

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with start_lab(["--vfs", "2", "--set", "vram=4GiB", "--set", "media=true"]) as lab:
        lab.sh("modprobe xe", timeout=120)
        lab.sh("dmesg -c >/dev/null")
        yield lab


def states(lab: Lab, vfid: int) -> list[str]:
    """A VF's state towards each GuC."""
    return [
        next(client["state"] for client in guc["clients"] if client["function"] == f"vf{vfid}")
        for guc in card_call(lab, "guc")
    ]


def test_vfs_work_on_both_gts_and_both_gucs_pause_reset_and_stop_them_in_step(lab: Lab) -> None:
    before = accounting(lab)
    enable(lab, 2)
    jobs(lab, 0, 1, 2)

    hold(lab, 1, 2)
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf1/pause")
    assert states(lab, 1) == ["paused", "paused"]
    assert states(lab, 2) == ["running", "running"]
    stopped = busy(lab, 1)
    time.sleep(0.3)
    assert busy(lab, 1) == stopped
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf1/resume")
    assert states(lab, 1) == ["running", "running"]
    assert "finished" in held(lab, 1)
    assert "finished" in held(lab, 2)
    lab.sh("rm -f /tmp/end /tmp/hold*")

    lab.sh(f"echo {bdf(1)} > /sys/bus/pci/drivers/xe/unbind; dmesg -c > /dev/null")
    lab.sh(f"echo 1 > {DEVICE}/virtfn0/reset")
    lab.sh("until [ $(dmesg | grep -c 'VF1 FLR') = 2 ]; do sleep 0.1; done")
    lab.sh(f"echo {bdf(1)} > /sys/bus/pci/drivers/xe/bind", timeout=60)
    assert states(lab, 1) == ["running", "running"]
    jobs(lab, 0, 1, 2)

    lab.sh(f"echo 1 > {DEVICE}/sriov_admin/vf2/stop")
    assert states(lab, 2) == ["stopped", "stopped"]
    lab.sh(f"echo 1 > {DEBUGFS}/sriov/vf2/reset")
    assert states(lab, 2) == ["running", "running"]
    jobs(lab, 0, 1)

    lab.sh(f"echo {bdf(2)} > /sys/bus/pci/drivers/xe/unbind; echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
    assert accounting(lab) == before
    assert problems(lab) == []


def test_media_engines_of_two_slices_are_scheduled_in_groups(lab: Lab) -> None:
    gt = f"{DEBUGFS}/sriov/pf/tile0/gt1"

    def groups() -> dict[str, int]:
        return {engine["name"]: engine["group"] for engine in card_call(lab, "engines")}

    lab.sh(f"echo media_slices > {gt}/sched_groups_mode")
    try:
        assert groups().items() >= {"vcs0": 0, "vcs1": 0, "vecs0": 0, "vecs1": 1}.items()
        enable(lab, 2)
        lab.sh(f"echo 16,32 > {DEBUGFS}/sriov/vf1/tile0/gt1/sched_groups_exec_quantums_ms")
        jobs(lab, 0, 1, 2)
    finally:
        lab.sh(f"echo 0 > {DEVICE}/sriov_numvfs; echo disabled > {gt}/sched_groups_mode", timeout=60)
    assert groups()["vecs1"] == 0
    assert problems(lab) == []
