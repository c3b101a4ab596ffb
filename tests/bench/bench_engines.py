"""How fast the engines are, without a guest: `python -m tests.bench.bench_engines [--json FILE]`.

Copies stand beside a plain memoryview copy of the same spans in the same process, in turn with it. Rates are medians
of the processor time that the executor's thread used, so that others on the machine disturb little; wall times are
given where waiting is part of what is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.support.xe.commands import END, sdi, semaphore
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, PPHWSP, SEQNO, WA_BB, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.formats import ppgtt
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.emulator.model.executor import Executor

COPY_SIZE = 64 * MIB
SOURCE, TARGET, CLEAR, LONG_BATCH = 256 * MIB, 512 * MIB, 1024 * MIB, 128 * MIB
SOURCE_VA, TARGET_VA, LONG_VA = 0x40_0000_0000, 0x50_0000_0000, 0x60_0000_0000
SCATTERED_VA = 0x48_0000_0000
ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """One line: what, how much, in which unit, and what to hold it against."""

    name: str
    value: float
    unit: str
    note: str = ""


def cpu_time(work: Callable[[], object]) -> float:
    """Seconds of this thread's processor time; copies that let the interpreter's lock go are counted too."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def wall_time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Bench:
    def __init__(self) -> None:
        self.lab = Lab(vram=2048 * MIB)
        self.lab.ram.size = 256 * MIB
        self.figures: list[Figure] = []
        view = self.lab.vram.memory.view
        for start, size in ((SOURCE, COPY_SIZE), (TARGET, COPY_SIZE)):
            view[start : start + size] = b"\x5a" * size
        self.lab.ram.of("pf")[:COPY_SIZE] = b"\x11" * COPY_SIZE

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        self.figures.append(Figure(name, value, unit, note))
        print(f"{name:58s} {value:12.2f} {unit:10s} {note}", flush=True)

    def run(self, job: Job) -> None:
        job.submit()
        self.lab.run(limit=10**9)

    # The command streamer.

    def stores(self) -> None:
        """MI_STORE_DATA_IMM in one long batch, its pages and its target's mapped in both ways."""
        count = 200_000
        words = array("I")
        for n in range(count):
            words.extend((0x1000_0002, DATA_VA + 4 * (n % 4096), 0, n))
        words.append(END)
        data = words.tobytes()
        self.lab.vram.memory.view[LONG_BATCH : LONG_BATCH + len(data)] = data
        for how in ("4 KiB pages", "2 MiB pages"):
            job = self.lab.job()
            if how.startswith("4"):
                job.tables.map(LONG_VA, LONG_BATCH, len(data) + 4095 & -4096)
            else:
                large(job, LONG_VA, LONG_BATCH, len(data))
            seconds = []
            for _ in range(ROUNDS):
                job.ring(*job.start(LONG_VA))
                seconds.append(cpu_time(lambda job=job: self.run(job)))  # type: ignore[misc]
            self.add(f"MI_STORE_DATA_IMM, batch in {how}", count / median(seconds), "/s", "wanted: 300,000")

    def loop(self) -> None:
        """A loop as spinners have: three commands and a jump."""
        job = self.lab.job()
        rounds = 20_000
        compare = (0x1B20_0002 | 5 << 12, rounds, DATA_VA, 0)
        job.batch(0x1780_0501, DATA_VA, 0, *compare, 0x1880_0101, BATCH_VA, 0)
        job.ring(*job.start())
        self.add("loop of atomic, conditional end, jump", rounds / cpu_time(lambda: self.run(job)), "rounds/s")

    def jobs(self) -> None:
        """A job as the driver writes it, from SCHED_CONTEXT to the context's being off the engine."""
        job = self.lab.job()
        image = job.at(PPHWSP + 0x1000)
        job.dwords(
            job.at(WA_BB), 0x1248_0002, 0x8C, job.at(PPHWSP + 0x400), 0, 0x1040_0002, image + 0x8C, 0, 1,
            0x1040_0002, image + 0x94, 0, 0, END,
        )  # fmt: skip
        job.set_image(0x13, job.at(WA_BB) | 1)
        job.batch(*sdi(DATA_VA, 1), END)
        commands = [
            0x1248_0002, 0x3A8, job.at(PPHWSP + 0x200), 0, 0x1040_0002, job.at(SEQNO + 8), 0, 1,
            *job.start(), 0x0400_0000, 0x1300_4002, job.at(SEQNO) | 4, 0, 1, 0x0100_0000, 0x0400_0001, 0x0280_0000, 0,
        ]  # fmt: skip
        self.run(job)
        count, seconds = 1000, 0.0
        for _ in range(count):
            job.ring(*commands)
            seconds += cpu_time(lambda: self.run(job))
        self.add("a job: context in, work-around batch, ring, batch, context out", seconds / count * 1e6, "us")

    # Copies and fills.

    def copies(self) -> None:
        view = self.lab.vram.memory.view
        ram = self.lab.ram.of("pf")
        source = view[SOURCE : SOURCE + COPY_SIZE]
        pages = list(range(COPY_SIZE // 4096))
        random.Random(1).shuffle(pages)
        cases = (
            ("VRAM to VRAM, 2 MiB pages", view[TARGET : TARGET + COPY_SIZE], "large"),
            ("VRAM to VRAM, 4 KiB pages in a row", view[TARGET : TARGET + COPY_SIZE], "pages"),
            ("VRAM to guest RAM in a row", ram[:COPY_SIZE], "system"),
            ("VRAM to guest RAM, pages scattered", ram[:COPY_SIZE], "scattered"),
        )

        def plain_copy(target: memoryview, how: str) -> None:
            if how != "scattered":
                target[:] = source
                return
            for n, page in enumerate(pages):
                target[page * 4096 : page * 4096 + 4096] = source[n * 4096 : n * 4096 + 4096]

        for name, target, how in cases:
            job = self.lab.job()
            large(job, SOURCE_VA, SOURCE, COPY_SIZE)
            if how == "large":
                large(job, TARGET_VA, TARGET, COPY_SIZE)
            elif how == "scattered":
                for n, page in enumerate(pages):
                    job.tables.map(TARGET_VA + n * 4096, page * 4096, system=True)
            else:
                job.tables.map(TARGET_VA, TARGET if how == "pages" else 0, COPY_SIZE, system=how == "system")
            low, high = SOURCE_VA & 0xFFFFFFFF, SOURCE_VA >> 32
            to_low, to_high = TARGET_VA & 0xFFFFFFFF, TARGET_VA >> 32
            commands = {
                "MEM_COPY": (0x5688_0008, COPY_SIZE // 256 - 1, 0, 0, 0, low, high, to_low, to_high, 0),
                "XY_FAST_COPY": (
                    0x5080_0008, 3 << 24 | 32768, 0, 2048 << 16 | 8192, to_low, to_high, 0, 32768, low, high,
                ),
            }  # fmt: skip
            for command, words in commands.items():
                ours, plain = [], []
                for _ in range(ROUNDS):
                    job.batch(*words, END)
                    job.ring(*job.start())
                    ours.append(cpu_time(lambda job=job: self.run(job)))  # type: ignore[misc]
                    plain.append(cpu_time(lambda target=target, how=how: plain_copy(target, how)))  # type: ignore[misc]
                note = f"{100 * median(plain) / median(ours):.0f} % of a plain copy of the same spans"
                self.add(f"{command} 64 MiB {name}", COPY_SIZE / median(ours) / 1e9, "GB/s", note)

    def clears(self) -> None:
        job = self.lab.job()
        va = 0x70_0000_0000
        job.tables.entry(va, 2, CLEAR | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
        # As the driver clears: 8 MiB at a time.
        words = [
            word
            for n in range(128)
            for word in (
                0x56C2_0005, 0xFFF, 2047, 0xFFF, va + n * 8 * MIB & 0xFFFFFFFF, va + n * 8 * MIB >> 32, 0x18,
            )
        ]  # fmt: skip
        for state in ("never touched", "all touched"):
            if state == "all touched":
                chunk = b"\x5a" * MIB
                for n in range(1024):
                    self.lab.vram.memory.view[CLEAR + n * MIB : CLEAR + (n + 1) * MIB] = chunk
            job.batch(*words, END)
            job.ring(*job.start())
            self.add(f"MEM_SET 0 of 1 GiB, {state}", cpu_time(lambda: self.run(job)), "s", "wanted: 0.5")

    def tilings(self) -> None:
        """A surface of 16 MiB to and from every tiling, beside a plain copy of as many bytes."""
        view = self.lab.vram.memory.view
        job = self.lab.job()
        large(job, SOURCE_VA, SOURCE, 16 * MIB)
        large(job, TARGET_VA, TARGET, 16 * MIB)
        pages = list(range(16 * MIB // 4096))
        random.Random(1).shuffle(pages)
        for n, page in enumerate(pages):
            job.tables.map(SCATTERED_VA + n * 4096, page * 4096, system=True)

        def plain_copy() -> None:
            view[TARGET : TARGET + 16 * MIB] = view[SOURCE : SOURCE + 16 * MIB]

        ways = [
            (f"{source} to {target}", SOURCE_VA, source_code << 20 | target_code << 13, TARGET_VA)
            for code, name in ((1, "TileX"), (2, "Tile4"), (3, "Tile64"))
            for source, source_code, target, target_code in (("linear", 0, name, code), (name, code, "linear", 0))
        ]
        ways += [
            ("linear, scattered, to Tile4", SCATTERED_VA, 2 << 13, TARGET_VA),
            ("Tile4 to linear, scattered", SOURCE_VA, 2 << 20, SCATTERED_VA),
            ("Tile4, scattered, to linear", SCATTERED_VA, 2 << 20, TARGET_VA),
        ]
        for name, source, codes, target in ways:
            pitches = [2048 if codes >> shift & 3 else 8192 for shift in (20, 13)]
            ours, plain = [], []
            for _ in range(ROUNDS):
                job.batch(
                    0x5080_0008 | codes, 3 << 24 | pitches[1], 0, 2048 << 16 | 2048, target & 0xFFFFFFFF, target >> 32,
                    0, pitches[0], source & 0xFFFFFFFF, source >> 32, END,
                )  # fmt: skip
                job.ring(*job.start())
                ours.append(cpu_time(lambda: self.run(job)))
                plain.append(cpu_time(plain_copy))
            note = f"{100 * median(plain) / median(ours):.0f} % of a plain copy"
            self.add(f"XY_FAST_COPY {name}, 2048 x 2048 x 4", 16 / 1024 / median(ours), "GiB/s", note)

    # Page tables.

    def walks(self) -> None:
        job = self.lab.job()
        job.tables.map(SOURCE_VA, SOURCE, 8 * MIB)
        large(job, TARGET_VA, TARGET, COPY_SIZE)
        space = PpgttSpace(self.lab.pf, job.tables.root, 99)  # type: ignore[arg-type]
        for name, va, size, step in (("4 KiB", SOURCE_VA, 8 * MIB, 4096), ("2 MiB", TARGET_VA, COPY_SIZE, 2 * MIB)):
            count = size // step

            def walk(va: int = va, count: int = count, step: int = step) -> None:
                space.flush()
                for n in range(count):
                    space.span(va + n * step, True)

            seconds = median(cpu_time(walk) for _ in range(ROUNDS))
            self.add(f"walk and window for a page of {name}", seconds / count * 1e6, "us")

    # With the real executor.

    def waiting(self) -> None:
        """How soon a semaphore that the CPU releases lets the engine go on, and what waiting costs."""
        executor = Executor("bench")
        self.lab.engines.scheduler.slots.executor = executor
        executor.start()
        done = threading.Event()
        self.lab.listener.on_interrupt = done.set
        job = self.lab.job()
        delays = []
        executor.run_sync(job.submit)
        for n in range(50):

            def more(n: int = n) -> None:
                job.ring(*semaphore(DATA_VA, n + 1, 4), 0x0100_0000)
                job.submit()

            executor.run_sync(more)
            time.sleep(0.01)
            done.clear()
            start = time.perf_counter()
            job.set_data(0, n + 1)
            done.wait(5)
            delays.append(time.perf_counter() - start)
        self.add("from release by the CPU to the next command", median(delays) * 1e6, "us", "wall")

        def wait() -> None:
            job.ring(*semaphore(DATA_VA, 10**6, 4), 0x0100_0000)
            job.submit()

        executor.run_sync(wait)
        before = executor.run_sync(time.thread_time)
        time.sleep(1)
        cost = executor.run_sync(time.thread_time) - before
        self.add("processor time of an engine that waits", 100 * cost, "%")
        executor.stop()


def large(job: Job, va: int, memory: int, size: int) -> None:
    """Map `size` bytes by 2 MiB pages."""
    for offset in range(0, size, 2 * MIB):
        job.tables.entry(va + offset, 1, memory + offset | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)


PARTS = ("stores", "loop", "jobs", "copies", "clears", "tilings", "walks", "waiting")
"""Methods of `Bench`, in the order of the output."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--only", choices=PARTS, help="one part")
    arguments = parser.parse_args()
    bench = Bench()
    for part in PARTS if arguments.only is None else (arguments.only,):
        getattr(bench, part)()
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in bench.figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
