"""Page-table formats: what is encoded is decoded, and every level is walked."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.memory.formats import ggtt, lmtt, ppgtt

SHIFTS = st.sampled_from([12, 16, 21, 30])


@given(page=st.integers(0, (1 << 40) - 1), vram=st.booleans(), vfid=st.integers(0, 1023))
def test_a_ggtt_entry_says_what_was_encoded(page: int, vram: bool, vfid: int) -> None:
    entry = ggtt.encode(page << 12, vram=vram, vfid=vfid)
    assert entry & ggtt.PRESENT
    assert (entry & ggtt.ADDRESS_MASK, bool(entry & ggtt.DEVICE_MEMORY), ggtt.vfid_of(entry)) == (
        page << 12,
        vram,
        vfid,
    )


@pytest.mark.parametrize(("address", "vfid"), [(0x1001, 0), (1 << 52, 0), (0x1000, 1024), (0x1000, -1)])
def test_a_ggtt_entry_has_room_for_52_bits_of_a_page_and_1023_vfs(address: int, vfid: int) -> None:
    with pytest.raises(ValueError, match=r"GGTT entry.*\(of a page below 0x10000000000000\)"):
        ggtt.encode(address, vram=True, vfid=vfid)


@given(
    number=st.integers(0, (1 << 20) - 1),
    shift=SHIFTS,
    vram=st.booleans(),
    writable=st.booleans(),
    pat=st.integers(0, 31),
)
def test_a_ppgtt_leaf_says_what_was_encoded(number: int, shift: int, vram: bool, writable: bool, pat: int) -> None:
    entry = ppgtt.encode_leaf(number << shift, shift, vram=vram, writable=writable, pat=pat)
    assert ppgtt.target(entry, shift) == number << shift
    assert ppgtt.pat_index(entry, shift) == pat
    assert (bool(entry & ppgtt.DEVICE_MEMORY), bool(entry & ppgtt.WRITABLE)) == (vram, writable)
    level = {12: 0, 16: 0, 21: 1, 30: 2}[shift]
    assert ppgtt.is_leaf(entry, level)


def test_a_ppgtt_leaf_is_aligned_to_what_it_maps() -> None:
    with pytest.raises(ValueError, match="0x10000 bytes"):
        ppgtt.encode_leaf(0x1000, 16, vram=True)
    with pytest.raises(ValueError, match="4 KiB, 64 KiB, 2 MiB, 1 GiB"):
        ppgtt.encode_leaf(0, 13, vram=True)


class Tables:
    """Tables by address, filled by `put`."""

    def __init__(self) -> None:
        self.tables: dict[int, memoryview] = {}

    def put(self, table: int, index: int, entry: int) -> None:
        self.tables.setdefault(table, memoryview(bytearray(4096)).cast("Q"))[index] = entry

    def read(self, table: int, level: int) -> memoryview:
        return self.tables[table]


def test_a_walk_goes_down_to_pages_of_64_kib() -> None:
    tables = Tables()
    address = 3 << 39 | 5 << 30 | 7 << 21 | 9 << 16 | 0x123
    for table, index in ((0x1000, 0), (0x2000, 3), (0x3000, 5)):
        tables.put(table, index, ppgtt.encode_table(table + 0x1000))
    tables.put(0x4000, 7, ppgtt.encode_table(0x5000, compact=True))
    leaf = ppgtt.encode_leaf(0x70000, 16, vram=True)
    tables.put(0x5000, 9, leaf)
    steps = list(ppgtt.walk(tables.read, 0x1000, address))
    assert [(step.level, step.table, step.slot, step.shift) for step in steps] == [
        (4, 0x1000, 0, 48), (3, 0x2000, 3, 39), (2, 0x3000, 5, 30), (1, 0x4000, 7, 21), (0, 0x5000, 9, 16),
    ]  # fmt: skip
    assert steps[-1].entry == leaf
    assert len(steps[-1].entries) == 32
    assert ppgtt.meaning(steps[-1]) == "64 KiB in VRAM at 0x70000"
    assert ppgtt.meaning(steps[-2]) == "table at 0x5000, of 64 KiB pages"
    assert list(ppgtt.leaves(tables.read, 0x1000)) == [(address & -(1 << 16), leaf, 16)]
    assert list(ppgtt.leaves(tables.read, 0x1000, end=address & -(1 << 16))) == []


@pytest.mark.parametrize(("level", "shift"), [(1, 21), (2, 30)])
def test_a_walk_ends_at_a_large_leaf(level: int, shift: int) -> None:
    tables = Tables()
    for above in range(4, level, -1):
        tables.put(0x1000 * above, 0, ppgtt.encode_table(0x1000 * (above - 1)))
    tables.put(0x1000 * level, 1, ppgtt.encode_leaf(4 << shift, shift, vram=False))
    steps = list(ppgtt.walk(tables.read, 0x4000, 1 << shift))
    assert (steps[-1].level, steps[-1].shift) == (level, shift)


def test_a_walk_ends_at_what_is_not_present() -> None:
    tables = Tables()
    tables.put(0x1000, 1, ppgtt.encode_table(0x2000))
    steps = list(ppgtt.walk(tables.read, 0x1000, 0))
    assert [(step.level, step.entry) for step in steps] == [(4, 0)]
    assert ppgtt.meaning(steps[0]) == "not present"


@given(block=st.integers(0, (1 << 27) - 1), table=st.integers(0, (1 << 32) - 1))
def test_lmtt_entries_say_what_was_encoded(block: int, table: int) -> None:
    leaf, pde = lmtt.encode_leaf(block), lmtt.encode_pde(table << 16)
    assert leaf & lmtt.VALID
    assert pde & lmtt.VALID
    assert (lmtt.block_of(leaf), lmtt.table_of(pde)) == (block, table << 16)


def test_lmtt_tables_are_aligned_to_64_kib() -> None:
    with pytest.raises(ValueError, match="0x1000, which is not aligned to 0x10000"):
        lmtt.encode_pde(0x1000)


def test_an_lmtt_walk_goes_through_directory_table_and_leaf_table() -> None:
    gdpa = 2 << 35 | 5 << 21 | 0x1234
    memory = {
        0x10000 + 8 * 3: lmtt.encode_pde(0x20000),
        0x20000 + 8 * 2: lmtt.encode_pde(0x30000),
        0x30000 + 4 * 5: lmtt.encode_leaf(77),
    }
    steps = list(lmtt.walk(lambda dpa, size: memory[dpa], 0x10000, 3, gdpa))
    assert [(step.level, step.slot) for step in steps] == [(2, 3), (1, 2), (0, 5)]
    assert lmtt.block_of(steps[-1].entry) == 77
    assert lmtt.meaning(steps[0]) == "table at DPA 0x20000"
    assert lmtt.meaning(steps[-1]) == f"2 MiB at DPA {77 << 21:#x}"


@pytest.mark.parametrize(
    ("entries", "gdpa", "reason"),
    [
        ({}, 0, "has no LMTT table"),
        ({0x10008: lmtt.encode_pde(0x20000)}, 0, "around GDPA 0x0"),
        ({0x10008: lmtt.encode_pde(0x20000)}, 1 << 48, "beyond what LMTT can map"),
        ({0x10008: lmtt.encode_pde(0x20000), 0x20000: lmtt.encode_pde(0x30000)}, 0x200000, "at GDPA 0x200000"),
    ],
)
def test_an_lmtt_walk_says_which_level_maps_nothing(entries: dict[int, int], gdpa: int, reason: str) -> None:
    with pytest.raises(lmtt.LmttFault, match=reason):
        list(lmtt.walk(lambda dpa, size: entries.get(dpa, 0), 0x10000, 1, gdpa))


def test_ggtt_entries_have_the_bits_of_the_hardware() -> None:
    """regs/xe_gtt_defs.h: XE_PAGE_PRESENT, XE_GGTT_PTE_DM, GGTT_PTE_VFID, XE_PAGE_ADDR_MASK."""
    assert ggtt.encode(0, vram=False) == 0x1
    assert ggtt.encode(0, vram=True) == 0x3
    assert ggtt.encode(0x000F_FFFF_FFFF_F000, vram=True, vfid=0x3FF) == 0x000F_FFFF_FFFF_FFFF
    assert ggtt.encode(0x1000, vram=False, vfid=5) == 0x1015
    assert (ggtt.GGTT_SIZE, ggtt.PTES_SIZE) == (4 << 30, 8 << 20)


@pytest.mark.parametrize(
    ("entry", "meaning"),
    [
        (0x5002, "not present"),
        (0x5001, "4 KiB in system memory at 0x5000"),
        (0x5003, "4 KiB in VRAM at 0x5000"),
        (0x501F, "4 KiB in VRAM at 0x5000, of VF 7"),
    ],
)
def test_a_ggtt_entry_is_told_in_words(entry: int, meaning: str) -> None:
    assert ggtt.meaning(entry) == meaning


@pytest.mark.parametrize(
    ("options", "entry"),
    [
        ({"vram": False, "writable": False}, 0x1),
        ({"vram": False}, 0x3),
        ({"vram": True}, 0x803),
        ({"vram": False, "pat": 1}, 0x3 | 1 << 3),
        ({"vram": False, "pat": 2}, 0x3 | 1 << 4),
        ({"vram": False, "pat": 4}, 0x3 | 1 << 7),
        ({"vram": False, "pat": 8}, 0x3 | 1 << 62),
        ({"vram": False, "pat": 16}, 0x3 | 1 << 61),
    ],
)
def test_ppgtt_leaves_have_the_bits_of_the_hardware(options: dict[str, Any], entry: int) -> None:
    """regs/xe_gtt_defs.h and xe_bo.h; the third PAT bit and the page size are elsewhere in leaves of 2 MiB and more."""
    for shift in (12, 16):
        assert ppgtt.encode_leaf(3 << 30, shift, **options) == 3 << 30 | entry
    large = entry | 1 << 7 if options.get("pat") != 4 else 0x3 | 1 << 7 | 1 << 12
    for shift in (21, 30):
        assert ppgtt.encode_leaf(3 << 30, shift, **options) == 3 << 30 | large


def test_ppgtt_tables_and_null_entries_have_the_bits_of_the_hardware() -> None:
    """regs/xe_gtt_defs.h: XE_PDE_64K, XE_PTE_PS64, XE_PTE_NULL, XE_USM_PPGTT_PTE_AE."""
    assert ppgtt.encode_table(0x7000) == 0x7003
    assert ppgtt.encode_table(0x7000, compact=True) == 0x7043
    assert (ppgtt.SHIFTS, ppgtt.COMPACT_SHIFT) == ((12, 21, 30, 39, 48), 16)
    assert (ppgtt.TABLE_SIZE, ppgtt.VA_MASK) == (4096, 0xFFFF_FFFF_FFFF)
    assert (ppgtt.PS64, ppgtt.NULL, ppgtt.ATOMIC_ENABLE) == (0x100, 0x200, 0x400)
    assert ppgtt.table_of(0xFFF0_0000_0000_7FFF) == 0x7000


@pytest.mark.parametrize(
    ("level", "shift", "entry", "meaning"),
    [
        (0, 12, 0x5003, "4 KiB in system memory at 0x5000"),
        (0, 16, 0x5_0801, "64 KiB in VRAM at 0x50000, read-only"),
        (1, 21, 0x60_0C83, "2 MiB in VRAM at 0x600000, atomics"),
        (2, 30, 0x4000_0081, "1 GiB in system memory at 0x40000000, read-only"),
        (0, 12, 0x201, "null: reads zero, drops writes"),
        (1, 21, 0x7003, "table at 0x7000"),
        (1, 21, 0x7043, "table at 0x7000, of 64 KiB pages"),
        (2, 30, 0x7043, "table at 0x7000"),
        (3, 39, 0x7083, "table at 0x7000"),
        (0, 12, 0x5002, "not present"),
    ],
)
def test_a_ppgtt_entry_is_told_in_words(level: int, shift: int, entry: int, meaning: str) -> None:
    assert ppgtt.meaning(ppgtt.Step(level, 0x1000, memoryview(b""), 0, shift, entry)) == meaning


def test_leaves_come_from_all_tables_in_the_order_of_their_addresses() -> None:
    tables = Tables()
    pages = [
        (0x123 << 39 | 0x45 << 30 | 0x67 << 21 | 0x89 << 12, 12),
        (0x123 << 39 | 0x45 << 30 | 0x67 << 21 | 0x1FF << 12, 12),
        (0x123 << 39 | 0x45 << 30 | 0x68 << 21 | 31 << 16, 16),
        (0x123 << 39 | 0x45 << 30 | 0x69 << 21, 21),
        (0x123 << 39 | 0x46 << 30, 30),
    ]
    for table, index in ((0x1000, 0), (0x2000, 0x123), (0x3000, 0x45), (0x4000, 0x67)):
        tables.put(table, index, ppgtt.encode_table(table + 0x1000))
    tables.put(0x4000, 0x68, ppgtt.encode_table(0x6000, compact=True))
    tables.put(0x4000, 0x6A, ppgtt.encode_table(0x7000))
    entries = [ppgtt.encode_leaf(number << 30, shift, vram=True) for number, (_, shift) in enumerate(pages)]
    for (table, index), entry in zip(
        ((0x5000, 0x89), (0x5000, 0x1FF), (0x6000, 31), (0x4000, 0x69), (0x3000, 0x46)), entries, strict=True
    ):
        tables.put(table, index, entry)
    # No table at 0x7000: it maps nothing. Entries beyond the 32nd of a table of 64 KiB pages are none.
    tables.put(0x6000, 32, ppgtt.encode_leaf(0, 16, vram=True))
    expected = [(address, entry, shift) for (address, shift), entry in zip(pages, entries, strict=True)]

    def leaves(start: int = 0, end: int = 1 << 48) -> list[tuple[int, int, int]]:
        return list(ppgtt.leaves(lambda table, level: tables.tables.get(table), 0x1000, start, end))

    assert leaves() == expected
    for number in range(len(pages)):
        assert leaves(start=pages[number][0]) == expected[number:]
        assert leaves(end=pages[number][0]) == expected[:number]
        assert leaves(start=pages[number][0], end=pages[number][0] + 1) == expected[number : number + 1]


def test_lmtt_entries_have_the_bits_of_the_hardware() -> None:
    """xe_lmtt_ml.c: LMTT_ML_HW_PDE_MAX_NUM and its like, lmtt_ml_encode_pde, lmtt_ml_encode_pte."""
    assert (lmtt.DIRECTORY_ENTRIES, lmtt.TABLE_ENTRIES, lmtt.LEAF_ENTRIES) == (64, 8192, 16384)
    assert (lmtt.PDE_SIZE, lmtt.LEAF_SIZE, lmtt.TABLE_SIZE, lmtt.BLOCK_SHIFT) == (8, 4, 64 << 10, 21)
    assert lmtt.encode_pde(0x1_2345_0000) == 0x12_3451
    assert lmtt.encode_leaf(77) == 77 << 5 | 1
    assert lmtt.table_of(0x12_345F) == 0x1_2345_0000


@pytest.mark.parametrize(("size", "code"), [(8, "Q"), (4, "I")])
@settings(max_examples=30)
@given(data=st.data())
def test_valid_lmtt_entries_are_found_wherever_they_are(size: Literal[8, 4], code: str, data: st.DataObject) -> None:
    limit = 1 << 8 * size - 1
    valid = data.draw(st.dictionaries(st.integers(0, 63), st.integers(0, limit - 1).map(lambda n: n << 1 | 1)))
    invalid = data.draw(st.dictionaries(st.integers(0, 63), st.integers(0, limit - 1).map(lambda n: n << 1)))
    table = memoryview(bytearray(64 * size)).cast(code)
    for index, entry in (invalid | valid).items():
        table[index] = entry
    assert lmtt.valid_entries(table.tobytes(), size) == sorted(valid.items())


def test_an_lmtt_entry_that_is_not_valid_is_told_in_words() -> None:
    assert lmtt.meaning(lmtt.Step(0, 0, 0, 0x20)) == "not valid"
