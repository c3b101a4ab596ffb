"""A guest with a root file system of its own: Mesa and NEO see the card."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import BlockingGuest, GuestError, GuestSpec
from vfio_user_xe.emulator.guest.userland import locate_userland
from vfio_user_xe.emulator.testing.lab import open_lab

pytestmark = pytest.mark.guest


def test_neo_and_rusticl_see_the_card_and_rusticl_its_vf_too() -> None:
    try:
        locate_userland("compute")
    except GuestError as error:
        pytest.skip(str(error))
    with open_lab(["--vfs", "1"], modules=["xe"], userland="compute", memory=2048) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=120)
        listed = lab.guest.run("RUSTICL_ENABLE=iris clinfo -l", check=True, timeout=120).stdout
        assert listed.count("Arc") == 2, listed
        lab.guest.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", check=True, timeout=120)
        both = lab.guest.run("RUSTICL_ENABLE=iris clinfo -l", check=True, timeout=120).stdout
        assert both.count("Mesa Intel(R) Arc") == 2, both


def test_a_folder_is_a_root_that_the_guest_does_not_change(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("of the root")
    spec = GuestSpec(root=root, files={"/etc/given": b"of the caller", "/etc/name2": b"x"})
    with BlockingGuest(spec) as guest:
        assert guest.run("cat /etc/name /etc/given", check=True).stdout == "of the rootof the caller"
        guest.script("echo changed >/etc/name; echo new >/etc/new")
        assert guest.run("cat /etc/name", check=True).stdout == "changed\n"
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["name"]
    assert (root / "etc/name").read_text() == "of the root"
