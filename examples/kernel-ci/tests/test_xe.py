"""What a patched kernel must still do with an Arc Battlemage card: probe, and give its VFs to their driver."""

from __future__ import annotations

import re

import pytest

from vfio_user_xe.emulator.testing.lab import Lab
from vfio_user_xe.emulator.testing.pytest_plugin import LedgerView

pytestmark = [
    pytest.mark.vfio_user_card("--vfs", "2", "--set", "vram=2GiB"),
    pytest.mark.vfio_user_guest(modules=["xe"], memory=1536),
]

PF = "/sys/bus/pci/devices/0000:01:00.0"
TROUBLE = re.compile(r"WARNING: |BUG: |Oops|Call Trace:|\*ERROR\*.*(failed|timed out)|GuC.*(not|failed)", re.IGNORECASE)


@pytest.fixture
def xe(lab: Lab) -> Lab:
    """The lab, with xe on the PF."""
    lab.sh("modprobe xe", timeout=120)
    return lab


def test_the_driver_binds_and_makes_its_nodes(xe: Lab) -> None:
    assert xe.sh(f"basename $(readlink {PF}/driver)") == "xe"
    assert xe.sh("ls /dev/dri").split() == ["card0", "renderD128"]


def test_vfs_come_with_a_driver_and_go(xe: Lab, ledger: LedgerView) -> None:
    xe.sh(f"echo 2 > {PF}/sriov_numvfs", timeout=120)
    assert xe.sh(f"ls -d {PF}/virtfn* | wc -l") == "2"
    assert xe.sh(f"basename $(readlink {PF}/virtfn0/driver)") == "xe"
    assert ledger.sum("writes", initiator="vf1", owner="vf1") > 0, "VF 1 never used its VRAM"
    assert ledger.rows(initiator="vf1", owner="vf2") == []
    xe.sh(f"echo 0 > {PF}/sriov_numvfs", timeout=120)
    assert xe.sh(f"ls -d {PF}/virtfn* 2>/dev/null | wc -l") == "0"


def test_the_kernel_has_nothing_to_complain_of(xe: Lab) -> None:
    assert [line for line in xe.guest.dmesg().splitlines() if TROUBLE.search(line)] == []
