"""A VF's driver that means harm: what it points outside of its own reaches nothing and disturbs nobody."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.wait import eventually
from tests.support.xe.commands import ARB_CHECK, NOOP
from tests.support.xe.contexts import PAGE_FAULT, PAGE_FAULT_ANSWER
from tests.support.xe.guc_driver import DOORBELL
from tests.support.xe.layout import BLOCK, MIB
from tests.support.xe.provisioning import SUCCESS, failure
from tests.support.xe.served_rig import (
    CANARY,
    CONTEXT_SIZE,
    CONTEXTS,
    LMTT,
    QUOTA,
    RAM,
    RANGE,
    RESULT,
    STARTS,
    Rig,
    open_rig,
    store,
)
from vfio_user_xe.device_models.xe.guc import klv

START = STARTS[1]
VICTIM = STARTS[2]
SPARE = START + 32 * MIB
"""A page of the attacker's range that it maps as it likes."""
INVALIDATE = 0x7000


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    with open_rig() as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    """The rig, checked after each attack; the attacker's driver begins anew."""
    yield shared
    shared.restart(1)
    shared.works(1)
    shared.others_are_fine()


def attack(rig: Rig, target: int, number: int = 1) -> None:
    """Store to a GGTT address from a context of the attacker; it must end in an error, not in memory."""
    rig.submit(1, number, rig.context(1, number, store(target, 0xBAD)))
    rig.expect_cat_error(1, number)


# GGTT entries.


@pytest.mark.parametrize(
    "device_address",
    [QUOTA, QUOTA + 400 * BLOCK, 300 * BLOCK, LMTT, (1 << 46) - 0x1000],
    ids=["behind-its-quota", "far-behind", "the-victims-blocks", "the-lmtt", "the-end-of-what-an-entry-holds"],
)
def test_a_ggtt_entry_reaches_no_vram_but_the_vfs_own(rig: Rig, device_address: int) -> None:
    rig.attacker.entries[SPARE >> 12] = device_address | 3
    attack(rig, SPARE)


def test_device_addresses_are_the_vfs_own_even_where_the_victim_has_the_same(rig: Rig) -> None:
    rig.attacker.entries[SPARE >> 12] = QUOTA - 0x1000 | 3
    rig.submit(1, 1, rig.context(1, 1, store(SPARE + 0xFFC, 0xBAD)))
    eventually(lambda: rig.attacker.vram(QUOTA - 4, 4) == struct.pack("<I", 0xBAD))
    assert bytes(rig.victim.vram(QUOTA - 4, 4)) == struct.pack("<I", CANARY)


@pytest.mark.parametrize("vfid", [2, 3, 0x3FF], ids=["the-victim", "a-vf-that-is-not-there", "the-largest"])
def test_the_vfid_field_of_an_entry_makes_it_nobody_elses(rig: Rig, vfid: int) -> None:
    rig.attacker.entries[SPARE >> 12] = 300 * BLOCK | vfid << 2 | 3
    attack(rig, SPARE)


@pytest.mark.parametrize("page", [START - 0x1000, START + RANGE, VICTIM + 0x1000, 0x1000000, 0xFFFFF000])
def test_entries_outside_of_the_range_do_not_count(rig: Rig, page: int) -> None:
    rig.attacker.entries[page >> 12] = QUOTA - 0x1000 | 3
    attack(rig, page)


@pytest.mark.parametrize("address", [RAM, 1 << 40, (1 << 46) - 0x1000])
def test_a_system_entry_reaches_no_memory_but_that_of_the_vfs_own_guest(rig: Rig, address: int) -> None:
    rig.attacker.entries[SPARE >> 12] = address | 1
    attack(rig, SPARE)


def test_system_memory_is_that_of_the_vfs_own_client(rig: Rig) -> None:
    rig.attacker.entries[SPARE >> 12] = 0x1000 | 1
    rig.submit(1, 1, rig.context(1, 1, store(SPARE, 0xBAD)))
    eventually(lambda: rig.attacker.ram(0x1000, 4) == struct.pack("<I", 0xBAD))
    assert [bytes(side.ram(0x1000, 4)) for side in (rig.pf_side, rig.victim)] == [bytes(4)] * 2


