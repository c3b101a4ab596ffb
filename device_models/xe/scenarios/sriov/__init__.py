"""The suite `sriov`: a card's life with VFs, from enabling them to taking the card out, as administrators and machines do it."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.device_models.xe.scenarios.guest_program import compiled
from vfio_user_xe.device_models.xe.scenarios.lateness import LOST, lately
from vfio_user_xe.device_models.xe.scenarios.sriov import (
    controls,
    failing,
    hotplug,
    migration,
    power,
    removal,
    resets,
    sharing,
    svm,
    wedged,
)
from vfio_user_xe.device_models.xe.scenarios.sriov.defects import DEFECTS, ONLY_IN, REPORTS
from vfio_user_xe.device_models.xe.scenarios.sriov.findings import FINDINGS
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import account
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import SCENARIOS
from vfio_user_xe.device_models.xe.scenarios.times import recorded
from vfio_user_xe.emulator.scenarios.scenario import Suite

__all__ = [
    "SRIOV",
    "controls",
    "failing",
    "hotplug",
    "migration",
    "power",
    "removal",
    "resets",
    "sharing",
    "svm",
    "wedged",
]

SRIOV = Suite(
    "sriov",
    tuple(sorted(SCENARIOS, key=lambda scenario: scenario.order)),
    DEFECTS,
    compiled,
    account,
    REPORTS,
    reports_only_in=ONLY_IN,
    late=lately,
    fatal=LOST,
    records=RECORDS,
    exhibits=exhibits,
    findings=FINDINGS,
    times=recorded("sriov"),
)
