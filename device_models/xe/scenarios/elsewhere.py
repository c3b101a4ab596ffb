"""Scenarios 30, 31 and 33 to 35, which need a kernel or machines that have more; and the controls of the verdicts."""

from __future__ import annotations

from device_models.xe.scenarios import world as w
from device_models.xe.scenarios.world import (
    MIB,
    SOURCE,
    TARGET,
    World,
    check_bound,
    check_path,
    imported,
    opened,
    scenario,
)
from emulator.scenarios.run import Run
from emulator.scenarios.scenario import Failed, Setup

_FAULTY = Setup(
    "root port, AMD, pass-through, faulty link",
    (
        *w.SERVE,
        *("--interconnect", "fault:inner=iov,mode=corrupt,initiator=pf,owner=vf1,kind=vram,times=0,armed=false"),
        *("--interconnect", "fault:inner=p2p,mode=corrupt,initiator=pf,owner=vf1,times=0,armed=false"),
        *("--interconnect", "p2p", "--interconnect", "host_dma"),
    ),
    w.machine(),
    w.prepare,
)


@scenario("30", "the VF's driver is xe-vfio-pci", "EOPNOTSUPP until that driver offers it")
def migration_driver(run: Run, world: World) -> None:
    if world.bench.guest.run("modprobe xe-vfio-pci").returncode:
        run.not_applicable("this kernel has no module xe-vfio-pci")
    world.bench.bind(1, "xe-vfio-pci")
    try:
        with opened(run, world) as made:
            result = made.step("try export v 2 0+0x1000 d")
            run.check(result.errno in ("0", "EOPNOTSUPP"), f"export: {result.errno}")
    finally:
        world.bench.bind(1, "vfio-pci")


@scenario("31", "iommufd imports the same buffer", "both live, a revocation hits both")
def iommufd(run: Run, world: World) -> None:
    if world.bench.guest.run("test -c /dev/iommu").returncode:
        run.not_applicable("this kernel has no iommufd (/dev/iommu)")
    run.not_applicable("the client has no iommufd yet")


@scenario("33", "KUnit tests of the core's matching", "all pass")
def kunit(run: Run, world: World) -> None:
    if world.bench.guest.run("test -d /sys/kernel/debug/kunit || modprobe kunit").returncode:
        run.not_applicable("this kernel is built without KUnit")
    results = world.bench.guest.run("cat /sys/kernel/debug/kunit/*dma*/results 2>/dev/null").stdout
    if not results:
        run.not_applicable("this kernel has no KUnit suite for dma-bufs")
    run.check("not ok" not in run.fact("KUnit", results), "a KUnit test failed")


@scenario("34", "a virtual machine in the guest scans out of a VF", "frames arrive without a copy")
def nested_machine(run: Run, world: World) -> None:
    run.not_applicable(
        "needs QEMU inside of the guest, with virtio-gpu blobs backed by VFIO devices, which no release has"
    )


@scenario("35", "that virtual machine reboots", "its buffers are revoked, nothing hangs")
def nested_machine_reboots(run: Run, world: World) -> None:
    nested_machine(run, world)


@scenario("c1", "control: data that arrive wrong are seen", "turns red", _FAULTY, control=True)
def control_wrong_data(run: Run, world: World) -> None:
    with opened(run, world) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        check_bound(run, world, made, f"0+{MIB:#x}")
        world.lab.card.call("inject", fault="interconnect.fault", times=0)
        made.step(f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}")
        read = made.step(f"try verify target 0 0 {MIB:#x} 7")
        run.check(read.errno == "EILSEQ", "the link corrupted what was read, and nobody saw it")


@scenario("c2", "control: a link that fails costs the job, not the card", "the job fails", _FAULTY, control=True)
def control_broken_link(run: Run, world: World) -> None:
    run.excuse(r"CAT error|Engine reset|Timedout job|coredump")
    with opened(run, world) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        check_bound(run, world, made, f"0+{MIB:#x}")
        world.lab.card.call("inject", fault="interconnect.fault", times=1, arguments={"mode": "fail"})
        broken = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}")
        run.check(broken.errno != "0", "the link failed, and the job did not")
    with opened(run, world) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        run.check(imported(made, f"0+{MIB:#x}").errno == "0", "the card does not work any more")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", f"verify target 0 0 {MIB:#x} 7")


@scenario("c3", "control: the path that was not taken is not reported", "turns red", control=True)
def control_wrong_path(run: Run, world: World) -> None:
    with opened(run, world) as made:
        made.step(f"fill v 0 {2 * MIB:#x} 7")
        check_bound(run, world, made, f"0+{2 * MIB:#x}")
        made.step(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
        world.zero_copy = not world.zero_copy
        try:
            check_path(run, world)
        except Failed as failed:
            run.note(f"as it should: {failed}", good=True)
            return
        finally:
            world.zero_copy = not world.zero_copy
        run.check(False, "the other path was accepted")


@scenario("c4", "control: a process that cannot die is seen", "turns red", control=True)
def control_process_that_stays(run: Run, world: World) -> None:
    with w.client(run, world) as made:
        run.check(not made.gone(1), "a process that runs was taken for gone")
        run.check(not w.blocked_tasks(world), "tasks are blocked in a healthy guest")


@scenario("c5", "control: a kernel that reports itself is heard", "turns red", control=True)
def control_kernel_report(run: Run, world: World) -> None:
    world.bench.sh("echo 'WARNING: CPU: 0 PID: 1 at drivers/gpu/drm/xe/xe_bo.c:1 control' > /dev/kmsg")
    run.read_kernel_log()
    run.check(run.splats(), "a warning in the kernel's log was not seen")
    run.excuse(r"xe_bo.c:1 control")
