"""The host's GPU is reset while a virtual machine draws."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.kernel_reports import Kind
from vfio_user_xe.emulator.scenarios.run import Run


@scenario(
    "9",
    "the PF's GT is reset in the middle of a frame",
    "the frame is composed, and LMTT is as before; the machine's queues may be lost, and a new program draws",
    groups=("reset",),
)
def pf_reset_in_a_frame(run: Run, machine: Host) -> None:
    with s.compositor(run, machine) as composing, s.running(run, machine, machine.vms[0]):

        def reset() -> None:
            with run.step("the PF's GT is reset"):
                machine.sh(f"cat {machine.card.debugfs}/gt0/force_reset_sync", timeout=60)

        around(run, machine, composing, reset)


def around(
    run: Run, machine: Host, composing: s.Compositor, event: Callable[[], None], unheard: Vmm | None = None
) -> None:
    """A frame before the event, one that is on its way meanwhile, and one of a new program afterwards.

    With `unheard`, what this VMM says does not reach the machine after the event.
    """
    [vm] = machine.vms
    with s.renderer(run, vm) as drawing:
        s.first_frame(machine, drawing, composing)
        blocks = machine.card.lmtt(1)
        s.second_frame(drawing, composing)
        event()
        drawing.unheard = unheard
        composing.compose()
        composing.shows(2)
        composing.done(vm.name, 2)
        drawing.told(2)
        run.check(machine.card.lmtt(1) == blocks, f"LMTT: {blocks} before, {machine.card.lmtt(1)} afterwards")
        # The GuC was loaded anew, and knows nothing of the contexts that the VF's driver has registered.
        lost = run.evidence("the machine's first job afterwards", drawing.attempt(3))
        run.check(lost in ("0", "EIO", "ECANCELED"), f"the machine's first job afterwards: {lost}")
        drawing.unref()
        composing.expect(vm.name, "unref", resource="1")
        composing.dropped(vm.name)
    with s.renderer(run, vm) as drawing:
        drawing.unheard = unheard
        s.again(machine, drawing, composing, seed=4)
        s.check_frames_path(run, machine)
        composing.dropped(vm.name)
    # A job of the lost contexts times out there, and its driver resets the VF's GT.
    s.check_machine(run, vm, Kind.GPU_HANG, Kind.DRM)
