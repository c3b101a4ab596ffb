"""Scenarios for Battlemage's drivers, and the program that plays exporter and importer in a guest."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import (
    address_spaces,
    controls,
    elsewhere,
    files,
    large,
    mappings,
    paths,
    provisioning,
    races,
    resets,
    revocation,
)
from vfio_user_xe.device_models.xe.scenarios.defects import DEFECTS, REPORTS
from vfio_user_xe.device_models.xe.scenarios.exhibits import RECORDS, exhibits
from vfio_user_xe.device_models.xe.scenarios.findings import FINDINGS
from vfio_user_xe.device_models.xe.scenarios.lateness import LOST, lately
from vfio_user_xe.device_models.xe.scenarios.lifetimes.player import LifetimesPlayer
from vfio_user_xe.device_models.xe.scenarios.lifetimes.world import Lifetimes
from vfio_user_xe.device_models.xe.scenarios.machine import account
from vfio_user_xe.device_models.xe.scenarios.setups import USUAL
from vfio_user_xe.device_models.xe.scenarios.steps import SCENARIOS
from vfio_user_xe.device_models.xe.scenarios.times import recorded
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import with_clients
from vfio_user_xe.emulator.scenarios.scenario import Exploration, Suite

__all__ = [
    "DMABUF",
    "address_spaces",
    "controls",
    "elsewhere",
    "files",
    "large",
    "mappings",
    "paths",
    "provisioning",
    "races",
    "resets",
    "revocation",
]

DMABUF = Suite(
    "dmabuf",
    tuple(sorted(SCENARIOS, key=lambda scenario: scenario.order)),
    DEFECTS,
    with_clients,
    account,
    REPORTS,
    late=lately,
    fatal=rf"device wedged|{LOST}",
    records=RECORDS,
    exhibits=exhibits,
    findings=FINDINGS,
    exploration=Exploration(USUAL, Lifetimes, LifetimesPlayer),
    times=recorded("dmabuf"),
)
"""VRAM of VFs as dma-bufs in the hands of the PF's driver."""
