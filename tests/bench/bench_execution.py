"""How fast kernels run, without a guest: `python -m tests.bench.bench_execution [--json FILE] [--reference]`.

A lane-instruction is one lane of one instruction, sends included. Times are wall times from the doorbell to the idle engine,
the best of some rounds; compiled kernels use all processors.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from tests.bench.bench_engines import Figure
from tests.support.xe.commands import END
from tests.support.xe.compute_kernels import slm_reduction, vector_add
from tests.support.xe.compute_lab import ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import Job
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE

LOCAL = 256
INPUT, OTHER, OUTPUT = 0x4000_0000, 0x5000_0000, 0x6000_0000
ROUNDS = 5


class Bench:
    """A context with three buffers of `items` dwords."""

    def __init__(self, items: int) -> None:
        self.lab = ComputeLab(vram=64 * MIB)
        self.job: Job = self.lab.job(engine_class=COMPUTE)
        self.items = items
        for index, address in enumerate((INPUT, OTHER, OUTPUT)):
            self.job.tables.map(address, (16 + 8 * index) * MIB, 4 * items)

    def seconds(self, kernel: str, groups: int, local: int, pointers: tuple[int, ...]) -> float:
        """One dispatch."""
        job, lab = self.job, self.lab
        lab.load(job, kernel)
        inline = [half for address in pointers for half in (address & 0xFFFFFFFF, address >> 32)]
        command = walker(groups=(groups, 1, 1), local=(local, 1, 1), ids=[0], inline=inline, slm=1, barriers=1)
        job.ring(*job.start(job.batch(*base_addresses(), *command, END)))
        start = time.perf_counter()
        job.submit()
        lab.run(limit=10_000_000)
        elapsed = time.perf_counter() - start
        reports = lab.engine("ccs0").reports
        if lab.listener.faults or reports:
            raise RuntimeError(f"the kernel did not run: {lab.listener.faults or dict(reports)}")
        return elapsed

    def rate(self, name: str, kernel: str, pointers: tuple[int, ...]) -> Figure:
        """Lane-instructions a second over all items."""
        code = assemble(kernel)
        program = decode(lambda address, count: code[address : address + count], 0)
        lanes = sum(instruction.width for instruction in program.instructions)
        groups = self.items // LOCAL
        best = min(self.seconds(kernel, groups, LOCAL, pointers) for _ in range(ROUNDS))
        return Figure(name, lanes * (self.items // 16) / best / 1e6, "M/s", f"{best * 1000:.1f} ms, {self.items} items")


def measure(items: int, label: str) -> list[Figure]:
    """All figures of the back end that is in use."""
    bench = Bench(items)
    figures = [
        bench.rate(f"vector add, {label}", vector_add(LOCAL), (INPUT, OTHER, OUTPUT)),
        bench.rate(f"reduction in SLM, {label}", slm_reduction(LOCAL), (INPUT, OUTPUT)),
    ]
    small = min(bench.seconds(slm_reduction(128), 1, 128, (INPUT, OUTPUT)) for _ in range(20))
    figures.append(Figure(f"one group of 8 threads, {label}", small * 1e6, "us", "doorbell to idle"))
    return figures


def main() -> None:
    """Print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reference", action="store_true", help="also the reference back end, on fewer items")
    arguments = parser.parse_args()
    figures = measure(1 << 20, type(dispatch.units()).__name__)
    if arguments.reference:
        with mock.patch.object(dispatch, "units", ReferenceUnits):
            figures += measure(1 << 14, "reference")
    for figure in figures:
        print(f"{figure.name:48} {figure.value:10.1f} {figure.unit:5} {figure.note}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