def test_an_entry_changed_while_a_context_stores_through_it_ends_the_context(rig: Rig) -> None:
    own, count = 0x700000, START + RESULT
    ring = START + CONTEXTS + CONTEXT_SIZE + 0x4000
    body = [*store(SPARE, 0xBAD), *store(count, 1), ARB_CHECK, NOOP]
    rig.attacker.entries[SPARE >> 12] = own | 3
    rig.attacker.vram(own, 4)[:] = bytes(4)
    rig.attacker.ggtt_space.write(count, bytes(4))
    rig.submit(1, 1, rig.context(1, 1, [*body, 0x1880_0001, ring, 0, NOOP]))
    eventually(lambda: rig.attacker.ggtt_space.read(count, 4) != bytes(4), "it does not store yet")
    assert bytes(rig.attacker.vram(own, 4)) == struct.pack("<I", 0xBAD)
    rig.attacker.entries[SPARE >> 12] = 300 * BLOCK | 3
    rig.drivers[1].send(INVALIDATE, 1, 0x303)
    rig.expect_cat_error(1, 1)


# PPGTT.


def ppgtt_store(rig: Rig, root: int) -> None:
    """Submit context 1 of the attacker with page tables at a device address; it stores to its address 0."""
    descriptor = rig.context(1, 1, store(0, 0xBAD, ggtt=False), x2f=1, x31=root >> 32, x33=root & 0xFFFFF000 | 0x1B)
    rig.submit(1, 1, descriptor | 0x100)


@pytest.mark.parametrize("root", [QUOTA, 1 << 46], ids=["behind-the-quota", "far-behind"])
def test_page_tables_elsewhere_are_a_fault_that_the_vf_itself_is_asked_to_serve(rig: Rig, root: int) -> None:
    ppgtt_store(rig, root)
    fault = next(message for message in rig.events(1, PAGE_FAULT) if message[0] & 0xFFFF == PAGE_FAULT)
    # It says that it cannot: guc_fwif `xe_guc_pagefault_reply`, unsuccessful.
    rig.drivers[1].send(PAGE_FAULT_ANSWER, 1 << 1, fault[1] >> 28 << 16 | (fault[2] & 0xFFF) << 20, 0)
    rig.expect_cat_error(1, 1)


@pytest.mark.parametrize(
    "leaf",
    [300 * BLOCK | 0x803, LMTT | 0x803, QUOTA | 0x803, RAM | 3, 1 << 45 | 3],
    ids=["the-victims-block", "the-lmtt", "behind-the-quota", "behind-the-guests-memory", "far-behind-it"],
)
def test_page_tables_reach_nothing_but_the_vfs_own(rig: Rig, leaf: int) -> None:
    root = 0x600000
    for level, target in enumerate((0x601000, 0x602000, 0x603000, 0x604000, leaf)):
        table = root + 0x1000 * level
        rig.attacker.vram(table, 0x1000)[:] = bytes(0x1000)
        rig.attacker.vram(table, 8)[:] = struct.pack("<Q", target | 0x803 if level < 4 else target)
    ppgtt_store(rig, root)
    rig.expect_cat_error(1, 1)


# Contexts.


@pytest.mark.parametrize(
    "descriptor",
    [VICTIM + CONTEXTS, START - 0x10000, START + RANGE, 0x1000000, 0xFFFFF000, SPARE + 0x100000],
    ids=["the-victims", "before-its-range", "behind-its-range", "the-pfs", "the-last-page", "not-mapped"],
)
def test_a_context_elsewhere_is_not_run(rig: Rig, descriptor: int) -> None:
    rig.attacker.entries[descriptor >> 12] = 0 if descriptor == SPARE + 0x100000 else 0x700003
    rig.submit(1, 1, descriptor | 0x19)
    rig.expect_cat_error(1, 1)


@pytest.mark.parametrize("ring", [VICTIM, 0x1000000, START + RANGE, 0xFFFFF000])
def test_a_ring_elsewhere_is_not_read(rig: Rig, ring: int) -> None:
    rig.submit(1, 1, rig.context(1, 1, store(START, 0), x9=ring))
    rig.expect_cat_error(1, 1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((64, 3, 1), 0x61), ((0xFFFF, 3, 1), 0x61), ((1, 9, 1), 0x64), ((1, 3, 0), 0x64), ((1, 3, 0xFFFFFFFF), 0x64)],
    ids=["guc-id", "largest-guc-id", "engine-class", "no-engine", "all-engines"],
)
def test_a_registration_of_what_the_vf_has_not_is_refused(rig: Rig, arguments: tuple[int, int, int], code: int) -> None:
    guc_id, engine_class, mask = arguments
    fence = rig.drivers[1].send(0x4502, 1, guc_id, engine_class, mask, 0, 0, 0, 0, 0, START + CONTEXTS | 0x19, 0)
    assert (fence, (failure(code),)) in rig.drivers[1].received()


