"""Which of a kernel's reporters are at work, and what the kernel counts of its own troubles.

A reporter that has switched itself off finds nothing any more, and a log without a report then says nothing: lockdep does so
after its first report and after any oops (`debug_locks_off`), KASAN after its first report unless `kasan_multi_shot` is given,
DMA debugging and debug objects when they run out of memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from vfio_user_xe.emulator.kernel_reports.forms import Kind
from vfio_user_xe.emulator.kernel_reports.lines import Line
from vfio_user_xe.emulator.kernel_reports.log import Shell
from vfio_user_xe.emulator.kernel_reports.recognise import KernelReport


class State(StrEnum):
    """Of a reporter."""

    ON = "on"
    OFF = "off"
    """The kernel has it, and its settings keep it quiet."""
    SILENCED = "silenced"
    """It was on, and has switched itself off."""
    ABSENT = "absent"
    """The kernel is built without it."""


_SYMBOLS = {
    "kasan": "kasan_report",
    "kfence": "kfence_report_error",
    "kmsan": "kmsan_report",
    "kcsan": "kcsan_report_known_origin",
    "ubsan": "__ubsan_handle_shift_out_of_bounds",
    "list": "__list_add_valid_or_report",
    "atomic": "__might_resched",
}

_LONG = 900
"""Seconds: searching all symbols takes one on an idle machine, and minutes in a guest among many without KVM."""
_FIND = f"grep -owE '{'|'.join(_SYMBOLS.values())}' /proc/kallsyms | sort -u | sed 's/^/symbol=/'\n"
_PROBE = """\
value() { test -e "$2" && echo "$1=$(cat "$2" 2>/dev/null)"; }
grep -q 'debug_locks: *1' /proc/lockdep_stats 2>/dev/null && echo locks=1
test -e /proc/lockdep_stats && echo lockdep=1
k=/sys/kernel/debug/kmemleak
test -e $k && if (echo scan=off > $k) 2>/dev/null; then echo kmemleak=1; else echo kmemleak=0; fi
test -e /sys/kernel/debug/debug_objects && echo objects=1
value dma /sys/kernel/debug/dma-api/disabled
value kfence_interval /sys/module/kfence/parameters/sample_interval
value hung /proc/sys/kernel/hung_task_timeout_secs
value hung_left /proc/sys/kernel/hung_task_warnings
value soft /proc/sys/kernel/soft_watchdog
value hard /proc/sys/kernel/nmi_watchdog
value rcu /sys/module/rcupdate/parameters/rcu_cpu_stall_suppress
value slab /sys/kernel/slab/kmalloc-64/poison
true
"""


def probe(shell: Shell) -> dict[str, State]:
    """Every reporter's state as the guest's files tell it.

    Raises:
        GuestError: the guest cannot be asked.
    """
    return states(shell.run(_FIND + _PROBE, timeout=_LONG).stdout)


def probe_again(shell: Shell, before: Mapping[str, State]) -> dict[str, State]:
    """The states now; what the kernel is built with is known from `before`.

    Raises:
        GuestError: the guest cannot be asked.
    """
    now = states(shell.run(_PROBE, timeout=60).stdout)
    return {name: before[name] if state is State.ABSENT else state for name, state in now.items()}


def states(text: str) -> dict[str, State]:
    """What the script of `probe` found, as states by reporter."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    symbols = {value for key, _, value in pairs if key == "symbol"}
    found = {key: value for key, _, value in pairs if key != "symbol"}

    def built(name: str, on: bool = True) -> State:
        return State.ABSENT if _SYMBOLS[name] not in symbols else State.ON if on else State.OFF

    def switched(name: str, *, off: str) -> State:
        return State.ABSENT if name not in found else State.OFF if found[name] in off.split() else State.ON

    hung = switched("hung", off="0")
    return {
        "KASAN": built("kasan"),
        "KFENCE": built("kfence", found.get("kfence_interval", "1") != "0"),
        "KMSAN": built("kmsan"),
        "KCSAN": built("kcsan"),
        "UBSAN": built("ubsan"),
        "lockdep": State.ABSENT if "lockdep" not in found else State.ON if "locks" in found else State.SILENCED,
        "sleeping in atomic context": built("atomic"),
        "list corruption": built("list"),
        "kmemleak": switched("kmemleak", off="0"),
        "debug objects": State.ON if "objects" in found else State.ABSENT,
        "DMA debugging": State.ABSENT if "dma" not in found else State.SILENCED if found["dma"] == "Y" else State.ON,
        "slab poisoning": switched("slab", off="0"),
        "hung tasks": State.SILENCED if hung is State.ON and found.get("hung_left") == "0" else hung,
        "soft lockups": switched("soft", off="0"),
        "hard lockups": switched("hard", off="0"),
        "RCU stalls": switched("rcu", off="1 Y"),
    }


