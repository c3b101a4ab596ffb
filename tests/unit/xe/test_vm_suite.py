"""The suite of virtual machines: its setups fit together, and its page has all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.vm import VM
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA, ONE, TWO
from vfio_user_xe.emulator.guest.ports import PortRole
from vfio_user_xe.emulator.scenarios.scenario import Setup

PAGE = Path(__file__).parents[3] / "docs" / "virtual-machines.md"


def test_the_page_has_every_scenario() -> None:
    rows = re.findall(r"^\| ([0-9][0-9a-z, ]*) \|", PAGE.read_text(), re.MULTILINE)
    assert {number for row in rows for number in row.split(", ")} == {s.number for s in VM.scenarios}


@pytest.mark.parametrize("setup", [ONE, TWO, MESA], ids=lambda setup: setup.name)
def test_every_machine_has_its_vf_unplugged_and_a_port_at_which_the_host_listens(setup: Setup[Host]) -> None:
    listening = setup.guest["ports"]
    assert set(listening.values()) == {PortRole.LISTENS}
    for number, machine in enumerate(setup.beside, 1):
        assert machine.functions == (f"vf{number}",)
        assert machine.guest["unplugged"]
        assert machine.guest["ports"] == {f"vm{number}": PortRole.CONNECTS}
    assert set(listening) == {f"vm{number}" for number in range(1, len(setup.beside) + 1)}


def test_the_dma_buf_scenarios_share_the_setup_of_this_suite() -> None:
    setups = [scenario.setup for scenario in DMABUF.scenarios if scenario.number in ("34", "35")]
    assert [(setup.name, setup.serve, setup.guest, setup.beside) for setup in setups] == [
        (ONE.name, ONE.serve, ONE.guest, ONE.beside)
    ] * 2
