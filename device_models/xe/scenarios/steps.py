"""What the dma-buf scenarios are written with: processes whose steps are noted, the usual sequences, and checks of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypedDict, TypeVar, Unpack

from vfio_user_xe.device_models.xe.scenarios import defects, kernels
from vfio_user_xe.device_models.xe.scenarios.card import Unserved
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program, Step, StepFailed
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.setups import USUAL
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.machine import Machine
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup

SOURCE, TARGET = 0x1000_0000, 0x8000_0000
"""Virtual addresses of imports and of the buffer that is copied to."""
UNITS = ("eu vram", "eu system")
"""Kinds of the ledger's entries for what threads of kernels access."""
REVOKES = "vfio_pci_dma_buf_move"
"""vfio-pci's function that revokes all dma-bufs of a device."""
UNREGISTERS = "vfio_unregister_group_dev"
"""VFIO's function that waits until a device's registration was given back."""
STUCK_SECONDS = 5.5
"""xe gives the clearing of a VF's memory up a little earlier (`xe_gt_sriov_pf_control.c:pf_get_default_timeout`)."""

_GIVEN_UP, _OVERDUE = "resource sanitizing failed", "FLR didn't finish in"
"""What xe says of a VF's reset that takes longer: the one who clears, of the memory, and the one who waits, of all of it
(`xe_gt_sriov_pf_control.c:pf_exit_vf_flr_reset_config` and `xe_gt_sriov_pf_control_wait_flr`)."""

_TIMED_OUT = ("-110", "-ETIMEDOUT")
"""How series write the error of memory that was not clear in time; another error is another failure."""

XeBody: TypeAlias = Callable[[Run, XeMachine], None]
XeMachineT = TypeVar("XeMachineT", bound=Machine)

SCENARIOS: list[Scenario[XeMachine]] = []


def scenario(
    number: str, title: str, expected: str, setup: Setup[XeMachine] = USUAL, *, control: bool = False, group: str = ""
) -> Callable[[XeBody], XeBody]:
    """Register the function below as the scenario of its name."""

    def register(function: XeBody) -> XeBody:
        name = function.__name__.replace("_", "-")
        groups = (group,) if group else ()
        body = where_exported(while_served(function))
        SCENARIOS.append(Scenario(number, name, title, expected, setup, body, control, groups))
        return function

    return register


def while_served(function: Callable[[Run, XeMachineT], None]) -> Callable[[Run, XeMachineT], None]:
    """A scenario of which a VF is not served any more because xe gave its reset up has met that defect, whatever it is about."""

    @functools.wraps(function)
    def body(run: Run, machine: XeMachineT) -> None:
        try:
            function(run, machine)
        except Unserved as error:
            said = reset_given_up(run, error.number)
            if not said:
                raise
            run.give_up(f"VF {error.number} is not served any more")
            run.known(defects.RESET_GIVEN_UP, said)

    return body


def where_exported(function: XeBody) -> XeBody:
    """A scenario that is not applicable where vfio-pci has no dma-bufs to export: by the answer, and by what is in the kernel."""

    @functools.wraps(function)
    def body(run: Run, machine: XeMachine) -> None:
        try:
            function(run, machine)
        except StepFailed as failed:
            refused = failed.step.command.startswith("export ") and failed.step.errno == "ENOTTY"
            if machine.exports_dma_bufs or not refused:
                raise
            run.not_applicable(
                "this kernel's vfio-pci exports no dma-bufs (VFIO_DEVICE_FEATURE_DMA_BUF: ENOTTY, and no vfio_pci_core_feature_dma_buf)"
            )

    return body


def started(run: Run, machine: XeMachine) -> Program:
    """A new process of the guest program whose steps are the run's; its caller ends it."""
    return machine.start(lambda step: note(run, step))


