"""What is looked at after each step and at the end: the kernel's log, the ledger, resets, VRAM, dma-bufs, blocked tasks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vfio_user_xe.device_models.xe.scenarios import defects, lateness
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.machine import XeMachine
from vfio_user_xe.device_models.xe.scenarios.patience import Patience
from vfio_user_xe.device_models.xe.scenarios.resets import FLR_WAIT
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import KernelReport, Kind, reports
from vfio_user_xe.emulator.scenarios.evidence import EXCUSED_LATE
from vfio_user_xe.emulator.scenarios.excuses import Excuse, unexcused
from vfio_user_xe.emulator.scenarios.exploration.world import Failure
from vfio_user_xe.emulator.scenarios.run import Run

_PATIENCE = 5.0
"""Seconds within which what is freed by workers must be gone, on a machine that is not busy."""
_LATELY = 200
"""Lines of the kernel's log."""
_SUSPENDED = " suspend"
_NUMBERS = re.compile(r"0x[0-9a-f]+|\b\d+\b")


class Looking:
    """Compares a guest and its card with what they must be."""

    def __init__(self, run: Run, machine: XeMachine, patience: Patience) -> None:
        self._run = run
        self._patience = patience
        self._machine = machine
        self._lines = len(run.kernel_log)
        self._vram = machine.card.vram_used()
        self._objects = self._dma_bufs()
        self._comparable = True
        self.path_left = False
        """Whether an O_PATH descriptor was left of a dma-buf whose file was gone, so that a revocation may touch that file."""
        self._late: list[Excuse] = []
        self._taken: tuple[int, int] = (0, 0)
        """VRAM in use and shares of VFs before they are taken away."""

    def look(self, after: str, *, read: bool = True, ignore: Mapping[Kind, str] | None = None) -> list[Failure]:
        """What the kernel reported and the ledger shows since the last call; without `read` the log is left for the next one.

        Reports of the kinds in `ignore` are excused, each for the reason that is given with its kind.

        Raises:
            GuestError: the guest does not answer.
            LogLost: lines of the log are lost.
        """
        found = [_reported(report, after, self._known()) for report in self._reports(ignore or {})] if read else []
        verdicts = self._machine.card.call("verdicts")
        for kind in ("stale", "foreign"):
            if accesses := verdicts[kind]:
                found.append(self._access(kind, accesses, after))
        if verdicts["stale"] or verdicts["foreign"]:
            self._machine.card.call("ledger", clear=True)
        return found

    def _known(self) -> dict[str, str]:
        """Patterns of the defects that the sequence can have met on this kernel: words alone name none."""
        impossible = set() if self._machine.zero_copy else {"D5", "D11"}
        impossible |= set() if self.path_left else {defects.STALE_FILE}
        return {name: pattern for name, pattern in defects.REPORTS.items() if name not in impossible}

    def _access(self, kind: str, accesses: list[dict[str, Any]], after: str) -> Failure:
        first = accesses[0]
        text = (
            f"{after}: {kind} accesses: {first.get('initiator')} in memory of {first.get('owner')}"
            f" ({first.get('reason', first.get('path', ''))}): {accesses}"
        )
        in_reset = kind == "stale" and all("reset" in access["reason"] for access in accesses)
        defect = ""
        if in_reset and " sysfs-reset " in after:
            defect = defects.RESET_UNNOTICED
        elif in_reset and all((access["after"] or 0) >= FLR_WAIT for access in accesses):
            defect = defects.CLEAR_AFTER_RESET
        elif in_reset and self._machine.zero_copy:
            defect = "D7"
        return Failure(defect or f"{kind} access: {first.get('reason', kind)}", text, defect)

    def _reports(self, ignore: Mapping[Kind, str]) -> list[KernelReport]:
        lines = self._run.read_kernel_log()
        if reports(lines):
            time.sleep(0.5)  # a report may still be being written
            self._run.read_kernel_log()
        new = reports(self._run.kernel_log[self._lines :])
        found, _ = unexcused([report for report in new if report.kind not in ignore], self._run.excuses)
        for report in new:
            if report.kind in ignore:
                self._run.excuse(report.kind, ignore[report.kind], message=report.headline)
        self._lines = len(self._run.kernel_log)
        if late := lateness.lately(self._machine, found)[: lateness.MOST - len(self._late)]:
            found, _ = unexcused(found, late)
            self._late += late
            self._run.excuses += late
            self._run.evidence(EXCUSED_LATE, [str(excuse) for excuse in self._late])
        return found

    def settled(self, vfs: Iterable[str]) -> list[Failure]:
        """Resets of these VFs must end."""
        try:
            s.settle(self._machine, *sorted(int(vf[1:]) for vf in vfs)) if vfs else None
        except TimeoutError as error:
            lost = s.lost_reset(self._run, self._machine)
            if lost:
                return [Failure(defects.RESET_LOST, lost, defects.RESET_LOST)]
            self._run.give_up(str(error))
            if s.reset_overdue(self._run, _LATELY) and self._patience.busy():
                self._run.note("the PF's driver gave a VF's reset up after its limit of time, on a busy host")
                return []
            return [Failure("a reset is not finished", str(error))]
        return []

    def before_taking_away(self) -> None:
        """VFs are about to be disabled: their VRAM must come back."""
        shares = sum(block["size"] for number in (1, 2) for block in self._machine.card.lmtt(number))
        self._taken = (self._machine.card.vram_used(), shares)

    def other_driver(self) -> None:
        """xe was taken from the PF: what it had in use is no measure of what the next one has."""
        self._comparable = False

    def taken_away(self) -> list[Failure]:
        """VFs were disabled: their VRAM and LMTT must be given back."""
        before, shares = self._taken
        if not self._machine.card.share_evenly():
            for number in (1, 2):
                # What was provisioned by hand stays with a VF that is disabled.
                self._machine.card.set_quota(number, 0)
        held = self._until_zero(lambda: max(0, shares - (before - self._machine.card.vram_used())))
        left = {name: blocks for name, blocks in self._machine.card.call("vram_map")["vfs"].items() if blocks}
        found = []
        if held:
            defect = "D1" if self._machine.zero_copy else ""
            found.append(
                Failure(
                    "VRAM of VFs does not come back", f"{held:#x} bytes of VFs' VRAM are held after disabling", defect
                )
            )
            self._run.give_up(f"{held:#x} bytes of VRAM are lost")
        if left:
            found.append(Failure("LMTT of a disabled VF", f"LMTT still gives memory to {', '.join(left)}"))
        return found

    def restore(self) -> None:
        """xe on the PF, two VFs of the usual quota with vfio-pci, as each sequence finds them; a guest that cannot is given up."""
        card = self._machine.card
        try:
            pf, *vfs = self._drivers()
            if pf != "xe":
                self._machine.sh(f"echo {card.pf} > /sys/bus/pci/drivers/xe/bind", timeout=180)
            if "absent" in vfs:
                card.enable_vfs(2)
            for number, driver in enumerate(vfs, 1):
                if driver not in ("vfio-pci", "absent"):
                    card.bind(number, "vfio-pci")
            if any(sum(block["size"] for block in card.lmtt(number)) != self._machine.quota for number in (1, 2)):
                self._machine.restore_quotas(self._run)
        except (GuestError, TimeoutError) as error:
            self._run.give_up(f"the VFs do not come back: {str(error).splitlines()[0]}")

    def _drivers(self) -> list[str]:
        """The drivers of the PF and two VFs: "none", or "absent" of a device that is not there."""
        card = self._machine.card
        script = (
            f"for d in {card.pf} {card.vf(1)} {card.vf(2)}; do f=/sys/bus/pci/devices/$d\n"
            "if [ ! -e $f ]; then echo absent; elif [ ! -e $f/driver ]; then echo none;"
            " else basename $(readlink $f/driver); fi; done"
        )
        return self._machine.sh(script).split()

    def left_over(self) -> list[Failure]:
        """When all processes are gone: no dma-buf, no more VRAM than before, no task that sleeps for ever.

        Raises:
            GuestError: the guest does not answer.
        """
        if self._run.given_up:
            return []
        found = []
        if more := self._until_zero(lambda: max(0, self._dma_bufs() - self._objects)):
            found.append(Failure("dma-bufs are left", f"{more} dma-bufs are left when all processes are gone"))
        if self._comparable and (more := self._until_zero(lambda: max(0, self._machine.card.vram_used() - self._vram))):
            found.append(Failure("VRAM is left in use", f"{more:#x} bytes more of VRAM are in use than before"))
        if stacks := self._patience.standing(lambda: not s.sleeping_tasks(self._machine)):
            found.append(Failure("a task sleeps when all is over", f"{stacks}"))
        return found

    def attached(self) -> list[Failure]:
        """When importers have let go of everything while exporters live: nobody is attached to a dma-buf any more.

        Raises:
            GuestError: the guest does not answer.
        """
        if not (more := self._until_zero(self._attachments)):
            return []
        return [Failure("attachments are left", f"{more} attachments to dma-bufs are left when importers have let go")]

    def _attachments(self) -> int:
        said = self._machine.run("grep 'devices attached' /sys/kernel/debug/dma_buf/bufinfo 2>/dev/null").stdout
        return sum(int(count) for count in re.findall(r"Total (\d+) devices attached", said))

    def _dma_bufs(self) -> int:
        said = self._machine.run("tail -n 3 /sys/kernel/debug/dma_buf/bufinfo 2>/dev/null").stdout
        match = re.search(r"Total (\d+) objects", said)
        return int(match[1]) if match else 0

    def _until_zero(self, count: Callable[[], int]) -> int:
        left = 0

        def gone() -> bool:
            nonlocal left
            left = count()
            return not left

        self._patience.within(_PATIENCE, gone)
        return left


def _reported(report: KernelReport, after: str, known: Mapping[str, str] = defects.REPORTS) -> Failure:
    """`known` are the patterns of reports by defect."""
    defect = next((name for name, pattern in known.items() if re.search(pattern, report.text)), "")
    if report.kind in (Kind.GPU_HANG, Kind.DEVICE_LOST) and after.endswith(_SUSPENDED):
        # Nobody has jobs then but the driver, which moves memory back.
        defect = defect or defects.SUSPEND_RACE
    signature = defect or f"{report.kind} in {report.place or _NUMBERS.sub('N', report.headline)}"
    return Failure(signature, f"the kernel reported: {report}", defect)