def test_guc_ids_name_the_vfs_own_contexts_only(rig: Rig) -> None:
    descriptor = rig.context(2, 5, store(VICTIM + 0x80000, 7))
    rig.drivers[2].send(0x4502, 1, 5, 3, 1, 0, 0, 0, 0, 0, descriptor, 0)
    for request in ((0x4503, 5), (0x1001, 5, 1), (0x1000, 5), (0x100B, 5)):
        assert rig.drivers[1].request(*request)[0] == (failure(0x100),)
    rig.remove(2, 5)


def test_a_work_queue_elsewhere_is_not_used(rig: Rig) -> None:
    descriptor = rig.context(1, 1, store(START, 0))
    queue = (VICTIM, 0, VICTIM + 0x1000, 0, 0x1000)
    rig.drivers[1].send(0x4601, 1, 1, 3, 1, *queue, 1, descriptor, 0)
    rig.drivers[1].send(0x1001, 1, 1)
    rig.expect_cat_error(1, 1)


@pytest.mark.parametrize("place", [VICTIM + 0x4000, 0x1000000, 0xFFFFF000], ids=["victim", "pf", "last-page"])
def test_an_engines_interrupt_report_goes_nowhere_else(rig: Rig, place: int) -> None:
    before = rig.victim.msi.pending(), rig.pf_side.msi.pending()
    result = START + 0x80000
    rig.attacker.ggtt_space.write(result, bytes(4))
    ring = [0x0100_0000, 0, *store(result, 9)]
    image = {"x50": 0, "x55": 0x1108_1003, "x57": place, "x59": place}
    rig.submit(1, 1, rig.context(1, 1, ring, **image))
    written = struct.pack("<I", 9)
    eventually(lambda: rig.attacker.ggtt_space.read(result, 4) == written, "only the report is lost, not the job")
    assert (rig.victim.msi.pending(), rig.pf_side.msi.pending()) == before


def test_an_endless_context_takes_no_time_from_others(rig: Rig) -> None:
    base = START + CONTEXTS + CONTEXT_SIZE
    jump = [0x1880_0001, base + 0x4000, 0, 0]
    rig.submit(1, 1, rig.context(1, 1, [0x0280_0000, 0, *jump]))
    for _ in range(3):
        rig.works(2)


# CT buffers.


@pytest.mark.parametrize(
    "places",
    [
        (VICTIM, VICTIM + 0x1000, VICTIM + 0x800, VICTIM + 0x2000),
        (0x1000000, 0x1001000, 0x1000800, 0x1002000),
        (START, VICTIM + 0x1000, START + 0x800, VICTIM + 0x2000),
        (START + RANGE - 0x1000, START + RANGE, START + RANGE - 0x800, START + RANGE + 0x1000),
        (1 << 40, 1 << 41, 1 << 42, (1 << 64) - 8),
    ],
    ids=["victims", "pfs", "only-the-rings", "across-the-end", "no-ggtt-address"],
)
def test_ct_buffers_elsewhere_are_neither_read_nor_written(rig: Rig, places: tuple[int, int, int, int]) -> None:
    driver = rig.drivers[1]
    before = rig.victim.ggtt_space.read(VICTIM, 0x3000), rig.pf_side.ggtt_space.read(0x1000000, 0x3000)
    assert driver.mmio(0x5507)[0] == SUCCESS
    h2g_descriptor, h2g, g2h_descriptor, g2h = places
    for key, length, value in (
        *((0x0903, 2, h2g_descriptor), (0x0902, 2, h2g), (0x0904, 1, 0x1000)),
        *((0x0906, 2, g2h_descriptor), (0x0905, 2, g2h), (0x0907, 1, 0x1000)),
    ):
        driver.mmio(0x0508, key << 16 | length, value & 0xFFFFFFFF, value >> 32)
    driver.mmio(0x4509, 1)
    rig.bench.write(DOORBELL[0], 0, 1)
    rig.bench.settle()
    rig.pf.request(0x5101, 1, 1, 0x10000000)
    assert rig.victim.ggtt_space.read(VICTIM, 0x3000) == before[0]
    after = rig.pf_side.ggtt_space.read(0x1000000, 0x1000)
    assert after[0x40:0x800] == before[1][0x40:0x800]


