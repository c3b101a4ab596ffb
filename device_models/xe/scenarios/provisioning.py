"""Scenarios 23 to 27: what becomes of an import when the PF disables, unbinds, provisions anew, resets or suspends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vfio_user_xe.device_models.xe.scenarios import defects, devices_suspend
from vfio_user_xe.device_models.xe.scenarios import steps as s
from vfio_user_xe.device_models.xe.scenarios.background import Background
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.revocation import show_blocked
from vfio_user_xe.device_models.xe.scenarios.steps import SOURCE, TARGET, import_and_use, opened, scenario
from vfio_user_xe.emulator.scenarios.run import Run


@contextmanager
def _disabled_with_a_live_import(run: Run, machine: XeMachine, command: str, what: str) -> Iterator[Program]:
    """`command` started while an import is alive; it must end once the user is killed, whom the body may let act before."""
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        with run.step(command):
            background = Background(machine, command)
            waits = not background.ended(2)
        run.evidence("with a live import", f"{what} {'waits for the user' if waits else 'is done'}")
        yield made
        with run.step("SIGKILL of the user"):
            made.kill()
            gone = made.gone(10)
        if not gone:
            run.give_up("a task of the guest blocks for ever")
            show_blocked(run, machine)
            run.known(defects.REVOCATION_WAITS, f"{what}: the VFIO user could not die")
        background.must_end(run, f"{what} did not end after its user had gone")


@scenario("23", "VFs disabled with a live import", "waits for VFIO's user at most; VRAM comes back")
def vfs_disabled(run: Run, machine: XeMachine) -> None:
    before = run.fact("VRAM used before", machine.card.vram_used())
    shares = sum(block["size"] for number in (1, 2) for block in machine.card.lmtt(number))
    disable = f"echo 0 > {machine.card.sysfs}/sriov_numvfs"
    with _disabled_with_a_live_import(run, machine, disable, "sriov_numvfs = 0"):
        pass
    if not machine.card.share_evenly():
        # What was provisioned by hand stays with a VF that is disabled.
        for number in (1, 2):
            machine.card.set_quota(number, 0)
    after = run.fact("VRAM used afterwards", machine.card.vram_used())
    left = run.fact("LMTT afterwards", machine.card.call("vram_map")["vfs"])
    held = shares - (before - after)
    if held <= 0:
        machine.restore_quotas(run)
    else:
        run.give_up(f"{held:#x} bytes of VRAM are lost")
    if held > 0 and machine.zero_copy:
        run.known("D1", f"VRAM in use: {before:#x} with VFs, {after:#x} without: {held:#x} of theirs are still held")
    run.check(held <= 0, f"VRAM in use: {before:#x} with VFs, {after:#x} without; theirs was {shares:#x}")
    run.check(not any(left.values()), f"LMTT still gives VFs memory: {left}")


@scenario(
    "24", "the PF's driver unbound with a live import", "ends once users are gone; nothing is used after it is freed"
)
def pf_unbound(run: Run, machine: XeMachine) -> None:
    run.give_up("the PF's driver is unbound")
    unbind = f"echo {machine.card.pf} > /sys/bus/pci/drivers/xe/unbind"
    with _disabled_with_a_live_import(run, machine, unbind, "unbinding xe"):
        pass
    left = run.fact("LMTT afterwards", machine.card.call("vram_map")["vfs"])
    run.check(not any(left.values()), f"LMTT still gives VFs memory: {left}")


@scenario(
    "24b",
    "the PF's driver unbound while another process imports",
    "ends once the VFIO user is gone; the importer's jobs fail, nothing is used after it is freed",
)
def pf_unbound_with_a_foreign_import(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    run.give_up("the PF's driver is unbound")
    with opened(run, machine) as owner, s.program(run, machine) as other:
        s.import_from(run, machine, owner, other)
        background = Background(machine, f"echo {machine.card.pf} > /sys/bus/pci/drivers/xe/unbind")
        run.evidence("with a live import", f"unbinding {'is done' if background.ended(2) else 'waits for the users'}")
        owner.kill()
        alone = owner.gone(5)
        if not alone:
            show_blocked(run, machine)
        ended = background.ended(5)
        run.evidence("after SIGKILL of the VFIO user", f"it {'ended' if alone else 'stays'}; unbinding {_ended(ended)}")
        used = "0"
        if ended:
            used = other.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000").errno
            run.fact("a job of the importer", used)
        gone = other.end(10)
        run.check(gone and owner.gone(10), "a user of the dma-buf does not end")
        background.must_end(run, "unbinding did not end after its users had gone")
        run.check(not ended or used != "0", "a job ran on a device that has no driver")
        if not alone:
            run.known(defects.REVOCATION_WAITS, "unbinding and the VFIO user's end waited for the importer to end")


def _ended(yes: bool) -> str:
    return "ended" if yes else "waits"


def _quota_file(run: Run, machine: XeMachine, number: int) -> str:
    try:
        return machine.card.quota_file(number)
    except LookupError as error:
        run.not_applicable(str(error))


def _set_quota(run: Run, machine: XeMachine, number: int, size: int) -> bool:
    """Write a quota while VFs are enabled; whether it was taken."""
    file = _quota_file(run, machine, number)
    changed = machine.run(f"echo {size} > {file}; cat {file}")
    found = changed.stdout.strip()
    run.evidence(f"quota of VF {number}", f"wrote {size:#x}, it is {int(found or 0):#x}; {changed.stderr.strip()}")
    return found == str(size)


@scenario(
    "25",
    "a VF's quota changed while its memory is imported",
    "refused, or the importer is told; nobody's else memory is reached",
)
def quota_changed(run: Run, machine: XeMachine) -> None:
    try:
        with opened(run, machine) as made:
            import_and_use(run, machine, made)
            machine.card.call("ledger", clear=True)
            _set_quota(run, machine, 1, machine.quota // 2)
            used = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}")
            run.fact("the job afterwards", used.errno)
            stale = run.fact("stale", machine.card.call("verdicts")["stale"])
            if stale and machine.zero_copy:
                run.known("D9", f"the PF reached memory that is not VF 1's any more: {stale}")
            run.check(not stale, f"stale accesses: {stale}")
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


@scenario(
    "25b",
    "a VF's memory taken away, its user resets it, the importer goes on",
    "the buffer is mapped anew or refused; old device addresses are not used",
)
def memory_taken_away(run: Run, machine: XeMachine) -> None:
    s.may_hang(run)
    try:
        with opened(run, machine) as made:
            import_and_use(run, machine, made)
            taken = machine.run(f"echo 0 > {_quota_file(run, machine, 1)}")
            run.fact("quota 0", {"exit code": str(taken.returncode), "said": taken.stderr.strip()})
            made.do("spawn job reset v", "sleep 500")
            # The first job finds the buffer revoked, or mapped anew; a reset that waits for the importer ends with it.
            first = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
            made.step("join job 5000")
            machine.card.call("ledger", clear=True)
            again = made.step(f"try copy g {TARGET:#x} {SOURCE:#x} 0x1000")
            run.evidence("jobs", [first.errno, again.errno])
            pages = run.fact("page tables", machine.card.translations(SOURCE, SOURCE + 2 * MIB))
            used = [e for e in machine.card.call("ledger") if e["initiator"] == "pf" and e["kind"] == "vram"]
            old = not taken.returncode and any(page["kind"] == "vram" for page in pages)
            if old and machine.zero_copy:
                run.known("D6", f"mapped anew, the page tables still hold {pages}; accesses: {used}")
            run.check(not old, f"old device addresses: {pages}")
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


@scenario(
    "25c",
    "memory that one VF gives up and another gets, both of them in use",
    "refused, or the memory is clean when the other gets it",
)
def memory_handed_on(run: Run, machine: XeMachine) -> None:
    secret = 0x5EC2E7
    try:
        with opened(run, machine, also=2) as made:
            before = machine.card.lmtt(1)
            made.step(f"fill v 0 {machine.visible:#x} {secret:#x}")
            given = _set_quota(run, machine, 1, 2 * MIB) and _set_quota(
                run, machine, 2, machine.quota + machine.quota // 2
            )
            if not given:
                run.note("the quotas are refused while the VFs are enabled", good=True)
                return
            moved = [
                (block["gdpa"], block["dpa"], block["size"])
                for block in machine.card.lmtt(2)
                if any(_overlap(block, old) for old in before)
            ]
            run.evidence("VF 2's blocks that were VF 1's", [f"GDPA {g:#x}: DPA {d:#x}, {s:#x}" for g, d, s in moved])
            if not moved:
                run.not_applicable("xe's allocator gave VF 2 other memory than VF 1 had")
            found = [
                step for gdpa, _, size in moved if (step := _secret(machine, made, gdpa, size, secret)) is not None
            ]
            if found:
                run.known(defects.HANDED_ON_DIRTY, f"VF 2 reads what VF 1 wrote: {found[0]}")
    finally:
        if not run.given_up:
            machine.restore_quotas(run)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return one["dpa"] < other["dpa"] + other["size"] and other["dpa"] < one["dpa"] + one["size"]


def _secret(machine: XeMachine, made: Program, gdpa: int, size: int, seed: int) -> str | None:
    """Where VF 2 reads a word of VF 1's pattern, if it does; a word in each 2 MiB block of its BAR is looked at."""
    words = {(offset // 4 * 2654435761 & 0xFFFFFFFF) ^ seed for offset in range(0, machine.visible, 2 * MIB)}
    for offset in range(gdpa, min(gdpa + size, machine.visible), 2 * MIB):
        value = made.step(f"peek v2 {offset:#x}").number("value")
        if value in words:
            return f"{value:#x} at {offset:#x}"
    return None


@scenario("26", "GT reset of the PF while it copies", "the mapping is correct afterwards")
def gt_reset(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        made.do(f"spawn work loop copy g {TARGET:#x} {SOURCE:#x} {MIB:#x}", "sleep 200")
        _reset_gt(run, machine)
        made.do("sleep 500", "stop work")
        run.evidence("jobs", made.step("join work 20000").values)
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        s.check_path(run, machine)


@scenario("26b", "GT reset of the PF with an idle import", "LMTT is as before; the mapping is correct afterwards")
def gt_reset_with_an_idle_import(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        blocks = machine.card.lmtt(1)
        pages = machine.card.translations(SOURCE, SOURCE + 2 * MIB)
        _reset_gt(run, machine)
        made.step(f"check v 0 {2 * MIB:#x} 7")
        made.step(f"fill v 0 {2 * MIB:#x} 9")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 9")
        s.check_path(run, machine)
        run.check(machine.card.lmtt(1) == blocks, f"LMTT: {blocks} before, {machine.card.lmtt(1)} afterwards")
        again = machine.card.translations(SOURCE, SOURCE + 2 * MIB)
        run.check(again == pages, f"page tables: {pages} before, {again} afterwards")


def _reset_gt(run: Run, machine: XeMachine) -> None:
    with run.step("GT reset"):
        machine.sh(f"cat {machine.card.debugfs}/gt0/force_reset_sync", timeout=60)


@scenario("27", "suspend and resume (devices only) with a mapping", "LMTT and the mapping are correct afterwards")
def suspend(run: Run, machine: XeMachine) -> None:
    if machine.run(devices_suspend.POSSIBLE).returncode:
        run.not_applicable("this kernel has no /sys/power/pm_test")
    with opened(run, machine) as made:
        import_and_use(run, machine, made)
        blocks = machine.card.lmtt(1)
        slept = machine.run(devices_suspend.DEVICES, timeout=90)
        run.evidence("suspend", {"exit code": str(slept.returncode), "said": slept.stderr.strip()})
        run.check(not slept.returncode, f"suspending failed: {slept.stderr.strip()}")
        run.check(
            machine.card.lmtt(1) == blocks, f"LMTT is another: {blocks} before, {machine.card.lmtt(1)} afterwards"
        )
        made.step(f"check v 0 {2 * MIB:#x} 7")
        made.do(f"copy g {TARGET:#x} {SOURCE:#x} {2 * MIB:#x}", f"verify target 0 0 {2 * MIB:#x} 7")
        s.check_path(run, machine)
