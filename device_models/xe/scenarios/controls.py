"""Controls: a fault is injected for each kind of verdict, and the verdict must turn red. They pass when it does."""

from __future__ import annotations

from collections.abc import Callable

from vfio_user_xe.device_models.xe.scenarios import world as w
from vfio_user_xe.device_models.xe.scenarios.guest_program import StepFailed
from vfio_user_xe.device_models.xe.scenarios.paths import basic_import
from vfio_user_xe.device_models.xe.scenarios.revocation import does_not_wait
from vfio_user_xe.device_models.xe.scenarios.world import (
    MIB,
    SOURCE,
    TARGET,
    World,
    check_path,
    import_and_use,
    imported,
    opened,
    scenario,
)
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Setup
from vfio_user_xe.emulator.scenarios.verdict import Failed, KnownDefect

_FAULTY = Setup(
    "root port, AMD, pass-through, faulty link",
    (
        *w.SERVE,
        *("--interconnect", "fault:inner=iov,mode=corrupt,initiator=pf,owner=vf1,kind=vram,times=0,armed=false"),
        *("--interconnect", "fault:inner=p2p,mode=corrupt,initiator=pf,owner=vf1,times=0,armed=false"),
        *("--interconnect", "iov", "--interconnect", "p2p", "--interconnect", "host_dma"),
    ),
    w.machine(),
    w.prepare,
)


def _turns_red(run: Run, because: str, body: Callable[[], object]) -> None:
    """`body` must fail, and say why in words that have `because` in them."""
    try:
        body()
    except (Failed, StepFailed) as failed:
        run.check(because in str(failed), f"it failed for another reason: {failed}")
        run.note(f"red, as it should be: {failed}", good=True)
    except KnownDefect as known:
        run.check(False, f"it was taken for the known defect {known}")
    else:
        run.check(False, f"it passed, with the fault injected ({because})")


@scenario("c1", "control: data that arrive wrong", "turns red", _FAULTY, control=True)
def control_wrong_data(run: Run, world: World) -> None:
    basic_import(run, world)
    world.lab.card.call("inject", fault="interconnect.fault", times=0)
    _turns_red(run, "EILSEQ", lambda: basic_import(run, world))


@scenario("c2", "control: a link that fails costs the job, not the card", "turns red", _FAULTY, control=True)
def control_broken_link(run: Run, world: World) -> None:
    run.excuse(r"CAT error|Engine reset|Timedout job|coredump")
    world.lab.card.call("inject", fault="interconnect.fault", times=1, arguments={"mode": "fail"})
    _turns_red(run, "copy g", lambda: basic_import(run, world))
    world.lab.card.call("heal")
    with opened(run, world) as made:
        made.step(f"fill v 0 {MIB:#x} 7")
        run.check(imported(made, f"0+{MIB:#x}").errno == "0", "the card does not work any more")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", f"verify target 0 0 {MIB:#x} 7")


@scenario("c3", "control: another path than the kernel should take", "turns red", control=True)
def control_wrong_path(run: Run, world: World) -> None:
    world.zero_copy = not world.zero_copy
    try:
        _turns_red(run, "accesses", lambda: basic_import(run, world))
    finally:
        world.zero_copy = not world.zero_copy


@scenario("c4", "control: a process that does not end", "turns red", control=True)
def control_process_that_stays(run: Run, world: World) -> None:
    with w.client(run, world) as made:
        world.bench.sh(f"kill -STOP {made.pid}")
        _turns_red(run, "the process stays", lambda: run.check(made.gone(1), "the process stays"))
        run.check(not w.blocked_tasks(world), "tasks are blocked in a healthy guest")


@scenario("c5", "control: a kernel that reports itself", "turns red", control=True)
def control_kernel_report(run: Run, world: World) -> None:
    for text in (
        "WARNING: CPU: 0 PID: 1 at drivers/gpu/drm/xe/xe_bo.c:1 control",
        "BUG: KASAN: slab-use-after-free in control",
        "INFO: task control:1 blocked for more than 5 seconds.",
        "refcount_t: underflow; use-after-free. control",
        "WARNING: possible circular locking dependency detected control",
    ):
        world.bench.sh(f"echo '{text}' > /dev/kmsg")
    run.read_kernel_log()
    run.check(len(run.splats()) == 5, f"of five reports these were seen: {run.splats()}")
    run.excuse(r"control|blocked for more")


@scenario("c6", "control: accesses during the owner's reset", "turns red", w.SLOW_CLEAR, control=True)
def control_stale_access(run: Run, world: World) -> None:
    with opened(run, world) as made:
        import_and_use(run, world, made)
        reset = f"/sys/bus/pci/devices/{world.bench.vf(1)}/reset"
        made.do(f"spawn work loop g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 100")
        # The card is told of the reset, the importer is not.
        world.bench.sh(f"echo 1 > {reset}")
        w.settle(world, 1)
        made.do("stop work", "join work 10000")
        _turns_red(run, "stale accesses", lambda: check_path(run, world))


@scenario("c7", "control: a call that blocks elsewhere than the known defect does", "turns red", control=True)
def control_blocks_elsewhere(run: Run, world: World) -> None:
    _turns_red(run, "blocked elsewhere", lambda: does_not_wait(run, world, "sleep 4000"))


@scenario("c8", "control: VRAM that does not come back", "turns red", control=True)
def control_lost_vram(run: Run, world: World) -> None:
    before = world.bench.vram_used()
    try:
        world.bench.set_quota(2, world.quota + 2 * MIB)
        _turns_red(run, "VRAM in use", lambda: w.check_vram(run, world, before))
    finally:
        world.restore_quotas(run)
