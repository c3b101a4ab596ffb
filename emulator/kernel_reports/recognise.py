"""Reports in a kernel's log: where each begins and ends, its kind, and the functions it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vfio_user_xe.emulator.kernel_reports.forms import CUT, END_TRACE, Kind, kind_of
from vfio_user_xe.emulator.kernel_reports.lines import Line

_MOST_LINES = 250
_DEBUG = 7
"""The level at which drivers tell what they do: no report begins there."""
_NEAR = 8
"""Lines after a fault's first within which an oops belongs to it."""
_SYMBOL = r"([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+"
_FRAME = re.compile(rf"^\s*(?:\[<[0-9a-f]+>\] )?{_SYMBOL}")
_NAMED = re.compile(rf"\b(?:RIP: [0-9a-f]+:|IP: |(?:in|at):? ){_SYMBOL}")
_AT_FILE = re.compile(rf"\bat \S+:\d+ {_SYMBOL}")
_RACE = re.compile(r"data-race in (\w+)")
_RULE = re.compile(r"^={20,}$")
_OF_FAULTS = frozenset({Kind.OOPS, Kind.LIST, Kind.KASAN, Kind.HARDENING})
_ENDED_BY_RULE = frozenset({Kind.KASAN, Kind.KFENCE, Kind.KMSAN, Kind.KCSAN})
_ENDED_BY_STACK = frozenset({Kind.LOCKDEP, Kind.RCU_USAGE, Kind.ATOMIC, Kind.HUNG_TASK, Kind.LOCK_DEBUG})
_NEVER_INSIDE = _ENDED_BY_RULE | {
    *(Kind.PANIC, Kind.LOCKDEP, Kind.HUNG_TASK, Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.RCU_STALL, Kind.KMEMLEAK),
    Kind.OUT_OF_MEMORY,
}
"""What "cut here" never begins: another processor reports it meanwhile, and what is open must not hide it."""
_ANOTHER_S = "*ERROR*"
"""As is what a driver says, unless it warns with it (include/drm/drm_print.h: drm_err, drm_WARN)."""
_OF_ONE_LINE = frozenset({Kind.DRM, Kind.GPU_HANG, Kind.DEVICE_LOST, Kind.PCI, Kind.KMEMLEAK, Kind.HARDWARE})
_REPORTERS_OWN = re.compile(
    r"^(__?warn\w*|report_bug|handle_bug|exc_\w+|asm_\w+|dump_stack\w*|print_\w+|kasan_\w+|__asan_\w+|kfence_\w+|kmsan_\w+|ubsan_\w+"
    r"|__ubsan_\w+|__fortify_\w+|refcount_warn_saturate|debug_print_object|check_unmap|__might_\w+|lockdep_\w+|lock_acquire"
    r"|check_\w+|validate_chain|__lock_acquire|mark_lock\w*|schedule\w*|__schedule\w*|io_schedule\w*|wait_for_\w+"
    r"|__wait_\w+|wait_woken|dma_fence_\w+|dma_resv_wait\w*|__mutex_lock\w*|mutex_lock\w*|rwsem_\w+|down_\w+|__list_\w+)$"
)
"""Functions that report, or in which a task waits: they are not what a report is about."""


@dataclass(slots=True)
class KernelReport:
    """One report: the lines from the one that begins it to its end."""

    kind: Kind
    lines: list[Line] = field(default_factory=list)
    headline: str = ""
    """The line that says what it is."""

    @property
    def functions(self) -> list[str]:
        """Every function that it names for certain, the one that it is about first; without those marked "?"."""
        found = [name for line in self.lines for name in _of(line.text)]
        return list(dict.fromkeys(sorted(found, key=lambda name: bool(_REPORTERS_OWN.match(name)))))

    @property
    def place(self) -> str:
        """The function that it is about; empty: it names none."""
        return next(iter(self.functions), "")

    @property
    def text(self) -> str:
        """Its lines without level, time and caller."""
        return "\n".join(line.text for line in self.lines)

    def __str__(self) -> str:
        place = self.place
        return self.headline if not place or place in self.headline else f"{self.headline} (in {place})"


def reports(lines: Iterable[Line]) -> list[KernelReport]:
    """What the kernel reports of itself in these lines, in their order."""
    return _Reader().read(lines)


class _Reader:
    """Follows a log line by line; a report is open until something ends it."""

    def __init__(self) -> None:
        self._found: list[KernelReport] = []
        self._open: KernelReport | None = None
        self._cut = False
        """Whether the open report is inside of "cut here" and "end trace"."""

    def read(self, lines: Iterable[Line]) -> list[KernelReport]:
        for line in lines:
            self._line(line)
        return self._found

    def _line(self, line: Line) -> None:
        text = line.text.strip()
        if text.endswith(CUT):
            self._begin_cut(line)
            return
        kind = kind_of(text) if line.level != _DEBUG else None
        if kind is not None and not self._belongs(kind, text):
            if self._cut and kind in _OF_ONE_LINE:
                self._found.append(KernelReport(kind, [line], text))  # the open one goes on
                return
            self._begin(KernelReport(kind, [line], text))
        elif self._open is not None:
            self._open.lines.append(line)
            if kind is not None and self._open.kind is Kind.UNKNOWN:
                self._open.kind, self._open.headline = kind, text
        if self._open is not None and self._ends(self._open, text):
            self._open, self._cut = None, False

    def _begin_cut(self, line: Line) -> None:
        # A list that is corrupt is named before its BUG's "cut here".
        if self._open is not None and self._open.kind is Kind.LIST and len(self._open.lines) == 1:
            self._open.lines.append(line)
        else:
            self._begin(KernelReport(Kind.UNKNOWN, [line], "a report of the kernel of no known form"))
        self._cut = True

    def _begin(self, report: KernelReport) -> None:
        self._found.append(report)
        self._open, self._cut = report, False

    def _belongs(self, kind: Kind, text: str) -> bool:
        """Whether a line that could begin a report is part of the open one."""
        if self._open is None:
            return False
        if self._cut:
            return kind not in _NEVER_INSIDE and not (_ANOTHER_S in text and len(self._open.lines) > 1)
        if kind is Kind.IOMMU:
            return (
                self._open.kind is Kind.IOMMU and len(self._open.lines) == 1 and "handling fault" in self._open.headline
            )
        if kind is Kind.PAGES and self._open.kind in _ENDED_BY_RULE:
            return True  # whose memory it was: mm/kasan/report.c:print_address_description dumps the page
        near = len(self._open.lines) < _NEAR
        if kind is Kind.OOPS and self._open.kind in _OF_FAULTS:
            return near and not text.startswith(("BUG: ", "Unable to handle"))
        return kind is Kind.KASAN and self._open.kind is Kind.OOPS and near and not text.startswith("BUG: ")

    def _ends(self, report: KernelReport, text: str) -> bool:
        if text.startswith(END_TRACE) or len(report.lines) >= _MOST_LINES:
            return True
        if self._cut:
            return False
        if report.kind in _ENDED_BY_RULE:
            return len(report.lines) > 1 and _RULE.match(text) is not None
        if report.kind in _ENDED_BY_STACK:
            return text == "</TASK>"
        return report.kind in _OF_ONE_LINE


def _of(text: str) -> Sequence[str]:
    if race := _RACE.search(text):
        return (race[1],)
    named = [match[1] for pattern in (_AT_FILE, _NAMED) for match in pattern.finditer(text)]
    if frame := _FRAME.match(text):
        named.append(frame[1])
    return named
