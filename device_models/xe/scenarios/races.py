"""Scenarios 38 and 39: imports that race with revocations, and imports of which every part fails once."""

from __future__ import annotations

import time

from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.fail_function import ERROR, FailFunction
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import SOURCE, opened, scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.scenarios.run import Run

RACE = "race"
_SECONDS = 8.0
_IMPORTERS = 3
_RIGHT = {"OK", "ENODEV"}
"""How an import may end while its exporter revokes."""


def _race(run: Run, machine: XeMachine, revoke: str) -> None:
    """Import, bind, unbind and close in three threads, each with a DRM file of its own, while another one revokes."""
    s.may_hang(run)
    with opened(run, machine) as made:
        made.step(f"export v 2 0+{2 * MIB:#x} d")
        for number in range(_IMPORTERS):
            made.do(f"gpu g{number} {machine.card.pf}", f"spawn importer{number} cycle g{number} d {SOURCE:#x}")
        made.step(f"spawn revoker again {revoke}")
        time.sleep(_SECONDS)
        made.step("stop revoker")
        # It waits for importers that go on, so it is the first to be joined.
        revoked = made.step("join revoker 30000", timeout=60)
        made.do(*(f"stop importer{number}" for number in range(_IMPORTERS)))
        ended = [made.step(f"join importer{number} 30000", timeout=60) for number in range(_IMPORTERS)]
        counts = run.evidence("revocations", {name: n for name, n in revoked.values.items() if name != "us"})
        run.check(set(counts) == {"OK"}, f"revoking ended with {counts}")
        for step in ended:
            _only(run, step)
        run.evidence("imports", [{name: n for name, n in step.values.items() if name != "us"} for step in ended])
        _nothing_is_attached(run, machine)
        made.step("spawn last reset v")
        run.check(made.step("try join last 3000").errno == "0", "a reset afterwards waits for an import that is gone")


def _only(run: Run, step: Step) -> None:
    wrong = {
        name: count
        for name, count in step.values.items()
        if "_" in name and name.partition("_")[2] not in (_RIGHT if name.startswith(("import", "bind")) else {"OK"})
    }
    run.check(not wrong, f"imports ended with {wrong}")


def _nothing_is_attached(run: Run, machine: XeMachine) -> None:
    """No importer is left on any dma-buf, as debugfs counts them."""
    said = machine.run("grep 'devices attached' /sys/kernel/debug/dma_buf/bufinfo 2>/dev/null").stdout
    left = run.fact("attachments", [line.strip() for line in said.splitlines()])
    wrong = [line for line in left if not line.startswith("Total 0 ")]
    run.check(not wrong, f"attachments that are left: {wrong}")


@scenario("38", "imports race with VFIO_DEVICE_RESET", "each import works or gets ENODEV; nothing is left", group=RACE)
def imports_race_with_resets(run: Run, machine: XeMachine) -> None:
    _race(run, machine, "reset v")


@scenario("38b", "imports race with COMMAND.MEM", "as 38", group=RACE)
def imports_race_with_memory_disable(run: Run, machine: XeMachine) -> None:
    _race(run, machine, f"config v {COMMAND} 2 0")


def _fails_each(run: Run, machine: XeMachine, what: str) -> None:
    if machine.run("test -e /proc/self/fail-nth").returncode:
        run.not_applicable(
            "this kernel cannot make calls fail one by one (/proc/self/fail-nth, FAULT_INJECTION_DEBUG_FS)"
        )
    machine.run(
        "for f in failslab fail_page_alloc; do d=/sys/kernel/debug/$f; test -d $d || continue;"
        " echo 0 > $d/verbose; echo N > $d/ignore-gfp-wait; done; true"
    )
    run.excuse(Kind.ALLOCATION, "allocations are made to fail", message="page allocation failure", count=1000)
    with opened(run, machine) as made:
        made.step(f"export v 2 0+{2 * MIB:#x} d")
        failed = made.step(f"fail-each {what} g d {SOURCE:#x}", timeout=200)
        counts = run.evidence("calls that were made to fail, and how it ended", failed.values)
        run.check(int(failed.values["places"]) > 0, "no call of it could be made to fail: is FAILSLAB built?")
        wrong = {name: n for name, n in counts.items() if name not in ("places", "OK", "ENOMEM", "EAGAIN", "EINTR")}
        run.check(not wrong, f"it ended with {wrong}")
        _nothing_is_attached(run, machine)
        _still_works(made)
        made.step("spawn last reset v")
        run.check(made.step("try join last 3000").errno == "0", "a reset afterwards waits for an import that failed")


def _still_works(made: Program) -> None:
    made.do("import g d i", f"bind i {SOURCE:#x}", f"copy g {s.TARGET:#x} {SOURCE:#x} {MIB:#x}")
    made.do(f"unbind g {SOURCE:#x} {2 * MIB:#x}", "gem-close i")


@scenario("39", "an import of which each allocation fails once", "ENOMEM or success; nothing is left", group=RACE)
def import_fails_everywhere(run: Run, machine: XeMachine) -> None:
    _fails_each(run, machine, "import")


@scenario("39b", "a VM_BIND of an import of which each allocation fails once", "as 39", group=RACE)
def bind_fails_everywhere(run: Run, machine: XeMachine) -> None:
    _fails_each(run, machine, "bind")


def _imports_once(made: Program) -> str:
    """An import, its binding and the way back, as far as nothing fails; how the first that failed ended, empty: none did."""
    steps = made.attempt(
        "try import g d j",
        f"try bind j {SOURCE:#x}",
        f"try unbind g {SOURCE:#x} {2 * MIB:#x}",
        "try gem-close j",
    )
    return next((f"{step.command}: {step.errno}" for step in steps if step.errno != "0"), "")


@scenario(
    "39c",
    "each function of xe that an import calls, and that the kernel can let fail, fails once (fail_function)",
    "that call's error or success; no attachment is left, the next import works",
    group=RACE,
)
def functions_of_an_import_fail(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        faults = FailFunction(run, machine)
        made.step(f"export v 2 0+{2 * MIB:#x} d")
        with faults.counted() as calls:
            run.check(not (said := _imports_once(made)), f"nothing was to fail: {said}")
        ended = {}
        for function in (function for function in faults.functions if calls.get(function)):
            with faults.failing(function) as possible:
                if not possible:
                    continue
                said = _imports_once(made)
                if faults.has_failed():
                    ended[function] = said
                else:
                    run.check(not said, f"{said}, and {function}, which was to fail, has not been called")
        run.evidence("functions that failed, and how it ended", ended)
        wrong = {function: said for function, said in ended.items() if said and not said.endswith(f": {ERROR}")}
        run.check(any(ended.values()), "no function that an import calls could be made to fail")
        run.check(not wrong, f"it ended with {wrong}")
        _nothing_is_attached(run, machine)
        _still_works(made)
        made.step("spawn last reset v")
        run.check(made.step("try join last 3000").errno == "0", "a reset afterwards waits for an import that failed")
