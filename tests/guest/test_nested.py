"""Topology nested: a VF that vfio-pci passes on to a guest of the guest, where the stock driver works on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest.lab import Lab, open_lab, program
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.initramfs import Contents, initramfs
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.vmlinux import unpacked

ENVIRONMENT = "VFIO_USER_XE_NESTED"
pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not os.environ.get(ENVIRONMENT),
        reason=f"a guest in a guest takes eight minutes under TCG: set {ENVIRONMENT}=1 for it",
    ),
]

PF, VF = "0000:01:00.0", "0000:01:00.1"
PATIENCE = 1200
"""Seconds that the inner guest may take."""
# The inner guest's PID 1: its console is all that is heard of it.
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
modprobe xe
dmesg | grep 'SR-IOV'
xe-functions jobs 0000:00:02.0
echo "inner guest: jobs ended with $?"
poweroff -f
"""
# Its clock counts instructions: the driver's time-outs are for processors that are not emulated by emulated ones.
_QEMU = """qemu-system-x86_64 -L /inner -nodefaults -no-user-config -display none -no-reboot -icount shift=3 \
 -M q35,memory-backend=ram,sata=off,smbus=off,i8042=off \
 -object memory-backend-memfd,id=ram,size=384M,share=on,hugetlb=on,hugetlbsize=2M -m 384M -accel tcg \
 -cpu max,vendor=GenuineIntel,phys-bits=46 -device vfio-pci,host=0000:01:00.1,addr=2.0 \
 -kernel /inner/kernel -initrd /inner/initramfs -serial file:/tmp/inner.log \
 -append 'console=ttyS0,115200 rdinit=/inner-init mitigations=off cryptomgr.notests no_timer_check loglevel=5'"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    programs = program("xe_functions")
    environment = locate()
    kernel = Kernel.packaged(environment)
    inner = initramfs(environment, kernel, Contents(modules=("xe",), files={"/inner-init": _INIT, **programs}))
    files: dict[str, Path] = {
        **programs,
        "/inner/initramfs": inner,
        "/inner/kernel": unpacked(kernel) or kernel.image,
        "/usr/bin/qemu-system-x86_64": environment.path("usr/bin/qemu-system-x86_64"),
        "/inner/bios-256k.bin": environment.path("usr/share/seabios/bios-256k.bin"),
    }
    for name in ("pvh.bin", "linuxboot_dma.bin", "kvmvapic.bin"):
        files[f"/inner/{name}"] = environment.path(f"usr/share/qemu/{name}")
    # vfio tells the card of each page of the VF's BARs, so they are small; a reset VF's VRAM is cleared in 5 s or never.
    serve = ["--topology", "nested", "--vfs", "1", "--set", "vf_bar2=32MiB"]
    modules = ["xe", "vfio-pci", "vfio-iommu-type1"]
    with open_lab(serve, modules=modules, files=files, memory=2560, cpus=2) as lab:
        yield lab


def test_a_guest_of_the_guest_works_on_a_vf_that_vfio_passes_on(lab: Lab) -> None:
    lab.sh(
        "modprobe xe; modprobe vfio-iommu-type1; modprobe vfio-pci; echo 200 > /proc/sys/vm/nr_hugepages", timeout=120
    )
    lab.sh(
        f"cd /sys/bus/pci/devices/{PF}; echo {256 << 20} > sriov_admin/.bulk_profile/vram_quota;"
        " echo 0 > sriov_drivers_autoprobe; echo 1 > sriov_numvfs;"
        f" echo vfio-pci > virtfn0/driver_override; echo {VF} > /sys/bus/pci/drivers_probe",
        timeout=90,
    )
    lab.sh(
        f"touch /tmp/inner.log /tmp/qemu.log; ({_QEMU} > /tmp/qemu.log 2>&1; echo ended with $? >> /tmp/qemu.log) > /dev/null 2>&1 3>&- &"
    )
    started = time.monotonic()

    def ended() -> bool:
        print(f"{time.monotonic() - started:.0f} s: {lab.sh('tail -n 1 /tmp/inner.log', timeout=120)}", flush=True)
        return "ended with" in lab.sh("cat /tmp/qemu.log", timeout=120)

    eventually(ended, lambda: lab.sh("tail -n 40 /tmp/inner.log", timeout=120), seconds=PATIENCE, interval=5)
    said = lab.sh("tail -n 40 /tmp/inner.log; cat /tmp/qemu.log", timeout=120)
    assert "Running in SR-IOV VF mode" in said, said
    assert "0000:00:02.0 ok: 18 jobs" in said, said
    assert "inner guest: jobs ended with 0" in said, said
    lab.sh(f"xe-functions jobs {PF}", timeout=120)
