"""How fast compiled kernels run, without a guest: `python -m tests.bench.bench_eu [--json FILE]`.

Kernels as IGC and Mesa emit them, SIMD16. A lane-instruction is one lane of one instruction. Rates are the best of several rounds by
the processor time of the host's thread, so that others on the machine disturb little; two slots in parallel are held against one in
processor time too, and in wall time, which says something only on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled import library
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, compile_program, load_kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, Reason
from vfio_user_xe.device_models.xe.eu.compiled.memory import Map, aligned
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.decode import decode

ITEMS = 1 << 20
LANES = 16
ROUNDS = 7
FOREVER = 1 << 50
BASES = (0x1000_0000, 0x2100_0000, 0x3200_0000)

# r0.1 group, r1 ids of the lanes, r3: items a group, offset, items, then at .2:q the three arrays; r5 a barrier's payload.
BEGIN = """
(W) mul (1|M0)  r4.0<1>:ud  r0.1<0;1,0>:ud  r3.0<0;1,0>:ud
mov (16|M0)  r10.0<1>:ud  r1.0<1;1,0>:uw
add (16|M0)  r11.0<1>:ud  r10.0<1;1,0>:ud  r4.0<0;1,0>:ud
add (16|M0)  r11.0<1>:ud  r11.0<1;1,0>:ud  r3.1<0;1,0>:ud
cmp (16|M0) (lt)f0.0  null<1>:ud  r11.0<1;1,0>:ud  r3.2<0;1,0>:ud
mov (16|M0)  r12.0<1>:q  r11.0<1;1,0>:ud
shl (16|M0)  r12.0<1>:q  r12.0<1;1,0>:q  2:w
add (16|M0)  r14.0<1>:q  r12.0<1;1,0>:q  r3.2<0;1,0>:q
add (16|M0)  r16.0<1>:q  r12.0<1;1,0>:q  r3.3<0;1,0>:q
add (16|M0)  r18.0<1>:q  r12.0<1;1,0>:q  r3.4<0;1,0>:q
"""
LOAD_BOTH = "send.ugm (16|M0)  r22  r14  null:0  0x0  0x04100580\nsend.ugm (16|M0)  r23  r16  null:0  0x0  0x04100580\n"
SUM = LOAD_BOTH + "add (16|M0)  r24.0<1>:d  r22.0<1;1,0>:d  r23.0<1;1,0>:d\n"
STORE = "send.ugm (16|M0)  null  r18  {data}:1  0x0  0x04000584\n"
BARRIER = "(W) send.gtwy (1|M0)  null  r5  null:0  0x0  0x02000004\n(W) sync.bar (1|M0)  null\n"
END = "(W) send.gtwy (1|M0)  null  r0  null:0  0x0  0x02000010  {EOT}\n"
VADD = BEGIN + SUM + STORE.format(data="r24") + END
STEP = """
cmp (16|M0) (lt)f0.0  null<1>:ud  r10.0<1;1,0>:ud  {distance}:uw
add (16|M0)  r26.0<1>:d  r25.0<1;1,0>:d  {bytes}:w
(f0.0) send.slm (16|M0)  r27  r26  null:0  0x0  0x02100500
(f0.0) send.slm (16|M0)  r28  r25  null:0  0x0  0x02100500
(f0.0) add (16|M0)  r28.0<1>:d  r28.0<1;1,0>:d  r27.0<1;1,0>:d
(f0.0) send.slm (16|M0)  null  r25  r28:1  0x0  0x02000504
"""
REDUCE = (
    BEGIN
    + SUM
    + "shl (16|M0)  r25.0<1>:d  r10.0<1;1,0>:d  2:w\nsend.slm (16|M0)  null  r25  r24:1  0x0  0x02000504\n"
    + BARRIER
    + "".join(STEP.format(distance=1 << n, bytes=4 << n) + BARRIER for n in range(7, -1, -1))
    + "(f0.0) "
    + STORE.format(data="r28")
    + END
)
MATMUL = (
    BEGIN
    + """
mov (16|M0)  r14.0<1>:q  r3.2<0;1,0>:q
mov (16|M0)  r30.0<1>:f  0x0:f
mov (16|M0)  r31.0<1>:d  0:w
loop:
"""
    + LOAD_BOTH
    + """
mad (16|M0)  r30.0<1>:f  r30.0<1;0>:f  r22.0<1;0>:f  r23.0<1>:f
add (16|M0)  r14.0<1>:q  r14.0<1;1,0>:q  4:w
add (16|M0)  r16.0<1>:q  r16.0<1;1,0>:q  2048:w
add (16|M0)  r31.0<1>:d  r31.0<1;1,0>:d  1:w
cmp (16|M0) (lt)f0.0  null<1>:d  r31.0<1;1,0>:d  512:w
(f0.0) goto (16|M0)  loop  loop
"""
    + STORE.format(data="r30")
    + END
)
ARITHMETIC = """
shl (16|M0)  r42.0<1>:d  r40.0<1;1,0>:d  5:w
add (16|M0)  r40.0<1>:d  r40.0<1;1,0>:d  r42.0<1;1,0>:d
add (16|M0)  r43.0<1>:d  r40.0<1;1,0>:d  12345:w
mad (16|M0)  r41.0<1>:f  r43.0<1;0>:f  r41.0<1;0>:f  r41.0<1>:f
add (16|M0)  r40.0<1>:d  r40.0<1;1,0>:d  r43.0<1;1,0>:d
shl (16|M0)  r44.0<1>:d  r40.0<1;1,0>:d  3:w
mad (16|M0)  r45.0<1>:f  r44.0<1;0>:f  r41.0<1;0>:f  r41.0<1>:f
"""
ALU = (
    BEGIN
    + "mov (16|M0)  r40.0<1>:d  r11.0<1;1,0>:d\nmov (16|M0)  r31.0<1>:d  0:w\nmov (16|M0)  r41.0<1>:f  0x0:f\nloop:\n"
    + 2 * ARITHMETIC
    + """
