"""Engines on the rig: contexts with an image, a ring and a PPGTT, commands by name, and an executor run by hand."""

from __future__ import annotations

import builtins
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import NonCallableMock

from tests.support.xe.commands import END, NOOP
from tests.support.xe.contexts import lrc_image
from tests.support.xe.rig import MIB, PageTables, Rig
from vfio_user_xe.device_models.xe import compute, render
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.engine import Engine
from vfio_user_xe.device_models.xe.engines.engines import Engines
from vfio_user_xe.device_models.xe.engines.types import EngineView
from vfio_user_xe.device_models.xe.gt.gt import Gt
from vfio_user_xe.device_models.xe.memory.address_space import Fault, TranslationFault
from vfio_user_xe.device_models.xe.profiles.profile import COPY, main_gt_engines, media_gt_engines
from vfio_user_xe.emulator.model.register_file import RegisterFile
from vfio_user_xe.emulator.model.registers import PF, VF

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.memory.function import XeFunction

REGISTERS_SIZE = 4 * MIB
RING_SIZE = 0x4000

# GGTT addresses of the parts of context n: contexts are 0x40000 apart.
GGTT_BASE = 0x400_0000
CONTEXT_STRIDE = 0x4_0000
RING, PPHWSP, WA_BB, SEQNO = 0x0, 0x4000, 0x8000, 0x9000
BATCH_VA = 0x10_0000
DATA_VA = 0x100_0000
GGTT_BATCH = 0xA000


class HandExecutor:
    """Runs jobs when told to; timers come due in order, without waiting, once there is nothing else to do."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.now = 0.0
        self.waited: list[float] = []
        self._running = False

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def call_later(self, seconds: float, job: Callable[[], None]) -> None:
        self.waited.append(seconds)
        heapq.heappush(self.timers, (self.now + seconds, next(self._order), job))

    def is_current(self) -> bool:
        """Whether a job is running."""
        return self._running

    def run(self, until: Callable[[], bool] | None = None, limit: int = 5000) -> None:
        """Run everything, or until `until()`. AssertionError when that does not end."""
        self._running = True
        try:
            self._run(until, limit)
        finally:
            self._running = False

    def _run(self, until: Callable[[], bool] | None, limit: int) -> None:
        for _ in range(limit):
            if until is not None and until():
                return
            if self.jobs:
                self.jobs.popleft()()
            elif self.timers:
                self.now, _, job = heapq.heappop(self.timers)
                job()
            elif until is None:
                return
            else:
                raise AssertionError("nothing left to do, and it has not happened")
        raise AssertionError(f"still not done after {limit} jobs")


@dataclass
class Listener:
    """Writes down what engines tell."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    serve: Callable[[Context, TranslationFault], bool] = lambda context, fault: False
    on_interrupt: Callable[[], None] = lambda: None

    def user_interrupt(self, function: Any, engine: EngineView) -> None:
        self.events.append(("interrupt", function.pci.name, engine.name))
        self.on_interrupt()

    def page_fault(self, context: Context, engine: EngineView, fault: TranslationFault) -> bool:
        self.events.append(("page fault", context.guc_id, fault.address, fault.level, fault.write))
        return self.serve(context, fault)

    def memory_fault(self, context: Context, engine: EngineView, fault: Fault) -> None:
        self.events.append(("memory fault", context.guc_id, engine.name))
        self.faults.append(fault)

    def context_reset(self, context: Context, engine: EngineView, reason: str) -> None:
        self.events.append(("context reset", context.guc_id, reason))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == kind]


class Lab(Rig):
    """A rig with the engines of one GT."""

    def __init__(self, *, media: bool = False, compute_engines: int = 1, vram: int = 64 * MIB, decode: int = 2) -> None:
        super().__init__(vram)
        self.executor = HandExecutor()
        self.pf.registers = RegisterFile("pf", REGISTERS_SIZE, PF)
        infos = media_gt_engines(decode, 1) if media else main_gt_engines(compute_engines)
        self.gt = NonCallableMock(spec=Gt, gpu=self, infos=infos)
        self.listener = Listener()
        self.engines = Engines(self.gt, self.listener, {**compute.COMMANDS, **render.COMMANDS})
        self.pf.registers.add(self.engines.registers())
        self.jobs: list[Job] = []

    def engine(self, name: str) -> Engine:
        return next(engine for engine in self.engines.engines if engine.name == name)

    def vf_with_memory(self, vfid: int, blocks: dict[int, int], ggtt: tuple[int, int]) -> Any:
        vf = self.vf(vfid, ggtt)
        vf.registers = RegisterFile(vf.name, REGISTERS_SIZE, VF)
        vf.registers.unmodelled_storage = False
        self.vram.assign(vfid, blocks)
        return vf

    def job(self, **options: Any) -> Job:
        job = Job(self, len(self.jobs), **options)
        self.jobs.append(job)
        return job

    def run(self, until: Callable[[], bool] | None = None, limit: int = 5000) -> None:
        self.executor.run(until, limit)

    def execute(self, *batch: int, **options: Any) -> Job:
        """Run `batch` as a user batch (PPGTT) of a fresh context to its end."""
        job = self.job(**options)
        job.batch(*batch, END)
        job.ring(*job.start())
        job.submit()
        self.run()
        return job


