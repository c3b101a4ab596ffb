"""The packaged cards that are real ones."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.memory.memory_map import GIB
from vfio_user_xe.emulator.model.packaged_cards import load_card

MIB = 1 << 20
RESERVED = 512 * MIB
"""Of VRAM, at least: firmware's and the driver's (`xe_gt_sriov_pf_config_kunit.c`: vram_sizes)."""


@pytest.mark.parametrize("name", ["b50", "b580", "b60", "b65", "b70"])
def test_a_vfs_bar_shows_all_memory_that_the_driver_gives_it_by_itself(name: str) -> None:
    """A driver that wants all memory in the BAR (NEO) works on a VF, however many are enabled: the largest share is a lone VF's.

    It is a power of two of which as much is left to the PF (`xe_gt_sriov_pf_config_kunit.c`: fair_vram_1vf).
    """
    options = load_card(name).options
    half = (options["vram"] - RESERVED) // 2
    largest = 1 << (half.bit_length() - 1)
    assert options["vf_bar2"] == largest
    assert options["vfs"] * options["vf_bar2"] <= 128 * GIB
