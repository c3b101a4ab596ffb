"""What the dma-buf scenarios are written with: a bench, clients whose steps are noted, and the usual sequences."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vfio_user_xe.device_models.xe.scenarios.bench import CPU, MODULES, PF, Bench
from vfio_user_xe.device_models.xe.scenarios.guest_program import Client, Step
from vfio_user_xe.emulator.guest import GuestError
from vfio_user_xe.emulator.scenarios.run import Run
from vfio_user_xe.emulator.scenarios.scenario import Scenario, Setup

MIB = 1 << 20
BAR2 = 256 * MIB
"""Of every VF."""
SOURCE, TARGET = 0x1000_0000, 0x8000_0000
"""Virtual addresses of imports and of the buffer that is copied to."""
HUNG_SECONDS = 5
STUCK_SECONDS = 5.5
"""xe gives the clearing of a VF's memory up a little earlier (`xe_gt_sriov_pf_control.c:pf_get_default_timeout`)."""

_IOV_SYMBOLS = "dma_buf_map_interconnect|dma_buf_match_interconnects|dma_buf_match_mapping|dma_buf_mapping_attach"

REVOCATION_WAITS = "revocation-waits-for-importer"
RANGES_OVERLAP = "ranges-linked-at-one-iova"
RESET_UNNOTICED = "sysfs-reset-does-not-revoke"
CLEAR_AFTER_RESET = "clear-outlasts-reset"
RESET_LOST = "reset-lost-while-another-ends"
HANDED_ON_DIRTY = "memory-handed-on-uncleaned"

DEFECTS = {
    REVOCATION_WAITS: "vfio-pci's revocation waits, without a limit, until importers have unmapped (vfio_pci_dma_buf_move);"
    " xe as an idle importer unmaps only at its next use or with its last reference (xe_bo_move_dmabuf)",
    RANGES_OVERLAP: "dma_buf_phys_vec_to_sgt() links every range of a buffer at offset 0 of its IOVA: a dma-buf of more than"
    " one range cannot be mapped behind a translating IOMMU (EADDRINUSE)",
    RESET_UNNOTICED: "a reset through sysfs of a device that VFIO has open does not revoke its dma-bufs: importers go on in"
    " memory that is being cleared",
    CLEAR_AFTER_RESET: "VFIO takes a VF for reset 100 ms after the FLR, while the PF's driver still clears its memory: dma-bufs"
    " are given back, and the VF can be used, before that has ended; what is written then may be lost",
    RESET_LOST: "xe takes no notice of a VF's FLR that it is told of after it has sent FLR_FINISH for the one before and before its"
    " worker has noted that (pf_begin_vf_flr: already in progress): the GuC waits for an FLR_FINISH that never comes, and the VF is"
    " not served until it is reset again",
    HANDED_ON_DIRTY: "xe clears a VF's memory at its reset, not when its provisioning changes: VRAM that one VF has to give up"
    " reaches another, which is running, with what was written there",
    "D1": "an import keeps a reference of the VF's memory object: VRAM does not come back",
    "D2": "one device address for a range whose memory is scattered: foreign VRAM is mapped",
    "D3": "sizes of ranges are rounded up to powers of two: wrong data from the second range on",
    "D4": "the last page of the BAR is not taken, and a range's end is not checked",
    "D5": "no check against the VF's quota: addresses wrap around inside of it",
    "D6": "after a failed re-mapping page tables keep old device addresses",
    "D7": "mapping ignores revocation: the PF goes on after reset and close",
    "D8": "the search for the VF takes other functions for candidates",
    "D9": "importers are not told when the PF changes a VF's provisioning",
    "D10": "the PF's unbind leaves imports behind",
    "D11": "an import is translated under reservation locks and takes the PF's provisioning mutex, which provisioning, and"
    " clearing after an FLR, hold while they take reservation locks",
}


REPORTS = {
    "D5": r"WARNING: .*xe_res_cursor\.h",
    "D11": r"(?s)possible circular locking dependency.*xe_gt_sriov_pf_config_get_lmem_obj",
}
"""What kernels say of defects by themselves."""


