"""A guest whose kernel is watched from its boot to its end: every line of its log is judged once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic

from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.kernel_reports import KernelLog, KernelReport, Kind, Line, LogLost, reporters, reports
from vfio_user_xe.emulator.kernel_reports.lines import parse
from vfio_user_xe.emulator.kernel_reports.reporters import Counts, State
from vfio_user_xe.emulator.scenarios.judgement import Findings
from vfio_user_xe.emulator.scenarios.machine import MachineT
from vfio_user_xe.emulator.scenarios.scenario import Setup
from vfio_user_xe.emulator.testing.lab import Lab

_WHOLE_CONSOLE = 1_000_000
"""Lines, more than a console remembers."""

_KMEMLEAK = "test -e /sys/kernel/debug/kmemleak && echo scan=off > /sys/kernel/debug/kmemleak; true"
"""Its own thread would find in one scenario what another has leaked."""


_FOUR_LEVELS = "no5lvl"
"""Page tables of four levels. With five, KASAN finds its shadow by `pgtable_l5_enabled()`, a feature of the boot processor that is zero for
a moment while the kernel identifies it (arch/x86/kernel/cpu/common.c:identify_cpu): an interrupt that comes then is reported, wrongly."""


def command_line(kernel: Kernel) -> str:
    """What the judge wants on a kernel's command line."""
    words = ["log_buf_len=4M", "printk.devkmsg=on"]
    if vmlinux.contains(kernel, b"kasan_multi_shot"):
        words += ["kasan_multi_shot", _FOUR_LEVELS]
    if vmlinux.contains(kernel, b"Kernel memory leak detector"):
        words.append("kmemleak=on")
    return " ".join(words)


def log_of(lab: Lab) -> KernelLog:
    """The log of a lab's guest."""
    return KernelLog(lab.guest, lambda: lab.guest.console_tail(_WHOLE_CONSOLE))


@dataclass
class Watched(Generic[MachineT]):
    """A guest that has booted and was prepared, and how its kernel fares."""

    setup: Setup[MachineT]
    lab: Lab
    machine: MachineT
    log: KernelLog
    release: str = ""
    reporters: dict[str, State] = field(default_factory=dict)
    """State of each of the kernel's reporters."""
    counts: Counts = field(default_factory=Counts)
    """What the kernel had counted when its log was judged last."""
    boots: int = 0
    """How often it had booted anew by then."""
    kasan_again: bool = True

    def begin(self) -> None:
        """Find out which reporters are at work, once the guest is prepared.

        Raises:
            GuestError: the guest cannot be asked.
        """
        self.release = self.machine.sh("uname -r")
        self.machine.run(_KMEMLEAK)
        self.reporters = reporters.probe(self.lab.guest)
        self.kasan_again = reporters.multi_shot(self.machine.sh("cat /proc/cmdline"))

    def rearm(self) -> None:
        """Warnings that are limited to one a boot count anew.

        Raises:
            GuestError: the guest cannot be told.
        """
        reporters.rearm_once(self.lab.guest)

    def findings(self, earlier: Iterable[Line] = ()) -> Findings:
        """What the kernel has reported, counted and leaked since the last call; of a guest that is dead, what its console has.

        `earlier` are lines that were read meanwhile.
        """
        found = Findings(list(earlier))
        try:
            found.lines += self.log.read()
            found.reports = reports(found.lines)
            self._cross_examine(found)
        except LogLost as lost:
            found.contradictions.append(str(lost))
            found.reports = reports(found.lines)
        except GuestError as error:
            found.lines += self.log.rest()
            found.reports = reports(found.lines)
            if not found.reports:
                found.contradictions.append(f"the guest does not answer: {str(error).splitlines()[0]}")
        return found

    def _cross_examine(self, found: Findings) -> None:
        if self.log.boots != self.boots:
            self.boots, self.counts = self.log.boots, Counts()
        leaks = reporters.leaks(self.lab.guest) if self.reporters.get("kmemleak") is State.ON else []
        counts = reporters.count(self.lab.guest)
        found.contradictions += reporters.unreported(self.counts, counts, found.reports)
        self.counts = counts
        if leaks:
            found.reports += [_leak(text) for text in leaks]
        if self.reporters.get("kmemleak") is State.ON:
            # What its scan says in the log has just been read from its file, in full.
            found.lines += [line for line in self.log.read() if "new suspected memory leaks" not in line.text]
        after = reporters.probe_again(self.lab.guest, self.reporters) if found.reports else self.reporters
        found.silenced = reporters.silenced(
            self.reporters, after, found.lines, found.reports, kasan_again=self.kasan_again
        )
        self.reporters |= dict.fromkeys(found.silenced, State.SILENCED)


def _leak(text: str) -> KernelReport:
    lines = parse(text)
    return KernelReport(Kind.KMEMLEAK, lines, lines[0].text)
