"""What a kernel with device-address mappings asks of the card, without that kernel: drivers played over vfio-user.

The PF maps DPA of a VF's provisioned VRAM, scattered, with device-memory entries, and goes through what the scenarios
go through in a guest. Numbers in comments are those of the scenarios (docs/dmabuf-scenarios.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.xe.wire_driver import BAR2, BLOCK, CAT_ERROR, MIB, VA_RESULT, Context, WireDriver
from vfio_user_xe.emulator.testing.lab import CONFIG, LiveCard, open_card
from vfio_user_xe.emulator.vfio_user.client import Client

VA_IMPORT = 0x4000_0000
SCATTERED = {0: 300, 1: 211, 2: 305, 3: 213}
"""GDPA block -> DPA block."""
OTHER = {0: 400, 1: 212}
PAGE = 0x1000
RAM_RESULT = 4 * MIB
INITIATE_FLR = (0x70 + 8, 0x8000)
"""Device Control of the PCI Express capability, and its bit."""
SERVE = ["--vfs", "2", "--set", "vram=1GiB", "--set", "vf_bar2=16MiB"]


@pytest.fixture(scope="module")
def card() -> Iterator[LiveCard]:
    with open_card(SERVE) as card:
        yield card


@pytest.fixture
def driver(card: LiveCard) -> Iterator[WireDriver]:
    driver = WireDriver(card)
    driver.provision(1, SCATTERED)
    driver.provision(2, OTHER)
    card.call("ledger", clear=True)
    yield driver
    assert card.call("status")["executor"]["failures"] == 0
    driver.client.reset()
    driver.close()


@pytest.fixture
def vf1(card: LiveCard, driver: WireDriver) -> Iterator[Client]:
    client = card.client("vf1")
    yield client
    client.close()


@pytest.fixture
def vf2(card: LiveCard, driver: WireDriver) -> Iterator[Client]:
    client = card.client("vf2")
    yield client
    client.close()


def pattern(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def fill(vf: Client, offset: int, length: int, seed: int) -> bytes:
    data = pattern(length, seed)
    vf.map_region(BAR2).at(offset, length)[:] = data
    return data


def imported(driver: WireDriver, blocks: dict[int, int], first: int, count: int) -> Context:
    """A context that has blocks of a VF mapped by DPA, and 8 MiB of guest memory for results."""
    context = context_with_result(driver)
    context.map_ranges(VA_IMPORT, blocks, [(first * BLOCK, count * BLOCK)])
    return context


def context_with_result(driver: WireDriver) -> Context:
    context = driver.context()
    context.map(VA_RESULT, RAM_RESULT, 8 * MIB, system=True)
    return context


def result(driver: WireDriver, length: int) -> bytes:
    return bytes(driver.ram.at(RAM_RESULT, length))


def verdicts(card: LiveCard) -> dict[str, Any]:
    found: dict[str, Any] = card.call("verdicts")
    return found


def path_of(card: LiveCard, owner: str = "vf1") -> str:
    """By which way the PF reached an owner's memory."""
    paths = {path["owner"]: path["path"] for path in verdicts(card)["paths"] if path["initiator"] == "pf"}
    return str(paths[owner])


# 1, 2, 3, 4, 5, 6, 29: data.


