"""Translations of the PF that outlive the owner of the memory behind them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.support.xe.rig import PageTables, Rig
from vfio_user_xe.device_models.xe.memory.address_space import Extent
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.stale import ForeignUses
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE
from vfio_user_xe.emulator.fabric.interconnect import Space
from vfio_user_xe.emulator.fabric.pages import PAGE, read_pages

VA = 0x4000_0000
FIRST, SECOND = 10, 11


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(64 << 20)
    for vfid in (1, 2):
        rig.vf(vfid, (0, 0))
    rig.vram.assign(1, {0: FIRST, 1: SECOND})
    yield rig
    rig.close()


@pytest.fixture
def tables(rig: Rig) -> PageTables:
    tables = PageTables(rig, rig.pf, 0x10_0000)
    tables.map(VA, FIRST * BLOCK_SIZE, 0x4000)
    tables.map(VA + 0x4000, SECOND * BLOCK_SIZE, 0x4000)
    return tables


def kinds(rig: Rig) -> set[tuple[str, str, str]]:
    return {(entry.initiator, entry.owner, entry.kind) for entry in rig.fabric.ledger}


def test_the_same_translation_is_stale_after_its_memory_changed_hands(rig: Rig, tables: PageTables) -> None:
    space = tables.space()
    space.read(VA, 0x4000)
    assert kinds(rig) == {("pf", "vf1", "vram")}
    rig.vram.assign(1, {1: SECOND})
    rig.vram.assign(2, {0: FIRST})
    rig.fabric.ledger.clear()
    space.read32(VA)
    assert kinds(rig) == {("pf", "vf2", "stale vram")}


def test_memory_that_came_back_to_the_pf_is_stale_too(rig: Rig, tables: PageTables) -> None:
    space = tables.space()
    space.read32(VA)
    rig.vram.assign(1, {})
    rig.fabric.ledger.clear()
    space.read(VA, 16)
    assert kinds(rig) == {("pf", "pf", "stale vram")}


def test_a_copy_is_accounted_stale_where_it_is(rig: Rig, tables: PageTables) -> None:
    space = tables.space()
    space.read(VA, 0x8000)
    rig.vram.assign(1, {0: FIRST})
    rig.fabric.ledger.clear()
    space.read(VA, 0x8000)
    assert kinds(rig) == {("pf", "vf1", "vram"), ("pf", "pf", "stale vram")}


def test_pages_that_are_found_together_are_accounted_stale_where_they_are(rig: Rig, tables: PageTables) -> None:
    scattered = VA + (1 << 21)
    for number in range(16):
        block = SECOND if number & 1 else FIRST
        tables.map(scattered + number * PAGE, block * BLOCK_SIZE + (40 - number) * PAGE)
    space = tables.space()

    def read() -> int:
        found, at = 0, scattered
        while found < 16:
            pages = space.pages(at, 16 - found, False)
            assert pages is not None
            read_pages(pages)
            found += len(pages)
            at += len(pages) * PAGE
        return found

    read()
    assert kinds(rig) == {("pf", "vf1", "vram")}
    rig.vram.assign(1, {1: SECOND})
    rig.vram.assign(2, {0: FIRST})
    rig.fabric.ledger.clear()
    read()
    assert kinds(rig) == {("pf", "vf1", "vram"), ("pf", "vf2", "stale vram")}
    assert {entry.owner: entry.bytes_read for entry in rig.fabric.ledger} == {"vf1": 8 * PAGE, "vf2": 8 * PAGE}


@pytest.mark.parametrize("lost", [9, 10, 11, 12])
def test_an_extent_is_cut_at_the_blocks_where_staleness_changes(rig: Rig, lost: int) -> None:
    rig.vram.assign(1, {n: n for n in range(9, 13)})
    uses = ForeignUses(rig.vram, lambda: ())
    start, end = 9 * BLOCK_SIZE + 0x800, 13 * BLOCK_SIZE
    whole = Extent(Space.DEVICE, start, end - start, "vram")
    assert uses.marked(whole) == whole
    rig.vram.assign(1, {n: n for n in range(9, 13) if n != lost})
    found = []
    while start < end:
        extent = uses.marked(Extent(Space.DEVICE, start, end - start, "vram"))
        found.append((extent.address, extent.length, extent.kind))
        start += extent.length
    edges = sorted({whole.address, max(lost * BLOCK_SIZE, whole.address), (lost + 1) * BLOCK_SIZE, end})
    assert found == [
        (first, after - first, "stale vram" if first >> 21 == lost else "vram") for first, after in pairwise(edges)
    ]


def test_an_invalidation_forgets_the_blocks_that_are_not_mapped_any_more_and_no_others(rig: Rig) -> None:
    """A mapping may begin and end in the middle of a block."""
    rig.vram.assign(1, {n: n for n in range(8, 14)})
    mapped: list[tuple[int, int]] = [(9 * BLOCK_SIZE + 0x1000, 0x1000), (11 * BLOCK_SIZE - 0x1000, 0x2000)]
    uses = ForeignUses(rig.vram, lambda: mapped)
    blocks = [Extent(Space.DEVICE, n * BLOCK_SIZE, 0x1000, "vram") for n in range(8, 14)]
    for block in blocks:
        uses.marked(block)
    uses.invalidated()
    rig.vram.assign(1, {})
    stale = [n for n, block in zip(range(8, 14), blocks, strict=True) if uses.marked(block).kind == "stale vram"]
    assert stale == [9, 10, 11]
    mapped.clear()
    uses.invalidated()
    assert {uses.marked(block).kind for block in blocks} == {"vram"}


def test_a_translation_that_was_taken_back_and_made_anew_is_not_stale(rig: Rig, tables: PageTables) -> None:
    space = tables.space(asid=5)
    space.read32(VA)
    for page in range(4):
        tables.entry(VA + 0x1000 * page, 0, 0)
    rig.spaces.invalidate(0, 5)
    rig.vram.assign(1, {})
    rig.vram.assign(2, {0: FIRST})
    tables.map(VA, FIRST * BLOCK_SIZE, 0x4000)
    rig.fabric.ledger.clear()
    space.read32(VA)
    assert kinds(rig) == {("pf", "vf2", "vram")}


@pytest.mark.parametrize("instead", ["system memory", "null"])
def test_a_page_that_maps_no_vram_any_more_holds_no_block(rig: Rig, tables: PageTables, instead: str) -> None:
    """System memory at the same number is another thing, and a NULL page's address means nothing."""
    space = tables.space()
    space.read32(VA)
    for page in range(4):
        address = FIRST * BLOCK_SIZE + page * 0x1000
        null = ppgtt.NULL | ppgtt.DEVICE_MEMORY
        tables.entry(VA + page * 0x1000, 0, address | 3 | (null if instead == "null" else 0))
    space.invalidated()
    rig.vram.assign(1, {1: SECOND})
    rig.vram.assign(2, {0: FIRST})
    tables.map(VA, FIRST * BLOCK_SIZE, 0x4000)
    space.invalidated()
    rig.fabric.ledger.clear()
    space.read32(VA)
    assert kinds(rig) == {("pf", "vf2", "vram")}


