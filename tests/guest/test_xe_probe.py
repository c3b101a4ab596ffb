"""The stock xe driver on the card: it probes without a complaint, natively and as a PF, in every profile, and again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab, open_lab, program
from tests.support.guest.xe import DEBUGFS, DEVICE, PF, check_card, complaints, load, unmodelled
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.kernel import Kernel

pytestmark = pytest.mark.guest

KERNEL = "/boot/kernel"


@pytest.fixture(scope="module")
def native() -> Iterator[Lab]:
    files = {**program("kexec"), KERNEL: Kernel.packaged(locate()).image}
    with open_lab(["--vfs", "0"], modules=["xe"], files=files) as lab:
        yield lab


@pytest.fixture(scope="module")
def pf() -> Iterator[Lab]:
    with open_lab(["--vfs", "2"], modules=["xe"]) as lab:
        yield lab


def test_native_probe_is_clean(native: Lab) -> None:
    log = load(native)
    assert "Initialized xe" in log
    assert "SR-IOV" not in log
    check_card(native)


def test_driver_sees_the_card_as_described(native: Lab) -> None:
    info = native.sh(f"cat {DEBUGFS}/info")
    assert "graphics_verx100 2002" in info
    assert "gt0 engines rcs0 bcs0 bcs8 ccs0" in info
    vram = native.sh(f"cat {DEBUGFS}/tile0/vram_mm 2>/dev/null || cat {DEBUGFS}/vram0_mm")
    assert "size" in vram
    frequencies = {
        name: int(native.sh(f"cat {DEVICE}/tile0/gt0/freq0/{name}_freq"))
        for name in ("rpn", "rpe", "rp0", "min", "max")
    }
    assert frequencies["rpn"] <= frequencies["rpe"] <= frequencies["rp0"]
    assert frequencies["min"] == 1200
    assert frequencies["max"] == frequencies["rp0"]


def test_frequency_limits_are_kept_and_followed(native: Lab) -> None:
    directory = f"{DEVICE}/tile0/gt0/freq0"
    native.sh(f"echo 1500 > {directory}/min_freq; echo 1500 > {directory}/max_freq")
    assert native.sh(f"cat {directory}/min_freq {directory}/max_freq {directory}/cur_freq").split() == ["1500"] * 3
    native.sh(f"echo $(cat {directory}/rp0_freq) > {directory}/max_freq; echo 1200 > {directory}/min_freq")


def test_idle_gt_sleeps_and_counts_it(native: Lab) -> None:
    directory = f"{DEVICE}/tile0/gt0/gtidle"
    first, state, second = native.sh(
        f"cat {directory}/idle_residency_ms; sleep 0.2; cat {directory}/idle_status {directory}/idle_residency_ms"
    ).split()
    assert state == "gt-c6"
    assert int(second) > int(first)


def test_runtime_suspend_and_resume_keep_the_guc(native: Lab) -> None:
    native.sh("dmesg -c > /dev/null")
    native.sh(f"until grep -q suspended {DEVICE}/power/runtime_status; do sleep 0.1; done")
    # How long it was awake: whether it still is when somebody looks, a busy host decides (xe lets it sleep after a second).
    awake = f"cat {DEVICE}/power/runtime_active_time"
    before = int(native.sh(awake))
    assert "status: RUNNING" in native.sh(f"cat {DEBUGFS}/gt0/uc/guc_info")
    assert int(native.sh(awake)) > before
    assert complaints(native) == []


def test_gt_reset_ends_well(native: Lab) -> None:
    native.sh("dmesg -c > /dev/null")
    native.sh(f"cat {DEBUGFS}/gt0/force_reset_sync")
    native.sh("until dmesg | grep 'reset done'; do sleep 0.1; done")
    assert complaints(native) == []
    check_card(native)


def test_unbind_bind_and_reload_probe_again(native: Lab) -> None:
    native.sh("dmesg -c > /dev/null")
    native.sh(f"echo {PF} > {DEVICE}/driver/unbind; echo {PF} > /sys/bus/pci/drivers/xe/bind", timeout=60)
    check_card(native)
    native.sh("rmmod xe && modprobe xe", timeout=90)
    check_card(native)


def test_reset_of_the_device_without_driver_and_probe(native: Lab) -> None:
    native.sh("dmesg -c > /dev/null")
    native.sh(f"echo {PF} > {DEVICE}/driver/unbind; echo 1 > {DEVICE}/reset; echo {PF} > /sys/bus/pci/drivers/xe/bind")
    check_card(native)


def test_devices_suspend_and_resume(native: Lab) -> None:
    # All of a suspend to RAM but the sleep itself, after which firmware would have to start the kernel again.
    native.sh("dmesg -c > /dev/null; echo platform > /sys/power/pm_test; echo mem > /sys/power/state", timeout=180)
    assert complaints(native) == []
    assert "status: RUNNING" in native.sh(f"cat {DEBUGFS}/gt0/uc/guc_info")


def test_reboot_probes_again(native: Lab) -> None:
    native.guest.reboot()
    load(native)
    check_card(native)


def test_a_kernel_started_without_a_reset_of_the_machine_probes_again(native: Lab) -> None:
    # The new kernel gets this root file system as its initramfs, and the card as the old one's driver left it.
    native.sh("cd / && find . -xdev ! -path ./boot/kernel | cpio -o -H newc > /dev/shm/initrd 2>/dev/null", timeout=120)
    native.guest.reboot(f'kexec {KERNEL} /dev/shm/initrd "$(cat /proc/cmdline)"')
    load(native)
    check_card(native)


def test_probe_touches_nothing_undeclared(native: Lab) -> None:
    assert unmodelled(native) == []


def test_pf_probe_is_clean(pf: Lab) -> None:
    log = load(pf)
    assert "Running in SR-IOV PF mode" in log
    check_card(pf)
    assert unmodelled(pf) == []


def test_vfs_probe_in_vf_mode_and_go_away_cleanly(pf: Lab) -> None:
    pf.sh("dmesg -c > /dev/null")
    pf.sh(f"echo 2 > {DEVICE}/sriov_numvfs", timeout=60)
    log = pf.sh("dmesg")
    assert log.count("Running in SR-IOV VF mode") == 2
    assert len(pf.sh("ls /dev/dri").split()) == 6
    assert "1.00 GiB" in pf.sh(f"cat {DEBUGFS[:-1]}1/gt0/vf/self_config")
    pf.sh(f"echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
    assert complaints(pf) == []
    check_card(pf)
    assert unmodelled(pf) == []


def test_vf_is_reset_paused_and_resumed(pf: Lab) -> None:
    pf.sh(f"dmesg -c > /dev/null; echo 1 > {DEVICE}/sriov_numvfs", timeout=60)
    pf.sh(f"echo 1 > {DEVICE}/virtfn0/reset; sleep 1")
    control = f"{DEBUGFS}/sriov/vf1"
    for command in ("pause", "resume", "reset"):
        pf.sh(f"echo 1 > {control}/{command}")
    log = pf.sh("dmesg")
    assert "VF1 FLR" in log
    assert "VF1 paused" in log
    assert "VF1 resumed" in log
    pf.sh(f"sleep 1; echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
    assert complaints(pf) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["media=true"], "GT1: Using HuC firmware"),
        (["graphics=20.01", "flat_ccs=true"], "FLAT_CCS base:"),
        (["ccs=0", "vram=1GiB"], "0x0000000040000000"),
        (["bar2=256MiB", "ccs=4"], "Small BAR device"),
    ],
    ids=["media", "20.01-flat-ccs", "no-ccs-1GiB", "small-bar-4-ccs"],
)
def test_every_profile_probes_cleanly(settings: list[str], expected: str) -> None:
    arguments = [word for setting in settings for word in ("--set", setting)]
    with open_lab(["--vfs", "2", *arguments], modules=["xe"]) as lab:
        assert expected in load(lab)
        check_card(lab)
        if "vram=1GiB" not in settings:  # the driver gives VFs nothing of so little (xe_gt_sriov_pf_config.c)
            lab.sh(f"echo 1 > {DEVICE}/sriov_numvfs", timeout=60)
            assert "Running in SR-IOV VF mode" in lab.sh("dmesg")
            lab.sh(f"ls /dev/dri/renderD129; echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
            check_card(lab)
        assert unmodelled(lab) == []


def test_the_machine_sleeps_and_wakes() -> None:
    # With OVMF: SeaBIOS does not bring this kernel back. Power is off meanwhile, for the card too.
    with open_lab(["--vfs", "0"], modules=["xe"], ovmf=True, append="mem_sleep_default=deep") as lab:
        load(lab)
        lab.sh("dmesg -n 7; (sleep 0.2; echo mem > /sys/power/state; echo $? > /tmp/woken) > /dev/null 2>&1 3>&- &")
        eventually(lambda: "SUSPEND" in [event["event"] for event in lab.guest.qmp_events], seconds=40, interval=0.1)
        boots = lab.card.call("guc")[0]["boots"]
        lab.guest.qmp("system_wakeup")
        # What is sent to a machine that is not awake yet is lost.
        lab.guest.wait_for_console("PM: suspend exit")
        eventually(lambda: lab.guest.run("cat /tmp/woken").stdout == "0\n", seconds=40, interval=0.1)
        assert lab.card.call("guc")[0]["boots"] > boots
        check_card(lab)
