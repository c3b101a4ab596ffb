"""Make the recording of a probe that is kept as a test: `python -m tests.guest.record_probe [FILE]`.

A guest with the stock driver: it probes the PF, a VF comes and goes. What the recording has of Intel's firmware is taken
out, except for some fields of its header (sizes, a version), which the model must see.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.guest.lab import open_lab
from vfio_user_xe.emulator.guest.environment import Environment, locate
from vfio_user_xe.emulator.recording.redact import Redaction, redact

KEPT = Path(__file__).parents[1] / "unit/xe/fixtures/probe.xz"
VFS = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"


def record(path: Path) -> None:
    """Record a probe to `path`."""
    with open_lab(["--vfs", "1", "--record", str(path)], modules=["xe"]) as lab:
        lab.sh("dmesg -n 1; modprobe xe", timeout=120)
        lab.sh(f"echo 1 > {VFS}", timeout=60)
        assert "Running in SR-IOV VF mode" in lab.sh("dmesg")
        lab.sh(f"echo 0 > {VFS}", timeout=60)


def without_firmware(path: Path, target: Path, environment: Environment) -> Redaction:
    """Write the recording at `path` to `target`, without the firmware that `environment` has for the card."""
    files = sorted((environment.root / "usr/lib/firmware").rglob("*bmg*.bin"))
    assert files
    return redact(path, [file.read_bytes() for file in files], target)


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else KEPT
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.gz"
        record(path)
        done = without_firmware(path, target, locate())
        print(f"{path.stat().st_size} bytes recorded, {target.stat().st_size} bytes in {target}")
    print(f"{done.found} bytes of firmware were found, {done.kept} had to stay:")
    for event, offset, data in done.kept_at:
        print(f"  event {event}, offset {offset:#x}: {data.hex(' ')}")


if __name__ == "__main__":
    main()