@contextlib.contextmanager
def program(run: Run, machine: XeMachine) -> Iterator[Program]:
    """A process of the guest program that is gone afterwards, or the guest is given up."""
    made = started(run, machine)
    try:
        yield made
    finally:
        if not made.end(timeout=5):
            run.give_up(f"process {made.pid} of the guest cannot be killed")


def note(run: Run, step: Step) -> None:
    """Write a program's step down."""
    run.note(str(step), step.seconds, step.ok, step.ago)


WATCHDOG_REPORTS = 60
"""Of one task that waits: the watchdog says so every five seconds, and a busy guest with KASAN takes minutes to look at the task."""


def may_hang(run: Run, place: str = REVOKES) -> None:
    """The kernel's watchdog may report tasks that wait for the importer: whether they do is what the scenario judges."""
    run.excuse(
        Kind.HUNG_TASK,
        "the scenario makes a task wait for an idle importer, and says itself whether that is a defect",
        place=place,
        count=WATCHDOG_REPORTS,
    )


def settle(machine: XeMachine, *vfs: int) -> None:
    """Wait until the resets that a program's end has caused are over."""
    for number in vfs or (1, 2):
        machine.card.settle(number)


@contextlib.contextmanager
def opened(
    run: Run, machine: XeMachine, *, vf: int = 1, also: int = 0, gpu_first: bool = False, options: str = ""
) -> Iterator[Program]:
    """A process with VF `vf` open as `v`, VF `also` as `v2`, and the PF's GPU as `g` with a buffer `target` of 8 MiB.

    VFs are opened first unless `gpu_first`: files are released in the reverse order when a process dies.
    """
    with program(run, machine) as made:
        try:
            gpu = (f"gpu g {machine.card.pf} {options}".strip(), f"buffer g target {TARGET:#x} {8 * MIB:#x}")
            if gpu_first:
                made.do(*gpu)
            machine.card.open_vf(made, "v", vf)
            if also:
                machine.card.open_vf(made, "v2", also)
            if not gpu_first:
                made.do(*gpu)
            machine.card.call("ledger", clear=True)
            yield made
        except BaseException:
            _give_up(run, machine, made, may_raise=False)
            raise
        _give_up(run, machine, made, may_raise=True)


def _give_up(run: Run, machine: XeMachine, made: Program, *, may_raise: bool) -> None:
    """Kill the process and wait for the resets that this causes; without `may_raise` whatever goes wrong only gives the guest up."""
    made.kill()
    if not made.gone(5):
        run.give_up(f"process {made.pid} of the guest cannot be killed")
        return
    try:
        settle(machine)
    except TimeoutError as error:
        lost = lost_reset(run, machine)
        if not lost:
            run.give_up(str(error))
        if may_raise and lost:
            run.known(defects.RESET_LOST, f"at the end of the program's process: {lost}")
        if may_raise:
            raise


def lost_reset(run: Run, machine: XeMachine) -> str:
    """Whether a VF that is not served any more is so by a reset that xe took no notice of; in words, empty: it is not.

    Those VFs are reset once more, which mends them. One that is not served after that has another defect.
    """
    for number in (1, 2):
        if unnoticed_reset(run, number) and machine.card.vf_state(number) == "flr":
            machine.sh(f"echo 1 > /sys/bus/pci/devices/{machine.card.vf(number)}/reset")
            if machine.card.served(number, STUCK_SECONDS):
                return f"VF {number}'s reset was not answered; after one more it is served"
    return ""


def unnoticed_reset(run: Run, number: int) -> bool:
    """Whether xe has lately said of this VF that a reset came while one was in progress: another's says nothing of it."""
    run.read_kernel_log()
    log = [line.text for line in run.kernel_log if "FLR" in line.text]
    run.evidence("kernel log about resets", log[-12:])
    own = [line for line in log if f"VF{number} " in line]
    return any("already in progress" in line for line in own[-6:])