def test_scattered_memory_is_read_in_order_without_a_copy_or_a_bar(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    data = fill(vf1, 0, 8 * MIB, 1)
    context = imported(driver, SCATTERED, 0, 4)
    context.copy(VA_RESULT, VA_IMPORT, 8 * MIB)
    assert result(driver, 8 * MIB) == data
    (path,) = verdicts(card)["paths"]
    assert (path["initiator"], path["owner"], path["path"]) == ("pf", "vf1", "zero-copy")
    assert verdicts(card)["stale"] == []


def test_what_the_pf_writes_the_vf_reads(driver: WireDriver, vf1: Client) -> None:
    context = imported(driver, SCATTERED, 1, 1)
    driver.ram.at(RAM_RESULT, BLOCK)[:] = bytes(range(256)) * (BLOCK // 256)
    context.copy(VA_IMPORT, VA_RESULT, BLOCK)
    assert bytes(vf1.map_region(BAR2).at(BLOCK, BLOCK)) == bytes(range(256)) * (BLOCK // 256)


@pytest.mark.parametrize(
    "ranges",
    [
        [(0x5000, PAGE)],
        [(BLOCK - PAGE, 900 * PAGE)],
        [(0x9000, 5 * PAGE), (0, PAGE), (0x4000, 3 * PAGE)],
        [(3 * BLOCK + 7 * PAGE, PAGE), (BLOCK - 2 * PAGE, 4 * PAGE), (2 * BLOCK, BLOCK)],
        [(4 * BLOCK - PAGE, PAGE)],
    ],
    ids=["a page", "a frame over borders", "5, 1 and 3 pages, shuffled", "pages of every block", "the last page"],
)
def test_ranges_are_read_in_their_order(
    card: LiveCard, driver: WireDriver, vf1: Client, ranges: list[tuple[int, int]]
) -> None:
    data = fill(vf1, 0, 4 * BLOCK, 5)
    context = context_with_result(driver)
    size = context.map_ranges(VA_IMPORT, SCATTERED, ranges)
    context.copy(VA_RESULT, VA_IMPORT, size)
    assert result(driver, size) == b"".join(data[offset : offset + length] for offset, length in ranges)
    assert path_of(card) == "zero-copy"


def test_a_range_s_size_rounded_up_shifts_all_that_follows(driver: WireDriver, vf1: Client) -> None:
    """The control of the one before, and the device's view of the defect called D3."""
    data = fill(vf1, 0, BLOCK, 5)
    context = context_with_result(driver)
    context.map(VA_IMPORT, SCATTERED[0] * BLOCK + 0x9000, 4 * PAGE)
    context.map(VA_IMPORT + 4 * PAGE, SCATTERED[0] * BLOCK, PAGE)
    context.copy(VA_RESULT, VA_IMPORT, 4 * PAGE)
    assert result(driver, 4 * PAGE) != data[0x9000 : 0x9000 + 3 * PAGE] + data[:PAGE]


def test_one_address_for_a_range_across_a_border_is_somebody_else_s_memory(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    """The device's view of the defect called D2, and of an exporter that names another VF's memory (14)."""
    data = fill(vf1, BLOCK, 2 * BLOCK, 7)
    context = context_with_result(driver)
    context.map(VA_IMPORT, SCATTERED[1] * BLOCK, 2 * BLOCK)
    context.copy(VA_RESULT, VA_IMPORT, 2 * BLOCK)
    assert result(driver, 2 * BLOCK) != data
    assert {path["owner"] for path in verdicts(card)["paths"]} == {"vf1", "vf2"}


def test_the_same_memory_at_several_addresses_and_page_sizes_is_the_same(driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, BLOCK, 11)
    context = imported(driver, SCATTERED, 0, 1)
    context.map_ranges(VA_IMPORT + 16 * MIB + 0x1_0000, SCATTERED, [(0, BLOCK)])
    for va in (VA_IMPORT, VA_IMPORT + 16 * MIB + 0x1_0000):
        driver.ram.at(RAM_RESULT, BLOCK)[:] = bytes(BLOCK)
        context.copy(VA_RESULT, va, BLOCK)
        assert result(driver, BLOCK) == data


# 7, 9, 10, 11, 12, 13, 15, 16: what is whose.


def test_the_vf_s_bar_is_the_legacy_path(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, 4 * MIB, 3)
    context = context_with_result(driver)
    context.map(VA_IMPORT, driver.bar_address(1), 4 * MIB, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 4 * MIB)
    assert result(driver, 4 * MIB) == data
    assert path_of(card) == "legacy"


def test_both_paths_lead_to_the_same_memory(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    fill(vf1, 0, BLOCK, 3)
    context = imported(driver, SCATTERED, 0, 1)
    context.map(VA_IMPORT + BLOCK, driver.bar_address(1), BLOCK, system=True)
    driver.ram.at(RAM_RESULT, BLOCK)[:] = pattern(BLOCK, 13)
    context.copy(VA_IMPORT, VA_RESULT, BLOCK)
    driver.ram.at(RAM_RESULT, BLOCK)[:] = bytes(BLOCK)
    context.copy(VA_RESULT, VA_IMPORT + BLOCK, BLOCK)
    assert result(driver, BLOCK) == pattern(BLOCK, 13)
    assert path_of(card) == "both"


def test_beyond_its_quota_a_vf_s_bar_reads_ones(driver: WireDriver, vf1: Client) -> None:
    context = context_with_result(driver)
    context.map(VA_IMPORT, driver.bar_address(1) + len(SCATTERED) * BLOCK, 0x2000, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 0x2000)
    assert result(driver, 0x2000) == b"\xff" * 0x2000


def test_device_addresses_behind_a_quota_s_last_block_are_not_the_vf_s(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    """The device's view of the defects called D4 and D5."""
    fill(vf1, 0, 4 * BLOCK, 3)
    context = context_with_result(driver)
    context.map(VA_IMPORT, (SCATTERED[3] + 1) * BLOCK, PAGE)
    context.copy(VA_RESULT, VA_IMPORT, PAGE)
    assert verdicts(card)["paths"] == [], "that memory is the PF's own"


def test_a_vf_s_registers_are_reached_through_its_bar0_only(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    context = context_with_result(driver)
    context.map(VA_IMPORT, driver.bar0_address(1) + 0x190000, PAGE, system=True)
    vf1.write(0, 0x190240, 4, 0x5CA7C4)
    context.copy(VA_RESULT, VA_IMPORT, PAGE)
    assert int.from_bytes(result(driver, PAGE)[0x240:0x244], "little") == 0x5CA7C4
    assert path_of(card) == "legacy"


def test_two_vfs_do_not_mix(driver: WireDriver, vf1: Client, vf2: Client) -> None:
    first, second = fill(vf1, 0, BLOCK, 1), fill(vf2, 0, BLOCK, 2)
    context = imported(driver, SCATTERED, 0, 1)
    context.map_ranges(VA_IMPORT + BLOCK, OTHER, [(0, BLOCK)])
    for _ in range(3):
        driver.ram.at(RAM_RESULT, 2 * BLOCK)[:] = bytes(2 * BLOCK)
        context.copy(VA_RESULT, VA_IMPORT, 2 * BLOCK)
        assert result(driver, 2 * BLOCK) == first + second


def test_a_device_address_of_one_card_never_leads_to_another(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    fill(vf1, 0, BLOCK, 21)
    with open_card(SERVE) as second:
        other = WireDriver(second)
        try:
            other.provision(1, OTHER)
            second.call("ledger", clear=True)
            context = imported(other, SCATTERED, 0, 1)
            context.copy(VA_RESULT, VA_IMPORT, BLOCK)
            assert result(other, BLOCK) == bytes(BLOCK), "its own VRAM at that address, which is empty"
            assert verdicts(second)["paths"] == []
            assert verdicts(card)["paths"] == []
        finally:
            other.close()


def test_a_vf_has_no_way_to_others_by_device_address(card: LiveCard, driver: WireDriver) -> None:
    card.call("read", function="vf1", space="device", address=0, length=16)
    with pytest.raises(Exception, match="LMTT gives vf1 nothing there"):
        card.call("read", function="vf1", space="device", address=OTHER[0] * BLOCK, length=16)
    assert verdicts(card)["foreign"] == []


def test_an_address_beyond_vram_faults_the_job_and_the_card_goes_on(driver: WireDriver, vf1: Client) -> None:
    lost = context_with_result(driver)
    lost.map(VA_IMPORT, 1 << 40, BLOCK)
    said = lost.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert any(words[0] & 0xFFFF == CAT_ERROR for _, words in said)
    data = fill(vf1, 0, BLOCK, 4)
    good = imported(driver, SCATTERED, 0, 1)
    good.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) == data


def test_what_fails_by_device_address_can_be_mapped_as_a_pci_device(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    data = fill(vf1, 0, BLOCK, 4)
    context = imported(driver, SCATTERED, 1, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    context.unmap(VA_IMPORT, BLOCK)
    card.call("ledger", clear=True)
    context.map(VA_IMPORT, driver.bar_address(1), BLOCK, system=True)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) == data
    assert path_of(card) == "legacy"


# 17, 18, 19, 21: resets of the owner.


def flr(driver: WireDriver, vf: Client) -> None:
    vf.write(CONFIG, INITIATE_FLR[0], 2, INITIATE_FLR[1])
    driver.settle()


def test_accesses_between_the_beginning_and_the_end_of_a_vf_s_reset_are_stale(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    context = imported(driver, SCATTERED, 0, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    flr(driver, vf1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    driver.finish_flr(1)
    (stale,) = verdicts(card)["stale"]
    assert (stale["owner"], stale["reason"], stale["kind"]) == ("vf1", "during the owner's reset", "vram")
    card.call("ledger", clear=True)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert verdicts(card)["stale"] == [], "the reset is over"


def test_resets_in_a_loop_while_the_pf_copies_are_seen_each(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    context = imported(driver, SCATTERED, 0, 4)
    fill(vf1, 0, 8 * MIB, 1)
    for turn in range(5):
        context.start_copy(VA_RESULT, VA_IMPORT, 8 * MIB, times=20)
        flr(driver, vf1)
        context.wait()
        driver.finish_flr(1)
        assert len(card.call("ownership")["resets"]) == turn + 1
    assert any(access["reason"] == "during the owner's reset" for access in verdicts(card)["stale"])
    data = fill(vf1, 0, 8 * MIB, 2)
    context.copy(VA_RESULT, VA_IMPORT, 8 * MIB)
    assert result(driver, 8 * MIB) == data, "after all that the mapping leads where it did"


def test_an_importer_that_unmaps_at_the_reset_and_maps_after_it_is_clean(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    context = imported(driver, SCATTERED, 0, 1)
    for seed in range(3):
        data = fill(vf1, 0, BLOCK, seed)
        context.copy(VA_RESULT, VA_IMPORT, BLOCK)
        assert result(driver, BLOCK) == data
        context.unmap(VA_IMPORT, BLOCK)
        flr(driver, vf1)
        driver.finish_flr(1)
        context.map_ranges(VA_IMPORT, SCATTERED, [(0, BLOCK)])
    assert verdicts(card)["stale"] == []
    assert path_of(card) == "zero-copy"


def test_a_vf_whose_memory_is_disabled_keeps_its_data(driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, BLOCK, 6)
    context = imported(driver, SCATTERED, 0, 1)
    vf1.write(CONFIG, 4, 2, 0)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) == data
    vf1.write(CONFIG, 4, 2, 2)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) == data


def test_a_job_on_memory_whose_user_has_gone_disturbs_nobody(card: LiveCard, driver: WireDriver) -> None:
    client = card.client("vf1")
    context = imported(driver, SCATTERED, 0, 4)
    fill(client, 0, 8 * MIB, 1)
    context.start_copy(VA_RESULT, VA_IMPORT, 8 * MIB, times=40)
    client.close()
    context.wait()
    again = card.client("vf1")
    try:
        data = fill(again, 0, BLOCK, 8)
        context.copy(VA_RESULT, VA_IMPORT, BLOCK)
        assert result(driver, BLOCK) == data
    finally:
        again.close()


# 23, 24, 25, 26, 28: the PF provisions, disables, resets.


def test_memory_that_changed_hands_is_reached_stale(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    fill(vf1, 0, BLOCK, 1)
    context = imported(driver, SCATTERED, 0, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert verdicts(card)["stale"] == []
    driver.provision(1, {1: SCATTERED[1]})
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    (stale,) = verdicts(card)["stale"]
    assert (stale["initiator"], stale["owner"], stale["kind"]) == ("pf", "pf", "stale vram")
    changes = card.call("ownership", address=SCATTERED[0] * BLOCK)["changes"]
    assert [(change["old"], change["new"]) for change in changes] == [("vf1", "pf")]


def test_an_importer_that_unmaps_first_is_not_stale(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    context = imported(driver, SCATTERED, 0, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    context.unmap(VA_IMPORT, BLOCK)
    driver.provision(1, {1: SCATTERED[1]})
    driver.provision(2, OTHER | {5: SCATTERED[0]})
    context.map(VA_IMPORT, SCATTERED[0] * BLOCK, BLOCK)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert verdicts(card)["stale"] == []
    assert {path["owner"] for path in verdicts(card)["paths"]} == {"vf1", "vf2"}


def test_revocation_in_the_middle_of_a_copy_costs_nothing_but_the_job(driver: WireDriver, vf1: Client) -> None:
    fill(vf1, 0, 8 * MIB, 1)
    context = imported(driver, SCATTERED, 0, 4)
    context.start_copy(VA_RESULT, VA_IMPORT, 8 * MIB, times=80)
    seen = 0
    while not context.done and seen < 6:
        driver.provision(1, {1: SCATTERED[1]} if seen % 2 == 0 else SCATTERED)
        seen += 1
    context.wait()
    assert seen > 1, "the copy was over before anything was revoked"
    driver.provision(1, SCATTERED)
    data = fill(vf1, 0, 8 * MIB, 9)
    fresh = imported(driver, SCATTERED, 0, 4)
    fresh.copy(VA_RESULT, VA_IMPORT, 8 * MIB)
    assert result(driver, 8 * MIB) == data


def test_the_bar_follows_new_provisioning_and_old_device_addresses_do_not(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    """A quota changed while mapped (25): the legacy path goes on in the VF's memory, the old DPA does not (D9)."""
    fill(vf1, 0, BLOCK, 1)
    context = imported(driver, SCATTERED, 0, 1)
    context.map(VA_IMPORT + BLOCK, driver.bar_address(1), BLOCK, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 2 * BLOCK)
    driver.provision(1, {0: 310})
    data = fill(vf1, 0, BLOCK, 2)
    card.call("ledger", clear=True)
    context.copy(VA_RESULT, VA_IMPORT + BLOCK, BLOCK)
    assert result(driver, BLOCK) == data
    assert verdicts(card)["stale"] == []
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) != data
    assert [access["reason"] for access in verdicts(card)["stale"]] == ["the memory's owner changed"]


def test_memory_of_vfs_that_are_disabled_is_stale_and_their_bars_are_gone(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    context = imported(driver, SCATTERED, 0, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    driver.disable_vfs()
    assert not any(card.call("vram_map")["vfs"].values())
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert [access["owner"] for access in verdicts(card)["stale"]] == ["pf"]
    bar = context_with_result(driver)
    bar.map(VA_IMPORT, driver.bar_address(1), BLOCK, system=True)
    said = bar.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert any(words[0] & 0xFFFF == CAT_ERROR for _, words in said)


def test_a_gt_reset_leaves_vfs_their_memory_and_the_mapping(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, 8 * MIB, 5)
    busy = imported(driver, SCATTERED, 0, 4)
    busy.start_copy(VA_RESULT, VA_IMPORT, 8 * MIB, times=40)
    before = card.call("vram_map")["vfs"]
    driver.gt_reset()
    assert card.call("vram_map")["vfs"] == before
    context = imported(driver, SCATTERED, 0, 4)
    driver.ram.at(RAM_RESULT, 8 * MIB)[:] = bytes(8 * MIB)
    context.copy(VA_RESULT, VA_IMPORT, 8 * MIB)
    assert result(driver, 8 * MIB) == data
    assert verdicts(card)["stale"] == []


def test_two_importers_go_in_either_order(driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, BLOCK, 5)
    first, second = imported(driver, SCATTERED, 0, 1), imported(driver, SCATTERED, 0, 1)
    for gone, stays in ((first, second), (second, first)):
        gone.unmap(VA_IMPORT, BLOCK)
        driver.ram.at(RAM_RESULT, BLOCK)[:] = bytes(BLOCK)
        stays.copy(VA_RESULT, VA_IMPORT, BLOCK)
        assert result(driver, BLOCK) == data
        gone.map_ranges(VA_IMPORT, SCATTERED, [(0, BLOCK)])
