"""SR-IOV with the stock xe driver: VFs with xe on them, jobs on any of them, and what the PF's driver has given away."""

from __future__ import annotations

import re
from typing import Any

from tests.support.guest.lab import Lab, open_lab, program
from tests.support.guest.xe import DEBUGFS, DEVICE
from vfio_user_xe.emulator.vfio_user.control_client import ControlClient


def bdf(vfid: int) -> str:
    """PCI address of VF `vfid`, the PF's for 0: offset and stride are 1."""
    return f"0000:01:{vfid >> 3:02x}.{vfid & 7}"


def start_lab(serve: list[str]) -> Any:
    """A guest with the driver's modules and the program that works on several functions."""
    return open_lab(serve, modules=["xe"], files=program("xe_functions"), memory=2048)


def enable(lab: Lab, count: int) -> None:
    """Enable VFs; xe probes them before the write returns."""
    lab.sh(f"echo {count} > {DEVICE}/sriov_numvfs", timeout=120)


def jobs(lab: Lab, *vfids: int) -> None:
    """Jobs on every engine of these functions at once; each verifies its results."""
    done = lab.guest.run(f"xe-functions jobs {' '.join(map(bdf, vfids))}", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok: ") == len(vfids), done.stdout


def accounting(lab: Lab) -> str:
    """What the PF's driver has given away of VRAM and GGTT, without what tells nothing: addresses of what is free."""
    return lab.sh(
        f"grep -E 'usage:|free:' {DEBUGFS}/tile0/vram_mm; grep total {DEBUGFS}/tile0/ggtt;"
        f" cd {DEBUGFS}/sriov/pf/tile0; grep -E 'total|avail' ggtt_available; cat ggtt_provisioned vram_provisioned"
        " gt0/contexts_provisioned gt0/doorbells_provisioned"
    )


def problems(lab: Lab) -> list[str]:
    """What kernel and drivers logged at level warning or worse; the log is read off."""
    found = []
    for line in lab.sh("dmesg -r -c").splitlines():
        level = int(line[1:].split(">")[0]) & 7 if line.startswith("<") else 6
        known = re.search(r"xe_guc_relay: \d+ callbacks suppressed|vgaarb:", line)
        if (level <= 4 and not known) or "*ERROR*" in line:
            found.append(line)
    return found


def card_call(lab: Lab, command: str, **arguments: Any) -> Any:
    """A command of the card's control socket."""
    with ControlClient(lab.card.control) as control:
        return control.call(command, **arguments)


def busy(lab: Lab, vfid: int) -> int:
    """Nanoseconds that a function has had engines until now."""
    return sum(engine["busy_ns"].get(str(vfid), 0) for engine in card_call(lab, "engines"))


def hold(lab: Lab, *vfids: int) -> None:
    """Start an endless job on each of these functions; they end and are verified when /tmp/end is there."""
    for vfid in vfids:
        lab.sh(
            f"(xe-functions hold {bdf(vfid)} /tmp/end > /tmp/hold{vfid} 2>&1; echo exit $? >> /tmp/hold{vfid})"
            " > /dev/null 2>&1 3>&- &"
        )
    for vfid in vfids:
        lab.sh(f"until grep -q -e running -e exit /tmp/hold{vfid}; do sleep 0.1; done; grep running /tmp/hold{vfid}")


def held(lab: Lab, vfid: int) -> str:
    """End the held jobs; how that of `vfid` ended."""
    return lab.sh(f"touch /tmp/end; until grep exit /tmp/hold{vfid}; do sleep 0.1; done; cat /tmp/hold{vfid}")
