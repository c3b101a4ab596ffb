"""A function's address spaces: what is read and written where, what is kept, and where contiguous memory ends."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import create_autospec

import pytest

from tests.support.xe.rig import MIB, PageTables, Rig
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, Extent, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Space
from vfio_user_xe.emulator.fabric.span import Revoked


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def test_reads_and_writes_go_through_the_entries(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000)
    rig.map_ggtt(0x80_1000, 0x7000, system=True)
    space = rig.pf.ggtt_space
    space.write32(0x80_0004, 1)
    space.write64(0x80_1008, 0x2_0000_0003)
    assert rig.dword(0x30_0004) == 1
    assert rig.ram.of("pf")[0x7008:0x7010].cast("I").tolist() == [3, 2]
    assert space.read64(0x80_1008) == 0x2_0000_0003
    assert {e.kind for e in rig.fabric.ledger} == {"ggtt-vram", "ggtt-system"}


def test_a_changed_entry_is_seen_without_invalidation(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000)
    space = rig.pf.ggtt_space
    space.write32(0x80_0000, 1)
    assert space.read32(0x80_0000) == 1
    rig.map_ggtt(0x80_0000, 0x40_0000)
    space.write32(0x80_0000, 2)
    assert (rig.dword(0x30_0000), rig.dword(0x40_0000)) == (1, 2)
    rig.pf.ggtt.entries[0x800] = 0
    with pytest.raises(TranslationFault, match="not present"):
        space.read32(0x80_0000)


def test_an_entry_given_to_a_vf_is_no_longer_the_pfs(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000)
    space = rig.pf.ggtt_space
    space.write32(0x80_0000, 1)
    rig.map_ggtt(0x80_0000, 0x30_0000, vfid=2)
    with pytest.raises(TranslationFault, match="belongs to VF 2"):
        space.write32(0x80_0000, 1)


def test_contiguous_pages_make_one_window(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000, 0x4000)
    rig.map_ggtt(0x80_4000, 0x50_0000, 0x1000)
    spans = list(rig.pf.ggtt_space.spans(0x80_0100, 0x4200, False))
    assert [(s.address, s.length) for s in spans] == [(0x30_0100, 0x3F00), (0x50_0000, 0x300)]


def test_data_may_cross_pages(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000)
    rig.map_ggtt(0x80_1000, 0x50_0000)
    rig.pf.ggtt_space.write(0x80_0FFE, b"abcd")
    assert bytes(rig.vram.memory.view[0x30_0FFE:0x30_1000]) == b"ab"
    assert rig.pf.ggtt_space.read(0x80_0FFE, 4) == b"abcd"


def test_a_vf_uses_its_own_entries_device_memory_and_guest_memory(rig: Rig) -> None:
    vf = rig.vf(1, ggtt=(0x100_0000, 0x10_0000))
    rig.vram.assign(1, {0: 9})
    rig.map_ggtt(0x100_0000, 0x1000, function=vf)
    rig.map_ggtt(0x100_1000, 0x6000, function=vf, system=True)
    rig.map_ggtt(0x100_2000, BLOCK_SIZE, function=vf)
    vf.ggtt_space.write32(0x100_0000, 0xA)
    vf.ggtt_space.write32(0x100_1000, 0xB)
    assert rig.vram.vf_memory(1).view[0x1000] == 0xA
    assert (rig.ram.of("vf1")[0x6000], rig.ram.of("pf")[0x6000]) == (0xB, 0)
    with pytest.raises(AccessFault, match="LMTT gives vf1 nothing"):
        vf.ggtt_space.read32(0x100_2000)
    vf.ggtt.provision(0x100_1000, 0x1000)
    with pytest.raises(TranslationFault, match="outside of the provisioned range"):
        vf.ggtt_space.read32(0x100_0000)


def test_windows_that_are_revoked_are_opened_anew(rig: Rig) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000)
    rig.pf.ggtt_space.write32(0x80_0000, 1)
    (held,) = rig.pf.ggtt_space.writable.values()
    rig.fabric.revoke()
    with pytest.raises(Revoked):
        held.store32(0x80_0000, 3)
    with pytest.raises(Revoked):
        held.load(0x80_0000, 4)
    rig.pf.ggtt_space.write32(0x80_0000, 2)
    assert rig.dword(0x30_0000) == 2


@pytest.fixture(params=["ggtt", "ppgtt"])
def space(request: pytest.FixtureRequest, rig: Rig) -> AddressSpace:
    """Pages at 0x80_0000 and after it, which are not neighbours in VRAM."""
    if request.param == "ggtt":
        rig.map_ggtt(0x80_0000, 0x30_0000)
        rig.map_ggtt(0x80_1000, 0x50_0000)
        return rig.pf.ggtt_space
    tables = PageTables(rig, rig.pf, 40 * MIB)
    tables.map(0x80_0000, 0x30_0000)
    tables.map(0x80_1000, 0x50_0000)
    return tables.space()


def memory_of(rig: Rig) -> bytes:
    """What is behind the two pages of `space`."""
    view = rig.vram.memory.view
    return bytes(view[0x30_0000:0x30_1000]) + bytes(view[0x50_0000:0x50_1000])


@pytest.mark.parametrize("offset", [0, 8, 0x7F8, *range(0xFF1, 0x1008)])
def test_a_value_is_where_its_address_says_whatever_its_alignment(rig: Rig, space: AddressSpace, offset: int) -> None:
    expected = bytearray(0x2000)
    space.write32(0x80_0000 + offset, 0x1_8765_4321)
    expected[offset : offset + 4] = b"\x21\x43\x65\x87"
    assert memory_of(rig) == expected
    assert space.read32(0x80_0000 + offset) == 0x8765_4321
    space.write64(0x80_0000 + offset, 0x9_FEDC_BA98_7654_3210)
    expected[offset : offset + 8] = bytes.fromhex("1032547698badcfe")
    assert memory_of(rig) == expected
    assert space.read64(0x80_0000 + offset) == 0xFEDC_BA98_7654_3210
    assert space.read(0x80_0000 + offset, 8) == expected[offset : offset + 8]


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 0x1000), (1, 0xFFF), (0xFFF, 2), (1, 0x1FFF), (0, 0x2000)])
def test_bytes_are_where_their_address_says_whatever_their_length(
    rig: Rig, space: AddressSpace, offset: int, length: int
) -> None:
    data = bytes(n % 251 + 1 for n in range(length))
    space.write(0x80_0000 + offset, data)
    assert memory_of(rig) == bytes(offset) + data + bytes(0x2000 - offset - length)
    assert space.read(0x80_0000 + offset, length) == data


def test_aligned_values_are_not_put_together_from_bytes(space: AddressSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what engines access most."""
    for slow in ("read", "write"):
        monkeypatch.setattr(space, slow, create_autospec(getattr(space, slow), side_effect=AssertionError))
    for offset in (0, 4, 8, 12, 0xFFC):
        space.write32(0x80_0000 + offset, offset)
        assert space.read32(0x80_0000 + offset) == offset
    for offset in (0, 8, 16, 0xFF8):
        space.write64(0x80_0000 + offset, offset << 32 | 1)
        assert space.read64(0x80_0000 + offset) == offset << 32 | 1


