"""Scenarios 17 to 27: what happens to an import when its exporter's device is reset, closed, disabled, provisioned anew.

The first of them are the showcase: on a kernel whose importer keeps its mapping, the exporter waits for it for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from device_models.xe.scenarios import world as w
from device_models.xe.scenarios.client import Client
from device_models.xe.scenarios.world import MIB, SOURCE, TARGET, World, check_bound, opened, scenario
from emulator.scenarios.run import Run

BOUNDED_MS = 3000
"""How long a revocation may take that waits for nothing but the reset itself (some 130 ms)."""
FLR_WAIT = 0.1
"""Seconds that a function may need for an FLR (PCI Express base specification, 6.6.2): the kernel waits no longer."""
COMMAND, MEMORY_ENABLE = 4, 2


def _import_and_use(run: Run, world: World, made: Client, length: int = 2 * MIB) -> None:
    """Fill, import, bind, copy once; then the importer is idle."""
    made.step(f"fill v 0 {length:#x} 7")
    check_bound(run, world, made, f"0+{length:#x}")
    made.do(f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}", f"verify target 0 0 {length:#x} 7")


def _import_registers(run: Run, world: World, made: Client) -> None:
    """Import and bind a page of BAR0, which no kernel maps by device address."""
    made.do("export v 0 0x190000+0x1000 di", "import g di i", f"bind i {SOURCE:#x}")


def _close_import(made: Client) -> None:
    made.do(f"unbind g {SOURCE:#x} {2 * MIB:#x}", "gem-close i")


def _blocks(
    run: Run, world: World, made: Client, command: str, use: Callable[[Run, World, Client], None] = _import_and_use
) -> None:
    """Run `command` with an idle import alive, which `use` makes, after its control: the same with the import closed first.

    When it blocks: take the stacks, wait for the kernel's own report, and show what frees it.
    """
    run.excuse(r"blocked (for more than|on a)")
    with run.step(f"control: {command}, the import closed first"):
        use(run, world, made)
        _close_import(made)
        control = made.step(command)
        run.fact("control, seconds", control.seconds)
        made.attempt("try close di", f"try config v {COMMAND} 2 {MEMORY_ENABLE:#x}")
        w.settle(world, 1)
    use(run, world, made)
    with run.step(f"{command}, with the import alive and idle"):
        made.step(f"spawn job {command}")
        joined = made.step(f"try join job {BOUNDED_MS}")
    if joined.errno != "ETIME":
        run.fact("seconds", joined.number("us") / 1e6 if "us" in joined.values else joined.seconds)
        run.check(joined.errno == "0", f"{command}: {joined.errno}")
        return
    _show_blocked(run, world)
    with run.step("what frees it: GEM_CLOSE alone, while the buffer is bound"):
        made.step("gem-close i")
        alone = made.step("try join job 1500")
    with run.step("what frees it: then unbinding"):
        made.step(f"unbind g {SOURCE:#x} {2 * MIB:#x}")
        freed = made.step("try join job 5000")
    run.fact(
        "freed by", "GEM_CLOSE" if alone.errno == "0" else "unbind and GEM_CLOSE" if freed.errno == "0" else "nothing"
    )
    if freed.errno == "ETIME":
        run.spoil("a task blocks and nothing frees it")
    run.known(
        w.REVOCATION_WAITS,
        f"{command} blocked until the import was released (control: {run.facts['control, seconds']:.3f} s);"
        f" freed by {run.facts['freed by']}",
    )


def _show_blocked(run: Run, world: World) -> None:
    with run.step("the blocked task's stack, and the kernel's own report"):
        stacks = run.fact("stacks of blocked tasks", w.blocked_tasks(world))
        world.bench.guest.run(f"sleep {2 * w.HUNG_SECONDS + 1}", timeout=60)
        report = [line for line in run.read_kernel_log() if "blocked for more" in line]
        run.fact("hung-task report", report)
        run.note("; ".join(stacks) or "no task sleeps uninterruptibly")
    run.check(any("vfio_pci_dma_buf_move" in stack for stack in stacks.values()), f"blocked elsewhere: {stacks}")


@scenario("17", "VFIO_DEVICE_RESET with an idle import", "returns as soon as the reset is done")
def reset_with_an_idle_import(run: Run, world: World) -> None:
    with opened(run, world) as made:
        _blocks(run, world, made, "reset v")


@scenario("17b", "FLR through configuration space with an idle import", "returns as soon as the reset is done")
def flr_with_an_idle_import(run: Run, world: World) -> None:
    with opened(run, world) as made:
        # Device Control is 8 behind the PCI Express capability; its bit 15 initiates a function-level reset.
        pcie = _capability(made, 0x10)
        _blocks(run, world, made, f"config v {pcie + 8:#x} 2 0x8000")


def _capability(made: Client, wanted: int) -> int:
    at = made.step("read-config v 0x34 1").number("value")
    while at:
        header = made.step(f"read-config v {at:#x} 2").number("value")
        if header & 0xFF == wanted:
            return at
        at = header >> 8
    raise LookupError(f"no capability {wanted:#x}")


@scenario("17c", "VFIO_DEVICE_RESET with an idle import in a long-running VM", "returns as soon as the reset is done")
def reset_with_an_idle_import_in_a_long_running_vm(run: Run, world: World) -> None:
    with opened(run, world, options="lr") as made:
        _blocks(run, world, made, "reset v")


@scenario("17g", "VFIO_DEVICE_RESET with an idle import of BAR0", "returns as soon as the reset is done")
def reset_with_an_idle_import_of_registers(run: Run, world: World) -> None:
    # Kernels that take device addresses for BAR2 still map this one as a PCI device: both ways have to be revoked.
    with opened(run, world) as made:
        _blocks(run, world, made, "reset v", _import_registers)


@scenario("17d", "VFIO_DEVICE_RESET with an import that was never bound", "returns as soon as the reset is done")
def reset_with_an_unbound_import(run: Run, world: World) -> None:
    with opened(run, world) as made:
        made.do(f"export v 2 0+{MIB:#x} d", "import g d i")
        done = made.step("reset v", timeout=30)
        run.fact("seconds", done.seconds)


@scenario("17e", "a job frees a blocked reset", "not needed: it does not block")
def a_job_frees_a_blocked_reset(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        made.step("spawn job reset v")
        if made.step(f"try join job {BOUNDED_MS}").errno == "0":
            return
        first = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        freed = made.step("try join job 5000")
        run.fact("the job", first.errno)
        w.settle(world, 1)
        again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        run.fact("the next job", again.errno)
        run.check(freed.errno == "0", "a job in the same VM did not free it")
        run.known(w.REVOCATION_WAITS, f"blocked until the importer submitted a job (which failed: {first.errno})")


@scenario(
    "17s", "reset through sysfs while VFIO has the VF open", "importers are told, and do not read what is being cleared"
)
def reset_through_sysfs(run: Run, world: World) -> None:
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        world.bench.sh(f"echo 1 > /sys/bus/pci/devices/{world.bench.vf(1)}/reset")
        state = world.bench.vf_state(1)
        used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
        w.settle(world, 1)
        stale = run.fact("stale", world.lab.card.call("verdicts")["stale"])
        if used.errno == "0":
            run.known(
                w.RESET_UNNOTICED,
                f"a job read the memory after the reset (VF state then: {state}); stale: {len(stale)}",
            )
        run.check(used.errno == "ENODEV", f"the job: {used.errno}")


@scenario(
    "18",
    "VFIO_DEVICE_RESET while the PF copies in a loop",
    "jobs fail meanwhile, then go on; no access during the reset",
)
def reset_while_copying(run: Run, world: World) -> None:
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        made.do(f"spawn work loop g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 300")
        with run.step("reset"):
            done = made.step("reset v", timeout=30)
        w.settle(world, 1)
        made.do("sleep 300", "stop work")
        counts = run.fact("jobs", made.step("join work 10000").values)
        run.fact("seconds", done.seconds)
        stale = run.fact("stale", world.lab.card.call("verdicts")["stale"])
        run.check(int(counts.get("OK", "0")) > 0, f"no job succeeded: {counts}")
        during = [access for access in stale if "reset" in access["reason"]]
        if during and all((access["after"] or 0) >= FLR_WAIT for access in during):
            run.known(w.CLEAR_AFTER_RESET, f"jobs ran again before the VF's memory was clean: {during}")
        if during and world.zero_copy:
            run.known("D7", f"the PF used the memory during the reset: {during}")
        run.check(not during, f"accesses during the reset: {during}")


@scenario("19", "memory disabled in COMMAND with an idle import", "revoked and given back at once: data intact")
def memory_disabled(run: Run, world: World) -> None:
    with opened(run, world) as made:
        _blocks(run, world, made, f"config v {COMMAND} 2 0")


@scenario(
    "20", "VFIO's low-power feature with an idle import", "an error that is documented, or a revocation in bounded time"
)
def low_power(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        # VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY is 3; bit 17 sets.
        made.step("spawn job feature v 0x20003")
        entered = made.step(f"try join job {BOUNDED_MS}")
        run.fact("low-power entry", entered.errno)
        if entered.errno == "ETIME":
            _show_blocked(run, world)
            _close_import(made)
            made.step("try join job 5000")
            run.known(w.REVOCATION_WAITS, "low-power entry blocked until the import was released")
        run.check(entered.errno in ("0", "ENOTTY", "EINVAL", "EOPNOTSUPP"), f"low-power entry: {entered.errno}")


@scenario("21", "close() of the VFIO device with an idle import", "returns; the buffer is dead for good")
def close_with_an_idle_import(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        made.step("spawn job close v")
        closed = made.step(f"try join job {BOUNDED_MS}")
        blocked = closed.errno == "ETIME"
        if blocked:
            _show_blocked(run, world)
        used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        if blocked:
            # That job freed it: it found the buffer revoked and gave the mapping back.
            made.step("join job 5000")
        again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        run.fact("jobs after the close", [used.errno, again.errno])
        if again.errno == "0":
            run.known("D7", "a job after the close of the device still reaches its memory")
        run.check(again.errno == "ENODEV", f"a job after the close: {again.errno}")
        if blocked:
            run.known(w.REVOCATION_WAITS, f"close() blocked until the importer submitted a job ({used.errno})")


def _killed(run: Run, world: World, *, gpu_first: bool, how: str) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world, gpu_first=gpu_first) as made:
        _import_and_use(run, world, made)
        with run.step(how):
            made.kill() if how == "SIGKILL" else made.send("exit 0")
            gone = made.gone(BOUNDED_MS / 1000)
        if gone:
            return
        _show_blocked(run, world)
        order = "render node before the VFIO device" if gpu_first else "VFIO device before the render node"
        run.spoil("a task of the guest blocks for ever")
        run.known(w.REVOCATION_WAITS, f"{how} of the one process that has both ({order}): it never ends")


@scenario("22", "SIGKILL of the process that has both; VFIO opened first", "the process ends")
def killed_vfio_first(run: Run, world: World) -> None:
    _killed(run, world, gpu_first=False, how="SIGKILL")


@scenario("22b", "SIGKILL of the process that has both; render node opened first", "the process ends")
def killed_render_node_first(run: Run, world: World) -> None:
    _killed(run, world, gpu_first=True, how="SIGKILL")


@scenario("22c", "exit() of the process that has both; render node opened first", "the process ends")
def exits_render_node_first(run: Run, world: World) -> None:
    _killed(run, world, gpu_first=True, how="exit")


@scenario("22d", "SIGKILL of the exporter while another process imports", "the exporter ends; the import is dead")
def exporter_killed(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world) as owner:
        fd = owner.do(f"fill v 0 {MIB:#x} 7", f"export v 2 0+{MIB:#x} d")[-1].number("fd")
        with w.client(run, world) as other:
            other.do(
                f"take {owner.pid} {fd} d {MIB:#x}", f"gpu g {world.bench.pf}", f"buffer g target {TARGET:#x} {MIB:#x}",
                "import g d i", f"bind i {SOURCE:#x}", f"copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}",
            )  # fmt: skip
            owner.kill()
            gone = owner.gone(BOUNDED_MS / 1000)
            if not gone:
                _show_blocked(run, world)
        if not gone:
            run.check(owner.gone(10), "the exporter is still there after the importer has gone")
            run.known(w.REVOCATION_WAITS, "the exporter could not die before its importer")


@scenario("23", "VFs disabled with a live import", "waits for VFIO's user at most; VRAM comes back")
def vfs_disabled(run: Run, world: World) -> None:
    before = run.fact("VRAM used before", world.bench.vram_used())
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        world.bench.guest.run(
            f"(echo 0 > {world.bench.device}/sriov_numvfs; echo done > /tmp/disabled) > /dev/null 2>&1 3>&- &"
        )
        world.bench.guest.run("sleep 2", timeout=30)
        waits = world.bench.guest.run("test -e /tmp/disabled").returncode != 0
        run.note(f"sriov_numvfs = 0 {'waits for the user' if waits else 'is done'}")
        made.kill()
        if not made.gone(BOUNDED_MS / 1000):
            run.spoil("a task of the guest blocks for ever")
            run.known(w.REVOCATION_WAITS, "the VFIO user could not die")
        done = world.bench.guest.run(
            "for i in $(seq 100); do test -e /tmp/disabled && exit 0; sleep 0.1; done; exit 1", timeout=60
        )
        world.bench.guest.run("rm -f /tmp/disabled")
        run.check(done.returncode == 0, "sriov_numvfs = 0 did not end after its user had gone")
    for number in (1, 2):
        # What was provisioned by hand stays with a VF that is disabled.
        world.bench.set_quota(number, 0)
    after = run.fact("VRAM used afterwards", world.bench.vram_used())
    held = 2 * world.quota - (before - after)
    if held <= 0:
        world.restore_quotas(run)
    else:
        run.spoil(f"{held:#x} bytes of VRAM are lost")
    if held > 0 and world.zero_copy:
        run.known("D1", f"VRAM in use: {before:#x} with VFs, {after:#x} without: {held:#x} of theirs are still held")
    run.check(held <= 0, f"VRAM in use: {before:#x} with VFs, {after:#x} without")


@scenario(
    "24", "the PF's driver unbound with a live import", "ends once users are gone; nothing is used after it is freed"
)
def pf_unbound(run: Run, world: World) -> None:
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        world.bench.guest.run(
            f"(echo {world.bench.pf} > /sys/bus/pci/drivers/xe/unbind; echo done > /tmp/unbound) > /dev/null 2>&1 3>&- &"
        )
        world.bench.guest.run("sleep 2", timeout=30)
        run.note(
            "unbinding " + ("is done" if world.bench.guest.run("test -e /tmp/unbound").returncode == 0 else "waits")
        )
        made.kill()
        gone = made.gone(10)
        done = world.bench.guest.run(
            "for i in $(seq 300); do test -e /tmp/unbound && exit 0; sleep 0.1; done; exit 1", timeout=60
        )
        run.spoil("the PF's driver is unbound")
        run.check(gone and done.returncode == 0, f"the user {'ended' if gone else 'did not end'}, unbinding did not")


@scenario(
    "25",
    "a VF's quota changed while its memory is imported",
    "refused, or the importer is told; nobody's else memory is reached",
)
def quota_changed(run: Run, world: World) -> None:
    quota = f"{world.bench.debugfs}/sriov/vf1/tile0/vram_quota"
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        world.lab.card.call("ledger", clear=True)
        changed = world.bench.guest.run(f"echo {512 * MIB} > {quota}; cat {quota}")
        run.fact(
            "quota", {"exit code": changed.returncode, "value": changed.stdout.strip(), "said": changed.stderr.strip()}
        )
        used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
        run.fact("the job afterwards", used.errno)
        stale = run.fact("stale", world.lab.card.call("verdicts")["stale"])
        if stale and world.zero_copy:
            run.known("D9", f"the PF reached memory that is not VF 1's any more: {stale}")
        run.check(not stale, f"stale accesses: {stale}")
    world.restore_quotas(run)


@scenario(
    "25b",
    "a VF's memory taken away, its user resets it, the importer goes on",
    "the buffer is mapped anew or refused; old device addresses are not used",
)
def memory_taken_away(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        taken = world.bench.guest.run(f"echo 0 > {world.bench.debugfs}/sriov/vf1/tile0/vram_quota")
        run.fact("quota 0", {"exit code": taken.returncode, "said": taken.stderr.strip()})
        made.do("spawn job reset v", "sleep 500")
        # The first job finds the buffer revoked, or mapped anew; a reset that waits for the importer ends with it.
        first = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        made.step("join job 5000")
        world.lab.card.call("ledger", clear=True)
        again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
        run.fact("jobs", [first.errno, again.errno])
        pages = run.fact("page tables", world.bench.translations(SOURCE, SOURCE + 2 * MIB))
        used = [e for e in world.lab.card.call("ledger") if e["initiator"] == "pf" and e["kind"] == "vram"]
        if not taken.returncode and any(page["kind"] == "vram" for page in pages) and world.zero_copy:
            run.known("D6", f"mapped anew, the page tables still hold {pages}; accesses: {used}")
        run.check(
            taken.returncode or not any(page["kind"] == "vram" for page in pages), f"old device addresses: {pages}"
        )
    world.restore_quotas(run)


@scenario("26", "GT reset of the PF while it copies", "the mapping is correct afterwards")
def gt_reset(run: Run, world: World) -> None:
    run.excuse(r"reset")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        made.do(f"spawn work loop g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 200")
        world.bench.sh(f"cat {world.bench.debugfs}/gt0/force_reset_sync", timeout=60)
        made.do("sleep 500", "stop work")
        run.fact("jobs", made.step("join work 20000").values)
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        w.check_path(run, world)


@scenario("27", "suspend and resume (devices only) with a mapping", "the mapping is correct afterwards")
def suspend(run: Run, world: World) -> None:
    tested = world.bench.guest.run("grep -q devices /sys/power/pm_test && grep -q mem /sys/power/state")
    if tested.returncode:
        run.not_applicable("this kernel has no /sys/power/pm_test")
    run.excuse(r"suspend debug")
    with opened(run, world) as made:
        _import_and_use(run, world, made)
        blocks = world.bench.lmtt(1)
        slept = world.bench.guest.run(
            "echo 1 > /sys/module/suspend/parameters/pm_test_delay 2>/dev/null; echo devices > /sys/power/pm_test;"
            " echo mem > /sys/power/state",
            timeout=60,
        )
        run.fact("suspend", {"exit code": slept.returncode, "said": slept.stderr.strip()})
        if slept.returncode:
            run.check("busy" in slept.stderr.lower(), f"suspend failed: {slept.stderr}")
            return
        run.check(world.bench.lmtt(1) == blocks, f"LMTT is another: {blocks} before, {world.bench.lmtt(1)} afterwards")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 7")


@scenario(
    "17r", "what is written right after opening the VF", "stays: opening returns when the memory is clean", w.SLOW_CLEAR
)
def written_right_after_opening(run: Run, world: World) -> None:
    with w.client(run, world) as made:
        made.step(f"vfio v {world.bench.vf(1)}")
        made.step(f"fill v 0 {16 * MIB:#x} 7")
        state = world.bench.vf_state(1)
        w.settle(world, 1)
        kept = made.step(f"try check v 0 {16 * MIB:#x} 7")
        run.fact("VF state after the writes", state)
        if kept.errno == "EILSEQ":
            run.known(w.CLEAR_AFTER_RESET, f"{int(kept.values['wrong']) * 4} of {16 * MIB} bytes were lost")
    w.settle(world, 1)
