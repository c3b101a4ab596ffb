"""The ledger: counts, who owned what when, resets, and the verdicts that follow."""

from __future__ import annotations

from typing import Any

import pytest

from vfio_user_xe.emulator.cli.control import history_lines, verdict_lines
from vfio_user_xe.emulator.fabric.ledger import KERNEL, STALE, UNSHARED, Ledger

FUNCTIONS = ["pf", "vf1", "vf2"]


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    made = Ledger(clock)
    made.ways.update(iov="zero-copy", p2p="legacy", host_dma="legacy")
    return made


def use(ledger: Ledger, initiator: str, owner: str, interconnect: str, kind: str = "vram", count: int = 1) -> None:
    entry = ledger.entry(initiator, owner, interconnect, kind)
    for _ in range(count):
        entry.count_read(64)


def paths(ledger: Ledger) -> list[tuple[str, str, str]]:
    return [(p["initiator"], p["owner"], p["path"]) for p in ledger.verdicts(FUNCTIONS)["paths"]]


def test_device_addresses_are_the_zero_copy_path_and_bars_the_legacy_path(ledger: Ledger) -> None:
    use(ledger, "pf", "vf1", "iov")
    use(ledger, "pf", "vf2", "p2p", "system")
    assert paths(ledger) == [("pf", "vf1", "zero-copy"), ("pf", "vf2", "legacy")]


def test_an_interconnect_of_somebody_else_is_judged_by_the_way_that_it_declares(ledger: Ledger) -> None:
    ledger.ways.update(optical="zero-copy", parallel="legacy")
    use(ledger, "pf", "vf1", "optical")
    use(ledger, "vf1", "vf2", "parallel")
    use(ledger, "pf", "vf2", "pigeon")
    assert paths(ledger) == [("pf", "vf1", "zero-copy"), ("pf", "vf2", "pigeon"), ("vf1", "vf2", "legacy")]


def test_accesses_of_four_bytes_and_others_are_counted_together(ledger: Ledger) -> None:
    entry = ledger.entry("pf", "vf1", "iov", "vram")
    entry.loads32 += 2
    entry.count_read(100)
    entry.stores32 += 1
    entry.count_write(10)
    assert (entry.reads, entry.bytes_read, entry.writes, entry.bytes_written) == (3, 108, 2, 14)
    entry.clear()
    assert (entry.reads, entry.bytes_read, entry.writes, entry.bytes_written) == (0, 0, 0, 0)


def test_memory_that_came_without_a_descriptor_is_the_legacy_path(ledger: Ledger) -> None:
    use(ledger, "pf", UNSHARED, "host_dma", "system")
    use(ledger, "pf", "guest", "host_dma", "system")
    assert paths(ledger) == [("pf", UNSHARED, "legacy")]


def test_both_paths_are_seen_when_both_were_taken(ledger: Ledger) -> None:
    use(ledger, "pf", "vf1", "iov")
    use(ledger, "pf", "vf1", "p2p", "system")
    assert paths(ledger) == [("pf", "vf1", "both")]


def test_one_s_own_memory_the_driver_s_work_and_the_control_socket_take_no_path(ledger: Ledger) -> None:
    use(ledger, "pf", "pf", "iov")
    use(ledger, "pf", "vf1", "iov", KERNEL + "vram")
    use(ledger, "pf", "vf1", "iov", "control")
    verdicts = ledger.verdicts(FUNCTIONS)
    assert verdicts == {"paths": [], "stale": [], "foreign": []}
    assert verdict_lines(verdicts) == ["no function reached another's memory"]


def test_only_a_vf_that_reaches_others_is_foreign(ledger: Ledger) -> None:
    use(ledger, "pf", "vf1", "iov")
    use(ledger, "vf1", "vf2", "p2p", "system")
    (foreign,) = ledger.verdicts(FUNCTIONS)["foreign"]
    assert (foreign["initiator"], foreign["owner"]) == ("vf1", "vf2")
    assert "FOREIGN: vf1 reached vf2's memory" in verdict_lines(ledger.verdicts(FUNCTIONS))


