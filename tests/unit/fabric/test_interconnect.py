from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.initiators import PF, VF1, VF2
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator, Space, Window
from vfio_user_xe.emulator.observe.tap import Record


class Pages:
    """An interconnect to a buffer whose pages have owners: what is not owned is not reached, "nobody" is refused."""

    def __init__(self, fabric: Fabric, name: str = "pages", page: int = 16, space: str = Space.DEVICE) -> None:
        self.name = name
        self.fabric = fabric
        self.page = page
        self.space = space
        self.memory = bytearray(16 * page)
        self.owners: dict[int, str] = {}
        self.opened = 0

    def open(
        self, initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        number, offset = divmod(address, self.page)
        if space != self.space or number not in self.owners:
            return None
        owner = self.owners[number]
        if owner == "nobody":
            raise AccessFault(initiator, space, address, "refused")
        self.opened += 1
        count = min(length, self.page - offset)
        view = memoryview(self.memory)[address : address + count]
        return Window(address, count, view, owner, self.fabric.ledger.entry(initiator.name, owner, self.name, kind))


def fabric_with_pages(owners: dict[int, str]) -> tuple[Fabric, Pages]:
    fabric = Fabric()
    pages = Pages(fabric)
    pages.owners = owners
    fabric.interconnects = [pages]
    return fabric, pages


def test_an_access_over_several_windows_is_gathered_and_scattered() -> None:
    fabric, pages = fabric_with_pages({0: "vf1", 1: "vf2", 2: "vf1"})
    data = bytes(range(40))
    fabric.write(PF, Space.DEVICE, 4, data, "vram")
    assert bytes(pages.memory[4:44]) == data
    assert fabric.read(PF, Space.DEVICE, 4, 40, "vram") == data


def test_the_ledger_counts_by_initiator_owner_interconnect_and_kind() -> None:
    fabric, _ = fabric_with_pages({0: "vf1", 1: "vf2"})
    fabric.write(PF, Space.DEVICE, 12, b"12345678", "vram")
    fabric.read(VF1, Space.DEVICE, 0, 3, "vram")
    assert sorted(
        (e.initiator, e.owner, e.interconnect, e.kind, e.bytes_read, e.bytes_written) for e in fabric.ledger
    ) == [
        ("pf", "vf1", "pages", "vram", 0, 4),
        ("pf", "vf2", "pages", "vram", 0, 4),
        ("vf1", "vf1", "pages", "vram", 3, 0),
    ]


def test_clearing_the_ledger_keeps_open_windows_counting() -> None:
    fabric, _ = fabric_with_pages({0: "vf1"})
    window = fabric.window(PF, Space.DEVICE, 0, 8, write=False)
    window.read(0, 8)
    fabric.ledger.clear()
    assert list(fabric.ledger) == []
    window.read(0, 2)
    assert [entry.bytes_read for entry in fabric.ledger] == [2]


def test_interconnects_are_asked_in_order_and_the_first_that_answers_wins() -> None:
    fabric = Fabric()
    first, second = Pages(fabric, "first"), Pages(fabric, "second")
    first.owners, second.owners = {1: "vf1"}, {0: "vf2", 1: "vf2"}
    fabric.interconnects = [first, second]
    assert fabric.window(PF, Space.DEVICE, 16, 4, write=False).entry.interconnect == "first"
    assert fabric.window(PF, Space.DEVICE, 0, 4, write=False).entry.interconnect == "second"


def test_an_address_that_nothing_reaches_faults_with_the_access_in_it() -> None:
    fabric, _ = fabric_with_pages({})
    with pytest.raises(AccessFault, match=r"vf1: device address 0x20: .*write to 0x4 bytes: pages") as caught:
        fabric.write(VF1, Space.DEVICE, 0x20, b"1234")
    fault = caught.value
    assert (fault.initiator, fault.space, fault.address) == (VF1, Space.DEVICE, 0x20)


def test_a_refusal_is_final_and_no_later_interconnect_is_asked() -> None:
    fabric = Fabric()
    first, second = Pages(fabric, "first"), Pages(fabric, "second")
    first.owners, second.owners = {0: "nobody"}, {0: "vf2"}
    fabric.interconnects = [first, second]
    with pytest.raises(AccessFault, match="refused"):
        fabric.read(PF, Space.DEVICE, 0, 4)
    assert second.opened == 0


def test_a_fault_in_the_middle_of_an_access_leaves_what_came_before_done_and_counted() -> None:
    fabric, pages = fabric_with_pages({0: "vf1"})
    with pytest.raises(AccessFault) as caught:
        fabric.write(PF, Space.DEVICE, 12, b"abcdefgh")
    assert caught.value.address == 16
    assert bytes(pages.memory[12:16]) == b"abcd"
    assert [entry.bytes_written for entry in fabric.ledger] == [4]


@pytest.mark.parametrize("length", [0, -1])
def test_a_window_of_no_bytes_cannot_be_asked_for(length: int) -> None:
    fabric, _ = fabric_with_pages({0: "vf1"})
    with pytest.raises(ValueError, match="window of"):
        fabric.window(PF, Space.DEVICE, 0, length, write=False)
    assert fabric.read(PF, Space.DEVICE, 0, length) == b""


@pytest.mark.parametrize(
    ("start", "length", "view", "said"),
    [
        (0x20, 0, bytearray(), "opened one of 0x0 bytes"),
        (0x20, 8, bytearray(8), "opened one of 0x8 bytes"),
        (0x24, 4, bytearray(4), "opened one at 0x24"),
        (0x20, 4, bytearray(3), "opened one of 0x4 bytes with a view of 0x3"),
        (0x20, 4, bytes(4), "opened one to be written with a view that is read-only"),
    ],
)
def test_an_interconnect_that_opens_another_window_than_it_was_asked_for_is_named(
    start: int, length: int, view: bytes | bytearray, said: str
) -> None:
    fabric, pages = fabric_with_pages({0: "vf1"})

    def wrong(initiator: Initiator, space: str, address: int, wanted: int, write: bool, kind: str) -> Window:
        return Window(start, length, memoryview(view), "vf1", fabric.ledger.entry("pf", "vf1", "pages", kind))

    pages.open = wrong  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=f"interconnect pages was asked for 0x4 bytes at 0x20, and {said}"):
        fabric.write(PF, Space.DEVICE, 0x20, bytes(4))


