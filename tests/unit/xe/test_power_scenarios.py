"""How a suspend ended: a guest that is reset while it wakes up is told from one that does not wake up."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.sriov import power
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.machine import VirtualMachine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed

RESUMED = "[   57.065593] PM: suspend exit\n"


def suspended(events: list[dict[str, Any]], console: str) -> Run:
    """A suspend in whose wake-up these events come and the kernel writes this."""
    said: list[str] = []
    vm = create_autospec(VirtualMachine, instance=True, qmp_events=[{"event": "RESET"}])
    vm.console_tail.side_effect = lambda lines: "".join(said)

    def qmp(command: str) -> dict[str, Any]:
        if command == "system_wakeup":
            vm.qmp_events.extend(events)
            said.append(console)
        return {"status": "suspended"}

    vm.qmp.side_effect = qmp
    machine = create_autospec(SriovMachine, instance=True, vm=vm)
    machine.sh.return_value = "freeze mem"
    machine.wait.side_effect = lambda condition, seconds: condition()
    run = Run(create_autospec(KernelLog, instance=True))
    power._suspended_to_ram(run, machine)
    return run


def test_a_guest_that_resumes_passes_whatever_was_reset_before() -> None:
    assert not suspended([{"event": "WAKEUP"}], RESUMED).given_up


@pytest.mark.parametrize(
    ("events", "said"),
    [([{"event": "RESET"}], "is reset while it wakes up"), ([], "has not resumed 60 s after")],
    ids=["reset", "silent"],
)
def test_a_guest_that_does_not_resume_fails_with_what_became_of_it(events: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(Failed, match=said):
        suspended(events, "")
