"""Scenarios: what a driver is put through in a guest, and a verdict on it that holds for any kernel.

A suite is found by its entry point (group `vfio_user_xe.scenarios`); `docs/dmabuf-scenarios.md` tells how to run and to write them.
"""

from __future__ import annotations

from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup, Suite
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect, NotApplicable

__all__ = [
    "Failed",
    "KnownDefect",
    "NotApplicable",
    "Scenario",
    "Setup",
    "Suite",
]