def test_a_vf_on_memory_of_nobody_known_is_not_foreign(ledger: Ledger) -> None:
    """What came without a descriptor may be the VF's own guest's: it is reported as a path, and accuses nobody."""
    use(ledger, "vf1", UNSHARED, "host_dma", "system")
    verdicts = ledger.verdicts(FUNCTIONS)
    assert verdicts["foreign"] == []
    assert [(p["initiator"], p["owner"], p["path"]) for p in verdicts["paths"]] == [("vf1", UNSHARED, "legacy")]
    assert not any("FOREIGN" in line for line in verdict_lines(verdicts))


def test_accesses_through_old_translations_are_stale(ledger: Ledger) -> None:
    use(ledger, "pf", "pf", "iov", STALE + "vram", 3)
    (stale,) = ledger.verdicts(FUNCTIONS)["stale"]
    assert (stale["initiator"], stale["reads"], stale["reason"]) == ("pf", 3, "the memory's owner changed")


def test_accesses_of_others_during_a_reset_are_stale(ledger: Ledger, clock: Clock) -> None:
    use(ledger, "pf", "vf1", "iov", count=5)
    ledger.ownership.reset_began("vf1")
    ledger.ownership.reset_began("vf1")
    use(ledger, "pf", "vf1", "iov", count=2)
    use(ledger, "pf", "vf1", "iov", KERNEL + "vram", count=100)
    use(ledger, "vf1", "vf1", "iov", count=1)
    clock.time += 2
    assert [s["reads"] for s in ledger.verdicts(FUNCTIONS)["stale"]] == [2], "also while the reset lasts"
    ledger.ownership.reset_ended("vf1")
    use(ledger, "pf", "vf1", "iov", count=7)
    (reset,) = ledger.ownership.resets_as_list()
    assert (reset["began"], reset["ended"]) == (0, 2)
    assert reset["accesses"] == [
        {"initiator": "pf", "interconnect": "iov", "kind": "vram", "reads": 2, "writes": 0, "after": None}
    ]


def test_an_owners_own_accesses_do_not_hide_those_of_others_that_come_after(ledger: Ledger) -> None:
    ledger.ownership.reset_began("vf1")
    use(ledger, "vf1", "vf1", "iov")
    use(ledger, "pf", "vf2", "iov")
    use(ledger, "pf", "vf1", "iov", KERNEL + "vram")
    ledger.entry("vf2", "vf1", "iov", "vram").count_write(4)
    ledger.ownership.reset_ended("vf1")
    (reset,) = ledger.ownership.resets_as_list()
    assert [(a["initiator"], a["reads"], a["writes"]) for a in reset["accesses"]] == [("vf2", 0, 1)]
    assert paths(ledger) == [("pf", "vf2", "zero-copy"), ("vf2", "vf1", "zero-copy")]


def test_an_access_during_a_reset_tells_when_its_path_was_opened(ledger: Ledger, clock: Clock) -> None:
    ledger.entry("pf", "vf1", "p2p", "system").opened(ledger.now())
    ledger.ownership.reset_began("vf1")
    clock.time += 0.25
    ledger.entry("pf", "vf1", "p2p", "system").opened(ledger.now())
    use(ledger, "pf", "vf1", "p2p", "system")
    ledger.ownership.reset_ended("vf1")
    ((access,),) = [reset["accesses"] for reset in ledger.ownership.resets_as_list()]
    assert access["after"] == 0.25


def test_a_reset_that_nobody_disturbed_has_no_accesses(ledger: Ledger) -> None:
    use(ledger, "pf", "vf1", "iov")
    ledger.ownership.reset_began("vf1")
    ledger.ownership.reset_ended("vf1")
    ledger.ownership.reset_ended("vf1")
    assert ledger.verdicts(FUNCTIONS)["stale"] == []


