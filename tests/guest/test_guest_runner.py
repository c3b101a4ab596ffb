"""The guest runner with a real QEMU and a real kernel."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import CommandTimeout, GuestPanic, QemuFailed
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.machine import Iommu, Machine

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest() -> Iterator[BlockingGuest]:
    """One guest for the tests that leave it as they found it."""
    with BlockingGuest(GuestSpec(modules=("vfio-pci",), files={"/root/greeting": b"hello"})) as guest:
        yield guest


def test_a_command_returns_exit_code_and_both_outputs(guest: BlockingGuest) -> None:
    result = guest.run("cat /root/greeting; echo problem >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "hello", "problem\n")


def test_modprobe_lspci_and_setpci_are_the_real_ones(guest: BlockingGuest) -> None:
    guest.script("modprobe vfio-pci; grep -q ^vfio_pci_core /proc/modules; modprobe -r vfio-pci")
    assert "00:00.0 0600: 8086:29c0" in guest.run("lspci -n", check=True).stdout
    assert guest.run("setpci -s 00:00.0 0.l", check=True).stdout.strip() == "29c08086"


def test_files_go_in_and_come_back_unchanged(guest: BlockingGuest) -> None:
    data = random.Random(1).randbytes(100_001)
    guest.put("/root/a folder/data", data, mode=0o600)
    assert guest.get("/root/a folder/data") == data
    assert guest.run("stat -c %a '/root/a folder/data'").stdout == "600\n"


def test_a_timed_out_command_is_killed_and_the_guest_goes_on(guest: BlockingGuest) -> None:
    with pytest.raises(CommandTimeout) as caught:
        guest.run("echo begun; sleep 1000", timeout=2)
    assert caught.value.output == b"begun\n"
    assert "sleep" not in guest.run("ps").stdout.replace("khungtaskd", "")


def test_kernel_messages_do_not_disturb_the_channel(guest: BlockingGuest) -> None:
    script = 'for n in $(seq 1 300); do echo "<0>noise $n" >/dev/kmsg; echo $n; done'
    assert guest.run(script).stdout.split() == [str(number) for number in range(1, 301)]
    guest.wait_for_console("noise 300")
    assert "noise 1\n" in guest.dmesg()


def test_the_guest_comes_back_from_a_reboot(guest: BlockingGuest) -> None:
    boot_id = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    guest.reboot()
    assert guest.run("cat /proc/sys/kernel/random/boot_id").stdout != boot_id
    assert guest.run("cat /root/greeting").stdout == "hello"


def test_a_panic_is_explained_and_a_reset_brings_the_guest_back(guest: BlockingGuest) -> None:
    with pytest.raises(GuestPanic, match=r"Kernel panic - not syncing: sysrq(.|\n)*sysrq_handle_crash"):
        guest.run("echo c >/proc/sysrq-trigger; sleep 1000")
    guest.reset()
    assert guest.run("true").returncode == 0


def test_powering_off_is_not_taken_for_a_crash() -> None:
    with BlockingGuest(GuestSpec()) as guest, pytest.raises(QemuFailed, match="the guest powered off"):
        guest.run("poweroff -f")


def test_ones_own_kernel_boots_with_its_modules(tmp_path: Path) -> None:
    fetched = Kernel.packaged(locate())
    assert fetched.modules is not None
    image = tmp_path / "bzImage"
    image.symlink_to(fetched.image)
    own = Kernel.custom(image, fetched.modules, locate())
    spec = GuestSpec(kernel=own, modules=("uio",), load=("uio",), machine=Machine(cpus=2), direct_boot=False)
    with BlockingGuest(spec) as guest:
        assert guest.run("uname -r").stdout.strip() == own.release
        assert "uio" in guest.run("cat /proc/modules").stdout
        assert guest.run("nproc").stdout == "2\n"


def test_ovmf_and_a_viommu_work(tmp_path: Path) -> None:
    before = set(os.listdir("/var/tmp"))
    with BlockingGuest(GuestSpec(machine=Machine(ovmf=True, iommu=Iommu()), console_log=tmp_path / "log")) as guest:
        guest.script("test -d /sys/firmware/efi; test -e /sys/class/iommu/dmar0")
        guest.reboot()
        guest.script("test -e /sys/class/iommu/dmar0")
    assert set(os.listdir("/var/tmp")) == before
    assert (tmp_path / "log").read_bytes().count(b"Linux version") == 2
