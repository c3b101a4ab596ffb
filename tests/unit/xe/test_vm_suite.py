"""The suite of virtual machines: its setups fit together, and its page has all of it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import cast
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.device_models.xe.scenarios.guest_program import Step, StepFailed
from vfio_user_xe.device_models.xe.scenarios.vm import VM, gt_reset
from vfio_user_xe.device_models.xe.scenarios.vm import steps as vm_steps
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA, ONE, TWO
from vfio_user_xe.device_models.xe.scenarios.vm.steps import known_defect
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.ports import PortRole
from vfio_user_xe.emulator.kernel_reports import KernelLog, parse, reports
from vfio_user_xe.emulator.scenarios.machine import Neighbour
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Setup
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

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
    assert known(ranges, zero_copy, {1: blocks}) == defect


def test_a_frame_that_is_not_there_is_no_known_defect() -> None:
    for ranges in (ODD, EVEN):
        assert known(ranges, True, {1: 2}, "ERANGE") == ""


def test_a_frame_is_not_wrong_for_another_machine_s_memory() -> None:
    assert known(EVEN, True, {1: 1, 2: 2}) == ""


def known(ranges: str, zero_copy: bool, blocks: dict[int, int], errno: str = "EILSEQ") -> str:
    """The defect that a frame of VF 1 has whose comparison ends so, where VFs have so many blocks of VRAM; "" is none."""
    run, host = create_autospec(Run, instance=True), create_autospec(Host, instance=True)
    run.known.side_effect = KnownDefect("a defect", "what was seen")
    host.zero_copy, host.card = zero_copy, create_autospec(XeCard, instance=True)
    host.vms = [machine(number) for number in blocks]
    host.card.lmtt.side_effect = lambda number: [{}] * blocks[number]
    try:
        known_defect(run, host, host.vms[0], ranges, StepFailed(Step(False, "verify target 0 0 0x1000 1", errno)))
    except KnownDefect:
        return str(run.known.call_args.args[0])
    return ""


def machine(number: int = 1, log: str = "") -> VirtualMachine:
    """A machine with this VF, whose kernel has logged this."""
    made = create_autospec(VirtualMachine, instance=True, vfid=number)
    made.name = f"vm{number}"
    made.reports.return_value = reports(parse(log))
    return cast(VirtualMachine, made)


HANG = "xe 0000:00:04.0: [drm] *ERROR* Tile0: GT0: Timedout job: seqno=1, lrc_seqno=1, guc_id=2, flags=0x0"
WARNING = "WARNING: CPU: 0 PID: 1 at drivers/gpu/drm/xe/xe_guc_ct.c:10 a_function+0x1/0x2 [xe]"


@pytest.mark.parametrize(("log", "good"), [("", True), (HANG, True), (WARNING, False), (f"{HANG}\n{WARNING}", False)])
def test_a_machine_s_kernel_is_judged_after_a_reset_of_the_host_s_gpu(
    log: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job's time-out alone is what the reset causes."""
    steps = create_autospec(vm_steps)
    steps.check_machine.side_effect = vm_steps.check_machine
    steps.renderer.return_value.__enter__.return_value.attempt.return_value = "EIO"
    monkeypatch.setattr(gt_reset, "s", steps)
    host = create_autospec(Host, instance=True, vms=[machine(log=log)])
    host.card = create_autospec(XeCard, instance=True, debugfs="/sys/kernel/debug/dri/1")
    run = Run(create_autospec(KernelLog, instance=True))
    with nullcontext() if good else pytest.raises(Failed, match=r"vm1's kernel reports: .*a_function"):
        gt_reset.pf_reset_in_a_frame(run, host)


@pytest.mark.parametrize(("cmdline", "left"), [("ro kmemleak=off", []), ("ro", ["kmemleak"])])
def test_a_machine_that_was_reset_says_again_what_its_command_line_asks_for(cmdline: str, left: list[str]) -> None:
    log = "[    1.000000] kmemleak: Kernel memory leak detector disabled\n"
    guest = create_autospec(BlockingGuest, instance=True)
    guest.run.side_effect = lambda command, **_: Result(0, (cmdline if "cmdline" in command else log).encode(), "", 0.0)
    machine = VirtualMachine("vm1", 1, create_autospec(Neighbour, instance=True, guest=guest, devices=[{}]))
    assert [report.headline.partition(":")[0] for report in machine.reports()] == left