@dataclass
class World:
    """What setups prepare."""

    lab: Any
    bench: Bench
    others: list[Bench]
    """Of further cards in the same guest."""
    zero_copy: bool
    """Whether the kernel knows how to map dma-bufs by device address."""
    translating: bool
    """Whether the PF's DMA goes through a translating IOMMU domain."""
    quota: int
    """VRAM in bytes that xe gave each of two VFs."""
    window: int
    """Bytes of it that a VF's BAR2 shows."""

    def restore_quotas(self, run: Run) -> None:
        """Two VFs, with what they had in the beginning; a driver that lost VRAM cannot, and spoils the guest."""
        try:
            self.bench.disable_vfs()
            if not self.bench.share_evenly():
                for number in (1, 2):
                    self.bench.set_quota(number, self.quota)
            self.bench.enable_vfs(2)
        except GuestError as error:
            run.spoil(f"the VFs do not get their VRAM back: {str(error).splitlines()[0]}")


def prepare(lab: Any, pf: str = PF) -> World:
    """xe on the PF, two VFs on vfio-pci, hung tasks reported soon."""
    bench = Bench(lab.guest, lab.card, pf)
    bench.load_drivers()
    lab.guest.run(
        f"echo {HUNG_SECONDS} > /proc/sys/kernel/hung_task_timeout_secs; echo -1 > /proc/sys/kernel/hung_task_warnings;"
        " echo 1 > /proc/sys/kernel/sysrq; echo 2 > /sys/module/drm/parameters/debug"
    )
    bench.enable_vfs(2)
    others = [Bench(lab.guest, card, pf) for card, pf in zip(lab.others, bench.other_pfs(), strict=True)]
    for other in others:
        other.enable_vfs(1)
    zero_copy = bench.guest.run(f"grep -qwE '{_IOV_SYMBOLS}' /proc/kallsyms").returncode == 0
    kind = bench.sh(f"cat {bench.device}/iommu_group/type 2>/dev/null || echo none")
    quota = sum(block["size"] for block in bench.lmtt(1))
    if not quota:
        raise LookupError("xe gave VF 1 no VRAM: is its provisioning broken, or the card too small?")
    return World(lab, bench, others, zero_copy, kind.startswith("DMA"), quota, min(quota, BAR2))


def account(world: World) -> dict[str, int]:
    """VRAM that xe on the PF has given away, VFs' shares and buffers."""
    return {"VRAM in use": world.bench.vram_used()}


def machine(append: str = "iommu=pt", **others: Any) -> dict[str, Any]:
    """Keyword arguments of a lab."""
    return {
        "modules": (*MODULES, "vgem?", "xe-vfio-pci?"),
        "memory": 1536,
        "cpu": CPU,
        "iommu": True,
        "append": append,
        **others,
    }


SERVE = ("--vfs", "2", "--set", "vram=2GiB")
"""Little VRAM: every time that a VF is opened or closed xe clears all of its share, and suspending saves it to RAM.
(Of less xe gives VFs nothing: it shares out whole GiB, `xe_gt_sriov_pf_config.c:pf_profile_fair_lmem`.)"""
USUAL = Setup("root port, AMD, pass-through", SERVE, machine(), prepare)
TRANSLATING = Setup("root port, AMD, translating", SERVE, machine("iommu=nopt"), prepare)
SLOW_CLEAR = Setup(
    "root port, AMD, pass-through, slow clearing",
    (
        *SERVE,
        *("--interconnect", "delay:inner=iov,initiator=pf,kind=kernel vram,latency_us=8000"),
        *("--interconnect", "p2p", "--interconnect", "host_dma"),
    ),
    machine(),
    prepare,
)
"""The PF's driver needs seconds to clear a VF's memory, as it does on a card with much of it."""
TWO_CARDS = Setup(
    "two cards, AMD, pass-through", SERVE, machine(others=(("--vfs", "1", "--set", "vram=2GiB"),)), prepare
)
ROOT_BUS = Setup(
    "root bus, AMD, pass-through", SERVE, machine(root_bus=True), functools.partial(prepare, pf="0000:00:05.0")
)
NOT_LISTED = Setup("root port, Intel, pass-through", SERVE, machine(cpu=None), prepare)

