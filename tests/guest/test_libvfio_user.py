"""The stock xe driver on a card that libvfio-user serves, where there is the library.

All of the PF's tests over it: VFIO_USER_XE_TEST_BACKEND=libvfio-user, and `pytest -m guest tests/guest/test_xe_probe.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import libvfio_user
from tests.support.guest.lab import Lab, open_lab
from tests.support.guest.xe import DEVICE, check_card, complaints, load, unmodelled

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def pf() -> Iterator[Lab]:
    with open_lab(["--vfs", "2", *libvfio_user.arguments()], modules=["xe"]) as lab:
        yield lab


def test_pf_probe_is_clean(pf: Lab) -> None:
    assert "Running in SR-IOV PF mode" in load(pf)
    check_card(pf)
    assert unmodelled(pf) == []


def test_vfs_probe_in_vf_mode_and_go_away_cleanly(pf: Lab) -> None:
    pf.sh("dmesg -c > /dev/null")
    pf.sh(f"echo 2 > {DEVICE}/sriov_numvfs", timeout=60)
    assert pf.sh("dmesg").count("Running in SR-IOV VF mode") == 2
    pf.sh(f"echo 0 > {DEVICE}/sriov_numvfs", timeout=60)
    assert complaints(pf) == []
    check_card(pf)


def test_a_guest_that_starts_again_finds_the_card_as_new(pf: Lab) -> None:
    pf.guest.reboot()
    load(pf)
    check_card(pf)