def reset_given_up(run: Run, number: int) -> str:
    """What xe said when it gave VF `number`'s reset up since its memory was not cleared in time; empty: it did not.

    The VF is not served from then on: xe never says FLR_FINISH.
    """
    return _said(run, tuple(f"VF{number} {_GIVEN_UP} ({errno})" for errno in _TIMED_OUT))


def reset_overdue(run: Run, lately: int) -> str:
    """As `reset_given_up`, or that a reset took longer than xe waits, for whatever reason; in the last lines of the log."""
    return _said(run, (_GIVEN_UP, _OVERDUE), lately)


def _said(run: Run, messages: tuple[str, ...], lately: int = 0) -> str:
    run.read_kernel_log()
    lines = [line.text for line in run.kernel_log[-lately:]]
    return next((line for line in reversed(lines) if any(message in line for message in messages)), "")


class Names(TypedDict, total=False):
    """How a program calls what an import is made of and with, and the virtual address where it is bound."""

    name: str
    vf: str
    va: int
    gpu: str


def imported(made: Program, ranges: str, **names: Unpack[Names]) -> Step:
    """Export, import and bind `ranges` of BAR2; how the binding ended. The import is `i` of the VF `v` unless told otherwise.

    Raises:
        StepFailed: this kernel has no such feature; how else the export ends shows in the binding.
    """
    name, vf, va, gpu = (names.get("name", "i"), names.get("vf", "v"), names.get("va", SOURCE), names.get("gpu", "g"))
    exported, _, bound = made.attempt(
        f"export {vf} 2 {ranges} d{name}", f"import {gpu} d{name} {name}", f"try bind {name} {va:#x}"
    )
    if exported.errno == "ENOTTY":
        raise StepFailed(exported)
    return bound


def import_and_use(run: Run, machine: XeMachine, made: Program, length: int = 2 * MIB) -> None:
    """Fill, import, bind, copy once, compare; then the importer is idle."""
    made.step(f"fill v 0 {length:#x} 7")
    check_bound(run, machine, made, f"0+{length:#x}")
    run.fact("page tables of the import", machine.card.translations(SOURCE, SOURCE + length))
    made.do(f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}", f"verify target 0 0 {length:#x} 7")


def import_from(run: Run, machine: XeMachine, owner: Program, other: Program, length: int = MIB) -> None:
    """`other` imports the first bytes of the VF that `owner` has open as `v`, and uses them; `owner` imports nothing."""
    fd = owner.do(f"fill v 0 {length:#x} 7", f"export v 2 0+{length:#x} d")[-1].number("fd")
    other.do(
        f"take {owner.pid} {fd} d {length:#x}",
        f"gpu g {machine.card.pf}",
        f"buffer g target {TARGET:#x} {length:#x}",
        "import g d i",
        f"bind i {SOURCE:#x}",
        f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}",
        f"verify target 0 0 {length:#x} 7",
    )


def check_bound(run: Run, machine: XeMachine, made: Program, ranges: str, **names: Unpack[Names]) -> None:
    """As `imported`, and the binding must succeed: of several ranges only on kernels that can."""
    bound = imported(made, ranges, **names)
    if bound.errno == "EADDRINUSE" and ranges.count("+") > 1 and machine.translating and not machine.zero_copy:
        run.known(defects.RANGES_OVERLAP, f"binding a dma-buf of {ranges.count('+')} ranges: EADDRINUSE")
    run.check(bound.errno == "0", f"VM_BIND of {ranges}: {bound.errno}; {'; '.join(bound.kernel)}")


