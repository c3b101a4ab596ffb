"""Frames of a virtual machine that the host composes."""

from __future__ import annotations

import contextlib

from vfio_user_xe.device_models.xe.scenarios.machine import BAR2, MIB, SCATTERED
from vfio_user_xe.device_models.xe.scenarios.vm import steps as s
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host
from vfio_user_xe.device_models.xe.scenarios.vm.setups import TWO
from vfio_user_xe.device_models.xe.scenarios.vm.steps import scenario
from vfio_user_xe.emulator.scenarios.run import Run

_FRAMES = 5


def _frames(run: Run, host: Host, frames: int = _FRAMES, *, by_device: bool = False) -> None:
    [vm] = host.vms
    with (
        s.compositor(run, host) as composing,
        s.running(run, host, vm, by_device=by_device),
        s.renderer(run, vm) as drawing,
    ):
        run.evidence("ranges of BAR2", drawing.ranges)
        s.first_frame(host, drawing, composing)
        for count in range(2, frames + 1):
            drawing.draw(count)
            s.frame(drawing, composing, count, count)
        s.check_frames_path(run, host, frames=frames)
        composing.dropped(vm.name)
        s.check_machine(run, vm)


@scenario("1", "a machine draws on its VF, and the PF composes the frames", "each arrives whole, by the kernel's path")
def frames(run: Run, machine: Host) -> None:
    _frames(run, machine)


@scenario("1b", "the same with a quota that lies scattered in VRAM", "the same")
def frames_of_scattered_memory(run: Run, machine: Host) -> None:
    machine.reprovision(SCATTERED)
    try:
        blocks = run.fact("LMTT", machine.card.lmtt(1))
        run.check(len(blocks) > 1, f"the quota is in one piece: {blocks}")
        _frames(run, machine, 2)
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


@scenario("1e", "the same where the VMM opens the VF by its character device, with iommufd", "the same")
def frames_by_iommufd(run: Run, machine: Host) -> None:
    if machine.run(f"test -c /dev/iommu && ls /sys/bus/pci/devices/{machine.card.vf(1)}/vfio-dev").returncode:
        run.not_applicable("this kernel has no iommufd (/dev/iommu), or no character devices of VFIO")
    _frames(run, machine, 2, by_device=True)


@scenario("1d", "the surface gets another size", "the old buffer is let go, frames of the new size arrive")
def surface_resized(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    size = s.FRAME // 2
    with s.compositor(run, machine) as composing, s.running(run, machine, vm), s.renderer(run, vm) as drawing:
        s.first_frame(machine, drawing, composing)
        port, made, shown = vm.name, drawing.program, composing.program
        made.step(f"tell {port} unref resource=1")
        composing.expect(vm.name, "unref", resource="1")
        composing.dropped(vm.name)
        made.step(f"buffer g smaller {s.SURFACE + 16 * MIB:#x} {size:#x} vram")
        ranges = made.step(f"pages smaller {vm.address}", timeout=120).values["ranges"]
        made.do(
            f"paint drawn 0 0 {size:#x} 9",
            f"copy g {s.SURFACE + 16 * MIB:#x} {s.DRAWN:#x} {size:#x}",
            f"tell {port} create resource=2 size={size:#x} ranges={ranges}",
            f"tell {port} scanout resource=2 width={s.WIDTH} height={s.HEIGHT // 2} format=XR24 modifier=0x0"
            f" stride={4 * s.WIDTH} offset=0",
            f"tell {port} flush resource=2 frame=2",
        )
        composing.expect(vm.name, "create", resource="2", size=f"{size:#x}")
        composing.imported(vm.name)
        composing.expect(vm.name, "scanout", resource="2", height=str(s.HEIGHT // 2))
        composing.expect(vm.name, "flush", resource="2", frame="2")
        shown.do(
            f"copy g {s.TARGET + MIB:#x} {composing.address(1):#x} {size:#x}",
            f"verify target {MIB:#x} 0 {size:#x} 9",
            f"tell {port} done resource=2 frame=2 composed=2",
        )
        drawing.told(2)
        shown.do(f"unbind g {composing.address(1):#x} {size:#x}", f"gem-close i-{port}", f"close d-{port}")
        s.check_machine(run, vm)


@scenario(
    "1c",
    "a machine names ranges that are not its VF's, or no pages, and says what only a VMM may",
    "refused; frames go on",
    groups=("hostile",),
)
def ranges_of_others(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    with s.compositor(run, machine) as composing, s.running(run, machine, vm), s.renderer(run, vm) as drawing:
        s.first_frame(machine, drawing, composing)
        for words in (
            f"create resource=2 size=0x1000 ranges={BAR2:#x}+0x1000",
            "create resource=2 size=0x1000 ranges=0xfffffffffffff000+0x1000",
            "create resource=2 size=0x2000 ranges=0x0+0x1000",
            "create resource=2 size=0x800 ranges=0x0+0x800",
            "create resource=2 size=0 ranges=",
            "create resource=1 size=0x1000 ranges=0x0+0x1000",
            "flush resource=2 frame=9",
            "hello version=1 name=another",
            "revoke reason=reset",
            "x" * 500,
        ):
            drawing.refused(words)
        drawing.draw(2)
        s.frame(drawing, composing, 2, 2)
        composing.dropped(vm.name)


@scenario(
    "5",
    "the machine is switched off, its VF gets half of its VRAM, and the machine comes back",
    "the compositor lets go, the VF is closed; frames arrive from where the memory is now",
)
def quota_changed(run: Run, machine: Host) -> None:
    [vm] = machine.vms
    try:
        with s.compositor(run, machine) as composing:
            with s.running(run, machine, vm) as vmm, s.renderer(run, vm) as drawing:
                s.first_frame(machine, drawing, composing)
                before = machine.card.lmtt(1)
                vmm.switch_off()
                s.let_go(composing, vm, "shutdown")
                run.check(vmm.gone(), "the VMM does not end")
                run.check(machine.state(vm, "closed"), f"the VF is {machine.passed_on(vm)}")
            machine.reprovision(machine.quota // 2)
            with s.running(run, machine, vm), s.renderer(run, vm) as drawing:
                run.fact("LMTT", {"before": before, "afterwards": machine.card.lmtt(1)})
                s.first_frame(machine, drawing, composing, seed=4)
                s.check_frames_path(run, machine)
                composing.dropped(vm.name)
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


@scenario("6", "two machines draw at the same time", "each frame is in its own window", TWO, groups=("two",))
def two_machines(run: Run, machine: Host) -> None:
    with s.compositor(run, machine) as composing, contextlib.ExitStack() as stack:
        drawings = []
        for vm in machine.vms:
            stack.enter_context(s.running(run, machine, vm))
            drawings.append(stack.enter_context(s.renderer(run, vm)))
            s.first_frame(machine, drawings[-1], composing, seed=10 * vm.vfid)
        machine.card.call("ledger", clear=True)
        for count in range(2, _FRAMES + 1):
            for drawing in drawings:
                drawing.draw(10 * drawing.vm.vfid + count)
            for drawing in drawings:
                s.frame(drawing, composing, count, 10 * drawing.vm.vfid + count)
        for drawing in drawings:
            s.check_frames_path(run, machine, drawing.vm.vfid, _FRAMES - 1)
            composing.shows(10 * drawing.vm.vfid + _FRAMES, drawing.vm.vfid)
            composing.dropped(drawing.vm.name, drawing.vm.vfid)
