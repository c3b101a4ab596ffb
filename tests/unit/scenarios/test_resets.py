"""What the scenarios of resets and of quotas make of a driver that gives a reset up, or takes quotas elsewhere."""

from __future__ import annotations

import subprocess
from types import FunctionType
from typing import Any
from unittest.mock import create_autospec

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import DMABUF
from vfio_user_xe.device_models.xe.scenarios.card import Unserved, XeCard
from vfio_user_xe.device_models.xe.scenarios.defects import RESET_GIVEN_UP
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.sriov import SRIOV
from vfio_user_xe.device_models.xe.scenarios.steps import while_served
from vfio_user_xe.device_models.xe.scenarios.vm import VM
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.kernel_reports.lines import parse
from vfio_user_xe.emulator.scenarios.machine import Card, Shell
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Suite
from vfio_user_xe.emulator.scenarios.verdict import KnownDefect

GIVEN_UP = "xe 0000:01:00.0: [drm] GT0: PF: VF1 resource sanitizing failed (-ETIMEDOUT)"


def endless(log: str) -> tuple[Run, XeMachine]:
    """A run in whose machine VF 1's reset does not end."""
    machine = xe_machine()
    machine.card.settle.side_effect = Unserved("VF 1's reset is not finished within 60 s", 1)
    kernel = create_autospec(KernelLog, instance=True)
    kernel.read.return_value = parse(log)
    return Run(kernel), machine


@while_served
def waits(run: Run, machine: XeMachine) -> None:
    """A scenario about something else."""
    machine.card.settle(1)


@pytest.mark.parametrize("log", [GIVEN_UP, GIVEN_UP.replace("-ETIMEDOUT", "-110")])
def test_a_reset_that_the_driver_gave_up_is_known_by_its_message(log: str) -> None:
    run, machine = endless(log)
    with pytest.raises(KnownDefect, match=RESET_GIVEN_UP):
        waits(run, machine)
    assert run.given_up


@pytest.mark.parametrize(
    "log",
    [
        # The one who waits gives up whatever the reset hangs in: that its memory is not clear is said by the one who clears.
        "xe 0000:01:00.0: [drm] GT0: PF: VF1 FLR didn't finish in 5000 ms (-ETIMEDOUT)",
        GIVEN_UP.replace("VF1", "VF2"),
        GIVEN_UP.replace("-ETIMEDOUT", "-EIO"),
        GIVEN_UP.replace("-ETIMEDOUT", "-22"),
        "",
    ],
)
def test_a_reset_that_does_not_end_for_another_reason_is_no_verdict_on_that(log: str) -> None:
    run, machine = endless(log)
    with pytest.raises(Unserved):
        waits(run, machine)


@pytest.mark.parametrize("suite", [DMABUF, SRIOV, VM], ids=["dmabuf", "sriov", "vm"])
def test_every_scenario_of_vfs_knows_a_reset_that_was_given_up(suite: Suite[Any]) -> None:
    assert RESET_GIVEN_UP in suite.defects
    assert not [scenario.name for scenario in suite.scenarios if not is_decorated(scenario.run)]


def is_decorated(body: object) -> bool:
    """Whether `while_served` is one of the decorators of a scenario's body."""
    while isinstance(body, FunctionType):
        if isinstance(waits, FunctionType) and body.__code__ is waits.__code__:
            return True
        body = getattr(body, "__wrapped__", None)
    return False


@pytest.mark.parametrize("place", ["sriov/vf2/tile0/vram_quota", "gt0/vf2/lmem_quota"])
def test_a_quota_is_written_where_this_driver_takes_it(place: str) -> None:
    file = f"/sys/kernel/debug/dri/0000:01:00.0/{place}"
    shell = create_autospec(Shell, instance=True)
    shell.run.return_value = subprocess.CompletedProcess("", 0, f"{file}\n", "")
    XeCard(shell, create_autospec(Card, instance=True)).set_quota(2, 4096)
    assert place in shell.run.call_args_list[0].args[0]
    assert shell.run.call_args_list[-1].args[0] == f"echo 4096 > {file}"


def test_a_driver_without_quotas_is_no_driver_that_refuses_one() -> None:
    shell = create_autospec(Shell, instance=True)
    shell.run.return_value = subprocess.CompletedProcess("", 0, "", "")
    with pytest.raises(LookupError, match="VF 2's quota"):
        XeCard(shell, create_autospec(Card, instance=True)).set_quota(2, 4096)