def check_path(run: Run, machine: XeMachine, *, owner: str = "vf1", start: int = SOURCE, length: int = 2 * MIB) -> None:
    """The path that was taken is the one that this kernel should take, and the page tables say so too."""
    pages = run.fact("page tables", machine.card.translations(start, start + length))
    run.fact("LMTT", machine.card.call("vram_map")["vfs"])
    taken = run.fact("paths", machine.card.paths("pf", owner))
    verdicts = machine.card.call("verdicts")
    run.check(not verdicts["stale"], f"stale accesses: {verdicts['stale']}")
    run.check(not verdicts["foreign"], f"foreign accesses: {verdicts['foreign']}")
    wanted, other = ("zero-copy", "legacy") if machine.zero_copy else ("legacy", "zero-copy")
    kind = "vram" if machine.zero_copy else "system"
    run.check(taken[wanted] and not taken[other], f"{wanted} accesses {taken[wanted]}, {other} accesses {taken[other]}")
    run.check({page["kind"] for page in pages} == {kind}, f"page-table entries of another kind than {kind}: {pages}")


def kernel_command(name: str, to: int, source: int, length: int, word: int = 1, gpu: str = "g") -> str:
    """The guest program's command that runs kernel `name` (`kernels.py`) over `length` bytes."""
    if length % kernels.BYTES:
        raise ValueError(f"a kernel works on whole groups of {kernels.BYTES} bytes, not on {length:#x}")
    return f"kernel {gpu} {name} {length // kernels.BYTES} {to:#x} {source:#x} {word}"


def check_units_read(run: Run, machine: XeMachine, length: int, *, owner: str = "vf1") -> None:
    """Execution units, and nothing else of the PF, read `length` bytes or more of `owner`'s memory."""
    entries = [e for e in machine.card.call("ledger") if e["initiator"] == "pf" and e["owner"] in (owner, "unshared")]
    read = {(e["interconnect"], e["kind"]): e["bytes_read"] for e in entries if e["bytes_read"]}
    run.fact("read by interconnect and kind", {f"{link}, {kind}": count for (link, kind), count in read.items()})
    units = {link: count for (link, kind), count in read.items() if kind in UNITS}
    run.check(sum(units.values()) >= length, f"execution units read {units} of {length:#x} bytes: {read}")
    others = {key for key in read if key[1] in ("vram", "system")}
    run.check(not others, f"another engine read it too: {others}")


def check_vram(run: Run, machine: XeMachine, before: int) -> None:
    """No more VRAM is in use than `before` bytes."""
    after = machine.card.vram_used()
    run.fact("VRAM in use", f"{before:#x} before, {after:#x} afterwards")
    run.check(after <= before, f"VRAM in use: {before:#x} before, {after:#x} afterwards")


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A task of the guest that sleeps where signals do not reach it. `switches` counts how often it was on a processor."""

    process: int
    switches: str
    stack: str


def sleeping_tasks(machine: Machine) -> dict[str, Sleeper]:
    """The guest's tasks that sleep uninterruptibly, by "name (pid)"."""
    script = (
        "cat /proc/[0-9]*/task/[0-9]*/stat 2>/dev/null | grep -q ') D ' || exit 0\n"
        "for t in /proc/[0-9]*/task/[0-9]*; do\n"
        "read line < $t/stat 2>/dev/null || continue\n"
        'state=${line##*) }; test "${state%% *}" = D || continue\n'
        'process=${t#/proc/}; echo "== $(cat $t/comm) (${t##*/})"\n'
        "echo ${process%%/*} $(grep -h ctxt_switches $t/status | tr -dc '0-9\\n')\n"
        "cat $t/stack; done 2>/dev/null; true"
    )
    found: dict[str, Sleeper] = {}
    for part in machine.sh(script).split("== ")[1:]:
        name, _, rest = part.partition("\n")
        numbers, _, stack = rest.partition("\n")
        process, _, switches = numbers.partition(" ")
        if process.isdigit():  # else it has ended meanwhile
            found[name] = Sleeper(int(process), switches, stack.rstrip())
    return found


def blocked_tasks(machine: Machine) -> dict[str, str]:
    """Stacks of the guest's tasks that sleep uninterruptibly, by "name (pid)"."""
    return {name: task.stack for name, task in sleeping_tasks(machine).items()}
