"""Scenarios 10 to 15: resets of VFs, and VFs whose driver or user goes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from vfio_user_xe.device_models.xe.scenarios.defects import RESET_LOST
from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_BURSTS = 20
_GAPS = (0, 5, 20, 50, 100, 200)
"""Milliseconds between resets of a burst."""
_SERVED = 10.0
_UNAWARE = (
    (Kind.GPU_HANG, "0000:01:00.1: [drm] *ERROR* TLB invalidation fence timeout"),
    (Kind.GPU_HANG, "0000:01:00.1: [drm] Tile0: GT"),
    (Kind.GPU_HANG, "coredump"),
    (Kind.DRM, "0000:01:00.1: [drm] *ERROR*"),
    (Kind.DEVICE_LOST, "0000:01:00.1"),
    (Kind.DEVICE_LOST, "wedged"),
)
"""What xe says on a VF that was reset behind its back."""
_UNAWARE_SECONDS = 60
"""What one wait of that xe may take."""
_UNLOCKED = "unlocked secondary bus reset"
"""pci.c:pci_bridge_secondary_bus_reset"""


@scenario(
    "10",
    f"{_BURSTS} bursts of two to four resets of a VF, 0 to 200 ms apart, while jobs run on another",
    "every reset is answered, on both GTs; the VF works afterwards",
)
def reset_bursts(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    machine.unbind(vfs[0])
    chance = random.Random(7)
    lost = []
    with s.busy(run, machine, vfs[1]) as other:
        for burst in range(_BURSTS):
            gaps = [chance.choice(_GAPS) for _ in range(chance.randint(1, 3))]
            flr = f"setpci -s {vfs[0]} CAP_EXP+8.w=8000:8000"
            machine.sh("; ".join([flr, *(f"usleep {gap * 1000}; {flr}" for gap in gaps)]))
            if machine.card.served(1, _SERVED):
                continue
            why = s.lost_reset(run, machine, 1)
            run.check(why, f"burst {burst}, gaps {gaps} ms: VF 1 is not served")
            lost.append(f"burst {burst}, gaps {gaps} ms: {why}")
        other.step("stop work0")
        jobs = other.step("join work0 30000").number("jobs")
    run.evidence("jobs of the other VF meanwhile", jobs)
    machine.bind(vfs[0])
    s.work(run, machine, machine.card.pf, *vfs)
    if lost:
        run.known(RESET_LOST, f"{len(lost)} of {_BURSTS} bursts; {lost[0]}")


@scenario("11", "xe unbound from a VF that had jobs", "tells the GuC, which touches nothing of the VF afterwards")
def vf_driver_unbound(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    s.work(run, machine, vfs[0])
    run.check(all(machine.ctb(1)), "the VF has no CT buffer while its driver is there")
    machine.unbind(vfs[0])
    machine.wait(lambda: not any(machine.ctb(1)), 1)
    still = any(machine.ctb(1))
    machine.card.call("ledger", clear=True)
    s.work(run, machine, machine.card.pf, vfs[1])
    touched = [row for row in machine.card.call("ledger") if row["initiator"] == "vf1"]
    run.evidence("accesses of the VF after its driver had gone", touched)
    machine.bind(vfs[0])
    s.work(run, machine, *vfs)
    if still:
        run.known(defects.SILENT_VF, "the GuC has the VF's CT buffer after the driver has gone")
    run.check(not touched, f"the VF was active without a driver: {touched}")


@scenario(
    "12", "a VF's reset while jobs run on it, on another VF and on the PF", "the others go on; the VF works again"
)
def busy_vf_reset(run: Run, machine: SriovMachine) -> None:
    for kind, message in _UNAWARE:
        run.excuse(kind, "the VF's xe is not told of the reset, and gives its device up", message=message, count=40)
    vfs = machine.enable(2)
    # The VF's xe waits for answers to invalidations, each for seconds, while its user's process ends and while it goes.
    with machine.waits_of(_UNAWARE_SECONDS):
        with s.busy(run, machine, machine.card.pf, vfs[1]) as others, s.program(run, machine) as own:
            own.do(f"gpu g {vfs[0]}", "spawn work busy g", "sleep 200")
            machine.sh(f"echo 1 > /sys/bus/pci/devices/{vfs[0]}/reset", timeout=60)
            served = machine.card.served(1, _SERVED)
            others.do("stop work0", "stop work1")
            ended = [others.step(f"join work{index} 30000").number("jobs") for index in (0, 1)]
            own.kill()
            run.check(own.gone(20), "the process with jobs on the VF does not end")
        run.evidence("jobs of PF and VF 2", ended)
        if not served:
            why = s.lost_reset(run, machine, 1)
            run.check(why, "the VF is not served after its reset")
            run.known(RESET_LOST, why)
        machine.unbind(vfs[0])
    machine.bind(vfs[0])
    s.work(run, machine, machine.card.pf, *vfs)


@scenario(
    "13",
    "a VF opened and closed by VFIO 10 times while another VF's memory holds a pattern",
    "VFs stay; only the VF is reset",
)
def opened_and_closed(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2, "vfio-pci")
    methods = machine.sh(f"cat /sys/bus/pci/devices/{vfs[0]}/reset_method")
    run.evidence("reset methods of a VF", methods)
    run.check(methods == "flr", f"a VF is reset by {methods}: others are reset with it")
    with s.program(run, machine) as keeper:
        machine.card.open_vf(keeper, "w", 2)
        keeper.step(f"fill w 0 {MIB:#x} 9")
        for _ in range(10):
            with s.program(run, machine) as user:
                machine.card.open_vf(user, "v", 1)
                user.step("peek v 0")
            machine.card.settle(1)
        keeper.step(f"check w 0 {MIB:#x} 9")
    run.check(machine.numvfs() == 2, "VFs are gone")
    machine.card.settle(2)


@scenario(
    "14", "what a user of a VF left in its memory, once it is opened again", "is gone: the PF's driver has cleared it"
)
def memory_cleared_between_users(run: Run, machine: SriovMachine) -> None:
    machine.enable(2, "vfio-pci")
    with s.program(run, machine) as first:
        machine.card.open_vf(first, "v", 1)
        first.do(f"fill v 0 {MIB:#x} 7", f"fill v {60 * MIB:#x} {MIB:#x} 7")
    machine.card.settle(1)
    with s.program(run, machine) as second:
        machine.card.open_vf(second, "v", 1)
        for offset in (0, 4096, MIB - 4, 60 * MIB, 61 * MIB - 4):
            found = second.step(f"peek v {offset:#x}").number("value")
            run.check(not found, f"{found:#x} at {offset:#x} is left of the user before")
    machine.card.settle(1)


@scenario(
    "15",
    "SIGKILL of processes with jobs on all engines of PF and VFs, 3 times",
    "they end; engines and memory are free",
)
def users_killed(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    for _ in range(3):
        with s.busy(run, machine, machine.card.pf, *vfs) as user:
            user.kill()
            run.check(user.gone(20), "the process does not end")
        s.work(run, machine, machine.card.pf, *vfs)


@scenario(
    "15b", "SIGKILL of a process that has VFs open through VFIO, one after the other", "ends; VFs are served again"
)
def vfio_user_killed(run: Run, machine: SriovMachine) -> None:
    machine.enable(2, "vfio-pci")
    for _ in range(3):
        with s.program(run, machine) as user:
            machine.card.open_vf(user, "v", 1)
            machine.card.open_vf(user, "w", 2)
            user.do(f"fill v 0 {MIB:#x} 7", f"fill w 0 {MIB:#x} 8")
            user.kill()
            run.check(user.gone(10), "the process does not end")
        for number in (1, 2):
            if not machine.card.served(number, _SERVED):
                why = s.lost_reset(run, machine, number)
                run.check(why, f"VF {number} is not served after its user has gone")
                run.known(RESET_LOST, why)


@contextlib.contextmanager
def _pf_on_vfio(run: Run, machine: SriovMachine) -> Iterator[None]:
    """The PF on vfio-pci; as before afterwards."""
    pf, sysfs = machine.card.pf, machine.card.sysfs
    if "bus" not in machine.sh(f"cat {sysfs}/reset_method").split():
        run.not_applicable("the kernel would not reset the PF by its bus")
    if machine.run(f"dmesg | grep -q '{_UNLOCKED}'").returncode == 0:
        run.not_applicable("the kernel says this once a boot, and has said it")
    machine.unbind(pf)
    try:
        machine.sh(f"echo vfio-pci > {sysfs}/driver_override; echo {pf} > /sys/bus/pci/drivers_probe")
        yield
    finally:
        machine.run(
            f"echo {pf} > /sys/bus/pci/drivers/vfio-pci/unbind; echo > {sysfs}/driver_override;"
            f" echo default > {sysfs}/reset_method"
        )
        machine.as_before(run)


def _unlocked(run: Run) -> str:
    """What the kernel says of a bus reset without the bridge's lock; empty: nothing. It does so once: the guest is given up."""
    run.read_kernel_log()
    said = next((line.text for line in run.kernel_log if _UNLOCKED in line.text), "")
    if said:
        run.give_up("the kernel says once a boot that a bus was reset unlocked")
    return said


