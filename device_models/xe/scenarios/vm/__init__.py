"""The suite `vm`: virtual machines render on VFs, and the host composes their frames on the PF."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.defects import DEFECTS, REPORTS
from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.device_models.xe.scenarios.machine import account
from vfio_user_xe.device_models.xe.scenarios.vm import frames, resets, vmm
from vfio_user_xe.device_models.xe.scenarios.vm.steps import SCENARIOS
from vfio_user_xe.emulator.scenarios.scenario import Suite

__all__ = ["VM", "frames", "resets"]


VM = Suite(
    "vm",
    tuple(sorted(SCENARIOS, key=lambda scenario: scenario.order)),
    DEFECTS,
    vmm.with_clients,
    account,
    REPORTS,
    fatal=r"device wedged|kernel panic",
    records=(*RECORDS, "passthrough"),
    exhibits=exhibits,
)
