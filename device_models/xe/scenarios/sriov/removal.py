"""Scenarios 1 to 5: the PF goes, by hot-unplug, unbinding and unloading, while VFs are enabled and in use."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.sriov import defects
from vfio_user_xe.device_models.xe.scenarios.sriov import steps as s
from vfio_user_xe.device_models.xe.scenarios.sriov.machine import SriovMachine
from vfio_user_xe.device_models.xe.scenarios.sriov.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run

MIB = 1 << 20
_REMOVAL = 40.0
"""Seconds: xe gives up on running jobs after up to 10 of them."""


def _removed_and_found(run: Run, machine: SriovMachine) -> None:
    """Remove the PF, find it again, enable VFs and work with all functions."""
    s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", _REMOVAL, "removing the PF")
    _found(run, machine)


def _found(run: Run, machine: SriovMachine) -> None:
    left = machine.sh("ls /sys/bus/pci/devices | grep ^0000:01 || true")
    run.check(not left, f"functions are left: {left}")
    with run.step("rescan"):
        run.check(machine.rescan(), "the PF does not come back with xe")
    run.check(machine.numvfs() == 0, "VFs are enabled after the removal")
    s.work(run, machine, machine.card.pf, *machine.enable(2))


@scenario("1", "the PF removed with two VFs enabled, xe on both; found again", "ends in seconds, and works again")
def pf_removed_with_vfs(run: Run, machine: SriovMachine) -> None:
    machine.enable(2)
    _removed_and_found(run, machine)


@scenario("1b", "the PF removed with VFs on vfio-pci that nobody has open", "ends in seconds, and works again")
def pf_removed_with_vfs_on_vfio(run: Run, machine: SriovMachine) -> None:
    machine.enable(2, "vfio-pci")
    _removed_and_found(run, machine)


@scenario("1c", "the PF removed while a process has a VF open through VFIO", "waits for that process at most")
def pf_removed_with_an_open_vf(run: Run, machine: SriovMachine) -> None:
    machine.enable(2, "vfio-pci")
    with s.program(run, machine) as user:
        machine.card.open_vf(user, "v", 1)
        removal = Background(machine, f"echo 1 > {machine.card.sysfs}/remove")
        run.evidence("while the VF is open", "removed" if removal.ended(2) else "waits for the user")
        user.kill()
        run.check(user.gone(10), "the user of the VF does not end")
        if not removal.ended(_REMOVAL):
            s.stuck(run, machine, "removing the PF does not end after the VF's user has gone")
    _found(run, machine)


@scenario("1d", "the PF removed while jobs run on it and on a VF", "ends; the processes end; works again")
def pf_removed_under_jobs(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    with s.busy(run, machine, machine.card.pf, vfs[0]) as user:
        s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", _REMOVAL, "removing the PF")
        user.kill()
        run.check(user.gone(15), "the process does not end")
    _found(run, machine)


@scenario("1e", "the PF removed 5 times in a row with VFs enabled", "each time as the first")
def pf_removed_again_and_again(run: Run, machine: SriovMachine) -> None:
    for _ in range(5):
        machine.enable(3)
        s.must_end(run, machine, f"echo 1 > {machine.card.sysfs}/remove", _REMOVAL, "removing the PF")
        run.check(machine.rescan(), "the PF does not come back with xe")
    s.work(run, machine, machine.card.pf, *machine.enable(3))


@scenario(
    "2",
    "for 30 s: VFs enabled and disabled in one shell, the PF removed and found in another, devices listed in a third",
    "nothing is blocked, nothing is left half; works again",
)
def numvfs_against_removal(run: Run, machine: SriovMachine) -> None:
    sysfs = machine.card.sysfs
    loops = (
        f"for n in 3 0; do echo $n > {sysfs}/sriov_numvfs; done",
        f"echo 1 > {sysfs}/remove; usleep 300000; echo 1 > /sys/bus/pci/rescan; usleep 700000",
        "lspci -n > /dev/null; usleep 50000",
    )
    # The shell that enables three VFs holds pci_rescan_remove_lock while xe probes them: with sanitizers and without KVM for more
    # than the five seconds after which another's wait would be reported.
    with machine.waits_of(40):
        shells = [
            Background(machine, f"end=$(($(date +%s) + 30)); while test $(date +%s) -lt $end; do {loop}; done; true")
            for loop in loops
        ]
        for shell in shells:
            if not shell.ended(100):
                s.stuck(run, machine, "enabling VFs and removing the PF block each other")
    with run.step("rescan"):
        run.check(machine.rescan(), "the PF does not come back with xe")
    machine.as_before(run)
    run.check(not run.given_up, f"the PF cannot be used: {run.given_up}")
    s.work(run, machine, machine.card.pf, *machine.enable(3))


@scenario("3", "xe unbound from the PF with two VFs enabled, xe on both", "ends; VFs are gone; works when bound again")
def pf_unbound_with_vfs(run: Run, machine: SriovMachine) -> None:
    machine.enable(2)
    s.must_end(run, machine, f"echo {machine.card.pf} > /sys/bus/pci/drivers/xe/unbind", _REMOVAL, "unbinding xe")
    run.check(not machine.vfs(), "VFs are left")
    left = machine.provisioned()
    run.check(not left, f"LMTT still gives VFs memory: {left}")
    machine.bind(machine.card.pf)
    s.work(run, machine, machine.card.pf, *machine.enable(2))


def _unload(run: Run, machine: SriovMachine) -> None:
    run.read_kernel_log()
    before = len(run.kernel_log)
    s.must_end(run, machine, "modprobe -r xe", _REMOVAL, "unloading xe")
    run.read_kernel_log()
    late = [line.text for line in run.kernel_log[before:] if "invalidation" in line.text and "failed" in line.text]
    left = machine.provisioned()
    with run.step("xe loaded again"):
        machine.sh("modprobe xe", timeout=180)
        # The module's parameters went with it; scenarios that look at the driver's messages need them.
        machine.run("echo 2 > /sys/module/drm/parameters/debug")
    s.work(run, machine, machine.card.pf, *machine.enable(2))
    run.check(not left, f"LMTT still gives VFs memory: {left}")
    if late:
        run.known(defects.LATE_INVALIDATION, "; ".join(late))


@scenario("4", "xe unloaded after VFs were enabled and disabled", "nothing is invalidated too late; works again")
def unloaded_after_vfs(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    s.work(run, machine, *vfs)
    machine.card.disable_vfs()
    _unload(run, machine)


@scenario("4b", "xe unloaded with a share of VRAM set for a VF", "as 4; the share is given back")
def unloaded_with_a_quota(run: Run, machine: SriovMachine) -> None:
    machine.sh(f"echo {128 * MIB} > {machine.card.quota_file(1)}")
    _unload(run, machine)


@scenario("4c", "xe unloaded while VFs are enabled", "VFs go with it; as 4")
def unloaded_with_vfs(run: Run, machine: SriovMachine) -> None:
    vfs = machine.enable(2)
    s.work(run, machine, *vfs)
    _unload(run, machine)


@scenario("5", "VFs enabled and disabled 10 times while a processor of the guest is busy", "always all, and all bound")
def numvfs_again_and_again(run: Run, machine: SriovMachine) -> None:
    load = Background(
        machine, "end=$(($(date +%s) + 90)); while test $(date +%s) -lt $end -a ! -e /tmp/enough; do :; done"
    )
    try:
        for cycle in range(10):
            vfs = machine.enable(3)
            drivers = [machine.driver(address) for address in vfs]
            run.check(drivers == ["xe"] * 3, f"cycle {cycle}: VFs {vfs} with drivers {drivers}")
            machine.card.disable_vfs()
            run.check(not machine.vfs(), f"cycle {cycle}: VFs are left")
    finally:
        machine.run("touch /tmp/enough")
        load.ended(10)
        machine.run("rm -f /tmp/enough")
