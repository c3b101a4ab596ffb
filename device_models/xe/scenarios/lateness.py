"""Reports of xe's that a busy host explains: they say that a limit of time has passed, and nothing of who was late.

A guest without KVM on a host with other guests loses its processors for seconds, and so does the server that is the card. xe waits a
quarter of a second for the GuC's answer to an invalidation (`xe_guc_tlb_inval.c:tlb_inval_timeout_delay`) and then says *ERROR*. What
a machine does in a piece of work of its own, measured when the report is judged, tells such a host from one that is idle.

A busy host makes answers late, and loses none. So a report is excused only if its answer did come: a later report says so, or the card.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from vfio_user_xe.device_models.xe.scenarios.card import XeCard
from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind
from vfio_user_xe.emulator.scenarios.excuses import Excuse
from vfio_user_xe.emulator.scenarios.machine import Machine

Numbers: TypeAlias = Mapping[str, Sequence[int]]
"""Of invalidations: `answered` and `open`, as the card tells them of a function and a GT."""

LATE = "TLB invalidation fence timeout"
"""What xe says when the GuC has not answered in time."""
LOST = r"GT\d+: resume failed"
"""What xe says of a device that is of no use any more. It waits a tenth of a second for its firmware to be copied when it wakes a GT up
(`xe_uc_fw.c:uc_fw_xfer`), and does not try again: what comes later meets a device without firmware."""
MOST = 4
"""Late answers that one scenario or set-up is allowed. Where all are late, something else than the host may be the cause."""
_NAMED = re.compile(r"(\w{4}:\w{2}:\w{2}\.\w): .*?(?:GT(\d+): )?" + LATE + r", seqno=(\d+) recv=(\d+)")
_SEQNOS = 1 << 20
"""`xe_tlb_inval_types.h:TLB_INVALIDATION_SEQNO_MAX`: numbers begin again at 1 behind it."""
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


class Invalidation(NamedTuple):
    """One whose answer was not there in time, as xe names it."""

    device: str
    gt: str
    """Its number; empty: the kernel does not say which."""
    seqno: int
    recv: int
    """The last that was answered by then."""

    @classmethod
    def of(cls, report: KernelReport) -> Invalidation | None:
        """The one that a report is about; None: it is about something else."""
        found = _NAMED.search(report.headline) if report.kind is Kind.GPU_HANG else None
        return None if found is None else cls(found[1], found[2] or "", int(found[3]), int(found[4]))

    def reached_by(self, later: Invalidation) -> bool:
        """Whether the answer had come when `later` was reported (`xe_tlb_inval.c:xe_tlb_inval_seqno_past`).

        GTs count by themselves: where the kernel does not say which it is, another's answers say nothing.
        """
        same = bool(self.gt) and (self.device, self.gt) == (later.device, later.gt)
        return same and (later.recv - self.seqno) % _SEQNOS < _SEQNOS // 2

    def answered(self, told: Mapping[tuple[str, str], Numbers]) -> bool:
        """Whether the card says that it has sent the answer; `told` by device and GT."""
        numbers = [
            one for (device, gt), one in told.items() if device == self.device and (not self.gt or gt == self.gt)
        ]
        still_open = any(self.seqno in one["open"] for one in numbers)
        return not still_open and any(self.seqno in one["answered"] for one in numbers)


def lately(machine: Machine, reports: Sequence[KernelReport]) -> list[Excuse]:
    """Excuses for those of `reports` that say only that an answer was late, and that came, on a machine that is busy: one each.

    Raises:
        GuestError: the guest does not answer.
        CommandError: the card refuses to tell.
        OSError: the card does not answer.
    """
    late = [(report, about) for report in reports if (about := Invalidation.of(report)) is not None]
    if not late:
        return []
    told = dict(_told([machine.card, *machine.others]))
    came = [
        report
        for at, (report, about) in enumerate(late)
        if about.answered(told) or any(about.reached_by(later) for _, later in late[at + 1 :])
    ]
    slowest = _slowest(machine) if came else 0.0
    if slowest < _BUSY:
        return []
    reason = f"the host is busy (what takes 0.1 s on an idle one took {slowest:.1f} s): its answer was late, and came"
    return [Excuse(Kind.GPU_HANG, reason, message=report.headline) for report in came[:MOST]]


def _slowest(machine: Machine) -> float:
    """Seconds of the first turn that is slow, or of the slowest."""
    slowest = 0.0
    for _ in range(_TURNS):
        slowest = max(slowest, turn(machine))
        if slowest >= _BUSY:
            break
    return slowest


def _told(cards: Iterable[object]) -> Iterator[tuple[tuple[str, str], Numbers]]:
    """What cards tell of invalidations, by a function's address in the guest and its GT."""
    for card in cards:
        if not isinstance(card, XeCard):
            continue  # where its functions are in the guest is not known
        for gt in card.call("guc"):
            for client in gt["clients"]:
                name = client["function"]
                address = card.pf if name == "pf" else card.vf(int(name.removeprefix("vf")))
                yield (address, str(gt["gt"])), client["tlb_invalidations"]
