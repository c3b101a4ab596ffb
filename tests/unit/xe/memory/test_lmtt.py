"""LMTT: three levels, walked from VRAM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import logs
from vfio_user_xe.device_models.xe.memory import vram as vram_module
from vfio_user_xe.device_models.xe.memory.formats.lmtt import LmttFault
from vfio_user_xe.device_models.xe.memory.lmtt import Lmtt
from vfio_user_xe.device_models.xe.memory.vram import BLOCK_SIZE, Vram

DIRECTORY = 0x10000
TABLE = 0x20000
LEAF = 0x40000
SIZE = 64 * BLOCK_SIZE


@pytest.fixture
def vram() -> Iterator[Vram]:
    vram = Vram(SIZE)
    yield vram
    vram.close()


def pde(vram: Vram, table: int, index: int, address: int) -> None:
    # xe_lmtt_ml.c:lmtt_ml_encode_pde: address in units of 64 KiB from bit 4 on.
    vram.memory.view[table + index * 8 : table + index * 8 + 8] = (address >> 16 << 4 | 1).to_bytes(8, "little")


def pte(vram: Vram, leaf: int, index: int, dpa: int) -> None:
    # lmtt_ml_encode_pde of level 0: address in units of 2 MiB from bit 5 on.
    vram.memory.view[leaf + index * 4 : leaf + index * 4 + 4] = (dpa >> 21 << 5 | 1).to_bytes(4, "little")


def build(vram: Vram, vfid: int = 1, dpas: dict[int, int] | None = None) -> None:
    pde(vram, DIRECTORY, vfid, TABLE)
    pde(vram, TABLE, 0, LEAF)
    for block, dpa in (dpas or {0: 0x80_0000, 1: 0xA0_0000, 2: 0x40_0000}).items():
        pte(vram, LEAF, block, dpa)


def test_blocks_are_what_the_leaf_says(vram: Vram) -> None:
    build(vram)
    assert vram.update(DIRECTORY, range(1, 3)) == 3
    assert vram.blocks(1) == {0: 4, 1: 5, 2: 2}
    assert vram.blocks(2) == {}


def test_the_encoding_is_the_drivers(vram: Vram) -> None:
    # A leaf entry for DPA 0x80000000 as read from a driver's table is dpa >> 16 | 1.
    read = {DIRECTORY + 8: (TABLE >> 12 | 1).to_bytes(8, "little"), TABLE: b"", LEAF: b""}
    read[TABLE] = (LEAF >> 12 | 1).to_bytes(8, "little").ljust(65536, b"\0")
    read[LEAF] = (0x8000_0000 >> 16 | 1).to_bytes(4, "little").ljust(65536, b"\0")
    assert Lmtt(lambda address, length: read[address]).blocks(DIRECTORY, 1) == {0: 0x400}


def test_the_second_entry_of_the_table_maps_from_32_gib_on() -> None:
    read = {DIRECTORY + 8: (TABLE >> 12 | 1).to_bytes(8, "little")}
    read[TABLE] = (b"\0" * 8 + (LEAF >> 12 | 1).to_bytes(8, "little")).ljust(65536, b"\0")
    read[LEAF] = (1 << 5 | 1).to_bytes(4, "little").ljust(65536, b"\0")
    assert Lmtt(lambda address, length: read[address]).blocks(DIRECTORY, 1) == {(32 << 30) >> 21: 1}


def test_an_unchanged_table_is_not_walked_again(vram: Vram) -> None:
    build(vram)
    lmtt = Lmtt(lambda dpa, length: bytes(vram.memory.view[dpa : dpa + length]))
    first = lmtt.blocks(DIRECTORY, 1)
    assert lmtt.blocks(DIRECTORY, 1) is first
    pte(vram, LEAF, 3, 0x60_0000)
    assert lmtt.blocks(DIRECTORY, 1) == first | {3: 3}


def test_update_follows_changes_and_is_idempotent(vram: Vram) -> None:
    build(vram)
    vram.update(DIRECTORY, range(1, 2))
    assert vram.update(DIRECTORY, range(1, 2)) == 0
    vram.vf_memory(1).view[0:4] = b"data"
    pde(vram, DIRECTORY, 1, 0)
    vram.memory.view[DIRECTORY + 8 : DIRECTORY + 16] = bytes(8)
    assert vram.update(DIRECTORY, range(1, 2)) == 3
    assert bytes(vram.memory.view[0x80_0000:0x80_0004]) == b"data"


def test_lmtt_switched_off_gives_nothing(vram: Vram) -> None:
    build(vram)
    vram.update(DIRECTORY, range(1, 2))
    assert vram.update(None, range(1, 2)) == 3
    assert vram.blocks(1) == {}


@pytest.mark.parametrize(("table", "index", "address"), [(DIRECTORY, 1, SIZE), (TABLE, 0, SIZE)])
def test_tables_outside_of_vram_give_nothing_and_are_named(
    vram: Vram, caplog: pytest.LogCaptureFixture, table: int, index: int, address: int
) -> None:
    build(vram)
    pde(vram, table, index, address)
    vram.update(DIRECTORY, range(1, 2))
    assert vram.blocks(1) == {}
    assert f"DPA {SIZE:#x} is outside of VRAM" in logs.text(caplog, vram_module.log)


def test_a_leaf_entry_outside_of_vram_gives_the_vf_nothing(vram: Vram, caplog: pytest.LogCaptureFixture) -> None:
    build(vram, dpas={0: 0x80_0000, 1: SIZE})
    vram.update(DIRECTORY, range(1, 2))
    assert vram.blocks(1) == {}
    assert "GDPA 0x200000 -> DPA 0x8000000 is outside of VRAM" in logs.text(caplog, vram_module.log)


def test_only_vfs_have_directory_entries() -> None:
    for vfid in (-1, 0, 64):
        with pytest.raises(LmttFault, match=rf"VFID {vfid} has no entry in the LMTT directory \(1..63 have\)"):
            Lmtt(lambda address, length: b"").blocks(0, vfid)


@pytest.mark.parametrize("vfid", [1, 2, 5, 63])
def test_a_vf_s_entry_of_the_directory_is_at_its_vfid(vfid: int) -> None:
    asked: list[tuple[int, int]] = []

    def read(address: int, length: int) -> bytes:
        asked.append((address, length))
        return bytes(length)

    assert Lmtt(read).blocks(DIRECTORY, vfid) == {}
    assert asked == [(DIRECTORY + 8 * vfid, 8)]
