"""VRAM: ownership of blocks, and content that moves with it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from unittest.mock import NonCallableMock

import pytest

from tests.support.initiators import PF, VF1, VF2
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram, _runs
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Fabric, Initiator, Space
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.plugins.iov import Iov

SIZE = 16 * BLOCK_SIZE


@pytest.fixture
def vram() -> Iterator[Vram]:
    fabric = Fabric()
    vram = Vram(SIZE, fabric=fabric)
    fabric.interconnects = [Iov(NonCallableMock(spec=Card, device_memory=vram, fabric=fabric), {})]
    yield vram
    vram.close()


def put(vram: Vram, who: Initiator, address: int, data: bytes) -> None:
    found = vram.resolve(who, address, len(data), True)
    assert found is not None
    found[1][:] = data


def get(vram: Vram, who: Initiator, address: int, length: int) -> bytes:
    found = vram.resolve(who, address, length, False)
    assert found is not None
    return bytes(found[1])


def test_a_size_that_is_no_multiple_of_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="2 MiB"):
        Vram(BLOCK_SIZE + 4096)


def test_the_pf_reaches_all_of_it_and_nothing_beyond(vram: Vram) -> None:
    owner, view = vram.resolve(PF, 0, SIZE, True) or ("", memoryview(b""))
    assert (owner, len(view)) == ("pf", SIZE)
    for address in (SIZE, SIZE + 1, SIZE + BLOCK_SIZE, 1 << 60, -1, -BLOCK_SIZE):
        assert vram.resolve(PF, address, 4, False) is None
        assert vram.to_dpa(PF, address) is None
        with pytest.raises(ValueError, match="outside of VRAM"):
            vram.owner(address)
    assert (vram.to_dpa(PF, 0), vram.to_dpa(PF, SIZE - 1)) == (0, SIZE - 1)
    assert (vram.owner(0), vram.owner(SIZE - 1)) == (0, 0)
    owner, view = vram.resolve(PF, SIZE - 8, 64, False) or ("", memoryview(b""))
    assert len(view) == 8


def test_a_vf_without_lmtt_entries_reaches_nothing(vram: Vram) -> None:
    with pytest.raises(AccessFault, match="vf1: device address 0x0: LMTT gives vf1 nothing"):
        vram.resolve(VF1, 0, 4, False)


def test_content_moves_to_a_vf_and_back(vram: Vram) -> None:
    put(vram, PF, 5 * BLOCK_SIZE + 100, b"mine")
    assert vram.assign(1, {0: 5, 1: 9}) == 2
    assert get(vram, VF1, 100, 4) == b"mine"
    assert bytes(vram.vf_memory(1).view[100:104]) == b"mine"
    assert bytes(vram.memory.view[5 * BLOCK_SIZE + 100 :][:4]) == b"\0" * 4, "the PF's own copy is a hole"
    put(vram, VF1, BLOCK_SIZE, b"theirs")
    assert vram.assign(1, {}) == 2
    assert get(vram, PF, 9 * BLOCK_SIZE, 6) == b"theirs"
    assert bytes(vram.vf_memory(1).view[BLOCK_SIZE:][:6]) == b"\0" * 6


def test_the_pf_reaches_a_vfs_block_by_dpa_and_the_owner_is_named(vram: Vram) -> None:
    vram.assign(2, {3: 7})
    put(vram, VF2, 3 * BLOCK_SIZE + 8, b"vf data")
    assert vram.resolve(PF, 7 * BLOCK_SIZE + 8, 7, False) == ("vf2", memoryview(b"vf data"))
    assert vram.owner(7 * BLOCK_SIZE) == 2
    assert vram.owner(6 * BLOCK_SIZE) == 0


def test_resolve_ends_where_blocks_stop_being_contiguous(vram: Vram) -> None:
    vram.assign(1, {0: 4, 1: 12, 2: 13})
    found = vram.resolve(VF1, 0, SIZE, False)
    assert found is not None
    assert len(found[1]) == 3 * BLOCK_SIZE, "GDPA is contiguous in the VF's own memory, wherever DPA is"
    found = vram.resolve(PF, 3 * BLOCK_SIZE, SIZE, False)
    assert found is not None
    assert (found[0], len(found[1])) == ("pf", BLOCK_SIZE)
    found = vram.resolve(PF, 12 * BLOCK_SIZE, SIZE, False)
    assert found is not None
    assert (found[0], len(found[1])) == ("vf1", 2 * BLOCK_SIZE)


def test_blocks_swap_places_without_loss(vram: Vram) -> None:
    put(vram, PF, 4 * BLOCK_SIZE, b"four")
    put(vram, PF, 5 * BLOCK_SIZE, b"five")
    vram.assign(1, {0: 4, 1: 5})
    vram.assign(1, {0: 5, 1: 4})
    assert get(vram, VF1, 0, 4) == b"five"
    assert get(vram, VF1, BLOCK_SIZE, 4) == b"four"


def test_a_block_moves_from_one_vf_to_another(vram: Vram) -> None:
    vram.assign(1, {0: 6})
    put(vram, VF1, 12, b"secret")
    vram.assign(1, {})
    vram.assign(2, {1: 6})
    assert get(vram, VF2, BLOCK_SIZE + 12, 6) == b"secret", "the PF clears, not the hardware"
    with pytest.raises(AccessFault):
        vram.resolve(VF1, 12, 6, False)


def test_what_a_vf_wrote_beyond_its_quota_is_gone_when_the_block_comes(vram: Vram) -> None:
    vram.vf_memory(1).view[BLOCK_SIZE : BLOCK_SIZE + 4] = b"junk"
    vram.assign(1, {0: 2, 1: 3})
    assert get(vram, VF1, BLOCK_SIZE, 4) == b"\0" * 4


def test_assigning_the_same_again_changes_and_revokes_nothing(vram: Vram) -> None:
    vram.assign(1, {0: 2})
    assert vram.fabric is not None
    window = vram.fabric.window(VF1, Space.DEVICE, 0, 4096, write=True)
    assert vram.assign(1, {0: 2}) == 0
    assert window.valid


def test_windows_on_blocks_that_change_owner_are_revoked(vram: Vram) -> None:
    vram.assign(1, {0: 2})
    vram.assign(2, {0: 8})
    assert vram.fabric is not None
    of_vf1 = vram.fabric.window(VF1, Space.DEVICE, 0, 4096, write=True)
    pf_on_vf1 = vram.fabric.window(PF, Space.DEVICE, 2 * BLOCK_SIZE, 4096, write=False)
    of_vf2 = vram.fabric.window(VF2, Space.DEVICE, 0, 4096, write=True)
    vram.assign(1, {})
    assert (of_vf1.valid, pf_on_vf1.valid, of_vf2.valid) == (False, False, True)


def test_the_pf_reads_scattered_blocks_of_a_vf_in_the_order_of_dpa(vram: Vram) -> None:
    """The two are neighbours by DPA and both in VF 1's memory, but there the second lies in front of the first."""
    put(vram, PF, 4 * BLOCK_SIZE, b"four" * (BLOCK_SIZE // 4))
    put(vram, PF, 5 * BLOCK_SIZE, b"five" * (BLOCK_SIZE // 4))
    vram.assign(1, {1: 4, 0: 5})
    assert vram.fabric is not None
    read = vram.fabric.read(PF, Space.DEVICE, 4 * BLOCK_SIZE, 2 * BLOCK_SIZE)
    assert read[:BLOCK_SIZE] == b"four" * (BLOCK_SIZE // 4)
    assert read[BLOCK_SIZE:] == b"five" * (BLOCK_SIZE // 4)


def test_the_pf_writes_scattered_blocks_of_a_vf_in_the_order_of_dpa(vram: Vram) -> None:
    vram.assign(1, {7: 4, 2: 5, 3: 6})
    assert vram.fabric is not None
    vram.fabric.write(PF, Space.DEVICE, 5 * BLOCK_SIZE - 4, b"endsgoes")
    assert bytes(vram.vf_memory(1).view[8 * BLOCK_SIZE - 4 : 8 * BLOCK_SIZE + 4]) == b"ends" + bytes(4)
    assert bytes(vram.vf_memory(1).view[2 * BLOCK_SIZE : 2 * BLOCK_SIZE + 4]) == b"goes"


def test_the_pf_s_own_windows_on_a_block_are_revoked_when_a_vf_gets_it(vram: Vram) -> None:
    put(vram, PF, 2 * BLOCK_SIZE, b"kept")
    assert vram.fabric is not None
    window = vram.fabric.window(PF, Space.DEVICE, 2 * BLOCK_SIZE, 4096, write=True)
    old = window.view
    assert old is not None
    vram.assign(1, {0: 2})
    assert not window.valid
    with pytest.raises(AccessFault, match="path to pf was revoked"):
        window.write(0, b"late")
    old[:4] = b"late"
    assert get(vram, VF1, 0, 4) == b"kept"
    assert get(vram, PF, 2 * BLOCK_SIZE, 4) == b"kept", "it reaches the block where it is now"
    vram.assign(1, {})
    assert get(vram, PF, 2 * BLOCK_SIZE, 4) == b"kept", "and what was written too late is gone"


def test_blocks_that_are_neighbours_on_both_sides_move_in_one_piece() -> None:
    blocks = [(3, (1, 0)), (4, (1, 1)), (5, (1, 2)), (6, (1, 4)), (8, (1, 5)), (9, (2, 6)), (10, (2, 7)), (11, (2, 7))]
    runs = [(3, 3, (1, 0)), (6, 1, (1, 4)), (8, 1, (1, 5)), (9, 2, (2, 6)), (11, 1, (2, 7))]
    assert _runs(blocks) == _runs(blocks[::-1]) == runs
    assert _runs([]) == []


def test_a_block_mapped_by_two_vfs_has_one_content(vram: Vram) -> None:
    vram.assign(1, {0: 2})
    vram.assign(2, {5: 2})
    put(vram, VF2, 5 * BLOCK_SIZE, b"shared")
    assert get(vram, VF1, 0, 6) == b"shared"
    vram.assign(1, {})
    assert get(vram, VF2, 5 * BLOCK_SIZE, 6) == b"shared"


@pytest.mark.parametrize(("first", "second"), [(VF1, VF2), (VF2, VF1)])
def test_a_block_that_a_second_vf_maps_stays_where_it_is(vram: Vram, first: Initiator, second: Initiator) -> None:
    """Whichever has the lower VFID: the first VF's client has the block's bytes mapped."""
    vram.assign(first.index, {5: 2})
    put(vram, first, 5 * BLOCK_SIZE, b"shared")
    assert vram.fabric is not None
    window = vram.fabric.window(first, Space.DEVICE, 5 * BLOCK_SIZE, 4096, write=True)
    assert vram.assign(second.index, {0: 2}) == 0
    assert window.valid
    assert (vram.owner(2 * BLOCK_SIZE), vram.changes_of(2)) == (first.index, 1)
    assert bytes(vram.vf_memory(first.index).view[5 * BLOCK_SIZE :][:6]) == b"shared"
    assert get(vram, second, 0, 6) == b"shared"


def test_blocks_outside_of_vram_are_refused(vram: Vram) -> None:
    with pytest.raises(ValueError, match="outside of VRAM"):
        vram.assign(1, {0: 16})
    assert vram.blocks(1) == {}


def test_provision_takes_free_blocks_from_the_top(vram: Vram) -> None:
    vram.provision(1, 2 * BLOCK_SIZE)
    vram.provision(2, BLOCK_SIZE)
    assert vram.blocks(1) == {0: 14, 1: 15}
    assert vram.blocks(2) == {0: 13}
    put(vram, VF1, 0, b"kept")
    vram.provision(1, 3 * BLOCK_SIZE)
    assert len(vram.blocks(1)) == 3
    assert get(vram, VF1, 0, 4) == b"kept"
    vram.provision(1, 0)
    assert vram.blocks(1) == {}


def test_provisioned_blocks_come_zeroed_and_leave_the_pfs_memory_alone(vram: Vram) -> None:
    at = 15 * BLOCK_SIZE
    vram.memory.view[at : at + 6] = b"before"
    vram.provision(1, BLOCK_SIZE)
    assert get(vram, VF1, 0, 6) == bytes(6)
    put(vram, VF1, 0, b"of VF1")
    vram.memory.view[at : at + 6] = b"during"
    assert get(vram, PF, at, 6) == b"of VF1"
    vram.provision(1, 0)
    assert get(vram, PF, at, 6) == b"during"
    vram.provision(1, BLOCK_SIZE)
    assert get(vram, VF1, 0, 6) == bytes(6)


def test_provision_says_what_is_free(vram: Vram) -> None:
    vram.provision(1, 14 * BLOCK_SIZE)
    with pytest.raises(ValueError, match="0x600000 bytes of VRAM do not fit, 0x400000 are free"):
        vram.provision(2, 3 * BLOCK_SIZE)
    for size in (5, BLOCK_SIZE + 4096, -1, -BLOCK_SIZE):
        with pytest.raises(ValueError, match="multiple"):
            vram.provision(2, size)


def test_clear_zeroes_what_a_vf_has(vram: Vram) -> None:
    vram.assign(1, {0: 2})
    put(vram, VF1, 8, b"x")
    vram.clear(1)
    assert get(vram, VF1, 8, 1) == b"\0"


def test_zero_takes_whole_pages_of_vram_only(vram: Vram) -> None:
    vram.memory.view[0:8192] = b"a" * 8192
    assert vram.zero(vram.memory.view[4096:8192])
    assert bytes(vram.memory.view[4095:4097]) == b"a\0"
    assert not vram.zero(vram.memory.view[0:100])
    with mmap.mmap(-1, 8192) as elsewhere, memoryview(elsewhere) as view:
        view[:] = b"c" * 8192
        assert not vram.zero(view)
        assert bytes(view) == b"c" * 8192
    assert not vram.zero(vram.memory.view[4096:8192].toreadonly())
    assert not vram.zero(vram.memory.view[4096:4096])
    vram.assign(1, {0: 2})
    vram.vf_memory(1).view[0:4096] = b"b" * 4096
    assert vram.zero(vram.vf_memory(1).view[0:4096])
    assert vram.vf_memory(1).view[0] == 0


def test_untouched_memory_costs_nothing(vram: Vram) -> None:
    vram.assign(1, {n: n for n in range(8)})
    vram.assign(1, {})
    assert vram.memory.resident() + vram.vf_memory(1).resident() == 0


@pytest.mark.parametrize("size", [BLOCK_SIZE, 64 << 20])
def test_zero_leaves_untouched_pages_untouched_and_clears_the_others(size: int) -> None:
    vram = Vram(128 << 20)
    vram.memory.view[0x5000:0x5004] = b"data"
    vram.memory.view[size : size + 4] = b"more"
    assert vram.zero(vram.memory.view[:size])
    assert bytes(vram.memory.view[0x5000:0x5004]) == bytes(4)
    assert bytes(vram.memory.view[size : size + 4]) == b"more"
    assert vram.memory.resident() <= 0x10_0000
    vram.close()


def test_blocks_that_were_cleared_cost_nothing_when_they_move(vram: Vram) -> None:
    vram.memory.view[: 4 * BLOCK_SIZE] = b"x" * (4 * BLOCK_SIZE)
    vram.zero(vram.memory.view[: 4 * BLOCK_SIZE])
    vram.assign(1, {n: n for n in range(4)})
    assert vram.vf_memory(1).resident() == vram.memory.resident() == 0