def test_spans_are_kept_by_the_number_of_their_page(space: AddressSpace) -> None:
    """Engines look there before they ask for a span."""
    for address in (0x80_0000, 0x80_0FFC, 0x80_1000):
        assert space.span(address, True) is space.span(address & -0x1000, True)
        space.span(address, False)
    assert list(space.writable) == list(space.readable) == [0x800, 0x801]
    assert [span.base for span in space.writable.values()] == [0x80_0000, 0x80_1000]
    assert space.writable[0x800] is not space.readable[0x800]


def test_nothing_is_no_access(space: AddressSpace) -> None:
    assert space.extent(0x80_0000, 0, False).length == 0
    assert list(space.extents(0x80_2000, 0, False)) == []
    assert list(space.spans(0x80_2000, 0, False)) == []
    assert [extent.length for extent in space.extents(0x80_1000, 0x1000, False)] == [0x1000]
    assert [window.length for window in space.spans(0x80_1000, 0x1000, False)] == [0x1000]


@pytest.mark.parametrize("length", [1, 0xF00, 0xF01, 0x2F00, 0x2F01, 0x10_0000])
def test_an_extent_ends_with_the_contiguous_pages_or_with_what_was_asked_for(rig: Rig, length: int) -> None:
    rig.map_ggtt(0x80_0000, 0x30_0000, 0x3000)
    rig.map_ggtt(0x80_3000, 0x50_0000)
    extent = rig.pf.ggtt_space.extent(0x80_0100, length, False)
    assert (extent.address, extent.length) == (0x30_0100, min(length, 0x2F00))


