"""GGTT: one level, owned by function."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.memory.formats.ggtt import PTES_SIZE
from vfio_user_xe.device_models.xe.memory.ggtt import Ggtt, TranslationFault
from vfio_user_xe.emulator.fabric.interconnect import Space
from vfio_user_xe.emulator.model.memory import Memory


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory(PTES_SIZE, "gsm")


@pytest.fixture
def pf(memory: Memory) -> Ggtt:
    memory.discard(0, PTES_SIZE)
    return Ggtt(0, memory.view)


@pytest.fixture
def vf(memory: Memory) -> Ggtt:
    memory.discard(0, PTES_SIZE)
    return Ggtt(2, memory.view)


def test_present_entries_translate_to_vram_or_system(pf: Ggtt) -> None:
    pf.entries[0x800] = 0x1234000 | 3
    pf.entries[0x801] = 0x5678000 | 1 | 3 << 52
    assert pf.translate(0x800123) == (Space.DEVICE, 0x1234123, "ggtt-vram")
    assert pf.translate(0x801FFF) == (Space.SYSTEM, 0x5678FFF, "ggtt-system"), "PAT bits are no address"


def test_an_absent_entry_faults_and_says_which(pf: Ggtt) -> None:
    pf.entries[0x900] = 0x1000
    with pytest.raises(TranslationFault, match=r"pf: GGTT address 0x900010 \(write\): level 0 entry 0x1000") as fault:
        pf.translate(0x900010, write=True)
    assert (fault.value.address, fault.value.level, fault.value.entry) == (0x900010, 0, 0x1000)


def test_a_pf_does_not_reach_through_a_vfs_entry(pf: Ggtt) -> None:
    pf.entries[5] = 0x1000 | 3 << 2 | 3
    with pytest.raises(TranslationFault, match="belongs to VF 3"):
        pf.translate(0x5000)


def test_addresses_beyond_4_gib_do_not_exist(pf: Ggtt) -> None:
    with pytest.raises(TranslationFault, match="outside of the GGTT"):
        pf.translate(1 << 32)


def test_a_vf_starts_with_nothing(vf: Ggtt) -> None:
    vf.entries[0x100] = 0x1000 | 3
    with pytest.raises(TranslationFault, match=r"vf2: .*outside of the provisioned range"):
        vf.translate(0x100000)


def test_only_a_vfs_provisioned_range_counts(vf: Ggtt) -> None:
    vf.provision(0x100000, 0x2000)
    for page in (0xFF, 0x100, 0x101, 0x102):
        vf.entries[page] = 0x7000 | 3
    assert vf.translate(0x101004)[1] == 0x7004
    for address in (0xFF000, 0x102000):
        with pytest.raises(TranslationFault, match="outside"):
            vf.translate(address)


def test_a_vf_cannot_name_another_function(vf: Ggtt) -> None:
    vf.provision(0, 0x1000)
    vf.entries[0] = 0x9000 | 5 << 2 | 3
    assert vf.translate(0) == (Space.DEVICE, 0x9000, "ggtt-vram")


@pytest.mark.parametrize(
    "bad", [(1, 0x1000), (0, 0x800), (0x800, 0x800), (-0x1000, 0x1000), (0, -0x1000), (0xFFFFF000, 0x2000)]
)
def test_a_range_must_be_of_whole_pages_inside(vf: Ggtt, bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        vf.provision(*bad)


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0, 1 << 32), (0xFFFFF000, 0x1000), (0x100000, 0x300000)])
def test_a_range_counts_from_its_first_page_to_its_last(vf: Ggtt, start: int, size: int) -> None:
    vf.provision(start, size)
    for page in {0, max(start >> 12, 1) - 1, start >> 12, (start + size >> 12) - 1, start + size >> 12} & set(
        range(1 << 20)
    ):
        vf.entries[page] = 0x7000 | 3
        if start <= page << 12 < start + size:
            assert vf.translate(page << 12)[1] == 0x7000
        else:
            with pytest.raises(TranslationFault, match=rf"provisioned range \[{start:#x}, {start + size:#x}\)"):
                vf.translate(page << 12)


def test_entries_are_shown_to_the_pf_with_their_vfid(vf: Ggtt, pf: Ggtt) -> None:
    vf.entries[0x10] = 0xAB000 | 7 << 2 | 3 | 1 << 52
    vf.entries[0x11] = 0xCD000 | 1
    shown = vf.read_entries(0x10000, 0x2000, vfid=2)
    assert memoryview(shown).cast("Q").tolist() == [0xAB000 | 2 << 2 | 3 | 1 << 52, 0xCD000 | 2 << 2 | 1]


def test_entries_are_stored_with_a_vfid(pf: Ggtt) -> None:
    pf.write_entries(0x20000, (0x1000 | 3).to_bytes(8, "little") * 2, vfid=4)
    assert pf.entries[0x1F:0x23].tolist() == [0, *[0x1000 | 4 << 2 | 3] * 2, 0]


@pytest.mark.parametrize(("vfid", "stored"), [(0, 0), (1023, 0x3FF << 2), (None, 7 << 2)])
def test_every_bit_but_the_vfid_is_stored_as_it_comes(pf: Ggtt, vfid: int | None, stored: int) -> None:
    others = (1 << 64) - 1 & ~(0x3FF << 2)
    entries = [others | 7 << 2, 7 << 2, 3 | 7 << 2]
    pf.write_entries(0x20000, b"".join(entry.to_bytes(8, "little") for entry in entries), vfid)
    assert pf.entries[0x20:0x23].tolist() == [others | stored, stored, 3 | stored]
    shown = memoryview(pf.read_entries(0x20000, 0x3000, 5)).cast("Q").tolist()
    assert shown == [others | 5 << 2, 5 << 2, 3 | 5 << 2]


def test_entries_are_read_from_the_first_page_to_the_last(pf: Ggtt) -> None:
    for page in range(8):
        pf.entries[page] = page << 12
    for start, size in ((0, 0), (0, 0x8000), (0x3000, 0x1000), (0x3000, 0x5000)):
        assert memoryview(pf.read_entries(start, size)).cast("Q").tolist() == list(range(start, start + size, 0x1000))


def test_a_window_of_the_wrong_size_is_refused() -> None:
    for size in (4096, PTES_SIZE - 8, PTES_SIZE + 8):
        with pytest.raises(ValueError, match=f"{size:#x} bytes of entries, not 0x800000"):
            Ggtt(0, memoryview(bytearray(size)))
