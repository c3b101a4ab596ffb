"""Frames from a virtual machine to its host's compositor: `python -m tests.bench.bench_machine_frames [--size 640x360]... [--json FILE]`.

One run has every way. By `p2p` (or `iov`, with `--kernel` for one with mappings by device address): Mesa renders on the VF in a virtual
machine, and the PF samples the frames where they lie. Copied: PF and VF in one guest, the VF's driver reads each frame back, a processor copies
it in the guest's memory, and the PF's driver uploads it, as a VMM without blobs does.

Frames a second are end to end, between the second composed frame and the last. The time from a frame's fence is from the machine's
sight: its fence is signalled, the VMM and the compositor hear of it, the PF draws, its fence is signalled, and the machine hears of that. The
host's part of it is from the VMM's having heard of the frame to the picture's being drawn.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import bench_frames
from tests.bench.bench_frames import MARGIN, processor_seconds
from vfio_user_xe.device_models.xe.frames import programs
from vfio_user_xe.device_models.xe.frames.play import Source, patient, pictures
from vfio_user_xe.device_models.xe.scenarios.vm import mesa_programs as mesa
from vfio_user_xe.device_models.xe.scenarios.vm import vmm as vmm_program
from vfio_user_xe.device_models.xe.scenarios.vm.machine import Host, VirtualMachine
from vfio_user_xe.device_models.xe.scenarios.vm.setups import MESA
from vfio_user_xe.device_models.xe.scenarios.vm.vmm import Vmm
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.kernel import Kernel
from vfio_user_xe.emulator.guest.settings import Beside
from vfio_user_xe.emulator.testing.lab import Lab, open_lab

WARM = 3
"""Frames that are not counted: shaders are compiled, and all buffers of the renderer are named and imported."""


@dataclass(frozen=True)
class Way:
    """What was measured of one way; times in milliseconds, medians."""

    name: str
    size: str
    frames_a_second: float
    fence_to_news_ms: float | None
    """From the machine's fence to its news that the frame is composed; None: not measured."""
    host_ms: float | None
    """From the VMM's having heard of the frame to the picture."""
    server_seconds: float
    """Of the server's processor, a frame: rendering and composing."""
    across: dict[str, int]
    """Bytes a frame that the PF read of the VF's memory and of the guest's, by interconnect."""

    def __str__(self) -> str:
        times = (
            ""
            if self.host_ms is None
            else f"fence to news {self.fence_to_news_ms:.0f} ms, in the host {self.host_ms:.0f} ms  "
        )
        crossed = ", ".join(f"{count:,} bytes by {link}" for link, count in self.across.items())
        rate = f"{self.frames_a_second:6.2f} frames/s  {self.server_seconds:5.2f} s of the server"
        return f"{self.size:>10} {self.name:14} {rate}  {times}{crossed}"


@contextmanager
def passed_on(host: Host, vm: VirtualMachine) -> Iterator[Vmm]:
    """The machine has its VF; its VMM is gone afterwards."""
    vmm = host.vmm(vm)
    vmm.start()
    try:
        host.card.settle(vm.vfid)
        vm.plug()
        patient(vm.guest)
        yield vmm
    finally:
        vmm.kill()


def measure(
    lab: Lab, host: Host, vm: VirtualMachine, vmm: Vmm, passing: mesa.Background, source: Source, counted: int
) -> Way:
    """One renderer and one window; the first frames of it are not counted."""
    size = {"width": source.width + MARGIN, "height": source.height + MARGIN}
    count = WARM + counted
    with mesa.composing(host.shell, [vm.name], **size) as compositor:
        log = len(vmm.log())
        said = len(passing.all())
        lab.card.call("ledger", clear=True)
        before = processor_seconds(lab.card.pid)
        with mesa.rendering(vm, source, count):
            spent = processor_seconds(lab.card.pid) - before
            made = pictures(compositor.all(), "")
            sent, heard = (_times(passing.all()[said:], verb) for verb in ("flush", "done"))
            flushed = _times("\n".join(vmm.log()[log:]), "flush")
    across: dict[str, int] = {}
    for row in lab.card.call("ledger"):
        if (row["initiator"], row["owner"]) == ("pf", f"vf{vm.vfid}"):
            across[row["interconnect"]] = across.get(row["interconnect"], 0) + row["bytes_read"] // count
    composed = {picture.frames[vm.name]: picture.at / 1e3 for picture in made if picture.frames[vm.name]}
    late = range(WARM + 1, count + 1)
    return Way(
        f"{'/'.join(across)}, {source.modifier}",
        f"{source.width}x{source.height}",
        counted / (composed[count] - composed[WARM]),
        1e3 * statistics.median(heard[n] - sent[n] for n in late),
        1e3 * statistics.median(composed[n] - flushed[n] for n in late),
        spent / count,
        across,
    )