SCENARIOS: list[Scenario] = []


Body = Callable[[Run, "World"], None]


def scenario(
    number: str, title: str, expected: str, setup: Setup = USUAL, *, control: bool = False, group: str = ""
) -> Callable[[Body], Body]:
    """Register the function below as the scenario of its name."""

    def register(function: Body) -> Body:
        name = function.__name__.replace("_", "-")
        groups = (group,) if group else ()
        SCENARIOS.append(Scenario(number, name, title, expected, setup, function, control, groups))
        return function

    return register


_numbers = itertools.count()


def process(run: Run, world: World) -> Client:
    """A new client whose steps are the run's; it is its maker's to end."""
    made = Client(world.bench.guest, f"c{next(_numbers)}", lambda step: note(run, step))
    made.start()
    return made


@contextlib.contextmanager
def client(run: Run, world: World) -> Iterator[Client]:
    """A client that is gone afterwards, or the guest is spoiled."""
    made = process(run, world)
    try:
        yield made
    finally:
        if not made.end(timeout=5):
            run.spoil(f"process {made.pid} of the guest cannot be killed")


def note(run: Run, step: Step) -> None:
    """Write a client's step down."""
    run.note(str(step), step.seconds, step.ok, step.ago)


def settle(world: World, *vfs: int) -> None:
    """Wait until the resets that a client's end has caused are over."""
    for number in vfs or (1, 2):
        world.bench.settle(number)


@contextlib.contextmanager
def opened(
    run: Run, world: World, *, vf: int = 1, also: int = 0, gpu_first: bool = False, options: str = ""
) -> Iterator[Client]:
    """A client with VF `vf` open as `v`, VF `also` as `v2`, and the PF's GPU as `g` with a buffer `target` of 8 MiB.

    VFs are opened first unless `gpu_first`: files are released in the reverse order when a process dies.
    """
    with client(run, world) as made:
        try:
            gpu = (f"gpu g {world.bench.pf} {options}".strip(), f"buffer g target {TARGET:#x} {8 * MIB:#x}")
            if gpu_first:
                made.do(*gpu)
            world.bench.open_vf(made, "v", vf)
            if also:
                world.bench.open_vf(made, "v2", also)
            if not gpu_first:
                made.do(*gpu)
            world.lab.card.call("ledger", clear=True)
            yield made
        except BaseException:
            _give_up(run, world, made, may_raise=False)
            raise
        _give_up(run, world, made, may_raise=True)


def _give_up(run: Run, world: World, made: Client, *, may_raise: bool) -> None:
    """Kill the client and wait for the resets that this causes; without `may_raise` whatever goes wrong only spoils the guest."""
    made.kill()
    if not made.gone(5):
        run.spoil(f"process {made.pid} of the guest cannot be killed")
        return
    try:
        settle(world)
    except TimeoutError as error:
        lost = lost_reset(run, world)
        if not lost:
            run.spoil(str(error))
        if may_raise and lost:
            run.known(RESET_LOST, f"at the end of the client's process: {lost}")
        if may_raise:
            raise


def lost_reset(run: Run, world: World) -> str:
    """Whether a VF that is not served any more is so by a reset that xe took no notice of; in words, empty: it is not.

    Those VFs are reset once more, which mends them.
    """
    log = [line for line in run.read_kernel_log() if "FLR" in line][-12:]
    run.evidence("kernel log about resets", log)
    if not any("already in progress" in line for line in log[-6:]):
        return ""
    for number in (1, 2):
        if world.bench.vf_state(number) == "flr":
            world.bench.sh(f"echo 1 > /sys/bus/pci/devices/{world.bench.vf(number)}/reset")
            served = world.bench.served(number, STUCK_SECONDS)
            return f"VF {number}'s reset was not answered; after one more it is {'' if served else 'not '}served"
    return ""


