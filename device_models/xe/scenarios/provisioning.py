"""Scenarios 23 to 27: what becomes of an import when the PF disables, unbinds, provisions anew, resets or suspends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vfio_user_xe.device_models.xe.scenarios import world as w
from vfio_user_xe.device_models.xe.scenarios.guest_program import Client
from vfio_user_xe.device_models.xe.scenarios.world import MIB, SOURCE, TARGET, World, import_and_use, opened, scenario
from vfio_user_xe.emulator.scenarios.run import Run

PATIENCE = 30
"""Seconds that a command in the background may take once nothing holds it up any more."""


class Background:
    """A command of the guest that may block."""

    def __init__(self, world: World, command: str) -> None:
        self._guest = world.bench.guest
        self._guest.run(f"rm -f /tmp/background; ({command}; echo $? > /tmp/background) > /dev/null 2>&1 3>&- &")

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within `seconds`."""
        script = f"for i in $(seq {max(1, int(10 * seconds))}); do test -e /tmp/background && exit 0; sleep 0.1; done; exit 1"
        return self._guest.run(script, timeout=seconds + 30).returncode == 0


@contextmanager
def _disabled_with_a_live_import(run: Run, world: World, command: str, what: str) -> Iterator[Client]:
    """`command` started while an import is alive; it must end once the user is killed, whom the body may let act before."""
    with opened(run, world) as made:
        import_and_use(run, world, made)
        with run.step(command):
            background = Background(world, command)
            waits = not background.ended(2)
        run.evidence("with a live import", f"{what} {'waits for the user' if waits else 'is done'}")
        yield made
        with run.step("SIGKILL of the user"):
            made.kill()
            gone = made.gone(10)
        if not gone:
            run.spoil("a task of the guest blocks for ever")
            run.known(w.REVOCATION_WAITS, f"{what}: the VFIO user could not die")
        run.check(background.ended(PATIENCE), f"{what} did not end after its user had gone")


@scenario("23", "VFs disabled with a live import", "waits for VFIO's user at most; VRAM comes back")
def vfs_disabled(run: Run, world: World) -> None:
    before = run.fact("VRAM used before", world.bench.vram_used())
    shares = sum(block["size"] for number in (1, 2) for block in world.bench.lmtt(number))
    disable = f"echo 0 > {world.bench.device}/sriov_numvfs"
    with _disabled_with_a_live_import(run, world, disable, "sriov_numvfs = 0"):
        pass
    if not world.bench.share_evenly():
        # What was provisioned by hand stays with a VF that is disabled.
        for number in (1, 2):
            world.bench.set_quota(number, 0)
    after = run.fact("VRAM used afterwards", world.bench.vram_used())
    left = run.fact("LMTT afterwards", world.lab.card.call("vram_map")["vfs"])
    held = shares - (before - after)
    if held <= 0:
        world.restore_quotas(run)
    else:
        run.spoil(f"{held:#x} bytes of VRAM are lost")
    if held > 0 and world.zero_copy:
        run.known("D1", f"VRAM in use: {before:#x} with VFs, {after:#x} without: {held:#x} of theirs are still held")
    run.check(held <= 0, f"VRAM in use: {before:#x} with VFs, {after:#x} without; theirs was {shares:#x}")
    run.check(not any(left.values()), f"LMTT still gives VFs memory: {left}")


@scenario(
    "24", "the PF's driver unbound with a live import", "ends once users are gone; nothing is used after it is freed"
)
def pf_unbound(run: Run, world: World) -> None:
    run.spoil("the PF's driver is unbound")
    unbind = f"echo {world.bench.pf} > /sys/bus/pci/drivers/xe/unbind"
    with _disabled_with_a_live_import(run, world, unbind, "unbinding xe"):
        pass
    left = run.fact("LMTT afterwards", world.lab.card.call("vram_map")["vfs"])
    run.check(not any(left.values()), f"LMTT still gives VFs memory: {left}")


