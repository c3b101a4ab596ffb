"""Controls: a fault is injected for each kind of verdict, and the verdict must turn red. They pass when it does."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios import setups
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import StepFailed
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.paths import basic_import
from vfio_user_xe.device_models.xe.scenarios.revocation import does_not_wait
from vfio_user_xe.device_models.xe.scenarios.steps import (
    SOURCE,
    TARGET,
    check_path,
    import_and_use,
    imported,
    opened,
    scenario,
)
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Setup
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

_FAULTY = Setup(
    "root port, AMD, pass-through, faulty link",
    (
        *setups.SERVE,
        *("--interconnect", "fault:inner=iov,mode=corrupt,initiator=pf,owner=vf1,kind=vram,times=0,armed=false"),
        *("--interconnect", "fault:inner=p2p,mode=corrupt,initiator=pf,owner=vf1,times=0,armed=false"),
        *("--interconnect", "iov", "--interconnect", "p2p", "--interconnect", "host_dma"),
    ),
    setups.guest(),
    XeMachine.of,
)


def _turns_red(run: Run, because: str, body: Callable[[], object]) -> None:
    """`body` must fail, and say why in words that have `because` in them."""
    try:
        body()
    except (Failed, StepFailed) as failed:
        run.check(because in str(failed), f"it failed for another reason: {failed}")
        run.note(f"red, as it should be: {failed}", good=True)
    except KnownDefect as known:
        run.check(False, f"it was taken for the known defect {known}")
    else:
        run.check(False, f"it passed, with the fault injected ({because})")


@scenario("c1", "control: data that arrive wrong", "turns red", _FAULTY, control=True)
def control_wrong_data(run: Run, machine: XeMachine) -> None:
    basic_import(run, machine)
    machine.card.call("inject", fault="interconnect.fault", times=0)
    _turns_red(run, "EILSEQ", lambda: basic_import(run, machine))


@scenario("c2", "control: a link that fails costs the job, not the card", "turns red", _FAULTY, control=True)
def control_broken_link(run: Run, machine: XeMachine) -> None:
    for message in ("CAT error", "Engine reset", "Timedout job", "coredump"):
        run.excuse(Kind.GPU_HANG, "the link fails while a job runs, once", message=message)
    machine.card.call("inject", fault="interconnect.fault", times=1, arguments={"mode": "fail"})
    _turns_red(run, "copy g", lambda: basic_import(run, machine))
    machine.card.call("heal")
    with opened(run, machine) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        run.check(imported(made, f"0+{MIB:#x}").errno == "0", "the card does not work any more")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", f"verify target 0 0 {MIB:#x} 7")


@scenario("c3", "control: another path than the kernel should take", "turns red", control=True)
def control_wrong_path(run: Run, machine: XeMachine) -> None:
    machine.zero_copy = not machine.zero_copy
    try:
        _turns_red(run, "accesses", lambda: basic_import(run, machine))
    finally:
        machine.zero_copy = not machine.zero_copy


@scenario("c4", "control: a process that does not end", "turns red", control=True)
def control_process_that_stays(run: Run, machine: XeMachine) -> None:
    with s.program(run, machine) as made:
        machine.sh(f"kill -STOP {made.pid}")
        _turns_red(run, "the process stays", lambda: run.check(made.gone(1), "the process stays"))
        run.check(not s.blocked_tasks(machine), "tasks are blocked in a healthy guest")


@scenario("c5", "control: a kernel that reports itself", "turns red", control=True)
def control_kernel_report(run: Run, machine: XeMachine) -> None:
    made = {
        Kind.WARNING: "WARNING: CPU: 0 PID: 1 at drivers/gpu/drm/xe/xe_bo.c:1 control",
        Kind.KASAN: "BUG: KASAN: slab-use-after-free in control",
        Kind.HUNG_TASK: "INFO: task control:1 blocked for more than 5 seconds.",
        Kind.REFCOUNT: "refcount_t: underflow; use-after-free. control",
        Kind.LOCKDEP: "WARNING: possible circular locking dependency detected control",
    }
    for kind, text in made.items():
        machine.sh(f"echo '{text}' > /dev/kmsg")
        run.excuse(kind, "made by this control", message=text)
    run.read_kernel_log()
    seen = {report.kind: report.headline for report in run.reports()}
    run.check(seen == made, f"of five reports these were seen: {seen}")


@scenario("c6", "control: accesses during the owner's reset", "turns red", setups.SLOW_CLEAR, control=True)
def control_stale_access(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        reset = f"/sys/bus/pci/devices/{machine.card.vf(1)}/reset"
        made.do(f"spawn work loop copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 100")
        # The card is told of the reset, the importer is not.
        machine.sh(f"echo 1 > {reset}")
        s.settle(machine, 1)
        made.do("stop work", "join work 10000")
        _turns_red(run, "stale accesses", lambda: check_path(run, machine))


_LONG_MS = 12_000
"""Longer than a call is waited for, on a host that is busy when the waiting begins, too."""


@scenario("c7", "control: a call that blocks elsewhere than the known defect does", "turns red", control=True)
def control_blocks_elsewhere(run: Run, machine: XeMachine) -> None:
    _turns_red(run, "blocked elsewhere", lambda: does_not_wait(run, machine, f"sleep {_LONG_MS}"))


@scenario("c8", "control: VRAM that does not come back", "turns red", control=True)
def control_lost_vram(run: Run, machine: XeMachine) -> None:
    before = machine.card.vram_used()
    try:
        machine.card.set_quota(2, machine.quota + 2 * MIB)
        _turns_red(run, "VRAM in use", lambda: s.check_vram(run, machine, before))
    finally:
        machine.restore_quotas(run)
