"""The suite of virtual machines: its setups fit together, and its page has all of it."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step, StepFailed
from vfio_user_xe.device_models.xe.scenarios.vm import VM
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA, ONE, TWO
from vfio_user_xe.device_models.xe.scenarios.vm.steps import known_defect
from vfio_user_xe.emulator.guest.ports import PortRole
from vfio_user_xe.emulator.scenarios.run import KnownDefect, Run
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


ODD, EVEN = "0xfd00000+0x38000,0x0+0x2000", "0xfd00000+0x80000,0x0+0x2000"
"""Pieces of 56 pages, which are no power of two, and of 128."""


@pytest.mark.parametrize(
    ("ranges", "zero_copy", "blocks", "defect"),
    [
        (ODD, True, 1, "D3"),
        (EVEN, True, 2, "D2"),
        ("0x0+0x3000", True, 2, "D2"),
        (EVEN, True, 1, ""),
        ("0x0+0x3000", True, 1, ""),
        (ODD, False, 2, ""),
    ],
)
def test_a_wrong_frame_is_a_known_defect_only_where_its_memory_is_such(
    ranges: str, zero_copy: bool, blocks: int, defect: str
) -> None:
    run, host = create_autospec(Run, instance=True), create_autospec(Host, instance=True)
    run.known.side_effect = KnownDefect("a defect", "what was seen")
    host.zero_copy, host.card = zero_copy, create_autospec(XeCard, instance=True)
    host.vms = [create_autospec(VirtualMachine, instance=True)]
    host.vms[0].vfid = 1
    host.card.lmtt.return_value = [{}] * blocks
    found = ""
    try:
        known_defect(run, host, ranges, StepFailed(Step(False, "verify target 0 0 0x1000 1", "EILSEQ")))
    except KnownDefect:
        found = run.known.call_args.args[0]
    assert found == defect
