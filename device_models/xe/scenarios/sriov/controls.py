"""Controls: a fault is made for each kind of check of the suite, and the check must turn red. They pass when it does."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios.guest_program import StepFailed
from vfio_user_xe.device_models.xe.scenarios.patience import TURNS
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

MIB = 1 << 20


def _turns_red(run: Run, because: str, body: Callable[[], object]) -> None:
    try:
        body()
    except (Failed, StepFailed) as failed:
        run.check(because in str(failed), f"it failed for another reason: {failed}")
        run.note(f"red, as it should be: {failed}", good=True)
    except KnownDefect as known:
        run.check(False, f"it was taken for the known defect {known}")
    else:
        run.check(False, f"it passed, with the fault made ({because})")


@scenario("c1", "control: a VF that is paused does no work", "turns red", control=True)
def control_vf_without_work(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    file = f"{machine.card.debugfs}/sriov/vf1/pause"
    if machine.run(f"test -e {file} && echo 1 > {file}").returncode:
        run.not_applicable(f"there is no {file}")
    with s.program(run, machine) as made:
        made.do(f"gpu g {vfs[1]}", "engines g 1")
        run.check(not machine.card.served(1, 1), "the GuC runs a VF that is paused")
    machine.sh(f"echo 1 > {machine.card.debugfs}/sriov/vf1/resume")
    s.work(run, machine, *vfs)


@scenario("c2", "control: a command that does not end", "turns red, and is not taken for a defect", control=True)
def control_command_that_stays(run: Run, machine: SriovMachine) -> None:
    # A signal would wake it, so it is no task that stands still: only the patience with such an end is tried.
    _turns_red(run, "does not end within 2 s", lambda: s.must_end(run, machine, "sleep 300", 2, "sleeping", TURNS))
    run.given_up = ""


@scenario("c3", "control: VRAM of a VF that does not come back", "turns red", control=True)
def control_lost_vram(run: Run, machine: SriovMachine) -> None:
    before = machine.card.vram_used()
    machine.sh(f"echo {64 * MIB} > {machine.card.quota_file(1)}")
    try:
        run.check(machine.card.vram_used() > before, "a share of VRAM is not accounted for")
    finally:
        machine.sh(f"echo 0 > {machine.card.quota_file(1)}")


@scenario("c4", "control: a job whose result is not what it should be", "turns red", control=True)
def control_wrong_result(run: Run, machine: SriovMachine) -> None:
    with s.program(run, machine) as made:
        made.do(f"gpu g {machine.card.pf}", "buffer g a 0x90000000 0x10000", "buffer g b 0x91000000 0x10000")
        made.do("paint a 0 0 0x10000 1", "copy g 0x91000000 0x90000000 0x10000")
        _turns_red(run, "EILSEQ", lambda: made.step("verify b 0 0 0x10000 2"))
        made.step("verify b 0 0 0x10000 1")
