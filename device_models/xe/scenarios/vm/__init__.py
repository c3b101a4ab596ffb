"""The suite `vm`: virtual machines render on VFs, and the host composes their frames on the PF."""

from __future__ import annotations

from pathlib import Path

from vfio_user_xe.device_models.xe.frames import programs
from vfio_user_xe.device_models.xe.scenarios.defects import DEFECTS, REPORTS
from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.device_models.xe.scenarios.lateness import LOST, lately
from vfio_user_xe.device_models.xe.scenarios.machine import account
from vfio_user_xe.device_models.xe.scenarios.times import recorded
from vfio_user_xe.device_models.xe.scenarios.vm import desktop, frames, gt_reset, mesa, power, resets, vmm
from vfio_user_xe.device_models.xe.scenarios.vm.steps import SCENARIOS
from vfio_user_xe.emulator.guest.environment import Environment
from vfio_user_xe.emulator.scenarios.scenario import Suite

__all__ = ["VM", "desktop", "frames", "gt_reset", "mesa", "power", "resets"]


def _files(environment: Environment) -> dict[str, Path]:
    return {**vmm.with_clients(environment), **programs.compiled(environment)}


VM = Suite(
    "vm",
    tuple(sorted(SCENARIOS, key=lambda scenario: scenario.order)),
    DEFECTS,
    _files,
    account,
    REPORTS,
    late=lately,
    fatal=rf"device wedged|{LOST}",
    records=(*RECORDS, "passthrough"),
    exhibits=exhibits,
    times=recorded("vm"),
)