def imported(made: Client, ranges: str, name: str = "i", vf: str = "v", va: int = SOURCE, gpu: str = "g") -> Step:
    """Export, import and bind; how the binding ended."""
    *_, bound = made.attempt(
        f"export {vf} 2 {ranges} d{name}", f"import {gpu} d{name} {name}", f"try bind {name} {va:#x}"
    )
    return bound


def import_and_use(run: Run, world: World, made: Client, length: int = 2 * MIB) -> None:
    """Fill, import, bind, copy once, compare; then the importer is idle."""
    made.step(f"fill v 0 {length:#x} 7")
    check_bound(run, world, made, f"0+{length:#x}")
    run.fact("page tables of the import", world.bench.translations(SOURCE, SOURCE + length))
    made.do(f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}", f"verify target 0 0 {length:#x} 7")


def import_from(run: Run, world: World, owner: Client, other: Client, length: int = MIB) -> None:
    """`other` imports the first bytes of the VF that `owner` has open as `v`, and uses them; `owner` imports nothing."""
    fd = owner.do(f"fill v 0 {length:#x} 7", f"export v 2 0+{length:#x} d")[-1].number("fd")
    other.do(
        f"take {owner.pid} {fd} d {length:#x}",
        f"gpu g {world.bench.pf}",
        f"buffer g target {TARGET:#x} {length:#x}",
        "import g d i",
        f"bind i {SOURCE:#x}",
        f"copy g {TARGET:#x} {SOURCE:#x} {length:#x}",
        f"verify target 0 0 {length:#x} 7",
    )


def check_bound(run: Run, world: World, made: Client, ranges: str, **names: Any) -> None:
    """As `imported`, and the binding must succeed: of several ranges only on kernels that can."""
    bound = imported(made, ranges, **names)
    if bound.errno == "EADDRINUSE" and ranges.count("+") > 1 and world.translating and not world.zero_copy:
        run.known(RANGES_OVERLAP, f"binding a dma-buf of {ranges.count('+')} ranges: EADDRINUSE")
    run.check(bound.errno == "0", f"VM_BIND of {ranges}: {bound.errno}; {'; '.join(bound.kernel)}")


def check_path(run: Run, world: World, *, owner: str = "vf1", start: int = SOURCE, length: int = 2 * MIB) -> None:
    """The path that was taken is the one that this kernel should take, and the page tables say so too."""
    pages = run.fact("page tables", world.bench.translations(start, start + length))
    run.fact("LMTT", world.bench.card.call("vram_map")["vfs"])
    taken = run.fact("paths", world.bench.paths("pf", owner))
    verdicts = world.bench.card.call("verdicts")
    run.check(not verdicts["stale"], f"stale accesses: {verdicts['stale']}")
    run.check(not verdicts["foreign"], f"foreign accesses: {verdicts['foreign']}")
    wanted, other = ("zero-copy", "legacy") if world.zero_copy else ("legacy", "zero-copy")
    kind = "vram" if world.zero_copy else "system"
    run.check(taken[wanted] and not taken[other], f"{wanted} accesses {taken[wanted]}, {other} accesses {taken[other]}")
    run.check({page["kind"] for page in pages} == {kind}, f"page-table entries of another kind than {kind}: {pages}")


def check_vram(run: Run, world: World, before: int) -> None:
    """No more VRAM is in use than `before` bytes."""
    after = world.bench.vram_used()
    run.fact("VRAM in use", f"{before:#x} before, {after:#x} afterwards")
    run.check(after <= before, f"VRAM in use: {before:#x} before, {after:#x} afterwards")


def blocked_tasks(world: World) -> dict[str, str]:
    """Stacks of the guest's tasks that sleep uninterruptibly, by "name (pid)"."""
    script = (
        "for t in /proc/[0-9]*/task/[0-9]*; do\n"
        "read line < $t/stat 2>/dev/null || continue\n"
        'state=${line##*) }; test "${state%% *}" = D || continue\n'
        'echo "== $(cat $t/comm) (${t##*/})"; cat $t/stack; done 2>/dev/null; true'
    )
    stacks: dict[str, str] = {}
    for part in world.bench.sh(script).split("== ")[1:]:
        name, _, stack = part.partition("\n")
        stacks[name] = stack.rstrip()
    return stacks