def _times(log: str, verb: str) -> dict[int, float]:
    """Seconds by frame: lines that begin with a time, and have the verb and `frame=`."""
    found = re.findall(rf"^(\d+\.\d+) (?:\w+ )?{verb} .*?frame=(\d+)", log, re.MULTILINE)
    return {int(frame): float(seconds) for seconds, frame in found}


def sampled(sizes: list[tuple[int, int]], count: int, kernel: Kernel | None) -> Iterator[Way]:
    """Frames of a virtual machine that the PF samples where they lie."""
    environment = locate()
    files = {**programs.compiled(environment), **vmm_program.with_clients(environment)}
    more = {"files": files, "kernel": kernel}
    [machine] = MESA.beside
    with ExitStack() as stack:
        beside = [Beside(machine.functions, {**machine.guest, **more})]  # type: ignore[typeddict-item]
        lab = stack.enter_context(open_lab(MESA.serve, beside=beside, **{**MESA.guest, **more}))  # type: ignore[typeddict-item]
        host = Host.of(lab)
        patient(host.shell)
        host.wait_for_preemption()
        [vm] = host.vms
        vmm = stack.enter_context(passed_on(host, vm))
        passing = stack.enter_context(mesa.scanning_out(vm))
        for width, height in sizes:
            for modifier in ("linear", "tile4"):
                yield measure(lab, host, vm, vmm, passing, mesa.source_of(vm, width, height, modifier), count)


def copied(sizes: list[tuple[int, int]], count: int) -> Iterator[Way]:
    """Frames that go through the memory of one guest, which has PF and VF."""
    files = programs.compiled(locate())
    with open_lab(["--vfs", "1"], modules=["xe"], userland="graphics", memory=2048, files=files) as lab:
        lab.sh("modprobe xe", timeout=mesa.PATIENCE)
        lab.sh("echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", timeout=mesa.PATIENCE)
        patient(lab.guest)
        for width, height in sizes:
            way = bench_frames.measure(lab, "copied", Source("vm1", bench_frames.VF, width, height, copied=True), count)
            yield Way(way.name, f"{width}x{height}", way.frames_a_second, None, None, way.server_seconds, way.across)


def main() -> int:
    """Boot, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_machine_frames", description=__doc__)
    parser.add_argument(
        "--size", action="append", help="of a frame, in pixels; may be repeated (640x360 and 1920x1080)"
    )
    parser.add_argument("--frames", type=int, default=6, help="of each way (%(default)s)")
    parser.add_argument(
        "--kernel", type=Path, metavar="BZIMAGE", help="a further kernel, which has mappings by device address"
    )
    parser.add_argument("--modules", type=Path, metavar="DIR", help="its modules")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    sizes = [
        (int(width), int(height))
        for width, _, height in (size.partition("x") for size in options.size or ["640x360", "1920x1080"])
    ]
    kernels = [None]
    if options.kernel:
        kernels.append(Kernel.custom(options.kernel, options.modules, locate()))
    found = []
    for ways in (*(sampled(sizes, options.frames, kernel) for kernel in kernels), copied(sizes, options.frames)):
        for way in ways:
            found.append(way)
            print(way, flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(way) for way in found], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
