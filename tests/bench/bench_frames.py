"""Frames from a VF to the PF's compositor, in a guest: `python -m tests.bench.bench_frames [--size 640x360] [--frames 8] [--json FILE]`.

One run has every way: linear and Tile4 buffers that the PF samples where they lie, and frames that are read back and copied through
the guest's memory. Frames a second are end to end, from the first composed frame to the last. Seconds of the server's processor say more
where others use the machine, too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vfio_user_xe.device_models.xe.frames.play import Source, patient, play
from vfio_user_xe.device_models.xe.frames.programs import compiled
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

PF, VF = "/dev/dri/renderD128", "/dev/dri/renderD129"
MARGIN = 40
TIMEOUT = 1200.0


@dataclass(frozen=True)
class Way:
    """What was measured of one way."""

    name: str
    frames_a_second: float
    server_seconds: float
    """Of its processor, a frame: rendering and composing."""
    across: dict[str, int]
    """Bytes a frame that the PF read of the VF's memory and of the guest's, by interconnect."""


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(lab: Lab, name: str, source: Source, frames: int) -> Way:
    """One renderer, one window, `frames` frames after a first one that compiles shaders."""
    window = {"width": source.width + MARGIN, "height": source.height + MARGIN}
    play(lab.guest, PF, [source], frames=1, save=False, timeout=TIMEOUT, **window)
    lab.card.call("ledger", clear=True)
    before = processor_seconds(lab.card.pid)
    played = play(lab.guest, PF, [source], frames=frames + 1, save=False, timeout=TIMEOUT, **window)
    spent = processor_seconds(lab.card.pid) - before
    across: dict[str, int] = {}
    for row in lab.card.call("ledger"):
        if row["initiator"] == "pf" and row["owner"] in ("vf1", "guest") and row["kind"].startswith("eu"):
            across[row["interconnect"]] = across.get(row["interconnect"], 0) + row["bytes_read"] // (frames + 1)
    seconds = (played.pictures[-1].at - played.pictures[0].at) / 1e3
    return Way(name, round(frames / seconds, 2), round(spent / (frames + 1), 2), across)


def main() -> int:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_frames", description=__doc__)
    parser.add_argument("--size", default="640x360", help="of a frame, in pixels (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="of each way (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    width, height = (int(part) for part in options.size.split("x"))
    source = Source("vm1", VF, width, height)
    ways = {"linear": source, "tile4": replace(source, modifier="tile4"), "copied": replace(source, copied=True)}
    with open_lab(["--vfs", "1"], modules=["xe"], userland="graphics", memory=2048, files=compiled(locate())) as lab:
        lab.guest.run("modprobe xe", check=True, timeout=300)
        lab.guest.run("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", check=True, timeout=300)
        patient(lab.guest)
        found = []
        for name, one in ways.items():
            way = measure(lab, name, one, options.frames)
            found.append(way)
            crossing = (
                ", ".join(f"{count:,} bytes by {link}" for link, count in way.across.items())
                or "nothing sampled across"
            )
            print(
                f"{name:8} {way.frames_a_second:6.2f} frames/s  {way.server_seconds:6.2f} s of the server  {crossing}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"size": options.size, "ways": [asdict(way) for way in found]}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
