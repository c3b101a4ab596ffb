"""Virtual machines that are reset or switched off, and VMMs that die, with frames on their way."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import defects
from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.revocation import show_blocked
from vfio_user_xe.device_models.xe.scenarios.steps import may_hang
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.scenarios.run import Run

RESET_SECONDS = 20.0
"""How long a reset may take that waits for nothing but itself, on a busy machine (some 150 ms otherwise)."""
PATIENCE = 60.0
"""Seconds for what nothing is in the way of."""


def _reset(run: Run, host: Host, drawing: s.Renderer) -> None:
    """The machine is reset, and its renderer is gone: from then on its VF waits for the VMM."""
    vm = drawing.vm
    with run.step(f"{vm.name} is reset"):
        vm.reset()
    drawing.lost()
    run.check(host.state(vm, "reset-wanted"), f"the VF is {host.passed_on(vm)} after the machine's reset")


def _comes_back(run: Run, host: Host, vm: VirtualMachine, vmm: Vmm) -> None:
    said = vmm.wait_for("reset result=", seconds=PATIENCE)
    run.evidence("the VMM", vmm.log())
    run.check("result=0" in said, f"VFIO_DEVICE_RESET: {said}")
    run.check(host.state(vm, "open"), f"the VF is {host.passed_on(vm)} after its VMM has reset it")
    s.settled(run, host, vm)
    vm.sh("modprobe xe", timeout=600)
    vm.wait_bound()


@scenario(
    "2",
    "the machine is reset in the middle of a frame; the compositor lets go when it is asked to",
    "the VF is reset at once, the machine comes back and draws again",
    groups=("reset",),
)
def reset_in_a_frame(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    with s.compositor(run, machine) as composing, s.running(run, machine, vm) as vmm:
        with s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing)
            s.second_frame(drawing, composing)
            _reset(run, machine, drawing)
        vmm.machine_was_reset()
        s.let_go(composing, vm, "reset")
        _comes_back(run, machine, vm, vmm)
        with s.renderer(run, vm) as drawing:
            s.again(machine, drawing, composing, seed=3)
            s.check_frames_path(run, machine)
            composing.dropped(vm.name)
        s.check_machine(run, vm)


@scenario(
    "2b",
    "the machine is reset while the compositor, which does not answer, has its frame imported and idle",
    "the VF is reset all the same",
    groups=("reset",),
)
def reset_with_a_silent_compositor(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    may_hang(run)
    with s.compositor(run, machine) as composing, s.running(run, machine, vm) as vmm:
        with s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing)
            _reset(run, machine, drawing)
        vmm.machine_was_reset()
        vmm.wait_for("revoked reason=reset", seconds=PATIENCE)
        if not machine.state(vm, "open", RESET_SECONDS):
            show_blocked(run, machine)
            composing.expect(vm.name, "revoke", reason="reset")
            composing.dropped(vm.name)
            freed = vmm.wait_for("reset result=", seconds=PATIENCE)
            run.known(
                defects.REVOCATION_WAITS,
                f"the machine's reset is blocked until the compositor has unmapped its idle frame; then {freed}",
            )
        _comes_back(run, machine, vm, vmm)


@scenario(
    "3",
    "the VMM's process is killed with a frame in flight",
    "the VF is closed to its machine, what was imported is revoked, and a new VMM and machine draw again",
    groups=("end",),
)
def vmm_killed(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    may_hang(run)
    with s.compositor(run, machine) as composing:
        with s.running(run, machine, vm) as vmm, s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing)
            s.second_frame(drawing, composing)
            vmm.kill()
            if not vmm.gone(RESET_SECONDS):
                show_blocked(run, machine)
                composing.dropped(vm.name)
                run.check(vmm.gone(PATIENCE), "the VMM does not end after the compositor has let go, either")
                run.known(
                    defects.REVOCATION_WAITS, "the killed VMM does not end while the compositor has its frame imported"
                )
            run.check(machine.state(vm, "closed"), f"the VF is {machine.passed_on(vm)} after its VMM was killed")
            composing.hung_up(vm.name)
            composing.refused(vm.vfid)
            composing.dropped(vm.name)
        with s.running(run, machine, vm), s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing, seed=3)
            s.check_frames_path(run, machine)
            composing.dropped(vm.name)
        s.check_machine(run, vm)


@scenario(
    "4",
    "the host disables its VFs under a machine that draws",
    "VFIO asks the VMM for the device, which gives it back; the machine sees the VF pulled out",
    groups=("end",),
)
def vfs_disabled(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    may_hang(run)
    with s.compositor(run, machine) as composing, s.running(run, machine, vm) as vmm, s.renderer(run, vm) as drawing:
        s.first_frame(machine, drawing, composing)
        disabling = Background(machine, f"echo 0 > {machine.card.sysfs}/sriov_numvfs")
        s.let_go(composing, vm, "removed")
        vmm.wait_for(r"closed$")
        disabling.must_end(run, "the VFs are not disabled although the VMM has closed its device")
        run.check(disabling.code() == 0, f"disabling VFs: {disabling.output()}")
        run.check(machine.state(vm, "absent"), f"the VF is {machine.passed_on(vm)} after VFs were disabled")
        drawing.program.end()
        vm.unplug()
        machine.restore_quotas(run)


@scenario(
    "8",
    "the machine stops answering in the middle of a frame: its QEMU is stopped",
    "nothing in the host waits for it: its frame is composed, its VMM ends, its VF is closed, and works when it goes on",
    groups=("end", "hostile"),
)
def machine_stopped(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    with s.compositor(run, machine) as composing:
        with s.running(run, machine, vm) as vmm, s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing)
            s.second_frame(drawing, composing)
            with vm.stopped():
                composing.compose()
                composing.shows(2)
                composing.done(vm.name, 2)
                vmm.wait_for("done resource=1 frame=2")
                vmm.switch_off()
                s.let_go(composing, vm, "shutdown")
                run.check(vmm.gone(), "the VMM does not end while its machine is stopped")
                run.check(machine.state(vm, "closed"), f"the VF is {machine.passed_on(vm)} after its VMM has ended")
                s.settled(run, machine, vm)
            drawing.told(2)
        with s.running(run, machine, vm), s.renderer(run, vm) as drawing:
            s.first_frame(machine, drawing, composing, seed=3)
            composing.dropped(vm.name)
        s.check_machine(run, vm)
