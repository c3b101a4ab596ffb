"""Command streams and kernels of a VF, on the engines alone: what they reach is the VF's own."""

from __future__ import annotations

import heapq
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import ClassVar
from unittest.mock import patch

from tests.fuzz.campaign.target import Target, dword
from tests.support.xe.commands import END
from tests.support.xe.compute_lab import KERNEL, ComputeLab, base_addresses, walker
from tests.support.xe.engine_lab import BATCH_VA, DATA_VA, Job
from vfio_user_xe.device_models.xe.compute import dispatch
from vfio_user_xe.device_models.xe.compute.back_end import units
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.engines.commands import COMMANDS
from vfio_user_xe.device_models.xe.engines.engine_regs import TABLE
from vfio_user_xe.device_models.xe.eu.assembler import assemble
from vfio_user_xe.device_models.xe.eu.compiled import store as compiled_store
from vfio_user_xe.device_models.xe.profiles.profile import COMPUTE, COPY, RENDER

BLOCK = 2 << 20
CANARY = 0x5AFE_5AFE
OWN, FOREIGN = 8, 24
_SLICES, _CPU_SECONDS = 400, 4.0
"""Jobs of the executor, and time, that a case may take: a batch that never ends, or draws without end, is its own affair."""
_WALKER = 0x7208_0000