@pytest.mark.parametrize(
    ("descriptor", "status"),
    [((0, 0x400, 0), 1), ((0, 0xFFFFFFFF, 0), 1), ((0xFFFFFFFF, 4, 0), 2), ((0, 3, 0xFFFFFFFC), 0xFFFFFFFE)],
    ids=["tail-at-the-end", "tail-far-behind", "a-message-behind-the-tail", "status-was-set"],
)
def test_a_descriptor_that_makes_no_sense_stops_only_its_own_ring(
    rig: Rig, descriptor: tuple[int, int, int], status: int
) -> None:
    driver = rig.drivers[1]
    rig.attacker.ggtt_space.write(START, struct.pack("<3I", *descriptor))
    rig.attacker.ggtt_space.write(START + 0x1000, struct.pack("<4I", 0x000000FF, 0, 0, 0))
    rig.bench.write(DOORBELL[0], 0, 1)
    rig.bench.settle()
    assert struct.unpack("<I", rig.attacker.ggtt_space.read(START + 8, 4)) == (status,), "the VF is told why"
    # What it sends next, well-formed, is not read any more: neither is the head moved nor an answer sent.
    driver.received()
    rig.attacker.ggtt_space.write(START, bytes(12))
    driver.ct.tail = 0
    driver.send(INVALIDATE, 1, 0)
    assert rig.attacker.ggtt_space.read(START, 4) == bytes(4)
    assert driver.received() == []


def test_a_flood_of_messages_delays_nobody_for_long(rig: Rig) -> None:
    driver = rig.drivers[1]
    for round_ in range(20):
        for _ in range(20):
            driver.send(0x1000, 50 + round_ % 2)
        rig.works(2)
        driver.received()


