"""Scenarios 17 and 19 to 22: what becomes of an import when its exporter's device is reset, disabled, put to sleep or closed.

Those of the group "hang" are the forms of one question: does revoking wait for an importer that has nothing to do? Each runs
its control first, the same with the import closed, and when it blocks says where, and what frees it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import HUNG_SECONDS, MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import SOURCE, TARGET, import_and_use, opened, scenario
from vfio_user_xe.emulator.kernel_reports import Kind, Line, reports
from vfio_user_xe.emulator.kernel_reports.lines import texts
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.scenarios.run import Run

BOUNDED_MS = 3000
"""How long a revocation may take that waits for nothing but the reset itself (some 130 ms)."""
_FREED_MS = 20000
"""How long a task that was blocked may take to end once it is free, on a busy host."""
LOW_POWER_ENTRY, LOW_POWER_EXIT = 0x20003, 0x20005
"""VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_..."""
HANG = "hang"


class Gone(StrEnum):
    """Whether what is revoked comes back, and if not, why."""

    NO = "mapped anew by who uses it"
    REVOKED = "revoked for good; its device is open"
    CLOSED = "its device is closed"


def _close_import(made: Program) -> None:
    made.do(f"unbind g {SOURCE:#x} {2 * MIB:#x}", "gem-close i")


def _import_registers(run: Run, machine: XeMachine, made: Program) -> None:
    """Import and bind a page of BAR0, which no kernel maps by device address."""
    made.do("export v 0 0x190000+0x1000 di", "import g di i", f"bind i {SOURCE:#x}")


def does_not_wait(
    run: Run,
    machine: XeMachine,
    command: str | Callable[[Program], str],
    *,
    options: str = "",
    gone: Gone = Gone.NO,
    unbind_first: bool = False,
    use: Callable[[Run, XeMachine, Program], None] = import_and_use,
    where: str = s.REVOKES,
) -> None:
    """`command` of the VF's user must return in bounded time with an import alive and idle, as it does without one.

    `command` may be made from the client; `use` makes the import; `gone` says what becomes of the buffer; `unbind_first` is the
    order in which it is tried what frees a task that blocks; `where` is the function that waits.
    """
    s.may_hang(run, where)
    with opened(run, machine, options=options) as made, run.step("control: the import is closed first"):
        use(run, machine, made)
        _close_import(made)
        words = command if isinstance(command, str) else command(made)
        control = made.step(words)
        run.evidence("control (import closed first)", f"{words}: {control.seconds:.3f} s")
    with opened(run, machine, options=options) as made:
        use(run, machine, made)
        with run.step(f"{words}, with the import alive and idle"):
            made.step(f"spawn job {words}")
            joined = made.step(f"try join job {BOUNDED_MS}")
        if not joined.running:
            run.evidence("with an idle import", f"{words}: {joined.number('us') / 1e6:.3f} s")
            run.check(joined.errno == "0", f"{words}: {joined.errno}")
            used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000").errno
            if gone is Gone.CLOSED and used == "0" and machine.zero_copy:
                run.known("D7", "a job still reaches the memory of a device that is closed")
            right = ("0", "ENODEV") if gone is Gone.NO else ("ENODEV",)
            run.check(used in right, f"a job afterwards: {used}; the buffer is {gone}")
            return
        show_blocked(run, machine, where)
        freed = _what_frees(run, made, unbind_first)
        _is_freed(run, freed != "nothing", words)
        run.known(
            defects.REVOCATION_WAITS,
            f"{words} blocked until the import was released (control: {control.seconds:.3f} s); freed by {freed}",
        )


def _is_freed(run: Run, freed: bool, words: str) -> None:
    """A revocation that the importer's end does not free waits for something else than an importer: that is not known."""
    if not freed:
        run.give_up("a task blocks and nothing frees it")
    run.check(freed, f"{words} blocks although the importer has let go: nothing frees it")


def _what_frees(run: Run, made: Program, unbind_first: bool) -> str:
    close, unbind = ("GEM_CLOSE", "gem-close i"), ("unbinding", f"unbind g {SOURCE:#x} {2 * MIB:#x}")
    (one, first), (other, second) = (unbind, close) if unbind_first else (close, unbind)
    with run.step(f"what frees it: {one} alone"):
        made.step(first)
        alone = made.step("try join job 1500")
    with run.step(f"what frees it: then {other}"):
        made.step(second)
        both = made.step(f"try join job {_FREED_MS}")
    if not alone.running:
        return str(run.evidence("freed by", one))
    return str(run.evidence("freed by", f"{other} after {one}, not by {one} alone" if not both.running else "nothing"))


