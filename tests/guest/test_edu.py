"""The teaching device in a real guest, driven by a small program through VFIO behind an IOMMU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab, open_lab, program
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

pytestmark = pytest.mark.guest

EDU = "0000:01:00.0"
_BIND = f"""
echo vfio-pci > /sys/bus/pci/devices/{EDU}/driver_override
modprobe vfio-iommu-type1
modprobe vfio-pci
echo {EDU} > /sys/bus/pci/drivers_probe
test "$(basename $(readlink /sys/bus/pci/devices/{EDU}/driver))" = vfio-pci
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(
        ["--model", "edu"], modules=["vfio-pci", "vfio-iommu-type1"], files=program("edu"), iommu=True
    ) as lab:
        lab.sh(_BIND)
        yield lab


def test_registers_interrupts_and_dma_work_from_user_space_behind_an_iommu(lab: Lab) -> None:
    with ControlClient(lab.card.control) as control:
        control.call("ledger", clear=True)
        result = lab.guest.run(f"edu {EDU}", timeout=120)
        ledger = control.call("ledger")
    failed = [line for line in result.stdout.splitlines() if line.startswith(("not ok", "Bail"))]
    assert result.returncode == 0, f"{failed}\n{result.stdout}\n{result.stderr}\n{lab.card.log_tail()}"
    assert result.stdout.count("\nok ") == 12
    (entry,) = ledger
    assert (entry["initiator"], entry["owner"], entry["interconnect"]) == ("edu", "guest", "host_dma")
    assert entry["bytes_read"] > 4096 < entry["bytes_written"]


def test_no_window_on_guest_memory_is_left_when_the_program_has_ended(lab: Lab) -> None:
    lab.guest.run(f"edu {EDU}", timeout=120, check=True)
    with ControlClient(lab.card.control) as control:
        assert control.call("windows") == []
        assert not control.call("status")["functions"][0]["bus_master"]
        assert control.call("unmodelled") == []