def test_a_window_refuses_what_lies_outside_of_it() -> None:
    fabric, pages = fabric_with_pages({0: "vf1", 1: "vf2"})
    window = fabric.window(PF, Space.DEVICE, 8, 32, write=True)
    assert window.length == 8
    for offset, length in ((0, 9), (8, 1), (-1, 2)):
        with pytest.raises(ValueError, match="outside of a window"):
            window.read(offset, length)
        with pytest.raises(ValueError, match="outside of a window"):
            window.write(offset, b"x" * length)
    assert not any(pages.memory)
    assert list(fabric.ledger) == []


def test_a_revoked_window_faults_and_a_new_one_reaches_the_new_owner() -> None:
    fabric, pages = fabric_with_pages({0: "vf1"})
    window = fabric.window(PF, Space.DEVICE, 0, 16, write=True)
    pages.owners[0] = "vf2"
    assert fabric.revoke(lambda candidate: candidate.owner == "vf1") == 1
    assert not window.valid
    with pytest.raises(AccessFault, match="path to vf1 was revoked"):
        window.write(4, b"late")
    assert not any(pages.memory)
    assert fabric.window(PF, Space.DEVICE, 0, 16, write=True).owner == "vf2"


def test_revocation_in_the_middle_of_a_copy_stops_it_at_the_next_span() -> None:
    fabric, pages = fabric_with_pages({0: "vf1"})
    window = fabric.window(PF, Space.DEVICE, 0, 16, write=True)

    def copy() -> None:
        for span in range(0, 16, 4):
            if span == 8:
                del pages.owners[0]
                fabric.revoke()
            window.write(span, b"copy")

    with pytest.raises(AccessFault) as caught:
        copy()
    assert caught.value.address == 8
    assert bytes(pages.memory) == b"copycopy" + bytes(len(pages.memory) - 8)


def test_only_windows_that_touch_a_range_are_revoked() -> None:
    fabric, _ = fabric_with_pages(dict.fromkeys(range(4), "vf1"))
    windows = [fabric.window(VF1, Space.DEVICE, 16 * number, 16, write=False) for number in range(4)]
    assert fabric.revoke_range(VF1, Space.DEVICE, 31, 2) == 2
    assert [window.valid for window in windows] == [True, False, False, True]
    assert fabric.revoke_range(VF1, Space.DEVICE, 16, 32) == 0


def test_a_window_that_begins_in_a_page_is_revoked_up_to_its_last_byte_and_no_further() -> None:
    fabric, _ = fabric_with_pages({0: "vf1"})
    for address, length, touched in ((12, 4, True), (15, 1, True), (16, 16, False), (0, 12, False), (0, 13, True)):
        window = fabric.window(VF1, Space.DEVICE, 12, 4, write=False)
        fabric.revoke_range(VF1, Space.DEVICE, address, length)
        assert window.valid is not touched


def test_a_window_may_have_one_byte() -> None:
    fabric, pages = fabric_with_pages({0: "vf1"})
    pages.memory[15] = 7
    assert fabric.window(PF, Space.DEVICE, 15, 1, write=False).read(0, 1) == b"\x07"
    assert fabric.read(PF, Space.DEVICE, 15, 1) == b"\x07"


def test_revoking_a_range_leaves_other_initiators_and_spaces_alone() -> None:
    fabric = Fabric()
    pages, system = Pages(fabric), Pages(fabric, "system", space=Space.SYSTEM)
    pages.owners = system.owners = {0: "vf1"}
    fabric.interconnects = [pages, system]
    mine = fabric.window(VF1, Space.SYSTEM, 0, 16, write=False)
    other = fabric.window(VF2, Space.SYSTEM, 0, 16, write=False)
    device = fabric.window(VF1, Space.DEVICE, 0, 16, write=False)
    assert fabric.revoke_range(VF1, Space.SYSTEM, 0, 1 << 64) == 1
    assert (mine.valid, other.valid, device.valid) == (False, True, True)