class Job:
    """One context: image, ring, and in the PPGTT a page for batches at `BATCH_VA` and data at `DATA_VA`."""

    def __init__(
        self,
        lab: Lab,
        guc_id: int,
        *,
        engine_class: int = COPY,
        mask: int = 1,
        function: Any = None,
        ppgtt: bool = True,
        members: int = 1,
        work_queue: bool = False,
        **policy: Any,
    ) -> None:
        self.lab = lab
        self.function = function or lab.pf
        self.ggtt = GGTT_BASE + guc_id * CONTEXT_STRIDE * 4
        self.memory = lab.alloc() if function is None else 0x10_0000 * (guc_id + 1)
        self._tail = [0] * members
        for member in range(members):
            lab.map_ggtt(
                self.at(0, member), self.memory + member * CONTEXT_STRIDE, CONTEXT_STRIDE, function=self.function
            )
        self.tables = PageTables(lab, self.function, self.memory + 0xE_0000)
        self.batch_memory, self.data_memory = self.memory + 0xC_0000, self.memory + 0xD_0000
        self.tables.map(BATCH_VA, self.batch_memory, 0x1_0000)
        self.tables.map(DATA_VA, self.data_memory, 0x1_0000)
        for member in range(members):
            self._image(member, ppgtt)
        descriptors = [self.at(PPHWSP, member) | 0x19 | (0x100 if ppgtt else 0) for member in range(members)]
        queue = (self.at(0x2_0000), self.at(0x2_1000), 0x1000) if work_queue else None
        self.context = Context(
            cast("XeFunction", self.function), guc_id, engine_class, mask, descriptors, work_queue=queue
        )
        for name, value in policy.items():
            setattr(self.context, name, value)
        self.registered = False

    def at(self, part: int, member: int = 0) -> int:
        """GGTT address of a part."""
        return self.ggtt + member * CONTEXT_STRIDE + part

    def _image(self, member: int, ppgtt: bool) -> None:
        asid, root = (1 + self.lab_id, self.tables.root) if ppgtt else (0, 0)
        values = lrc_image(self.at(RING, member), RING_SIZE, asid=asid, root=root)
        for index, value in values.items():
            self.set_image(index, value, member)

    @property
    def lab_id(self) -> int:
        return (self.ggtt - GGTT_BASE) // (4 * CONTEXT_STRIDE)

    def image(self, index: int, member: int = 0) -> int:
        return self.function.ggtt_space.read32(self.at(PPHWSP + 0x1000, member) + 4 * index)

    def set_image(self, index: int, value: int, member: int = 0) -> None:
        self.function.ggtt_space.write32(self.at(PPHWSP + 0x1000, member) + 4 * index, value)

    def dwords(self, ggtt: int, *values: int) -> None:
        for n, value in enumerate(values):
            self.function.ggtt_space.write32(ggtt + 4 * n, value)

    def ring(self, *commands: int, member: int = 0) -> None:
        """Append to the ring and move RING_TAIL of the image."""
        for command in commands:
            self.function.ggtt_space.write32(self.at(RING, member) + self._tail[member], command)
            self._tail[member] = (self._tail[member] + 4) % RING_SIZE
        if self._tail[member] % 8:
            self.ring(NOOP, member=member)
        self.set_image(0x07, self._tail[member], member)

    def batch(self, *commands: int, offset: int = 0) -> int:
        """Write a batch at `BATCH_VA + offset`; returns its address."""
        view = self._view(self.batch_memory + offset, 4 * len(commands)).cast("I")
        view[:] = memoryview(b"".join((c & 0xFFFFFFFF).to_bytes(4, "little") for c in commands)).cast("I")
        return BATCH_VA + offset

    def start(self, address: int = BATCH_VA, flags: int = 0x100) -> tuple[int, int, int]:
        """MI_BATCH_BUFFER_START, PPGTT unless `flags` say otherwise."""
        return 0x1880_0001 | flags, address & 0xFFFFFFFF, address >> 32

    def submit(self) -> None:
        """As the driver and the GuC do: register and enable, or kick."""
        engines = self.lab.engines
        if not self.registered:
            self.registered = True
            engines.register(self.context)
            engines.enable(self.context)
        else:
            engines.kick(self.context)

    def _view(self, address: int, length: int) -> memoryview:
        found = self.lab.vram.resolve(self.function.pci, address, length, True)
        assert found is not None
        return found[1]

    def data(self, offset: int = 0, count: int = 1) -> list[int]:
        """Dwords at `DATA_VA + offset`."""
        return self._view(self.data_memory + offset, 4 * count).cast("I").tolist()

    def data64(self, offset: int = 0) -> int:
        low, high = self.data(offset, 2)
        return low | high << 32

    def set_data(self, offset: int, *values: int) -> None:
        view = self._view(self.data_memory + offset, 4 * len(values)).cast("I")
        for n, value in enumerate(values):
            view[n] = value & 0xFFFFFFFF

    def bytes(self, offset: int, length: int) -> builtins.bytes:
        return builtins.bytes(self._view(self.data_memory + offset, length))

    def set_bytes(self, offset: int, data: builtins.bytes) -> None:
        self._view(self.data_memory + offset, len(data))[:] = data

    @property
    def head(self) -> int:
        return self.image(0x05)

    @property
    def tail(self) -> int:
        return self._tail[0]
