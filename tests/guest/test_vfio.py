"""The card's functions used through VFIO behind an IOMMU, as a virtual machine monitor in the guest would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab, open_lab, program
from tests.support.guest.stub import STUB
from tests.support.guest.xe import PF
from tests.support.wait import eventually
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

pytestmark = pytest.mark.guest

VF2 = "0000:01:00.2"
_SCRATCH = 0x190244
_IOVA = 0x1000000
# What the program fills its memory with: byte i is i ^ i >> 12.
_PATTERN = bytes((i ^ i >> 12) & 0xFF for i in range(3 * 4096))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    modules = ["pci-pf-stub", "vfio-pci", "vfio-iommu-type1"]
    with open_lab(["--vfs", "2"], modules=modules, files=program("vfio_function"), iommu=True) as lab:
        lab.sh("modprobe vfio-iommu-type1; modprobe vfio-pci")
        yield lab


def use(lab: Lab, bdf: str, function: str) -> str:
    """Run the program on a function and play the device's part; the program's report."""
    lab.guest.run(
        f"(vfio-function {bdf} {_SCRATCH:#x} > /tmp/report 2>&1; echo exit $? >> /tmp/report) >/dev/null 2>&1 3>&- &"
    )

    def report() -> str:
        return lab.sh("cat /tmp/report")

    eventually(lambda: "ready" in report() or "exit" in report(), report, seconds=30, interval=0.1)
    assert "exit" not in report(), report()
    with ControlClient(lab.card.control) as control:
        # Over a page boundary, so that two of the IOMMU's mappings are needed.
        read = control.call("read", function=function, space="system", address=_IOVA + 0xF00, length=0x1200)
        assert bytes.fromhex(read) == _PATTERN[0xF00:0x2100]
        control.call("write", function=function, space="system", address=_IOVA + 0x3000, data="00" * 16)
        assert control.call("interrupt", function=function)
    eventually(lambda: "exit" in report(), report, seconds=30, interval=0.1)
    return report()


def test_a_vf_works_through_vfio_behind_the_iommu(lab: Lab) -> None:
    lab.sh(STUB)
    lab.sh(
        f"echo 0 > /sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe; echo 2 > /sys/bus/pci/devices/{PF}/sriov_numvfs"
    )
    lab.sh(f"echo vfio-pci > /sys/bus/pci/devices/{VF2}/driver_override; echo {VF2} > /sys/bus/pci/drivers_probe")
    report = use(lab, VF2, "vf2")
    assert "exit 0" in report, report
    with ControlClient(lab.card.control) as control:
        assert control.call("windows") == [], "windows on the program's memory are left"
    lab.sh(f"echo 0 > /sys/bus/pci/devices/{PF}/sriov_numvfs; echo {PF} > /sys/bus/pci/drivers/pci-pf-stub/unbind")


def test_the_pf_works_through_vfio_behind_the_iommu(lab: Lab) -> None:
    lab.sh(f"echo vfio-pci > /sys/bus/pci/devices/{PF}/driver_override; echo {PF} > /sys/bus/pci/drivers_probe")
    report = use(lab, PF, "pf")
    assert "exit 0" in report, report
