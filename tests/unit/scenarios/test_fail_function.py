"""Functions of the driver that the kernel can let fail: which there are, how often they are called, that one call fails."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from typing import cast
from unittest.mock import create_autospec

import pytest

from tests.support.xe.machines import xe_machine
from vfio_user_xe.device_models.xe.scenarios import races
from vfio_user_xe.device_models.xe.scenarios.fail_function import MESSAGE, FailFunction
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.emulator.kernel_reports import KernelLog, Kind, parse, reports
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, NotApplicable


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


def test_a_function_that_cannot_be_counted_counts_as_called_and_a_call_that_was_missed_too(run: Run) -> None:
    guest = Guest(injectable="xe_a\nxe_b\nxe_c\n", kprobe_profile="  xe_a   0   0\n  xe_b   0   3\n")
    with FailFunction(run, guest.machine()).counted() as calls:
        pass
    assert calls == {"xe_a": 0, "xe_b": 3, "xe_c": 1}


@pytest.mark.parametrize(
    ("headline", "is_it"),
    [
        ("[drm] *ERROR* Failed to init GuC (-54)", True),
        ("[drm] *ERROR* probe failed: -54", True),
        ("[drm] *ERROR* GuC init failed with -EXFULL", True),
        ("[drm] *ERROR* GuC init failed with -542", False),
        ("[drm] *ERROR* firmware of 2026-10-54", False),
        ("[drm] *ERROR* GuC init failed with -EXFULLER", False),
        ("[drm] *ERROR* GuC init failed with -5", False),
    ],
)
def test_only_the_injected_error_is_excused_and_not_what_looks_like_it(headline: str, is_it: bool) -> None:
    (report,) = reports(parse(f"xe 0000:01:00.0: {headline}"))
    assert report.kind is Kind.DRM
    assert Excuse(Kind.DRM, "it is provoked", pattern=MESSAGE).covers(report) is is_it


def imports(monkeypatch: pytest.MonkeyPatch, called: bool, said: str) -> None:
    """Scenario 39c where one function is to fail, which the import calls or not, and the import ends so."""
    faults = create_autospec(FailFunction, instance=True, functions=["xe_a"])
    faults.counted.return_value = nullcontext({"xe_a": 1})
    faults.failing.return_value = nullcontext(True)
    faults.has_failed.return_value = called
    program = create_autospec(Program, instance=True)
    program.step.return_value = Step(True, "try join last 3000", "0")
    ended = iter(["", said])
    monkeypatch.setattr(races, "FailFunction", create_autospec(FailFunction, return_value=faults))
    monkeypatch.setattr(races, "opened", lambda run, machine: nullcontext(program))
    monkeypatch.setattr(races, "_imports_once", lambda made: next(ended))
    monkeypatch.setattr(races, "_nothing_is_attached", lambda run, machine: None)
    races.functions_of_an_import_fail(Run(create_autospec(KernelLog, instance=True)), xe_machine())


def test_an_import_that_fails_by_the_injected_error_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    imports(monkeypatch, called=True, said="try import g d j: EXFULL")
    with pytest.raises(Failed, match=r"it ended with .*EINVAL"):
        imports(monkeypatch, called=True, said="try import g d j: EINVAL")


def test_an_import_that_fails_although_nothing_was_made_to_fail_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="try import g d j: EINVAL, and xe_a, which was to fail, has not been called"):
        imports(monkeypatch, called=False, said="try import g d j: EINVAL")


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