def test_clearing_in_the_middle_of_a_reset_counts_from_there(ledger: Ledger) -> None:
    ledger.ownership.reset_began("vf1")
    use(ledger, "pf", "vf1", "iov", count=4)
    ledger.clear()
    use(ledger, "pf", "vf1", "iov", count=1)
    ledger.ownership.reset_ended("vf1")
    assert [s["reads"] for s in ledger.verdicts(FUNCTIONS)["stale"]] == [1]


def test_the_history_of_a_page_is_told_in_order(ledger: Ledger, clock: Clock) -> None:
    ledger.ownership.changed(0x200000, 0x400000, "pf", "vf1")
    clock.time += 1
    ledger.ownership.changed(0x400000, 0x200000, "vf1", "vf2")
    ledger.ownership.changed(0x800000, 0x200000, "vf1", "vf1")
    history: list[dict[str, Any]] = ledger.ownership.history(0x500000)
    assert [(h["time"], h["old"], h["new"]) for h in history] == [(0, "pf", "vf1"), (1, "vf1", "vf2")]
    assert len(ledger.ownership.history()) == 2
    lines = history_lines({"changes": history, "resets": ledger.ownership.resets_as_list()})
    assert lines[1].endswith("[0x400000, 0x600000) went from vf1 to vf2")


@pytest.mark.parametrize(
    ("address", "told"), [(0x1FFFFF, 0), (0x200000, 1), (0x3FFFFF, 1), (0x400000, 2), (0x5FFFFF, 2), (0x600000, 0)]
)
def test_a_change_is_of_the_pages_from_its_first_to_its_last(ledger: Ledger, address: int, told: int) -> None:
    ledger.ownership.changed(0x200000, 0x400000, "pf", "vf1")
    ledger.ownership.changed(0x400000, 0x200000, "vf1", "vf2")
    assert len(ledger.ownership.history(address)) == told


def test_an_entry_whose_windows_are_older_than_the_last_clear_has_no_times(ledger: Ledger, clock: Clock) -> None:
    clock.time += 1
    ledger.entry("pf", "vf1", "iov", "vram").opened(ledger.now())
    ledger.clear()
    ledger.entry("pf", "vf1", "iov", "vram").count_read(4)
    (entry,) = ledger
    assert (entry.spans, entry.first, entry.last) == (0, 0, 0)


def test_clear_forgets_counts_and_history(ledger: Ledger) -> None:
    use(ledger, "pf", "vf1", "iov")
    ledger.ownership.changed(0, 0x200000, "pf", "vf1")
    ledger.clear()
    assert list(ledger) == []
    assert ledger.ownership.history() == []


def test_memory_of_another_card_is_reached_by_the_interconnect_s_name_and_is_foreign_to_a_vf(ledger: Ledger) -> None:
    use(ledger, "pf", "b:vf1", "remote")
    use(ledger, "pf", "c:pf", "p2p", "system")
    use(ledger, "vf1", "b:vf1", "remote")
    assert paths(ledger) == [("pf", "b:vf1", "remote"), ("pf", "c:pf", "legacy"), ("vf1", "b:vf1", "remote")]
    verdicts = ledger.verdicts(FUNCTIONS)
    assert [(f["initiator"], f["owner"]) for f in verdicts["foreign"]] == [("vf1", "b:vf1")]
    assert any("1 over remote" in line for line in verdict_lines(verdicts))


def test_the_beginning_and_the_end_of_a_reset_are_told_once(ledger: Ledger) -> None:
    told: list[tuple[str, str]] = []
    ledger.ownership.on_event.append(lambda event: told.append((event["event"], event["owner"])))
    ledger.ownership.reset_began("vf1")
    ledger.ownership.reset_began("vf1")
    ledger.ownership.reset_ended("vf1")
    ledger.ownership.reset_ended("vf1")
    assert told == [("reset_began", "vf1"), ("reset_ended", "vf1")]