add (16|M0)  r31.0<1>:d  r31.0<1;1,0>:d  1:w
cmp (16|M0) (lt)f0.0  null<1>:d  r31.0<1;1,0>:d  200:w
(f0.0) goto (16|M0)  loop  loop
"""
    + STORE.format(data="r40")
    + END
)


@dataclass(frozen=True)
class Job:
    """A kernel, threads in a group, groups, and instructions that each thread executes."""

    name: str
    text: str
    threads: int
    groups: int
    instructions: int


def _count(text: str) -> int:
    return text.count("|M")


JOBS = (
    Job("vadd", VADD, 16, ITEMS // 256, _count(VADD)),
    Job("reduce", REDUCE, 16, ITEMS // 256, _count(REDUCE)),
    Job("matmul 512", MATMUL, 8, 512 * 512 // 128 // 16, _count(MATMUL) + 511 * 8),
    Job("alu", ALU, 16, 256, _count(ALU) + 199 * 17),
)


@dataclass(frozen=True)
class Figure:
    """One line: what, how much, in which unit."""

    name: str
    value: float
    unit: str


class Arrays:
    """Three arrays of ITEMS dwords in one address space."""

    def __init__(self) -> None:
        self.map = Map(library.load())
        self.data = [aligned(ITEMS * 4 + 65536) for _ in BASES]
        random = np.random.default_rng(1)
        for array in self.data[:2]:
            array.view(np.int32)[:] = random.integers(0, 1000, len(array) // 4)
        for base, array in zip(BASES, self.data, strict=True):
            for start in range(0, len(array), 65536):
                self.map.insert(base + start, 16, array.ctypes.data + start, Access.READ | Access.WRITE)


def payload(threads: int) -> NDArray[np.uint8]:
    data = np.zeros((threads, 6 * 64), dtype=np.uint8)
    for thread in range(threads):
        words = data[thread].view(np.uint32)
        words[5 * 16 + 2] = threads << 24 | threads << 16
        data[thread, 64:96].view(np.uint16)[:] = np.arange(LANES) + LANES * thread
        words[48:51] = [threads * LANES, 0, ITEMS]
        data[thread].view(np.uint64)[26:29] = BASES
    return data


def kernel_of(text: str) -> Kernel:
    code = assemble(text)
    return compile_program(decode(lambda address, size: code[address : address + size], 0), library.load())


def walk_of(kernel: Kernel, job: Job, groups: int) -> Walk:
    return Walk(kernel, payload(job.threads), [0xFFFF] * job.threads, 0, (groups, 1, 1), cr0=0x4C0)


def run(slot: Slot) -> float:
    """Processor seconds until no group is left."""
    start = time.thread_time()
    reason = slot.run(FOREVER)
    if reason is not Reason.GONE:
        raise RuntimeError(f"the slot stopped with {reason.name}")
    return time.thread_time() - start


def measure(job: Job) -> list[Figure]:
    """Rates of one kernel."""
    arrays = Arrays()
    kernel = kernel_of(job.text)
    slots = [Slot(arrays.map, job.threads, 4096) for _ in range(2)]

    def alone(groups: int) -> float:
        slots[0].begin(walk_of(kernel, job, groups))
        return run(slots[0])

    def both() -> tuple[float, float]:
        walk = walk_of(kernel, job, job.groups)
        used: list[float] = []
        for slot in slots:
            slot.begin(walk)
        workers = [threading.Thread(target=lambda slot=slot: used.append(run(slot))) for slot in slots]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - start, sum(used)

    alone(job.groups)
    one = min(alone(job.groups) for _ in range(ROUNDS))
    group = min(alone(1) for _ in range(30))
    walls, used = zip(*(both() for _ in range(ROUNDS)), strict=True)
    total = job.groups * job.threads * job.instructions * LANES
    return [
        Figure(f"{job.name}: one slot", total / one / 1e9, "G lane-instructions/s"),
        Figure(f"{job.name}: two slots against one, wall time", one / min(walls), "times"),
        Figure(f"{job.name}: two slots against one, processor time", 2 * one / min(used), "times"),
        Figure(f"{job.name}: one group of {job.threads} threads", group * 1e6, "µs"),
    ]


def best(what: Callable[[], object]) -> float:
    """Milliseconds of processor time, best of ROUNDS."""
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        what()
        times.append(time.thread_time() - start)
    return min(times) * 1e3


def translation() -> list[Figure]:
    """How long a kernel takes until it can run."""
    figures = []
    handlers = library.load()
    for count in (200, 2000):
        code = assemble(BEGIN + (ARITHMETIC + LOAD_BOTH) * ((count - 11) // 9) + END)

        def read(address: int, size: int, code: bytes = code) -> bytes:
            return code[address : address + size]

        program = decode(read, 0)
        figures.append(Figure(f"decode {count} instructions", best(lambda read=read: decode(read, 0)), "ms"))
        figures.append(
            Figure(f"translate {count}", best(lambda program=program: compile_program(program, handlers)), "ms")
        )
        load_kernel(read, 0, handlers)
        figures.append(Figure(f"{count} from disk", best(lambda read=read: load_kernel(read, 0, handlers)), "ms"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    library.load()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        figures = translation()
    for job in JOBS:
        figures += measure(job)
    for figure in figures:
        print(f"{figure.name:55} {figure.value:8.2f} {figure.unit}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    main()