def test_an_invalidation_that_leaves_the_translation_does_not_hide_it(rig: Rig, tables: PageTables) -> None:
    space = tables.space(asid=5)
    space.read32(VA)
    rig.spaces.invalidate(0, 5)
    rig.spaces.invalidate(0)
    rig.vram.assign(1, {})
    rig.fabric.ledger.clear()
    space.read32(VA)
    assert kinds(rig) == {("pf", "pf", "stale vram")}


def test_a_function_that_was_reset_translates_anew(rig: Rig, tables: PageTables) -> None:
    spaces = rig.spaces
    before = spaces.ppgtt(rig.pf, tables.root, 5)
    before.read32(VA)
    spaces.forget(0)
    rig.vram.assign(1, {})
    rig.vram.assign(2, {0: FIRST})
    after = spaces.ppgtt(rig.pf, tables.root, 5)
    assert after is not before
    rig.fabric.ledger.clear()
    after.read32(VA)
    assert kinds(rig) == {("pf", "vf2", "vram")}


def test_a_space_that_nobody_uses_any_more_is_gone_at_once(rig: Rig, tables: PageTables) -> None:
    gc.disable()
    try:
        space = weakref.ref(rig.spaces.ppgtt(rig.pf, tables.root, 7))
        assert space() is None
    finally:
        gc.enable()


def test_the_pf_s_own_memory_is_never_stale(rig: Rig, tables: PageTables) -> None:
    tables.map(VA + 0x10_0000, 5 * BLOCK_SIZE, 0x1000)
    space = tables.space()
    space.read32(VA + 0x10_0000)
    rig.vram.assign(1, {0: 5})
    rig.vram.assign(1, {})
    rig.fabric.ledger.clear()
    space.read32(VA + 0x10_0000)
    assert kinds(rig) == {("pf", "pf", "vram")}


def test_the_driver_s_own_vm_is_accounted_apart(rig: Rig, tables: PageTables) -> None:
    tables.space(asid=0).read32(VA)
    assert kinds(rig) == {("pf", "vf1", "kernel vram")}
    assert rig.fabric.ledger.verdicts(["pf", "vf1", "vf2"])["paths"] == []


def test_changes_of_owner_are_noted_in_stretches(rig: Rig) -> None:
    ownership = rig.fabric.ledger.ownership
    ownership.clear()
    rig.vram.assign(1, {0: SECOND})
    rig.vram.assign(2, {0: FIRST})
    rig.vram.assign(2, {0: 20, 1: 21, 2: 23})
    assert [(c.address // BLOCK_SIZE, c.length // BLOCK_SIZE, c.old, c.new) for c in ownership.changes] == [
        (FIRST, 1, "vf1", "pf"),
        (FIRST, 1, "pf", "vf2"),
        (FIRST, 1, "vf2", "pf"),
        (20, 2, "pf", "vf2"),
        (23, 1, "pf", "vf2"),
    ]
