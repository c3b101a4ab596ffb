"""Reports of xe's that a busy host explains: they say that a limit of time has passed, and nothing of who was late.

A guest without KVM on a host with other guests loses its processors for seconds, and so does the server that is the card. xe waits a
quarter of a second for the GuC's answer to an invalidation (`xe_guc_tlb_inval.c:tlb_inval_timeout_delay`) and then says *ERROR*. What
a machine does in a piece of work of its own, measured when the report is judged, tells such a host from one that is idle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.machine import Machine

LATE = "TLB invalidation fence timeout"
"""What xe says when the GuC has not answered in time."""
LOST = r"GT\d+: resume failed"
"""What xe says of a device that is of no use any more. It waits a tenth of a second for its firmware to be copied when it wakes a GT up
(`xe_uc_fw.c:uc_fw_xfer`), and does not try again: what comes later meets a device without firmware."""
_WORK = "i=0; while test $i -lt 2000; do i=$((i + 1)); done"
"""For the guest's shell: some 50 ms on a host that is idle, without KVM."""
_WORK_TIMEOUT = 120.0
_BUSY = 1.0
"""Seconds that a turn takes on a machine that is busy; a tenth of it on one that is not."""
_TURNS = 4
"""Turns of which one must have been slow: a host that is busy is not busy all the time."""


def turn(machine: Machine) -> float:
    """Let the guest do a piece of work, and the card all that it was asked to do before; the seconds that this took.

    Raises:
        GuestError: the guest does not do it.
    """
    began = time.monotonic()
    machine.run(_WORK, timeout=_WORK_TIMEOUT)
    machine.card.call("verdicts")  # this is answered by the thread that does the card's work, in its turn
    return time.monotonic() - began


def busy(machine: Machine) -> bool:
    """Whether the machine is so busy now that a driver's own limits of time say nothing.

    Raises:
        GuestError: the guest does not answer.
    """
    return turn(machine) >= _BUSY


def lately(machine: Machine, reports: Sequence[KernelReport]) -> list[Excuse]:
    """Excuses for those of `reports` that say only that an answer was late, on a machine that is busy.

    Raises:
        GuestError: the guest does not answer.
    """
    late = [report for report in reports if report.kind is Kind.GPU_HANG and LATE in report.headline]
    if not late:
        return []
    slowest = 0.0
    for _ in range(_TURNS):
        slowest = max(slowest, turn(machine))
        if slowest >= _BUSY:
            reason = f"the host is busy (what takes 0.1 s on an idle one took {slowest:.1f} s): its answer was late"
            return [Excuse(Kind.GPU_HANG, reason, message=LATE, count=len(late))]
    return []
