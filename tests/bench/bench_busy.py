"""Register reads while the executor works: `python -m tests.bench.bench_busy`.

A process has a function on a socket, as users' servers have, and engines that run a load for ever on the executor's
thread. A client in C reads a register. The processes with the loads are stopped but for the one that is measured, in
turn, so that a busy moment of the machine hits all of them: judge by the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.bench.__main__ import loads
from tests.bench.bench_engines import SOURCE, SOURCE_VA, TARGET, TARGET_VA, Figure, large
from tests.bench.load import Loader, compiled, connected
from tests.support.xe.commands import sdi
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.conformance import ConformanceFunction
from vfio_user_xe.emulator.model.executor import Executor
from vfio_user_xe.emulator.vfio_user.client import Client
from vfio_user_xe.emulator.vfio_user.server import SWITCH_INTERVAL
from vfio_user_xe.emulator.vfio_user.session import Session

_LOW, _HIGH = SOURCE_VA & 0xFFFFFFFF, SOURCE_VA >> 32
_TO_LOW, _TO_HIGH = TARGET_VA & 0xFFFFFFFF, TARGET_VA >> 32


def stores(job: Job) -> tuple[int, ...]:
    """MI_STORE_DATA_IMM, one after the other."""
    return tuple(word for n in range(200) for word in sdi(DATA_VA + 4 * n, n))


def mixed(job: Job) -> tuple[int, ...]:
    """Atomics, registers and memory, as spinners and work-arounds have them."""
    return (0x1780_0501, DATA_VA, 0, 0x1208_0002, 0x600, DATA_VA + 64, 0, *sdi(DATA_VA + 128, 1)) * 40


def tiled(job: Job) -> tuple[int, ...]:
    """A surface of 16 MiB to Tile4."""
    return (0x5080_0008 | 2 << 13, 3 << 24 | 2048, 0, 2048 << 16 | 2048, _TO_LOW, _TO_HIGH, 0, 8192, _LOW, _HIGH)


def copies(job: Job) -> tuple[int, ...]:
    """16 MiB of VRAM in a row."""
    return 0x5688_0008, 16 * MIB // 256 - 1, 0, 0, 0, _LOW, _HIGH, _TO_LOW, _TO_HIGH, 0


IDLE = "idle"
LOADS: dict[str, Callable[[Job], tuple[int, ...]] | None] = {
    IDLE: None,
    "MI stores": stores,
    "MI mixed": mixed,
    "tiled blits": tiled,
    "copies": copies,
}


def serve(path: str, name: str) -> None:
    """The process: a function on `path`, and `name` on the executor."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    executor, others = Executor("engines"), Executor("function")
    others.start()
    executor.start()
    lab = Lab(vram=1024 * MIB)
    for start in (SOURCE, TARGET):
        lab.vram.memory.view[start : start + 16 * MIB] = b"\x5a" * (16 * MIB)
    lab.engines.scheduler.slots.executor = executor
    job = lab.job()
    large(job, SOURCE_VA, SOURCE, 16 * MIB)
    large(job, TARGET_VA, TARGET, 16 * MIB)
    load = LOADS[name]
    if load is not None:
        batch = job.batch(*load(job))
        # And again.
        job.batch(*load(job), *job.start(batch))
        job.ring(*job.start(batch))
        executor.run_sync(job.submit)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    while True:
        connection, _ = listener.accept()
        thread = threading.Thread(target=Session(ConformanceFunction("pf", others), connection).run)
        thread.start()
        thread.join()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_busy", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.05, help="of one measurement (default 0.05)")
    parser.add_argument("--rounds", type=int, default=25, help="measurements of a figure (default 25)")
    parser.add_argument("--serve", nargs=2, metavar=("SOCKET", "LOAD"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for programs")
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
    read = loads()[0]
    rates: dict[str, list[float]] = {name: [] for name in LOADS}
    with tempfile.TemporaryDirectory(prefix="vub-") as folder:
        loader = Loader(compiled(Path(folder)))
        processes = {}
        clients = {}
        try:
            for number, name in enumerate(LOADS):
                path = f"{folder}/{number}"
                arguments = [sys.executable, "-m", "tests.bench.bench_busy", "--serve", path, name]
                processes[name] = subprocess.Popen(arguments)
                connected(path, timeout=60.0).close()
                clients[name] = Client(path)
                os.kill(processes[name].pid, signal.SIGSTOP)
            for _ in range(options.rounds):
                for name, process in processes.items():
                    os.kill(process.pid, signal.SIGCONT)
                    rates[name].append(loader.rate(clients[name].connection.socket, read, options.seconds, bare=False))
                    os.kill(process.pid, signal.SIGSTOP)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    # Others on the machine only slow a measurement down, so an upper one tells more than the median.
    best = {name: sorted(found)[len(found) * 8 // 10] for name, found in rates.items()}
    figures = []
    for name, rate in best.items():
        note = f"{100 * rate / best[IDLE]:.0f} % of idle"
        figures.append(Figure(f"register reads, {name}", rate / 1000, "k/s", note))
    for figure in figures:
        print(f"{figure.name:30} {figure.value:8.1f} {figure.unit} {figure.note}")
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
