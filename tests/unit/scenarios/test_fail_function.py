"""Functions of the driver that the kernel can let fail: which there are, how often they are called, that one call fails."""

from __future__ import annotations

import subprocess
from typing import cast
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.device_models.xe.scenarios.fail_function import FailFunction
from vfio_user_xe.emulator.kernel_reports import KernelLog
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import NotApplicable


class Guest:
    """Answers commands by the first of `answers` that is part of them; keeps what it was told."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.said = answers, list[str]()

    def machine(self) -> Machine:
        machine = create_autospec(Machine, instance=True)
        machine.run.side_effect = self._run
        machine.sh.side_effect = lambda command, timeout=60.0: self._run(command).stdout.strip()
        return cast(Machine, machine)

    def _run(self, command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        self.said.append(command)
        found = next((answer for part, answer in self.answers.items() if part in command), "")
        return subprocess.CompletedProcess(command, 0, found, "")


@pytest.fixture
def run() -> Run:
    return Run(create_autospec(KernelLog, instance=True))


def test_a_kernel_without_functions_that_can_fail_makes_the_scenario_not_applicable(run: Run) -> None:
    with pytest.raises(NotApplicable, match="FAIL_FUNCTION"):
        FailFunction(run, Guest().machine())


def test_calls_are_counted_by_function_also_of_one_whose_name_no_event_may_have(run: Run) -> None:
    guest = Guest(
        injectable="xe_wopcm_init\nxe_part.isra.0\nxe_oa_alloc_regs\n",
        kprobe_profile="  xe_wopcm_init   2   0\n  xe_part_isra_0   1   0\n  xe_oa_alloc_regs   0   0\n  another   7   0\n",
    )
    with FailFunction(run, guest.machine()).counted() as calls:
        assert any("p:vfio_user_xe/xe_part_isra_0=xe_part.isra.0" in command for command in guest.said)
    assert calls == {"xe_wopcm_init": 2, "xe_part.isra.0": 1, "xe_oa_alloc_regs": 0}
    assert "echo > kprobe_events" in guest.said[-1]


def test_without_kprobe_events_each_function_counts_as_called(run: Run) -> None:
    with FailFunction(run, Guest(injectable="xe_wopcm_init\n").machine()).counted() as calls:
        pass
    assert calls == {"xe_wopcm_init": 1}


def test_one_call_fails_and_nothing_does_after_the_block(run: Run) -> None:
    guest = Guest(injectable="xe_wopcm_init\n", **{"cat /sys": "0"})
    faults = FailFunction(run, guest.machine())
    with faults.failing("xe_wopcm_init") as possible:
        assert possible
        assert "echo 0xffffffffffffffca > xe_wopcm_init/retval && echo 1 > times" in guest.said[-1]
        assert faults.has_failed()
    assert "echo 0 > times; echo '!xe_wopcm_init' > inject" in guest.said[-1]