def test_a_ring_of_gigabytes_of_padding_delays_nobody(rig: Rig) -> None:
    driver = rig.drivers[1]
    # Every page of it is the same page of zeros; the end of it that is in the VF's range is far away.
    for page in range(RANGE >> 12):
        rig.attacker.entries[(START >> 12) + page] = 0x700000 | 3
    rig.attacker.entries[START >> 12] = 3
    rig.attacker.vram(0x700000, 0x1000)[:] = bytes(0x1000)
    rig.attacker.vram(0, 0x1000)[:] = bytes(0x1000)
    for key, length, value in (
        *((0x0903, 2, START), (0x0902, 2, START + 0x1000), (0x0904, 1, RANGE - 0x1000)),
        *((0x0906, 2, START + 0x800), (0x0905, 2, START + 0x1000), (0x0907, 1, 0x1000)),
    ):
        assert driver.mmio(0x0508, key << 16 | length, value)[0] == SUCCESS | 1
    assert driver.mmio(0x4509, 1)[0] == SUCCESS
    rig.attacker.vram(4, 4)[:] = struct.pack("<I", (RANGE - 0x1000) // 4 - 1)
    rig.bench.write(DOORBELL[0], 0, 1)
    rig.works(2)
    head = struct.unpack("<I", rig.attacker.vram(0, 4))[0]
    assert 0 < head < (RANGE - 0x1000) // 4 - 1, "the padding is still being passed: others came in between"


# What the PF is told.


@pytest.mark.parametrize("threshold", [klv.THRESHOLD_CAT_ERR, klv.THRESHOLD_H2G_STORM])
def test_the_pf_is_told_of_a_vf_that_misbehaves(rig: Rig, threshold: int) -> None:
    rig.pf.poke_dwords(rig.pf.buffer, *klv.pack(klv.ADVERSE_SAMPLE_PERIOD, 60_000))
    assert rig.pf.request(0x5502, rig.pf.buffer, 0, 2)[0] == (SUCCESS | 1,)
    rig.configure(1, {threshold: 1})
    rig.pf.received()
    attack(rig, VICTIM)
    assert (0x90005104, 1, threshold) in [message for _, message in rig.pf.received()]
    rig.configure(1, {threshold: 0})


# Interrupts of the GuC.


@pytest.mark.parametrize("place", [VICTIM, 0x1000000, START + RANGE, 0xFFFFF000, (1 << 64) - 0x1000])
def test_interrupt_addresses_elsewhere_are_not_written(rig: Rig, place: int) -> None:
    driver = rig.drivers[1]
    before = rig.victim.ggtt_space.read(VICTIM, 0x1000)
    for key in (0x0900, 0x0901):
        assert driver.mmio(0x0508, key << 16 | 2, place & 0xFFFFFFFF, place >> 32)[0] == SUCCESS | 1
    rig.victim.msi.pending()
    driver.send(0x7002, 1, 0)
    assert any(message[0] & 0xFFFF == 0x7001 for _, message in driver.received()), "it is served all the same"
    assert rig.victim.ggtt_space.read(VICTIM, 0x1000) == before
    assert rig.victim.msi.pending() == 0


# Requests.


@pytest.mark.parametrize("action", [0x5502, 0x5503, 0x5506, 0x550B, 0x5101, 0x3003, 0x3004, 0x550C, 0x550D, 0x4000])
def test_what_is_the_pfs_to_ask_is_refused(rig: Rig, action: int) -> None:
    assert rig.drivers[1].request(action, 2, 4, 0, 0, 0, 0)[0] == (failure(0x40),)
    assert rig.drivers[1].mmio(action, 2, 4, 0)[0] == failure(0x40)


@pytest.mark.parametrize("key", [0x0000, 0x8A01, 0x8A0C, 0x8001, 0x0900, 0xFFFF])
def test_keys_that_are_not_a_vfs_to_ask_are_refused(rig: Rig, key: int) -> None:
    assert rig.drivers[1].mmio(0x5509, key)[0] == failure(0x105)


@pytest.mark.parametrize("place", [VICTIM, 0x1000000, START + RANGE - 0x10])
def test_buffers_elsewhere_are_neither_read_nor_written(rig: Rig, place: int) -> None:
    before = rig.victim.ggtt_space.read(VICTIM, 0x1000)
    size = rig.drivers[1].mmio(0x4100, 0, 0, 0)[0] & 0xFFFFFFF
    assert rig.drivers[1].mmio(0x4100, place, 0, size)[0] == failure(0x80)
    assert rig.drivers[1].request(0x550E, place, 0, 8)[0] == (failure(0x80),)
    assert rig.victim.ggtt_space.read(VICTIM, 0x1000) == before


@pytest.mark.parametrize(
    ("payload", "arrives"),
    [((), False), ((1,), False), ((1, 0xF00D), True), ((1, *([7] * 250)), True)],
    ids=["nothing", "no-message", "a-message", "the-longest"],
)
def test_relayed_messages_reach_the_pf_marked_as_the_vfs_or_not_at_all(
    rig: Rig, payload: tuple[int, ...], arrives: bool
) -> None:
    rig.pf.received()
    rig.drivers[1].send(0x5103, *payload)
    rig.drivers[1].received()
    relayed = [message for _, message in rig.pf.received()]
    assert relayed == ([(0x90005100, 1, *payload)] if arrives else [])


def test_a_flood_of_relayed_messages_costs_the_pf_none_of_its_own(rig: Rig) -> None:
    driver = rig.drivers[1]
    answers = []
    for _ in range(300):
        driver.send(0x5103, 1, 0xDEAD, 0, 0, 0, 0, 0, 0, 0, kind=0)
        answers += [message[0] for _, message in driver.received()]
    assert failure(0x301) in answers, "the PF has not read any: its ring is full, the VF is told so"
    driver.send(0x7002, 7, 0)
    rig.pf.send(0x7002, 77, 0x80000000)
    found: list[tuple[int, ...]] = []
    for _ in range(20):
        found += [message for _, message in rig.pf.received()]
        rig.bench.write(DOORBELL[0], 0, 0)
        rig.bench.settle()
    assert (0x90007001, 77) in found


# Registers.


@pytest.mark.parametrize("offset", [0x48B0, 0x941C, 0x190640, 0x190A40, 0xC300, 0xA188, 0x190010])
def test_registers_that_are_not_a_vfs_are_not_there(rig: Rig, offset: int) -> None:
    before = rig.bench.read(offset)
    rig.bench.write(offset, 0xFFFFFFFF, 1)
    rig.bench.settle()
    assert rig.bench.read(offset) == before
    assert rig.bench.read(offset, 1) == 0


def test_vram_behind_the_quota_is_memory_of_nobody_else(rig: Rig) -> None:
    view = rig.attacker.vram(QUOTA, BLOCK)
    view[:4] = b"junk"
    rig.bench.settle()
    for dpa in (*range(300 * BLOCK, 304 * BLOCK, BLOCK), *range(320 * BLOCK, 324 * BLOCK, BLOCK)):
        data = rig.card.call("read", function="pf", space="device", address=dpa, length=4)
        assert data != b"junk".hex()


def test_flr_of_the_attacker_ends_its_work_and_nobody_elses(rig: Rig) -> None:
    base = START + CONTEXTS + CONTEXT_SIZE
    rig.submit(1, 1, rig.context(1, 1, [0x0280_0000, 0, 0x1880_0001, base + 0x4000, 0, 0]))
    rig.pf.received()
    rig.attacker.client.write(7, 0x70 + 8, 2, 0x8000)
    rig.bench.settle()
    assert any(message == (0x90005106, 1, 1) for _, message in rig.pf.received())
    rig.works(2)
    assert rig.pf.request(0x5506, 1, 4)[0] == (SUCCESS,)
    assert rig.pf.request(0x5506, 1, 5)[0] == (SUCCESS,)
    rig.attacker.client.write(7, 4, 2, 6)
    rig.attacker.client.write(7, 0xAE, 2, 0x81)
