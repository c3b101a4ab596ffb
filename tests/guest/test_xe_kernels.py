"""Other kernels' stock xe on the card: every series that was fetched beside the newest."""

from __future__ import annotations

import pytest

from emulator.guest.packaged_kernels import cached_kernels, find_kernel
from tests.guest.lab import open_lab

PF = "/sys/bus/pci/devices/0000:01:00.0"
_NONE = "no other kernels are in the cache; have some with: vfio-user-xe guest fetch --kernel 7.2 --kernel 6.18"

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not cached_kernels(), reason=_NONE),
    pytest.mark.parametrize("release", cached_kernels()),
]


def test_xe_probes_the_pf_and_enables_and_probes_vfs(release: str) -> None:
    with open_lab(["--vfs", "2"], modules=["xe"], kernel=find_kernel(release.split("+", maxsplit=1)[0])) as lab:
        assert lab.sh("uname -r") == release
        lab.sh("modprobe xe", timeout=120)
        lab.sh(f"echo 2 > {PF}/sriov_numvfs", timeout=120)
        assert lab.sh("ls -d /dev/dri/renderD*").split() == [f"/dev/dri/renderD{n}" for n in (128, 129, 130)]
        log = lab.guest.dmesg()
        assert "Running in SR-IOV PF mode" in log
        assert log.count("Running in SR-IOV VF mode") == 2
        assert "*ERROR*" not in log
        assert "WARNING:" not in log
        lab.sh(f"echo 0 > {PF}/sriov_numvfs", timeout=120)
        assert "*ERROR*" not in lab.guest.dmesg()
