"""Many clients, and clients that mean no good: `python -m tests.bench.bench_clients`.

A card with 63 VFs has a client on each of its 64 functions. A client in C reads a register of the PF; beside it the others do
nothing, or work, or attack. Who attacks is a process that is stopped but for its turn, so that a busy moment of the machine
hits all loads: judge by the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.bench.bench_engines import Figure
from tests.bench.load import Load, Loader, compiled
from tests.support.processes import descriptors
from tests.support.served import served
from tests.support.wait import eventually
from tests.support.xe.rig import MIB
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Connection, Disconnected, encode

VFS = 63
GMD_ID = 0xD8C
"""A register of BAR0 that PF and VFs have (`xe_gt_regs.h`)."""
_READ = encode(wire.REGION_READ, wire.REGION_ACCESS.pack(GMD_ID, wire.BAR0, 4))
_READ_REPLY = wire.HEADER_SIZE + wire.REGION_ACCESS.size + 4
_BURST = 200
_NO_COMMAND = 99


def reads(paths: Sequence[str]) -> None:
    """Each of the functions reads a register, one after the other."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(path)) for path in paths]
        while True:
            for client in clients:
                client.read(wire.BAR0, GMD_ID, 4)


def refused(paths: Sequence[str]) -> None:
    """Commands that do not exist, by the hundred; all refusals are read."""
    with Client(paths[0]) as client:
        sock = client.connection.socket
        burst = encode(_NO_COMMAND, bytes(64)) * _BURST
        while True:
            sock.sendall(burst)
            missing = wire.HEADER_SIZE * _BURST
            while missing:
                missing -= len(sock.recv(missing))


def never_reads(paths: Sequence[str]) -> None:
    """Reads whose replies nobody takes, until the server ends the connection; then again."""

    def attack(connection: Connection) -> None:
        while True:
            connection.socket.sendall(_READ * _BURST)

    _again_and_again(paths[0], attack)


def noise(paths: Sequence[str]) -> None:
    """Bytes by chance, until the server ends the connection; then again."""
    chance = random.Random(1)

    def attack(connection: Connection) -> None:
        while True:
            connection.socket.sendall(chance.randbytes(1 << 16))

    _again_and_again(paths[0], attack)


def comes_and_goes(paths: Sequence[str]) -> None:
    """A client that connects, asks for the device, and leaves."""
    while True:
        with Client(paths[0]) as client:
            client.device_info()


def _again_and_again(path: str, attack: Callable[[Connection], None]) -> None:
    while True:
        with contextlib.suppress(OSError, Disconnected), Client(path) as client:
            attack(client.connection)


IDLE = "63 others connected"
ATTACKS: dict[str, tuple[Callable[[Sequence[str]], None], int]] = {
    "one sends what is refused": (refused, 1),
    "one never reads its replies": (never_reads, 1),
    "one sends noise": (noise, 1),
    "one comes and goes": (comes_and_goes, 1),
    "59 others read in turn": (reads, VFS - 4),
}
"""By name: what is done, and on how many VFs' sockets."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_clients", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.1, help="of one measurement (default 0.1)")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of a figure (default 15)")
    parser.add_argument("--attack", nargs="+", metavar=("NAME", "SOCKET"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for programs")
    options = parser.parse_args()
    if options.attack:
        print("ready", flush=True)
        ATTACKS[options.attack[0]][0](options.attack[1:])
    figures = measure(options.seconds, options.rounds)
    for figure in figures:
        print(f"{figure.name:50} {figure.value:8.1f} {figure.unit} {figure.note}")
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    return 0


def measure(seconds: float, rounds: int) -> list[Figure]:
    """Register reads of the PF beside what the others do, and what the server has and needs after it all."""
    load = Load("read", _READ, _READ_REPLY)
    rates: dict[str, list[float]] = {name: [] for name in (IDLE, *ATTACKS)}
    with tempfile.TemporaryDirectory(prefix="vub-") as folder, ExitStack() as stack:
        loader = Loader(compiled(Path(folder)))
        card = stack.enter_context(served("xe", ["--vfs", str(VFS)]))
        sock = stack.enter_context(Client(card.sockets["pf"])).connection.socket
        before, memory_before = len(descriptors(card.pid)), most_memory(card.pid)
        with ExitStack() as others:
            paths = iter([path for name, path in card.sockets.items() if name != "pf"])
            pids = {
                name: others.enter_context(_attacker(name, [next(paths) for _ in range(functions)]))
                for name, (_, functions) in ATTACKS.items()
            }
            for _ in range(rounds):
                for name, found in rates.items():
                    if name in pids:
                        os.kill(pids[name], signal.SIGCONT)
                    found.append(loader.rate(sock, load, seconds, bare=False))
                    if name in pids:
                        os.kill(pids[name], signal.SIGSTOP)
        eventually(lambda: len(descriptors(card.pid)) <= before, "descriptors are left")
        memory = most_memory(card.pid)
    figures = []
    for name, found in rates.items():
        ratio = median(rate / beside for rate, beside in zip(found, rates[IDLE], strict=True))
        figures.append(Figure(f"register reads, {name}", median(found) / 1000, "k/s", f"{100 * ratio:.0f} %"))
    note = f"{memory_before / MIB:.1f} before"
    return [*figures, Figure("most memory of the server", memory / MIB, "MiB", note)]


@contextmanager
def _attacker(name: str, paths: Sequence[str]) -> Iterator[int]:
    """A process that does what `name` says on the sockets, and is stopped; its id."""
    command = [sys.executable, "-m", "tests.bench.bench_clients", "--attack", name, *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"{name}: ended with {process.wait()}")
            os.kill(process.pid, signal.SIGSTOP)
            yield process.pid
        finally:
            process.kill()


def most_memory(pid: int) -> int:
    """The most memory that a process had, in bytes (VmHWM of proc_pid_status(5))."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    sys.exit(main())
