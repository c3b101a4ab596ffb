"""What a kernel with device-address mappings asks of the card, without that kernel: drivers played over vfio-user.

The PF maps DPA of a VF's provisioned VRAM, scattered, with device-memory entries, and goes through what the scenarios
go through in a guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emulator.lab import CONFIG, LiveCard, open_card
from emulator.vfio_user.client import Client
from tests.twins.wire_driver import BAR2, BLOCK, CAT_ERROR, MIB, VA_RESULT, Context, WireDriver

VA_IMPORT = 0x4000_0000
SCATTERED = {0: 300, 1: 211, 2: 305, 3: 213}
"""GDPA block -> DPA block."""
OTHER = {0: 400, 1: 212}
FLR_FINISH = 5


@pytest.fixture(scope="module")
def card() -> Iterator[LiveCard]:
    with open_card(["--vfs", "2", "--set", "vram=1GiB", "--set", "vf_bar2=16MiB"]) as card:
        yield card


@pytest.fixture
def driver(card: LiveCard) -> Iterator[WireDriver]:
    driver = WireDriver(card)
    driver.provision(1, SCATTERED)
    driver.provision(2, OTHER)
    card.call("ledger", clear=True)
    yield driver
    driver.client.reset()
    driver.close()


@pytest.fixture
def vf1(card: LiveCard, driver: WireDriver) -> Iterator[Client]:
    with_client = card.client("vf1")
    yield with_client
    with_client.close()


def fill(vf: Client, offset: int, length: int, seed: int) -> bytes:
    data = b"".join((seed * 1000003 + i).to_bytes(4, "little") for i in range(length // 4))
    vf.map_region(BAR2).at(offset, length)[:] = data
    return data


def imported(driver: WireDriver, blocks: dict[int, int], first: int, count: int) -> Context:
    """A context that has blocks of a VF mapped by DPA, and 8 MiB of guest memory for results."""
    context = driver.context()
    for index in range(count):
        context.map(VA_IMPORT + index * BLOCK, blocks[first + index] * BLOCK, BLOCK)
    context.map(VA_RESULT, 4 * MIB, 8 * MIB, system=True)
    return context


def result(driver: WireDriver, length: int) -> bytes:
    return bytes(driver.ram.at(4 * MIB, length))


def verdicts(card: LiveCard) -> dict[str, Any]:
    found: dict[str, Any] = card.call("verdicts")
    return found


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


def test_what_the_pf_writes_the_vf_reads(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    context = imported(driver, SCATTERED, 1, 1)
    driver.ram.at(4 * MIB, BLOCK)[:] = bytes(range(256)) * (BLOCK // 256)
    context.copy(VA_IMPORT, VA_RESULT, BLOCK)
    assert bytes(vf1.map_region(BAR2).at(BLOCK, BLOCK)) == bytes(range(256)) * (BLOCK // 256)


def test_a_page_range_across_a_border_needs_two_addresses(driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, BLOCK - 0x3000, 0x6000, 7)
    context = driver.context()
    context.map(VA_IMPORT, SCATTERED[0] * BLOCK + BLOCK - 0x3000, 0x3000)
    context.map(VA_IMPORT + 0x3000, SCATTERED[1] * BLOCK, 0x3000)
    context.map(VA_RESULT, 4 * MIB, 0x10000, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 0x6000)
    assert result(driver, 0x6000) == data


def test_one_address_for_a_range_across_a_border_is_somebody_else_s_memory(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    """The control of the one before, and the device's view of the defect called D2."""
    data = fill(vf1, BLOCK, 2 * BLOCK, 7)
    context = driver.context()
    context.map(VA_IMPORT, SCATTERED[1] * BLOCK, 2 * BLOCK)
    context.map(VA_RESULT, 4 * MIB, 8 * MIB, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 2 * BLOCK)
    assert result(driver, 2 * BLOCK) != data
    assert {path["owner"] for path in verdicts(card)["paths"]} == {"vf1", "vf2"}


