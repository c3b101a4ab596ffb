"""Which defect a report of the kernel is: its cause decides, and not the words alone."""

from __future__ import annotations

import re

import pytest

from tests.support.xe.reports import STALE
from vfio_user_xe.device_models.xe.scenarios import defects


def named(text: str) -> bool:
    return re.search(defects.REPORTS[defects.STALE_FILE], text) is not None


def test_a_file_that_is_gone_is_the_known_defect_where_a_revocation_looks_at_it() -> None:
    assert named(STALE)
    assert named(STALE.replace("vfio_pci_dma_buf_move", "vfio_pci_dma_buf_cleanup"))


@pytest.mark.parametrize(
    ("was", "there"),
    [
        ("cache filp of size 344", "cache kmalloc-512 of size 512"),
        ("in __get_file_rcu+", "in vfio_pci_dma_buf_move+"),
        ("slab-use-after-free", "slab-out-of-bounds"),
        (" vfio_pci_dma_buf_move+", " made_up_fops+"),
    ],
)
def test_a_use_after_free_of_something_else_or_elsewhere_is_not(was: str, there: str) -> None:
    assert was in STALE
    assert not named(STALE.replace(was, there))


def test_a_revocation_that_has_freed_a_file_which_another_uses_is_not() -> None:
    used, _, freed = STALE.partition("Allocated by")
    frames = " get_file_active+0x7f/0x9a\n vfio_pci_dma_buf_move+0xef/0x3f0 [vfio_pci_core]\n"
    moved = used.replace(" get_file_active+0x7f/0x9a\n", "").replace(" vfio_pci_dma_buf_move+", " made_up+")
    assert not named(f"{moved}Allocated by{freed.replace(' fput_close_sync+0x127/0x141', frames)}")
