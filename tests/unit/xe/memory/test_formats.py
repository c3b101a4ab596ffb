"""Page-table formats: what is encoded is decoded, and every level is walked."""

from __future__ import annotations

import pytest
from hypothesis import given
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
    with pytest.raises(ValueError, match="GGTT entry"):
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
