"""A VF with work in flight is saved on one card and goes on on another: PF's and VF's parts are played in Python."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.wait import eventually
from tests.support.xe.served_rig import (
    BLOCK,
    CONTEXT_SIZE,
    CONTEXTS,
    QUOTA,
    RAM,
    RANGE,
    STARTS,
    Rig,
    Side,
    open_rig,
    store,
)
from vfio_user_xe.device_models.xe.guc import klv

SUCCESS = 0xF0000000
PAUSE, RESUME, FLR_START, FLR_FINISH = 1, 2, 4, 5
SAVE, RESTORE = 0x550B, 0x550B | 1 << 16
VFID_MASK = 0x3FF << 2
ELSEWHERE = {1: 0x9000_0000, 2: 0x5000_0000}
OTHER_BLOCKS = {1: [201, 350, 199, 351, 197, 352, 195, 353], 2: [300, 301, 302, 303, 320, 321, 322, 323]}

MEMIRQ = 0x3_0000
"""The interrupt page, from the start of the VF's GGTT; it is in system memory, as the driver has it."""
MEMIRQ_RAM = 0x20_0000
TABLES, BATCH, DATA = 0x60_0000, 0x61_0000, 0x62_0000
"""In the VF's device memory: page tables for addresses from 0 on, a batch, and what it works with."""
COUNTER, STOP, DONE = 0x100, 0x200, 0x300
BATCH_VA, DATA_VA = 0x1000, 0x2000


@pytest.fixture(scope="module")
def rigs() -> Iterator[tuple[Rig, Rig]]:
    """Two cards, each in a process of its own; the VF's GGTT and VRAM are elsewhere on the second."""
    with open_rig() as source, open_rig(starts=ELSEWHERE, blocks=OTHER_BLOCKS) as target:
        yield source, target


def dword(side: Side, address: int) -> int:
    return int.from_bytes(side.vram(address, 4), "little")


def start_job(rig: Rig) -> int:
    """The VF's context counts at COUNTER until STOP is set, then stores to DONE and interrupts; its LRC descriptor."""
    side, start = rig.attacker, rig.starts[1]
    side.entries[(start + MEMIRQ) >> 12] = MEMIRQ_RAM | 1
    side.ram(MEMIRQ_RAM, 0x1000)[:] = bytes(0x1000)
    side.ram(MEMIRQ_RAM + 0x440, 4)[:] = struct.pack("<I", 1)
    for key, offset in ((0x0901, 0x400 + 25), (0x0900, 25 * 16)):
        assert rig.drivers[1].mmio(0x0508, key << 16 | 2, start + MEMIRQ + offset, 0)[0] == SUCCESS | 1
    for level in range(5):
        side.vram(TABLES + 0x1000 * level, 0x1000)[:] = bytes(0x1000)
    for level in range(4):
        side.vram(TABLES + 0x1000 * level, 8)[:] = struct.pack("<Q", TABLES + 0x1000 * (level + 1) | 0x803)
    side.vram(TABLES + 0x4008, 16)[:] = struct.pack("<2Q", BATCH | 0x803, DATA | 0x803)
    side.vram(DATA, 0x1000)[:] = bytes(0x1000)
    batch = [
        *(0x0280_0000, 0x1780_0501, DATA_VA + COUNTER, 0),
        *(0x1B20_4002, 0, DATA_VA + STOP, 0),
        *(0x1880_0101, BATCH_VA, 0),
    ]
    side.vram(BATCH, 4 * len(batch))[:] = struct.pack(f"<{len(batch)}I", *batch)
    ring = [*(0x1880_0101, BATCH_VA, 0), *store(DATA_VA + DONE, 0xD0E, ggtt=False), 0x0100_0000, 0, 0]
    image = {
        "x2f": 1,
        "x31": 0,
        "x33": TABLES | 0x1B,
        "x50": 0x14C8_0002,
        "x51": 0xA8,
        "x52": start + MEMIRQ + 0x440,
        "x55": 0x1108_1003,
        "x57": start + MEMIRQ,
        "x59": start + MEMIRQ + 0x400,
    }
    descriptor = rig.context(1, 3, ring, **image) | 0x100
    rig.submit(1, 3, descriptor)
    eventually(lambda: dword(side, DATA + COUNTER) > 100, "the job does not run")
    return descriptor


def control(rig: Rig, command: int) -> list[tuple[int, ...]]:
    answer, events = rig.pf.request(0x5506, 1, command)
    assert answer == (SUCCESS,)
    if command == PAUSE:

        def paused() -> bool:
            events.extend(message for _, message in rig.pf.received())
            return (0x90005106, 1, 3) in events

        eventually(paused, "the VF does not pause")
    return events