@scenario(
    "24b",
    "the PF's driver unbound while another process imports",
    "ends once the VFIO user is gone; the importer's jobs fail, nothing is used after it is freed",
)
def pf_unbound_with_a_foreign_import(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    run.spoil("the PF's driver is unbound")
    with opened(run, world) as owner, w.client(run, world) as other:
        w.import_from(run, world, owner, other)
        background = Background(world, f"echo {world.bench.pf} > /sys/bus/pci/drivers/xe/unbind")
        run.evidence("with a live import", f"unbinding {'is done' if background.ended(2) else 'waits for the users'}")
        owner.kill()
        alone = owner.gone(5)
        ended = background.ended(5)
        run.evidence("after SIGKILL of the VFIO user", f"it {'ended' if alone else 'stays'}; unbinding {_ended(ended)}")
        used = "0"
        if ended:
            used = other.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000").errno
            run.fact("a job of the importer", used)
        gone = other.end(10)
        run.check(gone and owner.gone(10), "a user of the dma-buf does not end")
        run.check(background.ended(PATIENCE), "unbinding did not end after its users had gone")
        run.check(not ended or used != "0", "a job ran on a device that has no driver")
        if not alone:
            run.known(w.REVOCATION_WAITS, "unbinding and the VFIO user's end waited for the importer to end")


def _ended(yes: bool) -> str:
    return "ended" if yes else "waits"


def _quota_file(world: World, number: int) -> str:
    return f"{world.bench.debugfs}/sriov/vf{number}/tile0/vram_quota"


def _set_quota(run: Run, world: World, number: int, size: int) -> bool:
    """Write a quota while VFs are enabled; whether it was taken."""
    file = _quota_file(world, number)
    changed = world.bench.guest.run(f"echo {size} > {file}; cat {file}")
    found = changed.stdout.strip()
    run.evidence(f"quota of VF {number}", f"wrote {size:#x}, it is {int(found or 0):#x}; {changed.stderr.strip()}")
    return found == str(size)


@scenario(
    "25",
    "a VF's quota changed while its memory is imported",
    "refused, or the importer is told; nobody's else memory is reached",
)
def quota_changed(run: Run, world: World) -> None:
    try:
        with opened(run, world) as made:
            import_and_use(run, world, made)
            world.lab.card.call("ledger", clear=True)
            _set_quota(run, world, 1, world.quota // 2)
            used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
            run.fact("the job afterwards", used.errno)
            stale = run.fact("stale", world.lab.card.call("verdicts")["stale"])
            if stale and world.zero_copy:
                run.known("D9", f"the PF reached memory that is not VF 1's any more: {stale}")
            run.check(not stale, f"stale accesses: {stale}")
    finally:
        if not run.spoiled:
            world.restore_quotas(run)


@scenario(
    "25b",
    "a VF's memory taken away, its user resets it, the importer goes on",
    "the buffer is mapped anew or refused; old device addresses are not used",
)
def memory_taken_away(run: Run, world: World) -> None:
    run.excuse(r"blocked (for more than|on a)")
    try:
        with opened(run, world) as made:
            import_and_use(run, world, made)
            taken = world.bench.guest.run(f"echo 0 > {_quota_file(world, 1)}")
            run.fact("quota 0", {"exit code": str(taken.returncode), "said": taken.stderr.strip()})
            made.do("spawn job reset v", "sleep 500")
            # The first job finds the buffer revoked, or mapped anew; a reset that waits for the importer ends with it.
            first = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
            made.step("join job 5000")
            world.lab.card.call("ledger", clear=True)
            again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
            run.evidence("jobs", [first.errno, again.errno])
            pages = run.fact("page tables", world.bench.translations(SOURCE, SOURCE + 2 * MIB))
            used = [e for e in world.lab.card.call("ledger") if e["initiator"] == "pf" and e["kind"] == "vram"]
            old = not taken.returncode and any(page["kind"] == "vram" for page in pages)
            if old and world.zero_copy:
                run.known("D6", f"mapped anew, the page tables still hold {pages}; accesses: {used}")
            run.check(not old, f"old device addresses: {pages}")
    finally:
        if not run.spoiled:
            world.restore_quotas(run)


@scenario(
    "25c",
    "memory that one VF gives up and another gets, both of them in use",
    "refused, or the memory is clean when the other gets it",
)
def memory_handed_on(run: Run, world: World) -> None:
    secret = 0x5EC2E7
    try:
        with opened(run, world, also=2) as made:
            before = world.bench.lmtt(1)
            made.step(f"fill v 0 {world.window:#x} {secret:#x}")
            given = _set_quota(run, world, 1, 2 * MIB) and _set_quota(run, world, 2, world.quota + world.quota // 2)
            if not given:
                run.note("the quotas are refused while the VFs are enabled", good=True)
                return
            moved = [
                (block["gdpa"], block["dpa"], block["size"])
                for block in world.bench.lmtt(2)
                if any(_overlap(block, old) for old in before)
            ]
            run.evidence("VF 2's blocks that were VF 1's", [f"GDPA {g:#x}: DPA {d:#x}, {s:#x}" for g, d, s in moved])
            if not moved:
                run.not_applicable("xe's allocator gave VF 2 other memory than VF 1 had")
            found = [step for gdpa, _, size in moved if (step := _secret(world, made, gdpa, size, secret)) is not None]
            if found:
                run.known(w.HANDED_ON_DIRTY, f"VF 2 reads what VF 1 wrote: {found[0]}")
    finally:
        if not run.spoiled:
            world.restore_quotas(run)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return one["dpa"] < other["dpa"] + other["size"] and other["dpa"] < one["dpa"] + one["size"]


def _secret(world: World, made: Client, gdpa: int, size: int, seed: int) -> str | None:
    """Where VF 2 reads a word of VF 1's pattern, if it does; a word in each 2 MiB block of its BAR is looked at."""
    words = {(offset // 4 * 2654435761 & 0xFFFFFFFF) ^ seed for offset in range(0, world.window, 2 * MIB)}
    for offset in range(gdpa, min(gdpa + size, world.window), 2 * MIB):
        value = made.step(f"peek v2 {offset:#x}").number("value")
        if value in words:
            return f"{value:#x} at {offset:#x}"
    return None


@scenario("26", "GT reset of the PF while it copies", "the mapping is correct afterwards")
def gt_reset(run: Run, world: World) -> None:
    run.excuse(r"reset")
    with opened(run, world) as made:
        import_and_use(run, world, made)
        made.do(f"spawn work loop g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 200")
        _reset_gt(run, world)
        made.do("sleep 500", "stop work")
        run.evidence("jobs", made.step("join work 20000").values)
    with opened(run, world) as made:
        import_and_use(run, world, made)
        w.check_path(run, world)


@scenario("26b", "GT reset of the PF with an idle import", "LMTT is as before; the mapping is correct afterwards")
def gt_reset_with_an_idle_import(run: Run, world: World) -> None:
    run.excuse(r"reset")
    with opened(run, world) as made:
        import_and_use(run, world, made)
        blocks = world.bench.lmtt(1)
        pages = world.bench.translations(SOURCE, SOURCE + 2 * MIB)
        _reset_gt(run, world)
        made.step(f"check v 0 {2 * MIB:#x} 7")
        made.step(f"fill v 0 {2 * MIB:#x} 9")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 9")
        w.check_path(run, world)
        run.check(world.bench.lmtt(1) == blocks, f"LMTT: {blocks} before, {world.bench.lmtt(1)} afterwards")
        again = world.bench.translations(SOURCE, SOURCE + 2 * MIB)
        run.check(again == pages, f"page tables: {pages} before, {again} afterwards")


def _reset_gt(run: Run, world: World) -> None:
    with run.step("GT reset"):
        world.bench.sh(f"cat {world.bench.debugfs}/gt0/force_reset_sync", timeout=60)


@scenario("27", "suspend and resume (devices only) with a mapping", "LMTT and the mapping are correct afterwards")
def suspend(run: Run, world: World) -> None:
    tested = world.bench.guest.run("grep -q devices /sys/power/pm_test && grep -q mem /sys/power/state")
    if tested.returncode:
        run.not_applicable("this kernel has no /sys/power/pm_test")
    run.excuse(r"suspend debug")
    with opened(run, world) as made:
        import_and_use(run, world, made)
        blocks = world.bench.lmtt(1)
        slept = world.bench.guest.run(
            "echo 1 > /sys/module/suspend/parameters/pm_test_delay 2>/dev/null; echo devices > /sys/power/pm_test;"
            " echo mem > /sys/power/state; code=$?; echo none > /sys/power/pm_test; exit $code",
            timeout=90,
        )
        run.evidence("suspend", {"exit code": str(slept.returncode), "said": slept.stderr.strip()})
        run.check(not slept.returncode, f"suspending failed: {slept.stderr.strip()}")
        run.check(world.bench.lmtt(1) == blocks, f"LMTT is another: {blocks} before, {world.bench.lmtt(1)} afterwards")
        made.step(f"check v 0 {2 * MIB:#x} 7")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 7")
        w.check_path(run, world)
