"""Many ranges of guest memory: `python -m tests.bench.bench_dma_map`.

What a range costs when 10, 1,000 and 20,000 are mapped, as a virtual IOMMU makes them: single pages over one file. The server runs with
`ulimit -n 1024`. With `--other COMMAND` another server is measured in turn with ours, round by round; `{socket}` in it is its socket.
"""

from __future__ import annotations

import argparse
import random
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.support.processes import descriptors
from tests.support.served import served
from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory

COUNTS = (10, 1_000, 20_000)
DESCRIPTORS = 1024
_BASE = 1 << 32
_FILE_PAGES = 4096
_UNDER_WAY = 32
_READ_WRITE = wire.DMA_READABLE | wire.DMA_WRITABLE
_LOOK_UPS = 20_000
_START_SECONDS = 10.0
MODES = {"mmap": _READ_WRITE, "file I/O": _READ_WRITE | wire.DMA_FILE_IO, "messages": _READ_WRITE}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one server and one number of ranges: µs a range, descriptors and KiB that the ranges added."""

    map: float
    unmap: float
    descriptors: int
    memory: int


def measure(path: str, pid: int, count: int, mode: str) -> Figures:
    """Map `count` ranges in no order, then take them back in another.

    Raises:
        RequestError: the server refuses one.
    """
    order = list(range(count))
    random.Random(count).shuffle(order)
    file = Memory(_FILE_PAGES * PAGE_SIZE, "guest memory")
    fds = () if mode == "messages" else (file.fd,)
    client = Client(path)
    try:
        before, resident = len(descriptors(pid)), _resident(pid)
        maps = _timed(client, wire.DMA_MAP, [_map(number, MODES[mode]) for number in order], fds)
        opened, grown = len(descriptors(pid)) - before, _resident(pid) - resident
        random.Random(count + 1).shuffle(order)
        unmaps = _timed(client, wire.DMA_UNMAP, [_unmap(number) for number in order], ())
    finally:
        client.close()
        file.close()
    return Figures(maps / count, unmaps / count, opened, grown)


def look_up(count: int) -> float:
    """µs of processor time of one look-up of ours among `count` ranges, of pages at random."""
    memory, file = GuestMemory(), Memory(PAGE_SIZE, "guest memory")
    try:
        for number in range(count):
            memory.map(_BASE + 2 * number * PAGE_SIZE, PAGE_SIZE, _READ_WRITE, file.fd, 0)
        chosen = random.Random(1).choices(range(count), k=_LOOK_UPS)
        addresses = [_BASE + 2 * number * PAGE_SIZE + 100 for number in chosen]
        view = memory.view
        start = time.thread_time()
        for address in addresses:
            view(address, 64, True)
        return (time.thread_time() - start) / len(addresses) * 1e6
    finally:
        memory.unmap_all()
        file.close()


def _timed(client: Client, command: int, bodies: list[bytes], fds: tuple[int, ...]) -> float:
    """µs for all, with some under way."""
    start = time.perf_counter()
    waiting: list[int] = []
    for body in bodies:
        waiting.append(client.send(command, body, fds))
        if len(waiting) == _UNDER_WAY:
            for message_id in waiting:
                client.wait(message_id)
            waiting.clear()
    for message_id in waiting:
        client.wait(message_id)
    return (time.perf_counter() - start) * 1e6


def _map(number: int, flags: int) -> bytes:
    at, offset = _BASE + 2 * number * PAGE_SIZE, number % _FILE_PAGES * PAGE_SIZE
    return wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, flags, offset, at, PAGE_SIZE)


def _unmap(number: int) -> bytes:
    return wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, 0, _BASE + 2 * number * PAGE_SIZE, PAGE_SIZE)


def _resident(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0])


@contextmanager
def _other(command: str, folder: Path) -> Iterator[tuple[str, int]]:
    path = str(folder / "other.sock")
    process = subprocess.Popen(shlex.split(command.replace("{socket}", path)), stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _START_SECONDS
        while not Path(path).exists():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the other server made no socket: {command}")
            time.sleep(0.05)
        yield path, process.pid
    finally:
        process.terminate()
        process.wait()


def report(name: str, count: int, mode: str, rounds: list[Figures]) -> str:
    """One line of the table."""
    memory = max(figures.memory for figures in rounds)
    return (
        f"{name:12} {count:>7} {mode:10} {median(f.map for f in rounds):>9.1f} {median(f.unmap for f in rounds):>9.1f}"
        f" {max(figures.descriptors for figures in rounds):>12} {memory:>8}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_dma_map", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="measurements of a figure (default 5)")
    parser.add_argument("--other", metavar="COMMAND", help="another server; {socket} is replaced")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vub-") as folder, served() as card:
        resource.prlimit(card.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        print(f"{'server':12} {'ranges':>7} {'by':10} {'map µs':>9} {'unmap µs':>9} {'descriptors':>12} {'KiB':>8}")
        if options.other:
            with _other(options.other, Path(folder)) as other:
                resource.prlimit(other[1], resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
                _table({"ours": (card.socket, card.pid), "other": other}, options.rounds)
        else:
            _table({"ours": (card.socket, card.pid)}, options.rounds)
    for count in COUNTS:
        print(f"look-up among {count:>6}: {look_up(count):.2f} µs")
    return 0


def _table(servers: dict[str, tuple[str, int]], rounds: int) -> None:
    for count in COUNTS:
        for mode in MODES:
            figures: dict[str, list[Figures]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, (path, pid) in servers.items():
                    figures[name].append(measure(path, pid, count, mode))
            for name, measured in figures.items():
                print(report(name, count, mode, measured), flush=True)


if __name__ == "__main__":
    sys.exit(main())
