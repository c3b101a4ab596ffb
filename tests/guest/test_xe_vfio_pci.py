"""xe-vfio-pci moves a VF from one card to another. Debian's kernels do not have it: see docs/sriov.md for one that does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest.lab import Lab, open_lab
from vfio_user_xe.emulator.guest.kernel import Kernel

KERNEL, MODULES = "VFIO_USER_XE_MIGRATION_KERNEL", "VFIO_USER_XE_MIGRATION_MODULES"

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        KERNEL not in os.environ or MODULES not in os.environ,
        reason=f"Debian's kernels have no xe-vfio-pci: name a bzImage with CONFIG_XE_VFIO_PCI in {KERNEL} and its"
        f" modules' folder in {MODULES} (docs/sriov.md)",
    ),
]

SOURCE = Path(__file__).parent / "programs" / "vfio_migrate.c"
PFS = ("0000:01:00.0", "0000:02:00.0")
VFS = ("0000:01:00.1", "0000:02:00.2")
QUOTA = 16 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two cards, xe on both PFs, xe-vfio-pci on their VFs, which have 16 MiB of VRAM each."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here: apt-get install gcc libc6-dev")
    program = tmp_path_factory.mktemp("programs") / "vfio_migrate"
    subprocess.run([compiler, "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True)
    with open_lab(
        # One server for both: behind a vIOMMU VF BARs are programmed by qtest, of which QEMU has one.
        ["--cards", "2", "--vfs", "2", "--set", "vram=4GiB"],
        modules=["xe", "xe-vfio-pci", "vfio-iommu-type1"],
        files={"/bin/vfio_migrate": program},
        memory=2048,
        iommu=True,
        kernel=Kernel(Path(os.environ[KERNEL]), Path(os.environ[MODULES])),
    ) as lab:
        lab.sh("modprobe xe; modprobe vfio-iommu-type1; modprobe xe-vfio-pci", timeout=180)
        for pf in PFS:
            device = f"/sys/bus/pci/devices/{pf}"
            lab.sh(
                f"echo {QUOTA} > {device}/sriov_admin/.bulk_profile/vram_quota;"
                f" echo 0 > {device}/sriov_drivers_autoprobe; echo 2 > {device}/sriov_numvfs;"
                f" for vf in {device}/virtfn*; do bdf=$(basename $(readlink $vf));"
                " echo xe-vfio-pci > $vf/driver_override; echo $bdf > /sys/bus/pci/drivers_probe; done",
                timeout=120,
            )
        yield lab


@pytest.mark.parametrize("way", [VFS, VFS[::-1]], ids=["there", "and-back"])
def test_a_vf_moves_to_another_card(lab: Lab, way: tuple[str, str]) -> None:
    done = lab.guest.run(f"vfio_migrate {' '.join(way)}", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr + lab.sh("dmesg | tail -30")