def test_the_vf_s_bar_is_the_legacy_path(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    data = fill(vf1, 0, 4 * MIB, 3)
    context = driver.context()
    context.map(VA_IMPORT, driver.bar_address(1), 4 * MIB, system=True)
    context.map(VA_RESULT, 4 * MIB, 8 * MIB, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 4 * MIB)
    assert result(driver, 4 * MIB) == data
    (path,) = verdicts(card)["paths"]
    assert (path["owner"], path["path"]) == ("vf1", "legacy")


def test_beyond_its_quota_a_vf_s_bar_reads_ones(driver: WireDriver, vf1: Client) -> None:
    context = driver.context()
    context.map(VA_IMPORT, driver.bar_address(1) + len(SCATTERED) * BLOCK, 0x2000, system=True)
    context.map(VA_RESULT, 4 * MIB, BLOCK, system=True)
    context.copy(VA_RESULT, VA_IMPORT, 0x2000)
    assert result(driver, 0x2000) == b"\xff" * 0x2000


def test_two_vfs_do_not_mix(card: LiveCard, driver: WireDriver, vf1: Client) -> None:
    vf2 = card.client("vf2")
    try:
        first, second = fill(vf1, 0, BLOCK, 1), fill(vf2, 0, BLOCK, 2)
        context = imported(driver, SCATTERED, 0, 1)
        context.map(VA_IMPORT + BLOCK, OTHER[0] * BLOCK, BLOCK)
        context.copy(VA_RESULT, VA_IMPORT, 2 * BLOCK)
        assert result(driver, 2 * BLOCK) == first + second
    finally:
        vf2.close()


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


def test_revocation_in_the_middle_of_a_copy_costs_nothing_but_the_job(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    fill(vf1, 0, 8 * MIB, 1)
    context = imported(driver, SCATTERED, 0, 4)
    context.start_copy(VA_RESULT, VA_IMPORT, 8 * MIB, times=80)
    seen = 0
    while not context.done and seen < 6:
        driver.provision(1, {1: SCATTERED[1]} if seen % 2 == 0 else SCATTERED)
        seen += 1
    context.wait(30)
    assert seen > 1, "the copy was over before anything was revoked"
    assert card.call("status")["executor"]["failures"] == 0
    driver.provision(1, SCATTERED)
    data = fill(vf1, 0, 8 * MIB, 9)
    fresh = imported(driver, SCATTERED, 0, 4)
    fresh.copy(VA_RESULT, VA_IMPORT, 8 * MIB)
    assert result(driver, 8 * MIB) == data


def test_accesses_between_the_beginning_and_the_end_of_a_vf_s_reset_are_stale(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    context = imported(driver, SCATTERED, 0, 1)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    vf1.write(CONFIG, 0x70 + 8, 2, 0x8000)
    driver.settle()
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    driver.guc.request(0x5506, 1, FLR_FINISH)
    (stale,) = verdicts(card)["stale"]
    assert (stale["owner"], stale["reason"], stale["kind"]) == ("vf1", "during the owner's reset", "vram")
    card.call("ledger", clear=True)
    context.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert verdicts(card)["stale"] == [], "the reset is over"


def test_an_address_beyond_vram_faults_the_job_and_the_card_goes_on(
    card: LiveCard, driver: WireDriver, vf1: Client
) -> None:
    lost = driver.context()
    lost.map(VA_IMPORT, 1 << 40, BLOCK)
    lost.map(VA_RESULT, 4 * MIB, BLOCK, system=True)
    said = lost.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert any(words[0] & 0xFFFF == CAT_ERROR for _, words in said)
    data = fill(vf1, 0, BLOCK, 4)
    good = imported(driver, SCATTERED, 0, 1)
    good.copy(VA_RESULT, VA_IMPORT, BLOCK)
    assert result(driver, BLOCK) == data


def test_a_vf_has_no_way_to_others_by_device_address(card: LiveCard, driver: WireDriver) -> None:
    card.call("read", function="vf1", space="device", address=0, length=16)
    with pytest.raises(Exception, match="LMTT gives vf1 nothing there"):
        card.call("read", function="vf1", space="device", address=OTHER[0] * BLOCK, length=16)
    assert verdicts(card)["foreign"] == []
