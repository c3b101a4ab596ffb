"""The card's PF and VFs as an unmodified kernel sees them, with its stub driver on the PF."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.support.guest.lab import Lab, open_lab
from tests.support.guest.stub import STUB
from tests.support.guest.xe import PF

pytestmark = pytest.mark.guest

# Functions for scripts in the guest. VF BARs are found as the kernel lists them; devmem goes to them by address.
_SHELL = f"""
pf=/sys/bus/pci/devices/{PF}
bar() {{ sed -n "$(($2 + 1))p" $1/resource | cut -d' ' -f1; }}
put() {{ busybox devmem $(($1)) 32 $2; }}
get() {{ busybox devmem $(($1)) 32; }}
vfs() {{ ls -d $pf/virtfn* 2>/dev/null | sed 's/.*virtfn//' | sort -n; }}
"""
# In the VFs' BAR0: the second dword of the mailbox, plain storage that the PF sees at 0x400 times VFID
# (xe_mmio.c:xe_mmio_init_vf_view).
_SCRATCH = 0x190244


def enable(lab: Lab, count: int) -> float:
    """Enable VFs; how many seconds the guest took."""
    started = time.monotonic()
    lab.sh(f"echo {count} > /sys/bus/pci/devices/{PF}/sriov_numvfs")
    return time.monotonic() - started


def disable(lab: Lab) -> None:
    """Disable all VFs."""
    lab.sh(f"echo 0 > /sys/bus/pci/devices/{PF}/sriov_numvfs")


def mark_and_check(lab: Lab, count: int, salt: int) -> None:
    """Write a value of its own into each VF's BAR0 and BAR2, then read all of them, from the PF's side too."""
    script = f"""{_SHELL}
    set -e
    pf0=$(bar $pf 0)
    for i in $(vfs); do
        vf=$pf/virtfn$i
        b0=$(bar $vf 0); b2=$(bar $vf 2)
        put $b0+{_SCRATCH:#x} $(({salt} + i))
        put $b2 $(({salt} + 0x1000 + i))
        put $b2+0x3ffffc $(({salt} + 0x2000 + i))
    done
    for i in $(vfs); do
        vf=$pf/virtfn$i
        b0=$(bar $vf 0); b2=$(bar $vf 2)
        echo $i $(get $b0+{_SCRATCH:#x}) $(get $pf0+{_SCRATCH:#x}+0x400*$((i + 1))) $(get $b2) $(get $b2+0x3ffffc)
    done
    """
    lines = lab.sh(script, timeout=120).splitlines()
    assert len(lines) == count
    for line in lines:
        index, *values = (int(word, 0) for word in line.split())
        assert values == [salt + index, salt + index, salt + 0x1000 + index, salt + 0x2000 + index], line


@pytest.fixture(scope="module", params=[7], ids=["7 VFs"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with open_lab(["--vfs", str(request.param)], modules=["pci-pf-stub"]) as lab:
        lab.sh(STUB)
        yield lab


@pytest.fixture
def no_vfs(lab: Lab) -> Iterator[None]:
    yield
    disable(lab)


@pytest.mark.usefixtures("no_vfs")
class TestSevenVfs:
    def test_lspci_shows_the_capability(self, lab: Lab) -> None:
        text = lab.sh(f"lspci -vvv -s {PF}")
        assert "Single Root I/O Virtualization (SR-IOV)" in text
        assert re.search(r"Initial VFs: 7, Total VFs: 7", text)
        assert "Alternative Routing-ID Interpretation (ARI)" in text
        assert "MSI: Enable" in text
        assert "MSI-X" not in text
        assert lab.sh(f"cat /sys/bus/pci/devices/{PF}/sriov_totalvfs") == "7"

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_each_vf_s_bars_reach_that_vf(self, lab: Lab, count: int) -> None:
        enable(lab, count)
        assert lab.sh(f"ls -d /sys/bus/pci/devices/{PF}/virtfn* | wc -l") == str(count)
        mark_and_check(lab, count, salt=0x100 * count)

    def test_off_and_on_again_ten_times(self, lab: Lab) -> None:
        for round_ in range(10):
            enable(lab, 7)
            if round_ in (0, 9):
                mark_and_check(lab, 7, salt=0x10000 * (round_ + 1))
            disable(lab)

    def test_vf_flr_resets_that_vf_only(self, lab: Lab) -> None:
        enable(lab, 2)
        mark_and_check(lab, 2, salt=0x500)
        script = f"""{_SHELL}
        set -e
        echo 1 > $pf/virtfn0/reset
        for i in 0 1; do b0=$(bar $pf/virtfn$i 0); get $b0+{_SCRATCH:#x}; done
        """
        first, second = (int(word, 0) for word in lab.sh(script).split())
        assert (first, second) == (0, 0x501)
        assert "timed out" not in lab.guest.dmesg()

    def test_pf_flr_takes_the_vfs_along(self, lab: Lab) -> None:
        enable(lab, 2)
        lab.sh(f"echo 1 > /sys/bus/pci/devices/{PF}/reset")
        # The kernel restores VF Enable and NumVFs after the reset (iov.c:sriov_restore_state).
        mark_and_check(lab, 2, salt=0x600)

    def test_the_pf_is_removed_and_found_again(self, lab: Lab) -> None:
        enable(lab, 2)
        disable(lab)
        lab.sh(f"echo 1 > /sys/bus/pci/devices/{PF}/remove; echo 1 > /sys/bus/pci/rescan")
        lab.sh(STUB)
        enable(lab, 2)
        mark_and_check(lab, 2, salt=0x700)

    def test_vfs_work_after_a_reboot(self, lab: Lab) -> None:
        enable(lab, 7)
        lab.guest.reboot()
        lab.sh(STUB)
        assert lab.sh(f"cat /sys/bus/pci/devices/{PF}/sriov_numvfs") == "0"
        enable(lab, 7)
        mark_and_check(lab, 7, salt=0x800)


def test_24_vfs_on_one_card() -> None:
    with open_lab(["--vfs", "24"], modules=["pci-pf-stub"]) as lab:
        lab.sh(STUB)
        enable(lab, 24)
        mark_and_check(lab, 24, salt=0x9000)
        disable(lab)
        enable(lab, 24)
        mark_and_check(lab, 24, salt=0xA000)


def test_vfs_work_with_ovmf() -> None:
    with open_lab(["--vfs", "2"], modules=["pci-pf-stub"], ovmf=True) as lab:
        assert lab.sh("test -d /sys/firmware/efi && echo efi") == "efi"
        lab.sh(STUB)
        enable(lab, 2)
        mark_and_check(lab, 2, salt=0xB000)


def test_without_qtest_the_pf_s_own_dma_programs_the_vf_bars() -> None:
    with open_lab(["--vfs", "2"], modules=["pci-pf-stub"], qtest=False) as lab:
        lab.sh(STUB)
        enable(lab, 2)
        mark_and_check(lab, 2, salt=0xC000)
