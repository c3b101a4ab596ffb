"""Every packaged card with the stock driver: the PF and the VFs probe, and all of them work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.guest.lab import Lab, open_lab, program
from vfio_user_xe.emulator.model.card import CardConfig

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

CARDS = {path.stem: path for path in (Path(__file__).parents[2] / "device_models/xe/cards").glob("*.toml")}
GUESTS = (("small", "b50", "b580", "b60", "b65", "b70"), ("full", "messages", "no-sriov"), ("many-vfs",))
"""Which cards share a guest. Large BARs together, so that one machine with room for them is enough."""


class Slot(NamedTuple):
    """Where the guest has a card: each is behind a root port of its own."""

    name: str
    lab: Lab
    bus: int

    @property
    def vfs(self) -> int:
        total: int = CardConfig.load(CARDS[self.name]).options["vfs"]
        return total

    def address(self, vfid: int) -> str:
        """PCI address of VF `vfid`, the PF's for 0: offset and stride are 1."""
        return f"0000:{self.bus:02x}:{vfid >> 3:02x}.{vfid & 7}"


@pytest.fixture(scope="module", params=GUESTS, ids="+".join)
def lab(request: pytest.FixtureRequest) -> Iterator[tuple[tuple[str, ...], Lab]]:
    names = request.param
    first, *others = (("--card", str(CARDS[name])) for name in names)
    with open_lab(first, others=others, modules=["xe"], files=program("xe_functions"), memory=3072) as lab:
        lab.sh("modprobe xe", timeout=300)
        yield names, lab


def test_every_packaged_card_is_tried() -> None:
    assert sorted(name for names in GUESTS for name in names) == sorted(CARDS)


def test_vfs_of_packaged_cards_come_probe_and_run_jobs(lab: tuple[tuple[str, ...], Lab]) -> None:
    names, machine = lab
    for bus, name in enumerate(names, 1):
        slot = Slot(name, machine, bus)
        device = f"/sys/bus/pci/devices/{slot.address(0)}"
        working = [0, *sorted({1, slot.vfs})] if slot.vfs else [0]
        if slot.vfs:
            # All VFs get their share; the driver probes those that are to work.
            probing = f"{device}/sriov_drivers_autoprobe"
            machine.sh(f"echo 0 > {probing}; echo {slot.vfs} > {device}/sriov_numvfs; echo 1 > {probing}", timeout=120)
            assert int(machine.sh(f"ls -d {device}/virtfn* | wc -l")) == slot.vfs, name
            for vfid in working[1:]:
                machine.sh(f"echo {slot.address(vfid)} > /sys/bus/pci/drivers/xe/bind", timeout=120)
        done = machine.guest.run(f"xe-functions jobs {' '.join(map(slot.address, working))}", timeout=200)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}\n{machine.sh('dmesg | tail -40')}"
        assert done.stdout.count(" ok: ") == len(working), f"{name}: {done.stdout}"
        assert "*ERROR*" not in machine.sh("dmesg"), machine.sh("dmesg | tail -40")
        if slot.vfs:
            machine.sh(f"echo 0 > {device}/sriov_numvfs", timeout=120)
