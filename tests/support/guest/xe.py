"""The stock xe driver on the PF of a guest: loading it, and what it must not complain of."""

from __future__ import annotations

import re

from tests.support.guest.lab import Lab
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient

PF = "0000:01:00.0"
DEVICE = f"/sys/bus/pci/devices/{PF}"
DEBUGFS = f"/sys/kernel/debug/dri/{PF}"
ALLOWED = (
    # A card that takes class 0x030000 is a VGA device; the kernel says that its text console moves off it.
    r"vgaarb: deactivate vga console",
    r"vgaarb: (no bridge control possible|VGA device added: .*)",
    # The PCI core announces a reset through sysfs; the kernel announces that it only pretends to sleep.
    r": (resetting|reset done)$",
    r"PM: suspend debug: Waiting for \d+ second",
)
"""Lines of level "warning" or worse that a correct probe may log: none of them is the driver's."""


def complaints(lab: Lab) -> list[str]:
    """Lines at level warning or worse, and splats, that mention the driver or the device; the log is read off."""
    lines = lab.sh("dmesg -r -c || true").splitlines()
    found = []
    for line in lines:
        matched = re.match(r"<(\d+)>(?:\[ *[\d.]+\] )?(.*)", line)
        level, text = (int(matched[1]) & 7, matched[2]) if matched else (6, line)
        serious = level <= 4 and re.search(rf"\bxe\b|\[drm\]|{re.escape(PF[:-1])}", text)
        splat = re.search(r"WARNING:|BUG:|Oops|Call Trace|cut here|\*ERROR\*|-ETIME|timed out", text, re.IGNORECASE)
        if (serious or splat) and not any(re.search(allowed, text) for allowed in ALLOWED):
            found.append(text)
    return found


def load(lab: Lab) -> str:
    """modprobe xe; what it logged."""
    lab.sh("dmesg -c > /dev/null; dmesg -n 1; modprobe xe", timeout=120)
    return lab.sh("dmesg")


def check_card(lab: Lab) -> None:
    """Card and render node are there, the GuC runs, nobody complained, nothing unknown was touched."""
    assert lab.sh("ls /dev/dri").split() == ["card0", "renderD128"]
    assert "status: RUNNING" in lab.sh(f"cat {DEBUGFS}/gt0/uc/guc_info")
    assert complaints(lab) == []


def unmodelled(lab: Lab) -> list[str]:
    """Registers that nobody declared and the driver used all the same."""
    with ControlClient(lab.card.control) as control:
        return [f"{row['function']} {row['offset']:#x}" for row in control.call("unmodelled")]
