"""How fast an imported buffer of a VF is read by the PF's copy engine: `python -m tests.bench.bench_imports [--json FILE]`.

64 MiB of a VF's VRAM, scattered over the card, are copied to the PF's VRAM by the engine of a whole card, by both paths: by
device address (`iov`) and through the VF's BAR (`p2p`). In turn with them runs a plain memoryview copy of the same memory by
the same thread of the same process. Rates are medians of the processor time of that thread, so that others on the machine
disturb little; what the driver's preparation costs is not in them.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.bench_engines import Figure
from tests.support.xe.commands import END, sdi
from tests.support.xe.engine_lab import DATA_VA, Job
from tests.support.xe.rig import MIB
from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.pci.config_space import COMMAND
from vfio_user_xe.emulator.testing.fake_transport import FakeTransport

SIZE = 64 * MIB
BLOCK = 2 * MIB
VF_BAR2 = 0x80_0000_0000
SRIOV = 0x320
TARGET = 512 * MIB
SOURCE_VA, TARGET_VA = 0x40_0000_0000, 0x50_0000_0000
ROUNDS = 15
_PATIENCE = 60.0


class ImportBench:
    """A card with one VF, and what `Job` wants of a lab."""

    def __init__(self) -> None:
        # There is no guest whose firmware could be told where the VF's BARs are: nobody misses them.
        logging.getLogger("vfio_user_xe.emulator.pci.bar_programming").setLevel(logging.CRITICAL)
        config = CardConfig.default("xe").override(vfs=1, interconnects=["iov", "p2p", "host_dma"])
        self.card = Card(config)
        self.card.start()
        pf, vf = self.card.functions[:2]
        for function in (pf, vf):
            function.attached(FakeTransport())
            function.config.write(COMMAND, 2, 6)
        pf.config.write(SRIOV + 0x24 + 8, 4, VF_BAR2 & 0xFFFFFFFF)
        pf.config.write(SRIOV + 0x24 + 12, 4, VF_BAR2 >> 32)
        pf.config.write(SRIOV + 0x10, 2, 1)
        pf.config.write(SRIOV + 0x08, 2, 0x09)
        self.run(lambda: None)
        self.gpu: Any = self.card.model.gpu  # type: ignore[attr-defined]
        self.vram, self.pf, self.engines = self.gpu.vram, self.gpu.pf, self.gpu.gts[0].engines
        self._next = 16 * MIB
        blocks = list(range(TARGET // BLOCK + SIZE // BLOCK, TARGET // BLOCK + 8 * SIZE // BLOCK))
        random.Random(1).shuffle(blocks)
        self.blocks = dict(enumerate(blocks[: SIZE // BLOCK]))
        self.run(lambda: self.vram.assign(1, self.blocks))
        self.figures: list[Figure] = []

    def run(self, job: Callable[[], Any]) -> Any:
        """On the card's executor."""
        return self.card.executor.run_sync(job, timeout=_PATIENCE)

    def alloc(self) -> int:
        self._next += MIB
        return self._next - MIB

    def map_ggtt(self, ggtt: int, target: int, size: int, *, function: Any = None) -> None:
        for offset in range(0, size, 0x1000):
            self.pf.ggtt.entries[(ggtt + offset) >> 12] = target + offset | 3

    def view(self, function: Any, address: int, length: int) -> memoryview:
        found = self.vram.resolve(function.pci, address, length, True)
        assert found is not None
        view: memoryview = found[1]
        assert len(view) == length
        return view

    def measure(self) -> None:
        source = self.view(self.gpu.functions[1], 0, SIZE)
        target = self.view(self.pf, TARGET, SIZE)
        source[:] = random.Random(2).randbytes(SIZE)
        ways = {
            "IOV, by device address": [
                (block * BLOCK, 1 << 7 | 1 << 11 | 3) for _, block in sorted(self.blocks.items())
            ],
            "legacy, through the VF's BAR2": [(VF_BAR2 + at, 1 << 7 | 3) for at in range(0, SIZE, BLOCK)],
        }
        jobs = {name: self._job(number, entries) for number, (name, entries) in enumerate(ways.items())}
        seconds: dict[str, list[float]] = {name: [] for name in (*jobs, "plain")}
        for turn in range(ROUNDS):
            for name, job in jobs.items():
                target[:] = bytes(SIZE)
                seconds[name].append(self._copy(job, turn + 1))
                assert target == source, f"{name}: the data differ"
            seconds["plain"].append(self.run(lambda: _cpu_time(lambda: target.__setitem__(slice(None), source))))
        plain = median(seconds["plain"])
        self._add("64 MiB, a plain copy in the same process", SIZE / plain / 1e9, "GB/s", "")
        for name in jobs:
            took = median(seconds[name])
            note = f"{100 * plain / took:.0f} % of a plain copy"
            self._add(f"64 MiB imported from a VF, {name}", SIZE / took / 1e9, "GB/s", note)
        self._check_paths()

    def _job(self, number: int, entries: list[tuple[int, int]]) -> Job:
        job = Job(self, number)  # type: ignore[arg-type]
        for index, (address, bits) in enumerate(entries):
            job.tables.entry(SOURCE_VA + index * BLOCK, 1, address | bits)
            job.tables.entry(TARGET_VA + index * BLOCK, 1, TARGET + index * BLOCK | 1 << 7 | 1 << 11 | 3)
        return job

    def _copy(self, job: Job, value: int) -> float:
        """Processor time of the executor's thread, from the job's submission to its end."""
        low, high = SOURCE_VA & 0xFFFFFFFF, SOURCE_VA >> 32
        to_low, to_high = TARGET_VA & 0xFFFFFFFF, TARGET_VA >> 32
        copy = (0x5688_0008, SIZE // 256 - 1, 0, 0, 0, low, high, to_low, to_high, 0)
        self.run(lambda: (job.batch(*copy, *sdi(DATA_VA, value), END), job.ring(*job.start())))
        before = self.run(time.thread_time)
        self.run(job.submit)
        deadline = time.monotonic() + _PATIENCE
        while job.data()[0] != value:
            assert time.monotonic() < deadline, "the copy is not done"
            time.sleep(0.001)
        after: float = self.run(time.thread_time)
        return after - before

    def _check_paths(self) -> None:
        """Each copy took the path that its figure is named after."""
        reads = {
            e.interconnect: e.bytes_read
            for e in self.card.fabric.ledger
            if (e.initiator, e.owner) == ("pf", "vf1") and e.kind in ("vram", "system")
        }
        assert reads == {"iov": ROUNDS * SIZE, "p2p": ROUNDS * SIZE}, reads

    def _add(self, name: str, value: float, unit: str, note: str) -> None:
        self.figures.append(Figure(name, value, unit, note))
        print(f"{name:62s} {value:8.2f} {unit:6s} {note}", flush=True)


def _cpu_time(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    bench = ImportBench()
    try:
        bench.measure()
    finally:
        bench.card.stop()
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in bench.figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
