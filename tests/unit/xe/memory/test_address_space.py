"""A function's GGTT as an address space."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.rig import Rig
from vfio_user_xe.device_models.xe.memory.address_space import TranslationFault
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE
from vfio_user_xe.emulator.fabric.interconnect import AccessFault
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
