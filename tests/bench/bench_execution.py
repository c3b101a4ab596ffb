"""How fast kernels run, without a guest: `python -m tests.bench.bench_execution [--json FILE] [--reference]`.

A lane-instruction is one lane of one instruction, sends included. Rates are of a dispatch from the doorbell to the idle engine, the
best of some rounds, by wall time and by processor time; the latter says what the machine can do when others use it too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from socket import socketpair
from threading import Thread
from typing import Any
from unittest import mock

from tests.bench.bench_engines import Figure
from tests.bench.timed_batch import timed
from tests.support.xe.commands import END, sdi
from tests.support.xe.compute_kernels import LOOP, slm_reduction, store, vector_add
from tests.support.xe.compute_lab import DATA, EOT, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import Job
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.compute import compiled_execution, dispatch
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.decode import decode
from vfio_user_xe.device_models.xe.gt.fuses import FUSE4
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE
from vfio_user_xe.emulator.model.registers import RO, Register
from vfio_user_xe.emulator.vfio_user.server import SWITCH_INTERVAL

LOCAL = 256
ITEMS = 1 << 20
INPUT, OTHER, OUTPUT = 0x4000_0000, 0x5000_0000, 0x6000_0000
ROUNDS = 15
SMALL = slm_reduction(128)
WALKERS = 100
"""In one batch, for what one of them costs."""
READS = 2000
QUANTUM_US = 4000
SECONDS = 1.0

# Sends dwords and waits for each to come back; the median time in microseconds on standard output.
CLIENT = """
import os, socket, sys, time
sock, count = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
times = []
for _ in range(count):
    start = time.perf_counter_ns()
    sock.sendall(b"read")
    sock.recv(4)
    times.append(time.perf_counter_ns() - start)
    time.sleep(0.0002)