@pytest.mark.parametrize("start", [0x1000, 0x100_0000])
def test_an_extent_ends_with_the_provisioned_range(rig: Rig, start: int) -> None:
    """Entries beyond it are in the window, but they are not the VF's."""
    vf = rig.vf(1, ggtt=(start, 0x4000))
    rig.map_ggtt(start, 0, 0x8000, function=vf, system=True)
    for offset in (0, 0x10, 0x2010, 0x3010):
        extent = vf.ggtt_space.extent(start + offset, 0x8000, False)
        assert (extent.address, extent.length) == (offset, 0x4000 - offset)


def test_a_large_piece_gets_a_window_as_large(rig: Rig) -> None:
    space = rig.pf.ggtt_space
    for size in (0x1000, MIB, MIB + 0x1000, 3 * MIB):
        window, offset = space.locate(Extent(Space.DEVICE, 0x1F_F000, size, "vram"), False)
        window.write(offset, b"here")
        assert bytes(rig.vram.memory.view[0x1F_F000:0x1F_F004]) == b"here"
        if size > MIB:
            assert window.length - offset >= size


def test_a_ggtt_entry_maps_its_page(rig: Rig) -> None:
    assert rig.pf.ggtt_space.leaf(0x80_0FFF, False) == (0x80_0000, 0x1000)
    assert rig.pf.ggtt_space.leaf(0x80_1000, True) == (0x80_1000, 0x1000)


def test_pieces_of_several_regions_keep_their_windows(rig: Rig) -> None:
    space = rig.pf.ggtt_space
    pieces = [Extent(Space.DEVICE, address, 0x1000, "vram") for address in (0x1000, 0x3000, 0x60_1000, 0x80_F000)]
    windows = [space.locate(piece, False) for piece in pieces]
    assert [offset for _, offset in windows] == [0x1000, 0x3000, 0x1000, 0xF000]
    assert windows[0][0] is windows[1][0]
    assert [space.locate(piece, False)[0] for piece in pieces] == [window for window, _ in windows]


def test_pages_of_a_chunk_share_its_window(rig: Rig) -> None:
    tables = PageTables(rig, rig.pf, 40 * MIB)
    tables.entry(0x4000_0000, 2, 0 | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    space = tables.space()
    spans = [space.span(0x4000_0000 + address, False) for address in (0, 0x5000, 0x1F_F000, 0x20_0000)]
    assert [(span.base, span.end) for span in spans if span is not None] == [
        (0x4000_0000, 0x4020_0000), (0x4000_0000, 0x4020_0000), (0x4000_0000, 0x4020_0000), (0x4020_0000, 0x4040_0000),
    ]  # fmt: skip
    assert spans[0] is spans[1] is spans[2]


def test_a_page_that_is_reached_by_messages_from_now_on_is_not_kept(rig: Rig) -> None:
    tables = PageTables(rig, rig.pf, 40 * MIB)
    tables.map(0x5000, 0x9000, system=True)
    space = tables.space()
    space.write32(0x5000, 1)
    assert list(space.writable) == [5]
    rig.ram.messages = True
    rig.fabric.revoke()
    space.write32(0x5000, 2)
    assert not space.writable
    assert rig.ram.of("pf")[0x9000] == 2
