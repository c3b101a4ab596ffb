"""Scenarios 60 and 61: a device that its driver has given up, or that is gone, is taken away."""

from __future__ import annotations

import os
import signal

from vfio_user_xe.device_models.xe.scenarios.guest_program import NAME
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
        wedged = machine.wait(Wedging(machine).seen, 90)
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
            wedging = Wedging(machine)
            machine.wait(wedging.seen, 60)
            run.evidence("xe has declared the device wedged", wedging.seen())
            user.kill()
            if not user.gone(30):
                _known_loop(run, machine, wedging)
                run.check(False, "the process with jobs on the card that is gone does not end")
        s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", _GONE_SECONDS, "removing the PF")


_RESETS = "guc_exec_queue_timedout_job"
"""Asks for a reset of the GT each time that a job has timed out; xe says so with its name."""
_LOOPS = 10
"""Resets that were asked for within a second: a device that is wedged has none left to do."""


_THREADS = 8
"""The process' tasks and those that jobs have of their own, with some to spare; each is reported once in the time that is waited."""


class Wedging:
    """Whether xe has declared the device wedged. Once seen that stays: a kernel that loops overwrites what it said in its log."""

    def __init__(self, machine: SriovMachine) -> None:
        self._machine = machine
        self._seen = False

    def seen(self) -> bool:
        """Whether it has, now or at an earlier look."""
        looked = "dmesg | grep -q 'declared device .* as wedged'"
        self._seen = self._seen or self._machine.run(looked).returncode == 0
        return self._seen


def _known_loop(run: Run, machine: SriovMachine, wedging: Wedging) -> None:
    if not wedging.seen():
        return
    resets = _asked_for_resets(machine)
    run.evidence("resets that time-outs of the wedged device asked for within a second", resets)
    if resets >= _LOOPS:
        run.excuse(
            Kind.HUNG_TASK,
            "it waits for jobs that never end",
            place="dma_fence_wait_timeout",
            message=f"INFO: task {NAME}:",
            count=_THREADS,
        )
        run.known(
            defects.WEDGED_LOOP,
            f"the process does not end; time-outs of the wedged device ask for {resets} resets a second, and go on",
        )


def _asked_for_resets(machine: SriovMachine) -> int:
    """How often, within a second from now on; where the log's last line of now is overwritten by then, all of it came since."""
    counted = machine.run(
        "last=$(dmesg | tail -n 1); export last; sleep 1; dmesg | awk"
        f""" '$0 == ENVIRON["last"] {{ n = 0; next }} /reset.* from {_RESETS}/ {{ n++ }} END {{ print n + 0 }}'"""
    )
    return int(counted.stdout.strip() or 0)
