"""How fast VFs come and go in a guest with the stock driver, and what they cost: `python -m tests.bench.bench_sriov`.

Times are the guest's own, of whole writes to sysfs and debugfs, and hold what its kernel does meanwhile: for VFs that
go, a sleep of a second (`drivers/pci/iov.c:sriov_disable`). `--cycles 50` looks for leaks instead.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from statistics import median
from typing import Any

from tests.support.guest.xe import DEBUGFS, DEVICE
from tests.support.guest.xe_sriov import accounting, card_call, enable, jobs, start_lab
from tests.support.processes import descriptors
from vfio_user_xe.emulator.testing.lab import Lab


def timed(lab: Lab, command: str) -> float:
    """Seconds that `command` takes in the guest, to a hundredth."""
    clock = "cut -d' ' -f1 /proc/uptime"
    words = lab.sh(f"{clock}; {command}; {clock}", timeout=200).split()
    return float(words[-1]) - float(words[0])


def resident(lab: Lab) -> dict[str, float]:
    """MiB: the server's process as the kernel counts it, its own pages, and pages of guest-visible memory in use."""
    status = Path(f"/proc/{lab.card.pid}/status").read_text()
    found = {name: int(value) / 1024 for name, value in re.findall(r"^(VmRSS|RssAnon):\s+(\d+)", status, re.MULTILINE)}
    return {**found, "memory": card_call(lab, "memory")["resident"] / 2**20}


def times(rounds: int) -> list[tuple[str, float, str, str]]:
    """Name, figure, unit, and what is wanted."""
    on, off, flr, full = [], [], [], []
    with start_lab(["--vfs", "7", "--set", "vram=8GiB"]) as lab:
        lab.sh("modprobe xe", timeout=120)
        for _ in range(rounds):
            on.append(timed(lab, f"echo 7 > {DEVICE}/sriov_numvfs"))
            assert len(lab.sh("ls /dev/dri | grep renderD").split()) == 8
            flr.append(timed(lab, f"echo 1 > {DEBUGFS}/sriov/vf1/reset"))
            full.append(timed(lab, f"echo 1 > {DEVICE}/virtfn1/reset; until dmesg | grep -q 'VF2 FLR'; do :; done"))
            off.append(timed(lab, f"echo 0 > {DEVICE}/sriov_numvfs; dmesg -c > /dev/null"))
    with start_lab(["--vfs", "24", "--set", "vram=8GiB"]) as lab:
        lab.sh("modprobe xe", timeout=120)
        on24 = timed(lab, f"echo 24 > {DEVICE}/sriov_numvfs")
        time.sleep(5)
        memory = resident(lab)
        off24 = timed(lab, f"echo 0 > {DEVICE}/sriov_numvfs")
    return [
        ("7 VFs come, xe probes all of them", median(on), "s", "below 2"),
        ("7 VFs go", median(off), "s", "below 2"),
        ("FLR of an idle VF by the PF (debugfs), with the clear", median(flr), "s", "below 0.5 and the clear"),
        ("FLR of an idle VF by PCI (sysfs), until the PF has begun", median(full), "s", ""),
        ("24 VFs come, xe probes all of them", on24, "s", ""),
        ("24 VFs go", off24, "s", ""),
        ("server with 24 idle VFs and 8 GiB of VRAM: its own memory", memory["RssAnon"], "MiB", ""),
        ("  and VRAM, GGTTs and the like that are in use", memory["memory"], "MiB", "together below 400"),
        ("  as the kernel counts its process (VmRSS)", memory["VmRSS"], "MiB", "below 400"),
    ]


def cycles(count: int) -> list[tuple[str, float, str, str]]:
    """Enable two VFs, work on all functions, disable, again and again."""
    with start_lab(["--vfs", "2", "--set", "vram=4GiB"]) as lab:
        lab.sh("modprobe xe", timeout=120)

        def once() -> None:
            enable(lab, 2)
            jobs(lab, 0, 1, 2)
            lab.sh(f"echo 0 > {DEVICE}/sriov_numvfs", timeout=60)

        def state() -> tuple[str, int, dict[str, float]]:
            return accounting(lab), len(descriptors(lab.card.pid)), resident(lab)

        once()
        before, start = state(), time.monotonic()
        own = []
        for _ in range(count):
            once()
            own.append(resident(lab)["RssAnon"])
        seconds, now = time.monotonic() - start, state()
    return [
        ("cycles", count, "", ""),
        ("seconds a cycle, jobs on all engines included", seconds / count, "s", ""),
        ("VRAM, GGTT, contexts and doorbells given away: changed", now[0] != before[0], "", "0"),
        ("descriptors: more than before", now[1] - before[1], "", "0"),
        ("the server's own memory: before", before[2]["RssAnon"], "MiB", ""),
        ("  half-way", own[count // 2 - 1], "MiB", ""),
        ("  after", now[2]["RssAnon"], "MiB", ""),
        ("memory in use that the guest sees: more than before", now[2]["memory"] - before[2]["memory"], "MiB", "0"),
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often times are taken (default: %(default)s)")
    parser.add_argument("--cycles", type=int, help="look for leaks in so many cycles instead")
    parser.add_argument("--json", type=Path, help="write the figures to a file, too")
    arguments = parser.parse_args()
    rows: list[tuple[Any, ...]] = cycles(arguments.cycles) if arguments.cycles else times(arguments.rounds)
    for name, value, unit, wanted in rows:
        print(f"{name:62} {value:10.2f} {unit:4} {wanted}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
