"""The judge's own suite: every form of report is made in a guest, and the scenario that makes it must be judged red.

The forms are written into the kernel's log through /dev/kmsg. On kernels that have them, lkdtm (drivers/misc/lkdtm) and KASAN's
own tests make real ones. Nothing of the card is used.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from vfio_user_xe.emulator.guest.errors import GuestError
from vfio_user_xe.emulator.kernel_reports import Example, Kind, examples
from vfio_user_xe.emulator.kernel_reports.forms import CUT
from vfio_user_xe.emulator.results.times import load_times
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Body, Scenario, Setup, Suite

_ANY = Setup("any guest", (), {"modules": ("lkdtm?", "kunit?", "*kasan*test*")}, Machine.of)
_RED = "is judged red"
_HUNG_SECONDS = 5
_DIRECT = "/sys/kernel/debug/provoke-crash/DIRECT"


def write(machine: Machine, *lines: str) -> None:
    """Write lines into the kernel's log."""
    machine.sh("".join(f"echo {shlex.quote(line)} > /dev/kmsg\n" for line in lines))


def _writes(*lines: str) -> Body[Machine]:
    return lambda run, machine: write(machine, *lines)


def _forms() -> Iterator[Scenario[Machine]]:
    for number, example in enumerate(examples(), 1):
        yield Scenario(
            f"r{number}",
            f"report-{example.name}",
            f"a report of the kind {example.kind}: {_headline(example)}",
            _RED,
            _ANY,
            _writes(*example.lines),
            groups=("forms",),
            must_report=example.kind,
        )


def _headline(example: Example) -> str:
    return next((line for line in example.lines if CUT not in line and line.strip("=")), example.name)


def _clears_the_log(run: Run, machine: Machine) -> None:
    write(machine, "WARNING: at drivers/made/up.c:12")
    machine.sh("dmesg -c > /dev/null")


def _without_time(run: Run, machine: Machine) -> None:
    machine.sh("echo 0 > /sys/module/printk/parameters/time")
    try:
        write(machine, "INFO: task sh:71 blocked for more than 5 seconds.")
    finally:
        machine.sh("echo 1 > /sys/module/printk/parameters/time")


def _excuses_another(run: Run, machine: Machine) -> None:
    run.excuse(Kind.WARNING, "another function's warning is expected", place="made_up_init")
    example = next(example for example in examples() if example.name == "warning")
    write(machine, *example.lines)


def _excuses_one_of_two(run: Run, machine: Machine) -> None:
    run.excuse(Kind.HUNG_TASK, "one task is expected to wait", message="task sh:71 ")
    write(machine, *2 * ["INFO: task sh:71 blocked for more than 5 seconds."])


def _taints(run: Run, machine: Machine) -> None:
    # What is written to this file is added to it (kernel/sysctl.c:proc_taint); 128 is what an oops sets.
    machine.sh("echo 128 > /proc/sys/kernel/tainted")


def _panics(run: Run, machine: Machine) -> None:
    run.give_up("the kernel panicked")
    with contextlib.suppress(GuestError):
        machine.run("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", timeout=30)


def _lkdtm(crash: str, *, survives: bool) -> Body[Machine]:
    def provoke(run: Run, machine: Machine) -> None:
        if machine.run(f"test -e {_DIRECT} || modprobe lkdtm").returncode:
            run.not_applicable("this kernel has no lkdtm")
        if machine.run(f"grep -qx {crash} {_DIRECT}").returncode:
            run.not_applicable(f"this kernel's lkdtm cannot provoke {crash}")
        if not survives:
            run.give_up(f"lkdtm provoked {crash}")
        machine.sh(f"echo {_HUNG_SECONDS} > /proc/sys/kernel/hung_task_timeout_secs; true")
        # Whoever provokes may not come back.
        seconds = 0.5 if survives else 3 * _HUNG_SECONDS
        machine.run(f"(echo {crash} > {_DIRECT}) > /dev/null 2>&1 3>&- & sleep {seconds}")

    return provoke


def _kasan_tests(run: Run, machine: Machine) -> None:
    if machine.run("modprobe kunit enable=1; modprobe kasan_test || modprobe kasan_kunit", timeout=300).returncode:
        run.not_applicable("this kernel has no kasan_test")
    run.give_up("KASAN's own tests have run")


def _one(
    number: int, name: str, title: str, body: Body[Machine], kind: Kind | None, words: str = ""
) -> Scenario[Machine]:
    return Scenario(f"t{number}", name, title, _RED, _ANY, body, must_report=kind, must_fail_with=words)


_TRICKS = (
    _one(1, "log-cleared", "a report, and the log is cleared behind it", _clears_the_log, Kind.WARNING),
    _one(2, "log-without-time", "a report in a log without time", _without_time, Kind.HUNG_TASK),
    _one(3, "excuse-for-another-place", "a report where another is excused", _excuses_another, Kind.WARNING),
    _one(4, "excuse-used-up", "two reports where one is excused", _excuses_one_of_two, Kind.HUNG_TASK),
    _one(5, "taint-without-report", "the kernel is tainted, and its log has no report", _taints, None, "tainted (D:"),
)

_REAL: tuple[tuple[str, Kind, bool], ...] = (
    ("WARNING", Kind.WARNING, True),
    ("WARNING_MESSAGE", Kind.WARNING, True),
    ("ARRAY_BOUNDS", Kind.UBSAN, True),
    ("REFCOUNT_INC_ZERO", Kind.REFCOUNT, True),
    ("CORRUPT_LIST_ADD", Kind.LIST, False),
    ("BUG", Kind.OOPS, False),
    ("EXCEPTION", Kind.OOPS, False),
    ("HUNG_TASK", Kind.HUNG_TASK, False),
)
"""What lkdtm provokes, as which kind, and whether the guest can be used afterwards."""


def _provoked() -> Iterator[Scenario[Machine]]:
    for number, (crash, kind, survives) in enumerate(_REAL, 1):
        name = f"provoked-{crash.lower().replace('_', '-')}"
        body: Callable[[Run, Machine], None] = _lkdtm(crash, survives=survives)
        yield Scenario(f"x{number}", name, f"lkdtm: {crash}", _RED, _ANY, body, groups=("provoked",), must_report=kind)
    yield Scenario(
        "x20",
        "kasan-tests",
        "KASAN's own tests",
        _RED,
        _ANY,
        _kasan_tests,
        groups=("provoked",),
        must_report=Kind.KASAN,
    )
    yield Scenario(
        "x21", "provoked-panic", "sysrq: crash", _RED, _ANY, _panics, groups=("provoked",), must_report=Kind.PANIC
    )


JUDGE = Suite(
    "judge",
    (*_forms(), *_TRICKS, *_provoked()),
    {},
    times=load_times(Path(__file__).with_name("judge_times.json")),
)
"""Reports that nothing may escape."""
