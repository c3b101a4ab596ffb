"""Scenarios 60 and 61: a device that its driver has given up, or that is gone, is taken away."""

from __future__ import annotations

import os
import signal

from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run

_ANNOUNCED = (
    (Kind.DEVICE_LOST, "wedged"),
    (Kind.GPU_HANG, "TLB invalidation fence timeout"),
    (Kind.GPU_HANG, "Timedout job"),
    (Kind.DRM, "Timed out wait for G2H"),
    (Kind.DRM, "failed to enable GuC opt-in features"),
    (Kind.DRM, "reset failed"),
)
"""What xe says of a GuC that does not answer."""
_GONE = (
    (Kind.GPU_HANG, "coredump"),
    (Kind.DEVICE_LOST, "wedged"),
    (Kind.GPU_HANG, "Timedout job"),
    (Kind.GPU_HANG, "TLB invalidation fence timeout"),
    (Kind.DRM, "*ERROR*"),
)
"""What xe says of a device whose registers read all ones; any error of its is one too many to be named each."""

_GONE_SECONDS = 90
"""What xe may take to give up each of the things that it waits for, one after the other."""


@scenario(
    "60",
    "the GuC stops answering until xe declares the PF wedged; then it answers again, and the PF is removed and found",
    "removal is silent and gives memory back; works again",
)
def wedged_and_removed(run: Run, machine: SriovMachine) -> None:
    for kind, message in _ANNOUNCED:
        run.excuse(kind, "the card stops answering on purpose", message=message, count=50)
    run.give_up("the device was wedged")
    with s.program(run, machine) as user:
        user.step(f"gpu g {machine.card.pf}")
        machine.card.call("inject", fault="guc.lose_g2h", times=0)
        user.step("spawn work engines g 1")
        wedged = machine.wait(lambda: _wedged(machine), 90)
        machine.card.call("heal")
        run.check(wedged, "xe has not declared the device wedged within 90 s")
        user.kill()
        run.check(user.gone(20), "the process with a job on the wedged device does not end")
    s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", 60, "removing the wedged PF")
    run.check(machine.rescan(), "the PF does not come back with xe")
    s.work(run, machine, machine.card.pf)


@scenario(
    "61",
    "the card is gone while VFs are enabled and a job runs (all registers read ones), and the PF is removed",
    "the process ends, removal ends; memory is given back without a warning",
    restore=False,
)
def gone_and_removed(run: Run, machine: SriovMachine) -> None:
    for kind, message in _GONE:
        run.excuse(kind, "the card is gone on purpose", message=message, count=200)
    # The last asks for one (xe_gt_idle_disable_c6), where xe has not declared the device wedged yet.
    for place in ("xe_force_wake_get", "domain_wake_wait", "xe_force_wake_put", "xe_guc_rc_disable"):
        run.excuse(Kind.WARNING, "no domain answers on a card that is gone", place=place, count=50)
    run.give_up("the card is gone")
    vfs = machine.enable(2)
    # Each TLB invalidation is waited for by itself, two seconds and more, with locks held; how long all may take is said below.
    with machine.waits_of(_GONE_SECONDS):
        with s.busy(run, machine, machine.card.pf, vfs[0]) as user:
            # QEMU answers for a server that has ended: all ones. It does not survive a read that is under way, so the server
            # ends by itself, after those.
            os.kill(machine.server, signal.SIGTERM)
            machine.wait(lambda: _wedged(machine), 60)
            run.evidence("xe has declared the device wedged", _wedged(machine))
            user.kill()
            if not user.gone(30):
                _known_loop(run, machine)
                run.check(False, "the process with jobs on the card that is gone does not end")
        s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", _GONE_SECONDS, "removing the PF")


_RESETS = "guc_exec_queue_timedout_job"
"""Asks for a reset of the GT each time that a job has timed out; xe says so with its name."""
_LOOPS = 10
"""Resets that were asked for within a second: a device that is wedged has none left to do."""


def _known_loop(run: Run, machine: SriovMachine) -> None:
    if not _wedged(machine):
        return
    before = _asked_for_resets(machine)
    machine.run("sleep 1")
    after = _asked_for_resets(machine)
    run.evidence("resets that time-outs asked for once the device was wedged", [before, after])
    if after - before >= _LOOPS:
        run.excuse(Kind.HUNG_TASK, "it waits for jobs that never end", place="dma_fence_wait_timeout", count=50)
        run.known(
            defects.WEDGED_LOOP,
            f"the process does not end; time-outs of the wedged device have asked for {after} resets, and go on",
        )


def _asked_for_resets(machine: SriovMachine) -> int:
    """How often, since xe declared the device wedged."""
    counted = machine.run(f"dmesg | sed -n '/declared device .* as wedged/,$p' | grep -c 'reset.* from {_RESETS}'")
    return int(counted.stdout.strip() or 0)


def _wedged(machine: SriovMachine) -> bool:
    return machine.run("dmesg | grep -q 'declared device .* as wedged'").returncode == 0
