"""The pool under a device that a guest drives."""

from __future__ import annotations

from pathlib import Path

import pytest

from vfio_user_xe.emulator.testing.lab import open_lab

pytestmark = pytest.mark.guest

POOL = 0xFE00_0000
DEVICE = "/sys/bus/pci/devices/0000:01:00.0"


def test_a_guest_s_device_copies_within_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "pool"
    file.write_bytes(b"from the host".ljust(1 << 20, b"\0"))
    pool = f"memory-pool:file={file},address={POOL:#x}"
    serve = ["--model", "edu", "--set", "dma_mask=0xffffffff", "--interconnect", pool, "--interconnect", "host_dma"]
    with open_lab(serve) as lab:
        lab.sh(f"echo 1 > {DEVICE}/enable; setpci -s 01:00.0 COMMAND=0006")
        bar0 = int(lab.sh(f"head -1 {DEVICE}/resource").split()[0], 16)
        for source, destination, command in ((POOL, 0x40000, 1), (0x40000, POOL + 0x8000, 3)):
            lab.sh(
                f"""
                busybox devmem {bar0 + 0x80:#x} 64 {source:#x}
                busybox devmem {bar0 + 0x88:#x} 64 {destination:#x}
                busybox devmem {bar0 + 0x90:#x} 64 13
                busybox devmem {bar0 + 0x98:#x} 32 {command}
                while [ $(( $(busybox devmem {bar0 + 0x98:#x}) & 1 )) = 1 ]; do :; done
                """
            )
        assert {row["interconnect"] for row in lab.card.call("ledger")} == {"memory-pool"}
    assert file.read_bytes()[0x8000:0x800D] == b"from the host"
