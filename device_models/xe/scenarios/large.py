"""Scenarios 40: imports of 4 GiB and more, of one range and of several, and of more than the guest has memory.

A scatter-gather entry counts its bytes in 32 bits, so longer ranges are split: `dma-buf-mapping.c:MAX_SG_ENT_SZ` is the last
whole page below 4 GiB. Data are looked at on both sides of that place and at both ends, not in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vfio_user_xe.device_models.xe.scenarios import setups
from vfio_user_xe.device_models.xe.scenarios.guest_program import Program
from vfio_user_xe.device_models.xe.scenarios.machine import MIB, XeMachine
from vfio_user_xe.device_models.xe.scenarios.steps import TARGET, check_bound, check_path, imported, opened, scenario
from vfio_user_xe.emulator.scenarios.run import Run

GIB = 1 << 30
PAGE = 0x1000
ENTRY = 0xFFFF_F000
"""The most that one scatter-gather entry holds."""
VA = 1 << 40
"""Where imports are bound: they are larger than what lies below the other buffers."""
_AROUND = 0x4000
"""Bytes that are looked at on either side of a place."""
_GROUP = "large"

Range = tuple[int, int]
"""Offset in BAR2 and length."""


def looked_at(ranges: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """What is compared of a dma-buf of these ranges: offset in the dma-buf, offset in BAR2, length; in the dma-buf's order.

    That are the ends of each range and what lies around every place where an entry ends: one copy goes across that place.
    """
    at = 0
    for offset, length in ranges:
        pieces: list[tuple[int, int]] = []
        for place in sorted({0, *range(ENTRY, length, ENTRY), length}):
            begin, end = max(0, place - _AROUND), min(place + _AROUND, length)
            if pieces and begin <= pieces[-1][1]:
                begin, _ = pieces.pop()
            pieces.append((begin, end))
        yield from ((at + begin, offset + begin, end - begin) for begin, end in pieces)
        at += length


def text_of(ranges: Sequence[Range]) -> str:
    """The ranges as the guest program's `export` takes them."""
    return ",".join(f"{offset:#x}+{length:#x}" for offset, length in ranges)


def _use(run: Run, machine: XeMachine, made: Program, ranges: Sequence[Range], seed: int) -> None:
    """Import these ranges, read them by the PF, write them by the PF, and let go of them."""
    length = sum(size for _, size in ranges)
    pieces = list(looked_at(ranges))
    run.check(length <= machine.quota, f"VF 1 has {machine.quota:#x} bytes, not the {length:#x} that are exported")
    made.do(*(f"fill v {offset:#x} {size:#x} {seed}" for _, offset, size in pieces))
    machine.card.call("ledger", clear=True)
    check_bound(run, machine, made, text_of(ranges), va=VA)
    for at, offset, size in pieces:
        made.do(f"copy g {TARGET:#x} {VA + at:#x} {size:#x}", f"verify target 0 {offset:#x} {size:#x} {seed}")
    for at, offset, size in pieces:
        made.do(
            f"paint target 0 {offset:#x} {size:#x} {seed + 1}",
            f"copy g {VA + at:#x} {TARGET:#x} {size:#x}",
            f"check v {offset:#x} {size:#x} {seed + 1}",
        )
    check_path(run, machine, start=VA, length=length)
    made.do(f"unbind g {VA:#x} {length:#x}", "gem-close i", "close di")


@scenario(
    "40",
    "one range, around the size of one scatter-gather entry",
    "data equal at both sides",
    setups.LARGE,
    group=_GROUP,
)
def ranges_around_one_entry(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        for number, length in enumerate((ENTRY, ENTRY + PAGE, ENTRY + 2 * PAGE)):
            _use(run, machine, made, [(0, length)], 10 * number + 1)
        # Neither end of the range is where a large page could begin.
        _use(run, machine, made, [(PAGE, ENTRY + PAGE)], 41)


@scenario(
    "40b", "one range of 6 GiB", "data equal at both sides of the split and at both ends", setups.LARGE, group=_GROUP
)
def range_of_six_gib(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        _use(run, machine, made, [(0, 6 * GIB)], 1)


@scenario(
    "40c", "several ranges, shuffled, of 6 GiB in sum", "data in the order of the ranges", setups.LARGE, group=_GROUP
)
def ranges_of_six_gib_in_sum(run: Run, machine: XeMachine) -> None:
    with opened(run, machine) as made:
        _use(run, machine, made, [(4 * GIB, 2 * GIB), (0, 2 * GIB), (2 * GIB, 2 * GIB)], 1)
        _use(run, machine, made, [(5 * GIB, PAGE), (PAGE, ENTRY + 2 * PAGE), (6 * GIB, 2 * MIB)], 11)


@scenario(
    "40d",
    "a range of more bytes than the guest has memory",
    "bound, or ENOMEM and nothing is left: it is not the guest's memory",
    setups.LARGE,
    group=_GROUP,
)
def range_larger_than_memory(run: Run, machine: XeMachine) -> None:
    total = int(machine.sh("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    length = -(-(total + 64 * MIB) // (2 * MIB)) * 2 * MIB
    run.fact("bytes", {"of the guest's memory": total, "exported": length})
    if length > machine.quota:
        run.not_applicable(f"VF 1 has {machine.quota:#x} bytes, the guest {total:#x}: nothing larger can be exported")
    with opened(run, machine) as made:
        bound = imported(made, f"0+{length:#x}", va=VA)
        run.evidence("VM_BIND", bound.errno)
        run.check(bound.errno in ("0", "ENOMEM"), f"VM_BIND of {length:#x} bytes: {bound.errno}")
        if bound.errno == "0":
            made.step(f"unbind g {VA:#x} {length:#x}")
        made.do("gem-close i", "close di")
        # What was refused has used nothing up.
        _use(run, machine, made, [(0, 2 * MIB)], 1)


@scenario("40e", "one range of 6 GiB behind a translating IOMMU", "as 40b", setups.LARGE_TRANSLATING, group=_GROUP)
def range_of_six_gib_translating(run: Run, machine: XeMachine) -> None:
    range_of_six_gib(run, machine)
