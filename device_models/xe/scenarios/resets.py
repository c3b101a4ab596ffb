"""Scenarios 17h to 18b: resets of a VF that nobody was told of, that overlap, and whose clearing takes its time."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects, setups
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.machine import BAR2, MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import SOURCE, TARGET, import_and_use, opened, scenario
from vfio_user_xe.emulator.scenarios.run import Run

FLR_WAIT = 0.1
"""Seconds that a function may need for an FLR (PCI Express base specification, 6.6.2): the kernel waits no longer."""
_ROUNDS = 200
"""How often a kernel reads its MiB: that takes some tenths of a second, longer than the way from one kernel to the next."""
_RESET_RETURNS = 0.115
"""Seconds after an FLR at which VFIO_DEVICE_RESET returns."""


@scenario(
    "17h",
    "a reset that comes when the clearing after the one before ends",
    "the PF's driver answers every reset: the VF is served again",
)
def reset_when_another_ends(run: Run, machine: XeMachine) -> None:
    with s.program(run, machine) as made:
        machine.card.open_vf(made, "v", 1)
        made.step("reset v")
        s.settle(machine, 1)
        for offset in range(-30, 60, 3):
            last = machine.card.call("ownership")["resets"][-1]
            milliseconds = max(0, int(1000 * (last["ended"] - last["began"] - _RESET_RETURNS)) + offset)
            made.do("reset v", f"sleep {milliseconds}", "reset v")
            if machine.card.served(1, s.STUCK_SECONDS):
                continue
            text = f"the second of two resets, {milliseconds} ms after the first returned, was not answered"
            lost = s.lost_reset(run, machine)
            run.check(lost, text)
            run.known(defects.RESET_LOST, f"{text}: {lost}")
        run.note("every reset was answered", good=True)
    s.settle(machine, 1)


@scenario(
    "17s", "reset through sysfs while VFIO has the VF open", "importers are told, and do not read what is being cleared"
)
def reset_through_sysfs(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        _reset_through_sysfs(run, machine)
        state = machine.card.vf_state(1)
        used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
        s.settle(machine, 1)
        stale = run.evidence("stale", machine.card.call("verdicts")["stale"])
        if used.errno == "0":
            run.known(
                defects.RESET_UNNOTICED,
                f"a job read the memory after the reset (VF state then: {state}); stale: {len(stale)}",
            )
        run.check(used.errno == "ENODEV", f"the job: {used.errno}")


@scenario(
    "17t",
    "jobs during a reset through sysfs",
    "importers are told: no access while the memory is being cleared",
    setups.SLOW_CLEAR,
)
def jobs_during_a_reset_through_sysfs(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.do(f"spawn work loop copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 100")
        _reset_through_sysfs(run, machine)
        s.settle(machine, 1)
        run.note("the PF's driver has cleared the VF's memory")
        made.step("stop work")
        run.evidence("jobs", made.step("join work 10000").values)
        stale = run.evidence("stale", machine.card.call("verdicts")["stale"])
        if stale:
            counts = ", ".join(f"{access['reads']} reads over {access['interconnect']}" for access in stale)
            run.known(defects.RESET_UNNOTICED, f"jobs went on in memory that was being cleared: {counts}")


@scenario(
    "17r",
    "what is written right after opening the VF",
    "stays: opening returns when the memory is clean",
    setups.SLOW_CLEAR,
)
def written_right_after_opening(run: Run, machine: XeMachine) -> None:
    if machine.quota > BAR2:
        run.not_applicable(
            f"this kernel gives a VF {machine.quota:#x} bytes of the card's VRAM, and the slowed-down card clears no more than"
            f" {BAR2:#x} in the 5 s that xe waits for itself"
        )
    with s.program(run, machine) as made:
        made.step(f"vfio v {machine.card.vf(1)}")
        # The driver clears upwards: the end is what it comes to last.
        end = f"v {machine.visible - 16 * MIB:#x} {16 * MIB:#x} 7"
        made.step(f"fill {end}")
        state = machine.card.vf_state(1)
        s.settle(machine, 1)
        kept = made.step(f"try check {end}")
        run.evidence("VF state after the writes", state)
        if kept.errno == "EILSEQ":
            run.known(defects.CLEAR_AFTER_RESET, f"{int(kept.values['wrong']) * 4} of {16 * MIB} bytes were lost")
        run.check(kept.errno == "0", str(kept))
    s.settle(machine, 1)


def _reset_through_sysfs(run: Run, machine: XeMachine) -> None:
    file = f"/sys/bus/pci/devices/{machine.card.vf(1)}/reset"
    with run.step(f"echo 1 > {file}"):
        machine.sh(f"echo 1 > {file}")


_COPY = f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}"


def _reset_in_a_loop(run: Run, machine: XeMachine, resets: int, work: str = _COPY) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        machine.card.call("ledger", clear=True)
        made.do(f"spawn work loop {work}", "sleep 300")
        taken = []
        for _ in range(resets):
            with run.step("reset"):
                taken.append(made.step("reset v", timeout=30).seconds)
            s.settle(machine, 1)
            made.step("sleep 200")
        made.step("stop work")
        counts = run.evidence("jobs", made.step("join work 10000").values)
        run.evidence("seconds of each reset", [round(seconds, 3) for seconds in taken])
        stale = run.fact("stale", machine.card.call("verdicts")["stale"])
        run.check(int(counts.get("OK", "0")) > 0, f"no job succeeded: {counts}")
        if work != _COPY:
            s.check_units_read(run, machine, MIB)
        during = [access for access in stale if "reset" in access["reason"]]
        if during and all((access["after"] or 0) >= FLR_WAIT for access in during):
            late = min(access["after"] for access in during)
            count = sum(access["reads"] + access["writes"] for access in during)
            run.known(
                defects.CLEAR_AFTER_RESET,
                f"jobs ran again {late:.3f} s after the FLR began, before the VF's memory was clean: {count} accesses",
            )
        if during and machine.zero_copy:
            run.known("D7", f"the PF used the memory during the reset: {during}")
        run.check(not during, f"accesses during the reset: {during}")


@scenario(
    "18",
    "VFIO_DEVICE_RESET while the PF copies in a loop",
    "jobs fail meanwhile, then go on; no access during the reset",
)
def reset_while_copying(run: Run, machine: XeMachine) -> None:
    _reset_in_a_loop(run, machine, 1)


@scenario(
    "18k",
    "VFIO_DEVICE_RESET while kernels of the PF run, each for a while",
    "the reset waits for the kernel that runs; then as 18",
)
def reset_while_kernels_run(run: Run, machine: XeMachine) -> None:
    _reset_in_a_loop(run, machine, 1, s.kernel_command("copy", TARGET, SOURCE, MIB, word=_ROUNDS))


@scenario("18b", "the same, four times in a row, with slow clearing", "as 18, every time", setups.SLOW_CLEAR)
def resets_while_copying(run: Run, machine: XeMachine) -> None:
    _reset_in_a_loop(run, machine, 4)
