"""A VF's GGTT window that is trapped: what is not the VF's is not there, over the socket as on hardware."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.xe.served_rig import BLOCK, RANGE, STARTS, Rig, open_rig, store

START, VICTIM = STARTS[1], STARTS[2]
SPARE = START + (32 << 20)
VFID_MASK = 0x3FF << 2


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with open_rig("--set", "vf_ggtt=trapped") as rig:
        yield rig


@pytest.mark.parametrize("page", [START - 0x1000, START + RANGE, VICTIM + 0x1000, 0x1000000, 0xFFFFF000])
def test_entries_of_others_read_zero_and_cannot_be_written(rig: Rig, page: int) -> None:
    before = rig.victim.entries[page >> 12], int(rig.pf_side.entries[page >> 12])
    rig.attacker.entries[page >> 12] = 0x700000 | 3
    assert rig.attacker.entries[page >> 12] == 0
    assert (rig.victim.entries[page >> 12], int(rig.pf_side.entries[page >> 12])) == before


def test_the_vfid_of_an_entry_cannot_be_changed(rig: Rig) -> None:
    rig.attacker.entries[SPARE >> 12] = 0x700000 | 2 << 2 | 3
    assert rig.attacker.entries[SPARE >> 12] == 0x700000 | 3
    assert rig.pf.request(0x5506, 1, 1)[0] == (0xF0000000,)
    assert rig.pf_side.entries[SPARE >> 12] == 0x700000 | 1 << 2 | 3
    rig.attacker.entries[SPARE >> 12] = 0x800000 | 2 << 2 | 3
    assert rig.pf_side.entries[SPARE >> 12] == 0x800000 | 1 << 2 | 3, "also while the PF may look at it"
    assert rig.pf.request(0x5506, 1, 2)[0] == (0xF0000000,)
    assert rig.attacker.entries[SPARE >> 12] == 0x800000 | 3


def test_halves_of_an_entry_are_written_on_their_own(rig: Rig) -> None:
    at = (8 << 20) + (SPARE >> 12) * 8
    rig.attacker.client.write(0, at, 4, 0x700003)
    rig.attacker.client.write(0, at + 4, 4, 0x30)
    assert rig.attacker.entries[SPARE >> 12] == 0x30_0070_0003
    assert rig.attacker.client.read(0, at + 4, 4) == 0x30


def test_jobs_run_and_accesses_elsewhere_are_cat_errors(rig: Rig) -> None:
    rig.works(1)
    rig.attacker.entries[SPARE >> 12] = 300 * BLOCK | 3
    rig.submit(1, 1, rig.context(1, 1, store(SPARE, 0xBAD)))
    rig.expect_cat_error(1, 1)
    rig.others_are_fine()
    assert struct.pack("<I", 0xBAD) not in bytes(rig.victim.vram(0, 0x1000))