def show_blocked(run: Run, machine: XeMachine, where: str = s.REVOKES) -> None:
    """Keep the blocked task's stack and the kernel's own report. Fails the run when it blocks elsewhere than `where`."""
    with run.step("the blocked task's stack, and the kernel's own report"):
        stacks = run.evidence("stack of the blocked task", s.blocked_tasks(machine))
        if stacks:
            wait_for_hung_task_report(run)
        run.evidence("hung-task report", hung_task_report(run.kernel_log))
        run.note("; ".join(stacks) or "no task sleeps uninterruptibly")
    run.check(any(where in stack for stack in stacks.values()), f"blocked elsewhere: {stacks}")


def wait_for_hung_task_report(run: Run) -> None:
    """Wait until the kernel's watchdog had the time to report the task twice over."""
    deadline = time.monotonic() + 2 * HUNG_SECONDS + 2
    while time.monotonic() < deadline:
        run.read_kernel_log()
        if hung_task_report(run.kernel_log):
            return
        time.sleep(0.3)


def hung_task_report(log: Sequence[Line]) -> list[str]:
    """The first report of the kernel's watchdog in its log, without registers, and what it is not sure of."""
    report = next((report for report in reports(log) if report.kind is Kind.HUNG_TASK), None)
    if report is None:
        return []
    lines = list(itertools.takewhile(lambda line: "RIP:" not in line and "</TASK>" not in line, texts(report.lines)))
    return [line for line in lines if not line.lstrip().startswith("? ")]


@scenario("17", "VFIO_DEVICE_RESET with an idle import", "returns as soon as the reset is done", group=HANG)
def reset_with_an_idle_import(run: Run, machine: XeMachine) -> None:
    does_not_wait(run, machine, "reset v")


@scenario(
    "17b", "FLR through configuration space with an idle import", "returns as soon as the reset is done", group=HANG
)
def flr_with_an_idle_import(run: Run, machine: XeMachine) -> None:
    # Device Control is 8 behind the PCI Express capability; its bit 15 initiates a function-level reset.
    does_not_wait(run, machine, lambda made: f"config v {_capability(made, 0x10) + 8:#x} 2 0x8000", unbind_first=True)


def _capability(made: Program, wanted: int) -> int:
    at = made.step("read-config v 0x34 1").number("value")
    while at:
        header = made.step(f"read-config v {at:#x} 2").number("value")
        if header & 0xFF == wanted:
            return at
        at = header >> 8
    raise LookupError(f"no capability {wanted:#x}")


@scenario(
    "17c",
    "VFIO_DEVICE_RESET with an idle import in a long-running VM",
    "returns as soon as the reset is done",
    group=HANG,
)
def reset_with_an_idle_import_in_a_long_running_vm(run: Run, machine: XeMachine) -> None:
    does_not_wait(run, machine, "reset v", options="lr")


@scenario("17g", "VFIO_DEVICE_RESET with an idle import of BAR0", "returns as soon as the reset is done", group=HANG)
def reset_with_an_idle_import_of_registers(run: Run, machine: XeMachine) -> None:
    # Kernels that take device addresses for BAR2 still map this one as a PCI device: both ways have to be revoked.
    does_not_wait(run, machine, "reset v", use=_import_registers)