@scenario("16", "the PF on vfio-pci, reset by its bus when it is closed", "the bridge is locked while its bus is reset")
def reset_by_the_bus_at_close(run: Run, machine: SriovMachine) -> None:
    method = f"{machine.card.sysfs}/reset_method"
    with _pf_on_vfio(run, machine):
        for _ in range(3):
            machine.sh(f"echo flr > {method}")
            with s.program(run, machine) as user:
                user.step(f"vfio v {machine.card.pf}")
                machine.sh(f"echo bus > {method}")
    if said := _unlocked(run):
        run.known(defects.UNLOCKED_CLOSE, said)
    s.work(run, machine, machine.card.pf)


@scenario(
    "16b", "the PF on vfio-pci, reset by its bus when it is opened", "the bridge is locked while its bus is reset"
)
def reset_by_the_bus_at_open(run: Run, machine: SriovMachine) -> None:
    method = f"{machine.card.sysfs}/reset_method"
    with _pf_on_vfio(run, machine):
        machine.sh(f"echo bus > {method}")
        with s.program(run, machine) as user:
            user.step(f"vfio v {machine.card.pf}")
            machine.sh(f"echo flr > {method}")
    if said := _unlocked(run):
        run.known(defects.UNLOCKED_TRY, said)
    s.work(run, machine, machine.card.pf)