print(sorted(times)[count // 2] / 1000)
"""


class Bench:
    """A context with three buffers of `items` dwords."""

    def __init__(self, items: int) -> None:
        self.lab = ComputeLab(vram=64 * MIB)
        self.job: Job = self.lab.job(engine_class=COMPUTE)
        self.items = items
        for index, address in enumerate((INPUT, OTHER, OUTPUT)):
            self.job.tables.map(address, (16 + 8 * index) * MIB, 4 * items)

    def seconds(
        self, kernel: str, groups: int, local: int, pointers: tuple[int, ...], walkers: int = 1
    ) -> tuple[float, float]:
        """Wall and processor time of one batch of walkers."""
        job, lab = self.job, self.lab
        lab.load(job, kernel)
        inline = [half for address in pointers for half in (address & 0xFFFFFFFF, address >> 32)]
        command = walker(groups=(groups, 1, 1), local=(local, 1, 1), ids=[0], inline=inline, slm=1, barriers=1)
        job.ring(*job.start(job.batch(*base_addresses(), *command * walkers, END)))
        return timed(lab, job, "ccs0")

    def rates(self, name: str, kernel: str, pointers: tuple[int, ...]) -> list[Figure]:
        """Lane-instructions a second over all items, on one processor and on all."""
        code = assemble(kernel)
        program = decode(lambda address, count: code[address : address + count], 0)
        lanes = sum(instruction.width for instruction in program.instructions) * (self.items // 16)
        figures = []
        best: dict[int, tuple[float, float]] = {}
        for processors in (1, len(os.sched_getaffinity(0))):
            with mock.patch.object(compiled_execution, "_processors", lambda count=processors: count):
                times = [self.seconds(kernel, self.items // LOCAL, LOCAL, pointers) for _ in range(ROUNDS)]
            wall, used = (min(column) for column in zip(*times, strict=True))
            best[processors] = wall, used
            note = f"{wall * 1000:.1f} ms; {lanes / used / 1e6:.0f} M/s a processor by its time"
            figures.append(Figure(f"{name}, {processors} processors", lanes / wall / 1e6, "M/s", note))
        (wall, used), (both_wall, both_used) = best[min(best)], best[max(best)]
        if len(best) > 1:
            note = f"{max(best) * used / both_used:.2f} by processor time"
            figures.append(Figure(f"{name}, {max(best)} processors against one", wall / both_wall, "times", note))
        return figures


def small_groups(bench: Bench) -> list[Figure]:
    """What a walker of one group of 8 threads costs."""
    pointers = (INPUT, OUTPUT)
    one = min(bench.seconds(SMALL, 1, 128, pointers)[1] for _ in range(60))
    many = min(bench.seconds(SMALL, 1, 128, pointers, WALKERS)[1] for _ in range(ROUNDS))
    each = (many - one) / (WALKERS - 1)
    return [
        Figure("one group of 8 threads", each * 1e6, "us", f"a further walker of a batch, {WALKERS} in all"),
        Figure("one group of 8 threads, alone", one * 1e6, "us", "doorbell to idle, with the context's switch"),
    ]


def new_kernels(bench: Bench) -> list[Figure]:
    """How long a kernel takes that was never seen, or is in the cache folder; 200 instructions."""
    body = "add (16|M0)  r20.0<1>:ud  r20.0<1;1,0>:ud  {number}:ud\n"
    first, again = [], []
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):
        for number in range(8):
            kernel = "".join(body.format(number=1 + 200 * number + n) for n in range(198)) + EOT
            for times in (first, again):
                # Another address space has none of the kernels that are in memory.
                dispatch.units().forget_kernels()  # type: ignore[union-attr]
                times.append(bench.seconds(kernel, 1, 16, ())[1])
    return [
        Figure("kernel of 200 instructions, seen first", min(first) * 1e3, "ms", "doorbell to idle"),
        Figure("kernel of 200 instructions, from the disk", min(again) * 1e3, "ms", "doorbell to idle"),
    ]


@contextmanager
def endless(lab: ComputeLab, **options: Any) -> Iterator[Job]:
    """A job whose kernel never ends."""
    job = lab.compute_job(LOOP, *walker(groups=(64, 1, 1)), **options)
    job.submit()
    yield job


def register_reads() -> list[Figure]:
    """A register read over a socket while a kernel runs on all processors but the one that is left to the guest."""
    lab = ComputeLab()
    lab.pf.registers.add([Register("XEHP_FUSE4", FUSE4, access=RO)])

    def serve(sock: Any) -> None:
        buffer = bytearray(4)
        while sock.recv_into(buffer):
            sock.sendall(lab.pf.registers.read(FUSE4, 4).to_bytes(4, "little"))

    def measure() -> float:
        ours, theirs = socketpair()
        Thread(target=serve, args=(ours,), daemon=True).start()
        arguments = [sys.executable, "-c", CLIENT, str(theirs.fileno()), str(READS)]
        client = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
        theirs.close()
        lab.run(lambda: client.poll() is not None, limit=1 << 60)
        client.wait()
        assert client.stdout is not None
        return float(client.stdout.read())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        with mock.patch.object(lab.executor, "run", lambda until, limit: _poll(until)):
            idle = min(measure() for _ in range(3))
        left = max(1, len(os.sched_getaffinity(0)) - 1)
        with mock.patch.object(compiled_execution, "_processors", return_value=left), endless(lab):
            busy = min(measure() for _ in range(3))
    finally:
        sys.setswitchinterval(interval)
    return [
        Figure("register read, idle", idle, "us", f"median of {READS}, over a socket"),
        Figure("register read, while a kernel runs", busy, "us", f"{busy / idle:.2f} times"),
    ]


def _poll(until: Any) -> None:
    while not until():
        time.sleep(0.01)


def shares() -> list[Figure]:
    """How much an endless kernel of one VF slows another's walkers; both have the same quantum."""
    count = {}
    for rival in (False, True):
        lab = ComputeLab(vram=64 * MIB)
        jobs = []
        for vfid in (1, 2):
            vf = lab.vf_with_memory(vfid, {n: 16 * vfid + n - 8 for n in range(8)}, (0x400_0000, 0x100_0000))
            lab.engines.function_policy(vfid, quantum_us=QUANTUM_US, preempt_us=100_000)
            kernel = (
                LOOP if vfid == 1 else "mov (16|M0)  r12.0<1>:ud  0:ud\n" + store(0, "r12").replace("r2.", "r1.") + EOT
            )
            job = Job(lab, vfid, engine_class=COMPUTE, function=vf)
            lab.jobs.append(job)
            lab.load(job, kernel)
            commands = walker(groups=(64, 1, 1), inline=[DATA, 0])
            # The batch of the second counts its walkers at DATA + 64, and starts itself again.
            again = (*sdi(DATA + 64, 1), *ADD_ONE, *job.start()) if vfid == 2 else (END,)
            job.ring(*job.start(job.batch(*base_addresses(), *commands, *again)))
            jobs.append(job)
        for job in jobs if rival else jobs[1:]:
            job.submit()
        end = time.perf_counter() + SECONDS
        lab.run(lambda end=end: time.perf_counter() > end, limit=1 << 60)
        count[rival] = jobs[1].data(128, 1)[0]
    return [
        Figure(
            "another VF's walkers beside an endless kernel",
            count[False] / count[True],
            "times slower",
            "2 is its share",
        )
    ]


# MI_ATOMIC, increment of a dword.
ADD_ONE = (0x1780_0501, DATA + 128, 0)


def measure(items: int) -> list[Figure]:
    """Rates of the back end that is in use."""
    bench = Bench(items)
    return [
        *bench.rates("vector add", vector_add(LOCAL), (INPUT, OTHER, OUTPUT)),
        *bench.rates("reduction in SLM", slm_reduction(LOCAL), (INPUT, OUTPUT)),
    ]


def main() -> None:
    """Print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--reference", action="store_true", help="the reference back end, on fewer items, alone")
    arguments = parser.parse_args()
    if arguments.reference:
        with mock.patch.object(dispatch, "units", ReferenceUnits), mock.patch(f"{__name__}.ROUNDS", 2):
            figures = measure(1 << 14)
    else:
        figures = measure(ITEMS)
        bench = Bench(LOCAL)
        figures += [*small_groups(bench), *new_kernels(bench), *register_reads(), *shares()]
    for figure in figures:
        print(f"{figure.name:52} {figure.value:10.2f} {figure.unit:12} {figure.note}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2))


if __name__ == "__main__":
    main()