@scenario("17d", "VFIO_DEVICE_RESET with an import that was never bound", "returns as soon as the reset is done")
def reset_with_an_unbound_import(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        made.do(f"export v 2 0+{MIB:#x} d", "import g d i")
        done = made.step("reset v", timeout=30)
        run.fact("seconds", done.seconds)


@scenario("17e", "a job frees a blocked reset", "not needed: it does not block", group=HANG)
def a_job_frees_a_blocked_reset(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.step("spawn job reset v")
        joined = made.step(f"try join job {BOUNDED_MS}")
        if not joined.running:
            run.check(joined.errno == "0", f"VFIO_DEVICE_RESET: {joined.errno}")
            return
        show_blocked(run, machine)
        first = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        freed = made.step("try join job 5000")
        s.settle(machine, 1)
        again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        run.evidence("freed by", f"a job in the same VM: {first.errno}; the next one: {again.errno}")
        run.check(freed.errno == "0", "a job in the same VM did not free it")
        run.known(defects.REVOCATION_WAITS, f"blocked until the importer submitted a job (which failed: {first.errno})")


@scenario(
    "17f",
    "a second VFIO_DEVICE_RESET while the first waits",
    "both return in bounded time",
    group=HANG,
)
def second_reset(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    run.excuse(
        Kind.HUNG_TASK, "the second reset waits for the first", place="vfio_pci_core_ioctl", count=s.WATCHDOG_REPORTS
    )
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.do("spawn first reset v", "sleep 100", "spawn second reset v")
        first, second = made.step(f"try join first {BOUNDED_MS}"), made.step("try join second 500")
        if not (first.running or second.running):
            run.check({first.errno, second.errno} == {"0"}, f"resets: {first.errno}, {second.errno}")
            return
        show_blocked(run, machine)
        used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        ended = [made.step(f"try join {job} {_FREED_MS}") for job in ("first", "second")]
        how = [step.errno for step in ended]
        run.evidence("freed by", f"a job in the same VM: {used.errno}; the resets then ended: {how}")
        _is_freed(run, not any(step.running for step in ended), "one of two resets")
        run.known(defects.REVOCATION_WAITS, "two resets queued up behind an idle importer")


@scenario(
    "19", "memory disabled in COMMAND with an idle import", "revoked and given back at once: data intact", group=HANG
)
def memory_disabled(run: Run, machine: XeMachine) -> None:
    does_not_wait(run, machine, f"config v {COMMAND} 2 0")


@scenario(
    "20",
    "VFIO's low-power feature with an idle import",
    "an error that is documented, or a revocation in bounded time",
    group=HANG,
)
def low_power(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        entered = made.step(f"try feature v {LOW_POWER_ENTRY:#x}")
        if entered.errno == "0":
            made.step(f"feature v {LOW_POWER_EXIT:#x}")
    if entered.errno in ("ENOTTY", "EINVAL", "EOPNOTSUPP"):
        run.note(f"this kernel refuses it for a VF: {entered.errno}", good=True)
        return
    does_not_wait(run, machine, f"feature v {LOW_POWER_ENTRY:#x}")


@scenario("21", "close() of the VFIO device with an idle import", "returns; the buffer is dead for good", group=HANG)
def close_with_an_idle_import(run: Run, machine: XeMachine) -> None:
    does_not_wait(run, machine, "close v", gone=Gone.CLOSED)


@scenario("21b", "an import that is used after its device was closed", "ENODEV, for good")
def used_after_close(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.do("spawn job close v", "sleep 300")
        errors = [made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000").errno for _ in range(2)]
        closed = made.step("try join job 5000")
        run.evidence("jobs after the close", errors)
        run.check(closed.errno == "0", f"close(): {closed.errno}")
        if errors[1] == "0" and machine.zero_copy:
            run.known("D7", "a job after the close of the device still reaches its memory")
        run.check(errors == ["ENODEV", "ENODEV"], f"jobs after the close: {errors}")


def _dies(run: Run, machine: XeMachine, *, gpu_first: bool, how: str) -> None:
    """A process that has the VF, the dma-buf and the render node must be able to end with an import alive."""
    s.may_hang(run)
    order = "render node before the VFIO device" if gpu_first else "VFIO device before the render node"
    for control in (True, False):
        with opened(run, machine, gpu_first=gpu_first) as made:
            import_and_use(run, machine, made)
            if control:
                _close_import(made)
            with run.step(f"{how}, {'control: the import closed first' if control else 'the import alive and idle'}"):
                made.kill() if how == "SIGKILL" else made.send("exit 0")
                gone = made.gone(BOUNDED_MS / 1000)
            if control:
                run.evidence("control (import closed first)", "the process ended" if gone else "the process stays")
                run.check(gone, f"{how} with the import closed first: the process does not end")
                continue
            run.evidence("with an idle import", "the process ended" if gone else f"the process stays ({order})")
            if gone:
                return
            show_blocked(run, machine)
            run.evidence("freed by", "nothing: both files are the blocked task's own; the guest is ended from outside")
            run.give_up("a task of the guest blocks for ever")
    run.known(defects.REVOCATION_WAITS, f"{how} of the one process that has both ({order}): it never ends")


@scenario("22", "SIGKILL of the process that has both; VFIO opened first", "the process ends", group=HANG)
def killed_vfio_first(run: Run, machine: XeMachine) -> None:
    _dies(run, machine, gpu_first=False, how="SIGKILL")


@scenario("22b", "SIGKILL of the process that has both; render node opened first", "the process ends", group=HANG)
def killed_render_node_first(run: Run, machine: XeMachine) -> None:
    _dies(run, machine, gpu_first=True, how="SIGKILL")


@scenario("22c", "exit() of the process that has both; render node opened first", "the process ends", group=HANG)
def exits_render_node_first(run: Run, machine: XeMachine) -> None:
    _dies(run, machine, gpu_first=True, how="exit")


@scenario(
    "22d",
    "SIGKILL of the exporter while another process imports",
    "the exporter ends; the import is dead",
    group=HANG,
)
def exporter_killed(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    with opened(run, machine) as owner:
        with s.program(run, machine) as other:
            s.import_from(run, machine, owner, other)
            owner.kill()
            gone = owner.gone(BOUNDED_MS / 1000)
            if gone:
                used = other.step(f"try copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}")
                if used.errno == "0" and machine.zero_copy:
                    run.known("D7", "a job still reaches the memory of a device whose user has died")
                run.check(used.errno == "ENODEV", f"a job after the exporter's end: {used.errno}")
            else:
                show_blocked(run, machine)
        if not gone:
            run.evidence("freed by", "the importer's end" if owner.gone(10) else "nothing")
            run.check(owner.gone(1), "the exporter is still there after the importer has gone")
            run.known(defects.REVOCATION_WAITS, "the exporter could not die before its importer")