class AttackingVf(Target):
    """A VF with 16 MiB of VRAM beside a victim that has 4 MiB of canaries; the PF has nothing."""

    unit = "dwords"
    fresh: ClassVar[int] = 25
    seconds: ClassVar[float] = 900.0
    """On a machine that has twenty times more to do than it can."""
    reference: ClassVar[bool] = True
    _unfinished: ComputeLab | None = None

    def open(self) -> None:
        self._stack = ExitStack()
        if self.reference:
            self._stack.enter_context(patch.object(dispatch, "units", ReferenceUnits))
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        path = compiled_store._path
        # Kernels of nonsense must not push out the user's.
        self._stack.enter_context(
            patch.object(compiled_store, "_path", lambda read, entry: folder / path(read, entry).name)
        )

    def close(self) -> None:
        unfinished, self._unfinished = self._unfinished, None
        with self._stack:
            if unfinished is not None:  # what a case left that found something
                unfinished.close()

    def lab(self) -> ComputeLab:
        """A new card."""
        lab = self._unfinished = ComputeLab()
        lab.vf_with_memory(1, {n: OWN + n for n in range(8)}, (0x400_0000, 0x100_0000))
        lab.vf_with_memory(2, {n: FOREIGN + n for n in range(2)}, (0x600_0000, 0x100_0000))
        for block in range(2):
            victim(lab, block)[:] = CANARY.to_bytes(4, "little") * (BLOCK // 4)
        return lab

    def finish(self, lab: ComputeLab, before: int) -> None:
        """Run what is left, as far as it ends, and look at what belongs to others."""
        end = time.process_time() + _CPU_SECONDS
        for _ in range(_SLICES):
            if time.process_time() > end:
                break
            if lab.executor.jobs:
                lab.executor.jobs.popleft()()
            elif lab.executor.timers:
                lab.executor.now, _, job = heapq.heappop(lab.executor.timers)
                job()
            else:
                break
        for block in range(2):
            assert victim(lab, block) == CANARY.to_bytes(4, "little") * (BLOCK // 4), "the victim's memory changed"
        assert lab.vram.memory.resident() <= before, "memory of the PF was written"
        lab.close()
        self._unfinished = None


def victim(lab: ComputeLab, block: int) -> memoryview:
    """A block of the second VF."""
    found = lab.vram.resolve(lab.functions[2].pci, block * BLOCK, BLOCK, True)
    assert found is not None
    return found[1]


def operand(random: Random) -> int:
    """A dword of a command: half of an address of its own, or of somebody else's, or any number."""
    kind = random.randrange(6)
    if kind == 0:
        return DATA_VA + random.randrange(0x1_0000) & ~3
    if kind == 1:
        return BATCH_VA + random.randrange(0x1_0000) & ~3
    if kind == 2:
        return 0x400_0000 + random.randrange(0x300_0000) & ~3
    return dword(random)


class CommandStreams(AttackingVf):
    """Declared commands with any fields, and dwords that are none."""

    name = "streams"

    def case(self, random: Random) -> int:
        lab = self.lab()
        before, dwords = lab.vram.memory.resident(), 0
        for number in range(random.randrange(1, 4)):
            job = Job(
                lab, number, engine_class=random.choice((COPY, COMPUTE, RENDER)), function=lab.functions[1],
                members=1,
            )  # fmt: skip
            stream = self._stream(random)
            dwords += len(stream)
            job.batch(*stream[:0x3F00], END)
            job.ring(*(stream[:40] if random.random() < 0.2 else ()), *job.start())
            job.submit()
        self.finish(lab, before)
        return dwords

    @staticmethod
    def _stream(random: Random) -> list[int]:
        stream: list[int] = []
        for _ in range(random.randrange(1, 120)):
            if random.random() < 0.05:
                stream.append(dword(random))
                continue
            command = random.choice(COMMANDS)
            if command.header & 0xFFFF0000 == _WALKER and random.random() < 0.9:
                continue  # kernels have a target of their own
            free = ~command.mask & 0xFFFFFFFF & ~(command.length_mask if not command.length else 0)
            header = command.header | (dword(random) & free if random.random() < 0.7 else 0)
            length = command.length
            if not length:
                length = (
                    random.choice((2, 3, 4, 5, 6, 8, 12, 22)) if random.random() < 0.9 else random.randrange(2, 200)
                )
                header |= length - 2 & command.length_mask
            if command.name.startswith("MI_LOAD_REGISTER") and random.random() < 0.7:
                row = random.choice(TABLE)
                stream += [header, *[random.choice((row.offset, 0x2000 + row.offset, dword(random)))] * (length - 1)]
                continue
            stream += [header, *(operand(random) for _ in range(length - 1))]
        return stream


_SEEDS = (
    "mov (16|M0)  r20.0<1>:ud  7:ud\nadd (16|M0)  r21.0<1>:d  r20.0<1;1,0>:d  r1.0<0;1,0>:d\n",
    "cmp (16|M0)  (lt)f0.0  null<1>:ud  r20.0<1;1,0>:ud  400:ud\nmov (16|M0)  r22.0<1>:f  r20.0<1;1,0>:ud\n",
    "mul (16|M0)  r23.0<1>:f  r22.0<1;1,0>:f  r22.0<1;1,0>:f\nmov (16|M0)  r24.0<1>:ud  r2.0<0;1,0>:ud\n",
)
_EOT = "(W) send.gtwy (1|M0)  null  r112  null:0  0x0  0x02000010  {EOT}\n"
_INSTRUCTION = 16


class Kernels(AttackingVf):
    """Code of the execution units: instructions with bits turned over, and code that is none."""

    name, unit = "kernels", "instructions"

    def open(self) -> None:
        super().open()
        self._code = [assemble(text) for text in _SEEDS]
        self._end = assemble(_EOT)

    def case(self, random: Random) -> int:
        lab = self.lab()
        before = lab.vram.memory.resident()
        job = Job(lab, 0, engine_class=COMPUTE, function=lab.functions[1])
        code = bytearray().join(random.choice(self._code) for _ in range(random.randrange(1, 8)))
        for _ in range(random.randrange(0, 24)):
            code[random.randrange(len(code))] ^= 1 << random.randrange(8)
        if random.random() < 0.2:
            at = random.randrange(0, len(code), 8)
            code[at : at + 16] = random.randbytes(16)
        code += self._end
        view = job._view(job.batch_memory + KERNEL, len(code))
        view[:] = code
        inline = [operand(random) for _ in range(8)]
        simd = random.choice((16, 32))
        job.batch(
            *base_addresses(), *walker(inline=inline, simd=simd, local=(simd, 1, 1), groups=(random.randrange(1, 4), 1, 1)),
            END,
        )  # fmt: skip
        job.ring(*job.start())
        job.submit()
        self.finish(lab, before)
        return len(code) // _INSTRUCTION


class CompiledKernels(Kernels):
    """The same on the compiled back end, where there is a compiler."""

    name, reference = "compiled-kernels", False

    def case(self, random: Random) -> int:
        return 0 if isinstance(units(), ReferenceUnits) else super().case(random)