def test_caches_hear_of_revocations_that_took_something_only() -> None:
    fabric, _ = fabric_with_pages({0: "vf1"})
    heard: list[int] = []
    fabric.on_revoke.append(lambda: heard.append(1))
    fabric.revoke()
    assert heard == []
    window = fabric.window(PF, Space.DEVICE, 0, 4, write=False)
    fabric.revoke()
    assert heard == [1]
    assert not window.valid


@pytest.mark.parametrize("held", [0, 100, 400])
def test_windows_that_nobody_holds_are_forgotten(held: int) -> None:
    fabric, _ = fabric_with_pages(dict.fromkeys(range(16), "vf1"))
    kept = [fabric.window(PF, Space.DEVICE, number % 256, 1, write=False) for number in range(held)]
    for number in range(10_000):
        fabric.window(PF, Space.DEVICE, number % 256, 1, write=False)
    gc.collect()
    assert set(map(id, fabric.open_windows())) == set(map(id, kept))
    group = fabric._windows_of("pf", Space.DEVICE)
    assert len(group._references) < 1000
    assert fabric.revoke() == held
    assert not any(window.valid for window in kept)


def test_a_window_that_is_opened_while_its_memory_changes_hands_belongs_to_the_new_owner() -> None:
    """The owner changes after the interconnect looked and before the fabric knows of the window."""
    fabric, pages = fabric_with_pages({0: "vf1"})
    plain_open = pages.open

    def open_then_lose(
        initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        window = plain_open(initiator, space, address, length, write, kind)
        if pages.owners[0] == "vf1":
            pages.owners[0] = "vf2"
            fabric.revoke()
        return window

    pages.open = open_then_lose  # type: ignore[method-assign]
    assert fabric.window(PF, Space.DEVICE, 0, 4, write=False).owner == "vf2"


def test_the_first_window_of_an_initiator_does_not_survive_a_revocation_that_began_before_it_was_known() -> None:
    """The revocation looks which initiators have windows while the first window of one is between open and known."""
    fabric, pages = fabric_with_pages({0: "vf1"})
    opened, looked = threading.Event(), threading.Event()
    plain_open = pages.open

    def open_and_wait(
        initiator: Initiator, space: str, address: int, length: int, write: bool, kind: str
    ) -> Window | None:
        window = plain_open(initiator, space, address, length, write, kind)
        opened.set()
        assert looked.wait(20)
        return window

    class Groups(dict[tuple[str, str], Any]):
        def __iter__(self) -> Iterator[tuple[str, str]]:
            groups = list(super().__iter__())
            looked.set()
            opener.join(20)
            return iter(groups)

    windows: list[Window] = []
    pages.open = open_and_wait  # type: ignore[method-assign]
    fabric._open = Groups()
    opener = threading.Thread(target=lambda: windows.append(fabric.window(PF, Space.DEVICE, 0, 4, write=False)))
    opener.start()
    assert opened.wait(20)
    pages.owners[0] = "vf2"
    fabric.revoke_owners(["vf1"])
    opener.join(20)
    assert [(window.owner, window.valid) for window in windows] == [("vf2", True)]


def test_no_window_survives_a_revocation_from_another_thread() -> None:
    """Mappings come and go on one thread while another opens windows: none may outlive its mapping."""
    fabric, pages = fabric_with_pages({0: "generation 0"})
    rounds = 1500
    finished = threading.Event()
    stale: list[str] = []

    def opener() -> None:
        while not finished.is_set():
            generation = pages.owners[0]
            window = fabric.window(PF, Space.DEVICE, 0, 4, write=False)
            after = pages.owners[0]
            held.append(window)
            if window.valid and generation == after and window.owner != generation:
                stale.append(window.owner)

    held: list[Window] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=opener)
        thread.start()
        for number in range(1, rounds):
            pages.owners[0] = f"generation {number}"
            fabric.revoke()
            late = [w.owner for w in list(held) if w.valid and w.owner != f"generation {number}"]
            stale += late
            held.clear()
        finished.set()
        thread.join()
    finally:
        finished.set()
        sys.setswitchinterval(interval)
    assert stale == []


def test_the_tap_of_the_fabric_is_told_of_every_window_that_opens_and_is_revoked() -> None:
    fabric, _ = fabric_with_pages({0: "vf1"})
    seen: list[Record] = []
    fabric.tap.switch_on(seen.append, lambda: 2.5)
    window = fabric.window(VF1, Space.DEVICE, 3, 1, write=True, kind="vram")
    fabric.revoke()
    assert not window.valid
    place = {"space": Space.DEVICE, "address": 3, "length": 1}
    path = {"kind": "vram", "interconnect": "pages", "owner": "vf1"}
    assert seen == [
        (2.5, "vf1", "fabric", "window", {**place, "for": "write", **path}),
        (2.5, "vf1", "fabric", "revoked", {**place, **path}),
    ]
