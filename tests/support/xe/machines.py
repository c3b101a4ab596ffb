"""What stands for a scenario's machine with a Battlemage card where no guest runs."""

from __future__ import annotations

from typing import cast
from unittest.mock import create_autospec

from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine

PF = "0000:01:00.0"


def xe_machine() -> XeMachine:
    """A machine whose card has its functions at the usual addresses, a ledger without verdicts, and a shell that says nothing.

    Everything of it is a mock with the spec of what it stands for: a test sets what else is answered.
    """
    card = create_autospec(XeCard, instance=True, pf=PF, sysfs=f"/sys/bus/pci/devices/{PF}")
    card.vf.side_effect = lambda number: f"0000:01:00.{number}"
    card.call.return_value = {"stale": [], "foreign": []}
    machine = create_autospec(XeMachine, instance=True, card=card)
    machine.run.return_value.stdout, machine.run.return_value.returncode = "", 0
    return cast(XeMachine, machine)
