"""The host sleeps while a virtual machine draws."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.scenarios import devices_suspend
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.gt_reset import around
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run


@scenario(
    "10",
    "the host is suspended in the middle of a frame, and resumes (devices only); its machine stands still meanwhile",
    "the frame is composed, and LMTT is as before; the machine's queues may be lost, and a new program draws",
    groups=("power",),
)
def host_suspended_in_a_frame(run: Run, machine: Host) -> None:
    if machine.run(devices_suspend.POSSIBLE).returncode:
        run.not_applicable("this kernel has no /sys/power/pm_test")
    [vm] = machine.vms
    with s.compositor(run, machine) as composing, s.running(run, machine, vm) as vmm:

        def suspend() -> None:
            # A host that sleeps has frozen its programs, and with them its machine's QEMU.
            with vm.stopped(), run.step("the host sleeps"):
                slept = machine.run(devices_suspend.DEVICES, timeout=180)
            run.check(not slept.returncode, f"suspending failed: {slept.stderr.strip()}")
            run.check(machine.state(vm, "open"), f"the VF is {machine.passed_on(vm)} after the host has resumed")

        # A virtio console that was suspended is not told again that the other end is open, and takes nothing to be sent.
        run.give_up("the ports of a host that was suspended carry messages in one direction only")
        around(run, machine, composing, suspend, unheard=vmm)
