"""What a guest sees of the PF under the stock xe driver: `python -m tests.bench.bench_pf [--json FILE]`.

A probe (the modules are loaded before, and the device is bound by hand, so that only the driver's own work counts), then
`xe_figures.c` in the guest: reads of a register, idle and while an engine copies; jobs; copies. The copies of the last two
lines stand beside a plain copy of as many bytes in this process.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.support.guest.lab import program
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

PF = "0000:01:00.0"
MIB = 1 << 20
PROBES = 3


@dataclass(frozen=True)
class Figure:
    """One line; `note` says what is wanted, or what it is to be held against."""

    name: str
    value: float
    unit: str
    note: str = ""


def accesses(lab: Lab) -> int:
    """Trapped accesses to the PF's registers so far."""
    return sum(item["reads"] + item["writes"] for item in lab.card.call("accesses") if item["name"].startswith("pf"))


def probe(lab: Lab) -> tuple[float, int]:
    """Bind the driver: seconds from there to the registered card by the guest's clock, and trapped accesses."""
    before = accesses(lab)
    lab.sh(f"dmesg -c >/dev/null; echo begin >/dev/kmsg; echo {PF} > /sys/bus/pci/drivers/xe/bind", timeout=60)
    count = accesses(lab) - before
    log = lab.sh("dmesg")
    begin, end = (re.search(rf"\[ *([\d.]+)\] .*{text}", log) for text in ("begin", "Initialized xe"))
    assert begin is not None, log
    assert end is not None, log
    return float(end[1]) - float(begin[1]), count


def probes(lab: Lab, name: str) -> list[Figure]:
    """The first probe and later ones, which find everything in the processor emulator's cache."""
    first, count = probe(lab)
    unmodelled = sum(item["reads"] + item["writes"] for item in lab.card.call("unmodelled"))
    again = []
    for _ in range(PROBES):
        lab.sh(f"echo {PF} > /sys/bus/pci/drivers/xe/unbind", timeout=60)
        again.append(probe(lab)[0])
    return [
        Figure(f"{name}: bind to registered card, first time", first, "s", "wanted: 0.6"),
        Figure(f"{name}: bind to registered card, again", median(again), "s"),
        Figure(f"{name}: trapped accesses in the first", count, "", "a trial device had 1,502 in PF mode"),
        Figure(f"{name}: accesses to registers that nobody declared", unmodelled, "", "wanted: 0"),
    ]


def plain_copy() -> float:
    """GB/s of a memoryview copy of 64 MiB in this process."""
    source, target = memoryview(bytearray(b"\x5a" * (64 * MIB))), memoryview(bytearray(64 * MIB))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - start)
    return 64 * MIB / min(times) / 1e9


def run(*, pf_mode: bool) -> list[Figure]:
    """Boot a guest and measure."""
    name = "PF mode" if pf_mode else "native"
    serve = ["--vfs", "2" if pf_mode else "0"]
    with open_lab(serve, modules=["xe"], files=program("xe_figures"), memory=2048, append="iomem=relaxed") as lab:
        lab.sh("dmesg -n 1; echo 0 > /sys/bus/pci/drivers_autoprobe; modprobe xe", timeout=120)
        figures = probes(lab, name)
        if pf_mode:
            return figures
        values = dict(re.findall(r"^(\w+) ([\d.]+) \S+$", lab.sh(f"xe-figures {PF}", timeout=300), re.MULTILINE))
    read, busy = float(values["register_read_idle"]), float(values["register_read_copying"])
    share = figures[2].value * read / 1e6 / figures[0].value
    plain = plain_copy()
    assert values["still_copying"] == "1", "the engine was done before the reads were"
    figures.append(Figure(f"{name}: share of the first that its accesses take", 100 * share, "%"))
    figures.append(Figure("a register read, idle", read, "us"))
    figures.append(Figure("a register read while an engine copies", busy, "us", f"{busy / read:.2f} x; wanted: 1.5 x"))
    figures.append(Figure("a job from submission to fence", float(values["job_round_trip"]), "us"))
    for key, text in (("copy_vram_to_vram", "VRAM to VRAM"), ("copy_vram_to_ram", "VRAM to guest memory")):
        value = float(values[key])
        figures.append(Figure(f"copy of 64 MiB {text}", value, "GB/s", f"{100 * value / plain:.0f} % of a plain copy"))
    return figures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for programs")
    arguments = parser.parse_args()
    figures = [*run(pf_mode=True), *run(pf_mode=False)]
    for figure in figures:
        print(f"{figure.name:58s} {figure.value:10.2f} {figure.unit:5s} {figure.note}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    main()
