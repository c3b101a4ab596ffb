"""PPGTT: five levels in VRAM, every page size, and faults that say where."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import create_autospec

import pytest

from tests.support.xe.rig import MIB, PageTables, Rig
from vfio_user_xe.device_models.xe.memory import address_space
from vfio_user_xe.device_models.xe.memory.address_space import Extent, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space

POOL = 40 * MIB
DM = ppgtt.DEVICE_MEMORY
GIB = 1 << 30


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def tables(rig: Rig) -> PageTables:
    return PageTables(rig, rig.pf, POOL)


def test_a_4k_page_of_vram_is_read_and_written(rig: Rig, tables: PageTables) -> None:
    data = rig.alloc()
    tables.map(0x1000_0000, data)
    space = tables.space()
    space.write32(0x1000_0010, 0xC0FFEE)
    assert rig.dword(data + 0x10) == 0xC0FFEE
    rig.poke(data + 0x20, 1, 2)
    assert space.read64(0x1000_0020) == 2 << 32 | 1
    space.write64(0x1000_0FF8, 0x1122334455667788)
    assert space.read(0x1000_0FF8, 8) == bytes.fromhex("8877665544332211")


def test_a_system_page_is_guest_memory_by_dma_address(rig: Rig, tables: PageTables) -> None:
    tables.map(0x5000, 0x9000, system=True)
    tables.space().write32(0x5004, 0xABCD)
    assert rig.ram.of("pf")[0x9004:0x9008].cast("I")[0] == 0xABCD
    kinds = {(e.kind, e.interconnect, e.owner): e.bytes_written for e in rig.fabric.ledger}
    assert kinds == {("system", "host_dma", "guest"): 4}


@pytest.mark.parametrize(
    ("va", "level", "size"), [(0x4020_0000, 1, 2 * MIB), (5 * GIB, 2, GIB), (0xFFFF_C000_0000, 2, GIB)]
)
def test_large_pages_translate_with_their_offset(tables: PageTables, va: int, level: int, size: int) -> None:
    tables.entry(va, level, 0x0 | 3 | ppgtt.LARGE | DM | 1 << 12)  # bit 12 is a PAT bit in large entries
    assert tables.space().extent(va + 0x12345, 16, False) == Extent(Space.DEVICE, 0x12345, 16, "vram")
    assert tables.space().leaf(va + 0x12345, True) == (va, size)


def test_pages_of_1_gib_under_one_table_have_each_its_own_entry(tables: PageTables) -> None:
    tables.entry(GIB, 2, 0 | 3 | ppgtt.LARGE | DM)
    tables.entry(2 * GIB, 2, GIB | 1 | ppgtt.LARGE)
    tables.map(3 * GIB, 0x50_0000)
    space = tables.space()
    assert space.extent(GIB + 8, 4, True) == Extent(Space.DEVICE, 8, 4, "vram")
    assert space.extent(2 * GIB + 16, 4, False) == Extent(Space.SYSTEM, GIB + 16, 4, "system")
    with pytest.raises(TranslationFault, match=r"level 2 entry .*: read-only"):
        space.extent(2 * GIB, 4, True)
    assert space.extent(3 * GIB + 4, 4, False).address == 0x50_0004
    with pytest.raises(TranslationFault, match="level 2 entry 0x0: not present"):
        space.extent(4 * GIB, 4, False)
    tables.entry(GIB, 2, 0)
    space.flush()
    with pytest.raises(TranslationFault, match="level 2 entry 0x0: not present"):
        space.extent(GIB, 4, False)


def test_a_compact_table_maps_64k_pages(rig: Rig, tables: PageTables) -> None:
    tables.map_64k(0x80_0000, {0: 0x10_0000, 3: 0x20_0000, 31: 0x30_0000})
    space = tables.space()
    assert space.extent(0x80_FFF0, 16, False).address == 0x10_FFF0
    assert space.extent(0x83_1234, 4, False).address == 0x20_1234
    assert space.extent(0x9F_0000, 4, False).address == 0x30_0000
    with pytest.raises(TranslationFault, match="level 0 entry 0x0: not present"):
        space.extent(0x81_0000, 4, False)


def test_ps64_is_only_a_hint(tables: PageTables) -> None:
    tables.map(0x10000, 0x50_0000, 0x10000, flags=3 | ppgtt.PS64)
    assert tables.space().extent(0x1F004, 8, True) == Extent(Space.DEVICE, 0x50_F004, 8, "vram")


def test_canonical_addresses_are_cut_to_48_bits(tables: PageTables) -> None:
    tables.map(0x8000_0000_1000, 0x60_0000)
    assert tables.space().extent(0xFFFF_8000_0000_1008, 4, False).address == 0x60_0008


def test_null_pages_read_zero_and_drop_writes(rig: Rig, tables: PageTables) -> None:
    tables.entry(0x20_0000, 0, 3 | ppgtt.NULL)
    tables.entry(GIB, 2, 3 | ppgtt.NULL | ppgtt.LARGE)
    space = tables.space()
    for address in (0x20_0100, GIB + 0x123450):
        space.write32(address, 0xDEAD)
        assert space.read32(address) == 0
        space.write(address, b"garbage!")
        assert space.read(address, 8) == bytes(8)
    assert not list(rig.fabric.ledger)


@pytest.mark.parametrize("level", [4, 3, 2, 1, 0])
def test_a_missing_entry_faults_with_its_level(tables: PageTables, level: int) -> None:
    va = 0x1234_5678_9000
    tables.map(va, 0x60_0000)
    tables.entry(va, level, 0xABC000)
    with pytest.raises(TranslationFault) as caught:
        tables.space().read32(va + 4)
    fault = caught.value
    assert (fault.address, fault.level, fault.entry, fault.write) == (va + 4, level, 0xABC000, False)
    assert str(fault) == (f"pf: PPGTT {POOL:#x} address {va + 4:#x} (read): level {level} entry 0xabc000: not present")


def test_a_write_to_a_read_only_page_faults(tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000, flags=1)
    space = tables.space()
    assert space.read32(0x1000) == 0
    with pytest.raises(TranslationFault, match=r"\(write\): level 0 entry 0x600801: read-only"):
        space.write32(0x1000, 1)


def test_a_table_outside_of_vram_faults(tables: PageTables) -> None:
    tables.entry(0x1000, 3, 0x7FFF_F000 | 3)
    with pytest.raises(TranslationFault, match=r"level 2 .*page table at 0x7ffff000 is outside of VRAM"):
        tables.space().read32(0x1000)


def test_a_leaf_outside_of_vram_is_an_access_fault(tables: PageTables) -> None:
    tables.map(0x1000, 0x7FFF_F000)
    with pytest.raises(AccessFault, match="pf: device address 0x7ffff000"):
        tables.space().read32(0x1000)


def test_contiguous_pages_make_one_span(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000, 0x8000)
    tables.map(0x9000, 0x70_0000, 0x3000)
    spans = list(tables.space().spans(0x1800, 0xA000, True))
    assert [(s.address, s.length) for s in spans] == [(0x60_0800, 0x7800), (0x70_0000, 0x2800)]


def test_spans_break_where_attributes_change(tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000, 0x2000)
    tables.map(0x3000, 0x60_2000, 0x2000, flags=3 | 1 << 3)
    assert [s.length for s in tables.space().spans(0x1000, 0x4000, False)] == [0x2000, 0x2000]


def test_spans_cross_tables(tables: PageTables) -> None:
    tables.map(0x1F_E000, 0x60_0000, 0x4000)
    assert [s.length for s in tables.space().spans(0x1F_E000, 0x4000, False)] == [0x2000, 0x2000]


def test_large_pages_in_a_row_make_one_span(tables: PageTables) -> None:
    for n in range(4):
        tables.entry(GIB + n * 2 * MIB, 1, n * 2 * MIB | 3 | ppgtt.LARGE | DM)
    assert [s.length for s in tables.space().spans(GIB + 0x1000, 8 * MIB - 0x1000, False)] == [8 * MIB - 0x1000]


def test_a_span_ends_before_a_hole_and_faults_at_it(tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000, 0x2000)
    spans = tables.space().spans(0x1000, 0x3000, False)
    assert next(spans).length == 0x2000
    with pytest.raises(TranslationFault, match="address 0x3000"):
        next(spans)


def test_values_may_cross_pages_and_be_unaligned(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000)
    tables.map(0x2000, 0x50_0000)
    space = tables.space()
    space.write64(0x1FFC, 0x1111111122222222)
    assert (rig.dword(0x60_0FFC), rig.dword(0x50_0000)) == (0x22222222, 0x11111111)
    space.write32(0x1801, 0xAABBCCDD)
    assert space.read32(0x1801) == 0xAABBCCDD
    assert space.read64(0x1FFC) == 0x1111111122222222


def test_a_kept_translation_lasts_until_it_is_flushed(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000)
    space = tables.space()
    space.write32(0x1000, 1)
    tables.map(0x1000, 0x50_0000)
    space.write32(0x1000, 2)
    assert (rig.dword(0x60_0000), rig.dword(0x50_0000)) == (2, 0)
    space.flush()
    space.write32(0x1000, 3)
    assert (rig.dword(0x60_0000), rig.dword(0x50_0000)) == (2, 3)


def test_a_table_that_is_kept_is_not_walked_to_again(
    rig: Rig, tables: PageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for va in (0x1000, 0x4000_0000, 0x7FC0_0000_0000):
        tables.map(va, 0x60_0000, 0x3000)
    space = tables.space()
    for va in (0x1000, 0x4000_0000, 0x7FC0_0000_0000):
        space.extent(va, 4, False)
    resolve = create_autospec(rig.vram.resolve, side_effect=rig.vram.resolve)
    monkeypatch.setattr(rig.vram, "resolve", resolve)
    for va in (0x1000, 0x4000_0000, 0x7FC0_0000_0000):
        assert [space.extent(va + offset, 4, False).address for offset in (0x1000, 0x2000)] == [0x60_1000, 0x60_2000]
    resolve.assert_not_called()
    space.invalidated()
    space.extent(0x1000, 4, False)
    assert resolve.mock_calls[0].args[1] == space.root


@pytest.mark.parametrize("order", [1, -1])
def test_leaves_of_all_sizes_lie_beside_each_other_whatever_is_kept(
    rig: Rig, tables: PageTables, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    base = 7 << 39
    leaves = {base: 2, base + 2 * GIB: 2, base + 0x1FF * GIB: 2, base + GIB: 1, base + GIB + 6 * MIB: 1}
    for number, (va, level) in enumerate(leaves.items()):
        tables.entry(va, level, number * GIB | 3 | ppgtt.LARGE | DM)
    tables.map(base + GIB + 2 * MIB, 9 * GIB)
    expected = {va + 0x5008: number * GIB + 0x5008 for number, va in enumerate(leaves)}
    expected[base + GIB + 2 * MIB + 8] = 9 * GIB + 8
    space = tables.space()
    for va, address in list(expected.items())[::order] * 2:
        assert space.extent(va, 4, False).address == address
    for hole in (base + 3 * GIB, base + GIB + 4 * MIB, base + GIB + 2 * MIB + 0x1000, (8 << 39) + 8):
        with pytest.raises(TranslationFault, match="not present"):
            space.extent(hole, 4, False)
    # All tables are kept now.
    monkeypatch.setattr(rig.vram, "resolve", create_autospec(rig.vram.resolve, side_effect=AssertionError))
    for va, address in expected.items():
        assert space.extent(va, 4, False).address == address


def test_what_was_not_present_is_not_kept(tables: PageTables) -> None:
    space = tables.space()
    tables.map(0x2000, 0x50_0000)
    with pytest.raises(TranslationFault):
        space.read32(0x1000)
    tables.map(0x1000, 0x60_0000)
    assert space.read32(0x1000) == 0


def test_a_vfs_tables_and_pages_are_device_addresses_of_the_vf(rig: Rig) -> None:
    vf = rig.vf(1)
    rig.vram.assign(1, {0: 20, 1: 11})
    tables = PageTables(rig, vf, 0x10_0000)
    tables.map(0x1000, BLOCK_SIZE + 0x3000)
    space = tables.space()
    space.write32(0x1004, 0x5AFE)
    assert rig.vram.vf_memory(1).view[BLOCK_SIZE + 0x3004 :][:4].cast("I")[0] == 0x5AFE
    assert {(e.initiator, e.owner, e.kind) for e in rig.fabric.ledger} == {("vf1", "vf1", "vram")}
    tables.map(0x2000, 2 * BLOCK_SIZE)
    with pytest.raises(AccessFault, match="vf1: device address 0x400000: LMTT gives vf1 nothing"):
        space.write32(0x2000, 1)


def test_a_vf_whose_tables_lmtt_does_not_give_faults(rig: Rig) -> None:
    vf = rig.vf(1)
    rig.vram.assign(1, {0: 20})
    tables = PageTables(rig, vf, 0x10_0000)
    tables.entry(0x1000, 2, 3 * BLOCK_SIZE | 3)
    with pytest.raises(TranslationFault, match=r"vf1: .* level 1 .*page table at 0x600000: LMTT gives"):
        tables.space().read32(0x1000)


def test_a_vf_pages_system_memory_is_its_own(rig: Rig) -> None:
    vf = rig.vf(1)
    rig.vram.assign(1, {0: 20})
    tables = PageTables(rig, vf, 0)
    tables.map(0x1000, 0x9000, system=True)
    tables.space().write32(0x1000, 7)
    assert rig.ram.of("vf1")[0x9000] == 7
    assert rig.ram.of("pf")[0x9000] == 0


def test_the_pf_reaches_a_vfs_vram_and_the_ledger_says_whose(rig: Rig, tables: PageTables) -> None:
    rig.vram.assign(1, {0: 10})
    tables.map(0x1000, 10 * BLOCK_SIZE + 0x5000)
    tables.space().write32(0x1000, 0x77)
    assert rig.vram.vf_memory(1).view[0x5000] == 0x77
    assert [(e.initiator, e.owner, e.interconnect, e.kind, e.writes) for e in rig.fabric.ledger] == [
        ("pf", "vf1", "iov", "vram", 1)
    ]


def test_translations_are_dropped_when_a_block_changes_owner(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 10 * BLOCK_SIZE)
    space = tables.space()
    space.write32(0x1000, 1)
    rig.vram.assign(1, {0: 10})
    space.write32(0x1004, 2)
    assert rig.vram.vf_memory(1).view[0:8].cast("I").tolist() == [1, 2]
    assert rig.dword(10 * BLOCK_SIZE + 4) == 0


def test_tables_are_found_again_where_the_block_that_they_are_in_went(rig: Rig, tables: PageTables) -> None:
    rig.vf(1)
    tables.map(0x1000, 0x60_0000)
    tables.entry(0x4020_0000, 1, 3 | ppgtt.LARGE | DM)
    space = tables.space()
    for blocks in ({0: POOL // BLOCK_SIZE}, {3: POOL // BLOCK_SIZE}, {}):
        assert space.extent(0x1000, 4, False).address == 0x60_0000
        assert space.extent(0x4020_0000, 4, False).address == 0
        rig.vram.assign(1, blocks)
        assert space.extent(0x1008, 4, False).address == 0x60_0008
        assert space.extent(0x4020_0008, 4, False).address == 8
    tables.map(0x1000, 0x70_0000)
    space.invalidated()
    assert space.extent(0x1000, 4, False).address == 0x70_0000


def test_memory_without_a_view_is_reached_by_messages(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 0x9000, 0x2000, system=True)
    rig.ram.messages = True
    space = tables.space()
    space.write32(0x1FFC, 0x11223344)
    space.write64(0x2000, 5)
    assert space.read32(0x1FFC) == 0x11223344
    assert space.read64(0x2000) == 5
    assert space.read(0x1FFC, 8) == bytes.fromhex("4433221105000000")
    assert rig.ram.of("pf")[0x9FFC] == 0x44


def test_every_access_is_counted(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000)
    space = tables.space()
    space.write32(0x1000, 1)
    space.read64(0x1000)
    space.write(0x1010, b"12345")
    (entry,) = rig.fabric.ledger
    assert (entry.reads, entry.bytes_read, entry.writes, entry.bytes_written) == (1, 8, 2, 9)


def test_describe_shows_the_walk(tables: PageTables) -> None:
    tables.map(0x1000, 0x60_0000)
    steps = list(tables.space().describe(0x1000))
    assert [step.level for step in steps] == [4, 3, 2, 1, 0]
    assert steps[-1].entry == 0x60_0000 | 3 | DM
    assert [step.level for step in tables.space().describe(GIB)] == [4, 3, 2]


def test_extents_reach_across_tables(tables: PageTables) -> None:
    tables.map(0x1F_E000, 0x60_0000, 0x4000)
    tables.map(0x20_2000, 0x70_0000, 0x1000)
    extents = list(tables.space().extents(0x1F_E800, 0x4000, False))
    assert [(e.address, e.length) for e in extents] == [(0x60_0800, 0x3800), (0x70_0000, 0x800)]


def test_an_extent_of_null_pages_is_no_longer_than_the_zeros_that_are_kept_for_it(tables: PageTables) -> None:
    tables.entry(GIB, 2, 3 | ppgtt.NULL | ppgtt.LARGE)
    space = tables.space()
    for length in (1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 16 * MIB):
        assert space.extent(GIB + 0x1000, length, False) == Extent(None, 0, min(length, 2 * MIB), "null")
    assert [window.length for window in space.spans(GIB, 5 * MIB, False)] == [2 * MIB, 2 * MIB, MIB]
    assert space.read(GIB, 3 * MIB) == bytes(3 * MIB)


@pytest.mark.parametrize("start", [0x1000, 0x1004, 0x1800, 0x1FFC])
@pytest.mark.parametrize("length", [4, 0x1000, 0x1800, 0x2800])
def test_extents_begin_and_end_in_the_middle_of_pages(tables: PageTables, start: int, length: int) -> None:
    for n, target in enumerate((5, 3, 4, 9)):
        tables.map(0x1000 + n * 0x1000, 0x60_0000 + target * 0x1000)
    expected = []
    for first, size, target in ((0x1000, 0x1000, 0x60_5000), (0x2000, 0x2000, 0x60_3000), (0x4000, 0x1000, 0x60_9000)):
        low, high = max(start, first), min(start + length, first + size)
        if low < high:
            expected.append((target + low - first, high - low))
    space = tables.space()
    assert [(e.address, e.length) for e in space.extents(start, length, False)] == expected
    extent = space.extent(start, length, False)
    assert (extent.address, extent.length) == expected[0]


def test_extents_give_what_is_before_a_hole_and_fault_at_it(tables: PageTables) -> None:
    tables.map(0x1F_E000, 0x60_0000, 0x3000)
    extents = tables.space().extents(0x1F_E000, 0x4000, False)
    assert next(extents).length == 0x3000
    with pytest.raises(TranslationFault, match="address 0x201000"):
        next(extents)


def test_extents_of_scattered_null_and_read_only_pages(tables: PageTables) -> None:
    for n, target in enumerate((5, 3, 4, 9)):
        tables.map(0x1000 + n * 0x1000, 0x60_0000 + target * 0x1000)
    tables.entry(0x5000, 0, 3 | ppgtt.NULL)
    tables.map(0x6000, 0x50_0000, flags=1)
    space = tables.space()
    extents = list(space.extents(0x1000, 0x6000, False))
    assert [(e.space, e.address, e.length) for e in extents] == [
        (Space.DEVICE, 0x60_5000, 0x1000),
        (Space.DEVICE, 0x60_3000, 0x2000),
        (Space.DEVICE, 0x60_9000, 0x1000),
        (None, 0, 0x1000),
        (Space.DEVICE, 0x50_0000, 0x1000),
    ]
    with pytest.raises(TranslationFault, match="read-only"):
        list(space.extents(0x1000, 0x6000, True))


@pytest.mark.parametrize(
    ("seen_by", "prefix"), [("driver", ""), ("execution_units", "eu "), ("fixed_functions", "3d ")]
)
def test_the_ledger_tells_who_looks_however_an_extent_is_asked_for(
    tables: PageTables, seen_by: str, prefix: str
) -> None:
    tables.map(0x1000, 0x60_0000)
    tables.map(0x2000, 0x9000, system=True)
    space = tables.space()
    space = space if seen_by == "driver" else getattr(space, seen_by)
    kinds = [prefix + "vram", prefix + "system"]
    assert [extent.kind for extent in space.extents(0x1000, 0x2000, False)] == kinds
    assert [space.extent(address, 0x1000, False).kind for address in (0x1000, 0x2000)] == kinds


def test_small_pieces_share_windows(rig: Rig, tables: PageTables) -> None:
    for n in range(8):
        tables.map(0x1000 + n * 0x1000, 0x60_0000 + (n * 5 % 8) * 0x1000)
    space = tables.space()
    windows = {space.locate(extent, False)[0] for extent in space.extents(0x1000, 0x8000, False)}
    assert len(windows) == 1
    rig.fabric.revoke()
    assert next(iter(windows)) is not space.locate(next(space.extents(0x1000, 0x1000, False)), False)[0]


def test_a_piece_whose_surroundings_are_out_of_reach_gets_a_window_of_its_own(rig: Rig, tables: PageTables) -> None:
    rig.ram.size = 0x3000
    tables.map(0x1000, 0x2000, system=True)
    space = tables.space()
    window, offset = space.locate(next(space.extents(0x1000, 0x1000, True)), True)
    assert offset + 0x1000 <= window.length
    space.write(0x1000, b"hello")
    assert bytes(rig.ram.of("pf")[0x2000:0x2005]) == b"hello"


def test_a_space_does_not_keep_pages_without_end(tables: PageTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_space, "_MOST_PAGES", 4)
    monkeypatch.setattr(address_space, "_MOST_REGIONS", 1)
    tables.map(0x1000, 0x60_0000, 0x10000)
    tables.map(0x4000, 0x10_0000)
    space = tables.space()
    for n in range(16):
        space.write32(0x1000 + n * 0x1000, n)
    assert len(space.writable) <= 4
    assert [space.read32(0x1000 + n * 0x1000) for n in range(16)] == list(range(16))
    for extent in space.extents(0x1000, 0x10000, False):
        space.locate(extent, False)
    assert len(space._regions) <= 1


def test_a_copy_goes_from_large_pages_on_to_small_ones(rig: Rig, tables: PageTables) -> None:
    va = 0x4000_0000
    tables.entry(va, 1, 0x100_0000 | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    tables.map(va + (2 << 20), 0x120_0000, 0x3000)
    space = tables.space()
    found = [(e.space, e.address, e.length) for e in space.extents(va, (2 << 20) + 0x3000, False)]
    assert sum(length for _, _, length in found) == (2 << 20) + 0x3000
    assert found[0] == (Space.DEVICE, 0x100_0000, (2 << 20) + 0x3000)


@pytest.mark.parametrize(
    ("level", "flags", "index"),
    [
        (0, 1 << 3 | 1 << 7, 5),
        (0, 1 << 4 | 1 << 61, 18),
        (0, 1 << 62 | 1 << 3, 9),
        (1, ppgtt.LARGE, 0),
        (1, ppgtt.LARGE | 1 << 12 | 1 << 62, 12),
    ],
)
def test_the_pat_index_of_a_page_says_whether_it_compresses(
    rig: Rig, tables: PageTables, level: int, flags: int, index: int
) -> None:
    tables.entry(0x4000_0000, level, 2 * MIB | 3 | DM | flags)
    space = tables.space()
    rig.vram.compressing = lambda asked: asked == index
    assert not space.extent(0x4000_0000, 16, False).compressed
    rig.vram.flat_ccs = 60 * MIB
    assert space.extent(0x4000_0000, 16, False) == Extent(Space.DEVICE, 2 * MIB, 16, "vram", True)
    rig.vram.compressing = lambda asked: asked != index
    assert not space.extent(0x4000_0000, 16, False).compressed


def test_pages_that_compress_and_pages_that_do_not_are_extents_of_their_own(rig: Rig, tables: PageTables) -> None:
    tables.map(0x1F_F000, 2 * MIB + 0x1000)
    tables.map(0x20_0000, 2 * MIB + 0x2000, flags=3 | 1 << 3)
    rig.vram.flat_ccs, rig.vram.compressing = 60 * MIB, lambda index: index == 1
    found = [(extent.length, extent.compressed) for extent in tables.space().extents(0x1F_F000, 0x2000, False)]
    assert found == [(0x1000, False), (0x1000, True)]