def save(rig: Rig) -> tuple[tuple[int, ...], list[int], list[bytes], list[int]]:
    """What the PF's driver saves of VF 1: the GuC's state, GGTT entries, VRAM and mailbox."""
    control(rig, PAUSE)
    size = rig.pf.request(SAVE, 1, 0, 0, 0)[0][0] & 0xFFFFFFF
    used = rig.pf.request(SAVE, 1, rig.pf.buffer, 0, size)[0][0] & 0xFFFFFFF
    state = rig.pf.peek(rig.pf.buffer, used)
    first = rig.starts[1] >> 12
    entries = [int(entry) for entry in rig.pf_side.entries[first : first + (RANGE >> 12)]]
    assert {entry & VFID_MASK for entry in entries if entry & 1} == {1 << 2}, "the driver refuses others"
    vram = [
        bytes.fromhex(rig.card.call("read", function="pf", space="device", address=block * BLOCK, length=BLOCK))
        for block in rig.blocks[1]
    ]
    mailbox = [rig.bench.read(0x190240 + 0x400 + 4 * n) for n in range(4)]
    return state, [entry & ~VFID_MASK for entry in entries], vram, mailbox


def restore(rig: Rig, saved: tuple[tuple[int, ...], list[int], list[bytes], list[int]]) -> None:
    """Give it to VF 1 of another card, and resume it."""
    state, entries, vram, mailbox = saved
    control(rig, PAUSE)
    rig.pf.poke_dwords(rig.pf.buffer, *state)
    assert rig.pf.request(RESTORE, 1, rig.pf.buffer, 0, len(state))[0] == (SUCCESS | len(state),)
    first = rig.starts[1] >> 12
    for page, entry in enumerate(entries):
        rig.pf_side.entries[first + page] = entry | 1 << 2
    for block, data in zip(rig.blocks[1], vram, strict=True):
        rig.card.call("write", function="pf", space="device", address=block * BLOCK, data=data.hex())
    for n, value in enumerate(mailbox):
        rig.bench.write(0x190240 + 0x400 + 4 * n, value)
    control(rig, RESUME)


def mend(rig: Rig, shift: int) -> None:
    """The VF's driver hears that it was migrated and mends what holds its GGTT addresses (`xe_gt_sriov_vf.c`)."""
    side, driver = rig.attacker, rig.drivers[1]
    assert side.ram(MEMIRQ_RAM + 25 * 16, 1) == b"\xff", "SW_INT_0 of the GuC"
    assert side.ram(MEMIRQ_RAM + 0x400 + 25, 1) == b"\xff"
    assert side.msi.pending()
    side.ram(MEMIRQ_RAM, 0x420)[:] = bytes(0x420)
    assert driver.mmio(0x550F | 9 << 16)[0] == SUCCESS
    assert driver.mmio(0x5509, klv.GGTT_START)[:2] == (SUCCESS | 2, rig.starts[1])
    for key, offset in ((0x0901, 0x400 + 25), (0x0900, 25 * 16)):
        assert driver.mmio(0x0508, key << 16 | 2, rig.starts[1] + MEMIRQ + offset, 0)[0] == SUCCESS | 1
    image = rig.starts[1] + CONTEXTS + 3 * CONTEXT_SIZE + 0x1000
    for index in (0x09, 0x52, 0x57, 0x59):
        address = image + 4 * index
        side.ggtt_space.write(address, struct.pack("<I", driver.peek(address)[0] + shift))
    driver.poke(driver.base, bytes(0x1000))
    driver.ct.tail = driver.ct.head = 0
    assert driver.mmio(0x5508 | 9 << 16)[0] == SUCCESS


def test_a_vf_with_a_job_in_flight_moves_to_another_card_and_its_job_finishes(rigs: tuple[Rig, Rig]) -> None:
    source, target = rigs
    start_job(source)
    saved = save(source)
    counted = dword(source.attacker, DATA + COUNTER)
    assert counted > 100
    # The machine's memory goes along, as its monitor copies it.
    target.attacker.ram(0, RAM)[:] = source.attacker.ram(0, RAM)
    restore(target, saved)
    assert dword(target.attacker, DATA + COUNTER) == counted, "nothing runs before the VF has mended its addresses"
    mend(target, target.starts[1] - source.starts[1])
    eventually(lambda: dword(target.attacker, DATA + COUNTER) > counted + 100, "the job does not go on")
    assert dword(source.attacker, DATA + COUNTER) == counted, "it runs on one card only"
    target.attacker.vram(DATA + STOP, 4)[:] = struct.pack("<I", 1)
    eventually(lambda: dword(target.attacker, DATA + DONE) == 0xD0E, "the job does not finish")
    eventually(lambda: target.attacker.ram(MEMIRQ_RAM + 0x400 + 15, 1) == b"\xff", "no interrupt")
    target.remove(1, 3)
    target.works(1)
    target.works(2)


def test_the_card_it_left_gives_its_place_to_another(rigs: tuple[Rig, Rig]) -> None:
    source, _ = rigs
    control(source, FLR_START)
    first = STARTS[1] >> 12
    for page in range(RANGE >> 12):
        source.pf_side.entries[first + page] = 1 | 1 << 2
    for block in source.blocks[1]:
        source.card.call("write", function="pf", space="device", address=block * BLOCK, data=bytes(BLOCK).hex())
    control(source, FLR_FINISH)
    assert not bytes(source.attacker.vram(0, QUOTA)).strip(b"\0")
    source.restart(1)
    source.works(1)
    source.works(2)