def multi_shot(command_line: str) -> bool:
    """Whether KASAN reports more than once (mm/kasan/report.c: kasan_multi_shot)."""
    return "kasan_multi_shot" in command_line.split()


_SILENCERS: Mapping[str, re.Pattern[str]] = {
    "lockdep": re.compile(
        r"turning off the locking correctness validator|Disabling lock debugging due to kernel taint"
    ),
    "kmemleak": re.compile(r"kmemleak: Kernel memory leak detector disabled"),
    "debug objects": re.compile(r"ODEBUG: .*ODEBUG disabled"),
    "DMA debugging": re.compile(r"DMA-API: debugging out of memory - disabling"),
}
"""What the log says when a reporter switches itself off."""


def silenced(
    before: Mapping[str, State],
    after: Mapping[str, State],
    lines: Iterable[Line],
    found: Iterable[KernelReport],
    *,
    kasan_again: bool,
) -> dict[str, str]:
    """Reporters that were on and have switched themselves off, by name, each with what says so.

    `after` are the states once `lines` were logged, with `found` reports; `kasan_again`: KASAN reports more than once.
    """
    gone: dict[str, str] = {name: "its own state says so" for name, state in after.items() if state is State.SILENCED}
    for line in lines:
        for name, pattern in _SILENCERS.items():
            if pattern.search(line.text):
                gone[name] = line.text
    if not kasan_again:
        gone |= {str(report.kind): str(report) for report in found if report.kind is Kind.KASAN}
    return {name: why for name, why in gone.items() if before.get(name) is State.ON}


_TAINTS = {
    4: "M: a machine check",
    5: "B: a bad page",
    7: "D: an oops or a BUG",
    9: "W: a warning",
    14: "L: a soft lockup",
}
"""Bits of /proc/sys/kernel/tainted that the kernel sets when it reports something (Documentation/admin-guide/tainted-kernels.rst)."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel counts of its troubles; None: this kernel does not."""

    tainted: int = 0
    warnings: int | None = None
    """/sys/kernel/warn_count: WARN, and reports of KASAN, KFENCE, UBSAN and the scheduler (panic.c:check_panic_on_warn)."""
    oopses: int | None = None
    """/sys/kernel/oops_count."""


_COUNTS = """\
echo "tainted=$(cat /proc/sys/kernel/tainted)"
for name in warn oops; do test -e /sys/kernel/${name}_count && echo "$name=$(cat /sys/kernel/${name}_count)"; done
true
"""


def count(shell: Shell) -> Counts:
    """What the kernel has counted so far.

    Raises:
        GuestError: the guest cannot be asked.
    """
    found = dict(line.split("=", 1) for line in shell.run(_COUNTS).stdout.splitlines() if "=" in line)
    warn, oops = found.get("warn"), found.get("oops")
    return Counts(int(found.get("tainted") or 0), int(warn) if warn else None, int(oops) if oops else None)


_COUNTED = frozenset({Kind.OOPS, Kind.LIST})


def unreported(before: Counts, after: Counts, found: Iterable[KernelReport]) -> list[str]:
    """Troubles that the kernel has counted and of which its log has no report, in words."""
    all_found = list(found)
    said = []
    if (more := (after.warnings or 0) - (before.warnings or 0)) > len(all_found):
        said.append(f"warn_count rose by {more}, the log has {len(all_found)} reports")
    oopses = sum(report.kind in _COUNTED for report in all_found)
    if (more := (after.oopses or 0) - (before.oopses or 0)) > oopses:
        said.append(f"oops_count rose by {more}, the log has {oopses} oopses")
    for bit, what in _TAINTS.items():
        if after.tainted & ~before.tainted & (1 << bit) and not all_found:
            said.append(f"the kernel is tainted ({what}), the log has no report")
    return said


_SCAN = """\
k=/sys/kernel/debug/kmemleak
test -e $k || exit 0
sleep 5.5; echo scan > $k && echo scan > $k && head -c 65536 $k && echo clear > $k
true
"""
"""Objects younger than five seconds are no leaks yet (mm/kmemleak.c: MSECS_MIN_AGE); the second scan drops what was in motion."""


def leaks(shell: Shell) -> list[str]:
    """What kmemleak finds since the last call, each from its first line on; none where it is not built.

    Raises:
        GuestError: the guest cannot be asked.
    """
    text = shell.run(_SCAN, timeout=300).stdout
    return [f"unreferenced object{part.rstrip()}" for part in text.split("unreferenced object")[1:]]


def rearm_once(shell: Shell) -> None:
    """Let warnings that are limited to one a boot (WARN_ONCE) be reported again.

    Raises:
        GuestError: the guest cannot be told.
    """
    shell.run("echo 1 > /sys/kernel/debug/clear_warn_once 2>/dev/null; true")
