"""Execution units of the reference back end: batches of groups in lock step, in numpy."""

from __future__ import annotations

import numpy as np

from vfio_user_xe.device_models.xe.compute.groups import Groups
from vfio_user_xe.device_models.xe.compute.port import Port
from vfio_user_xe.device_models.xe.compute.units import Task
from vfio_user_xe.device_models.xe.eu.reference import exceptions
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter, RunState
from vfio_user_xe.device_models.xe.eu.reference.report import describe_thread
from vfio_user_xe.device_models.xe.eu.reference.threads import Status, Threads
from vfio_user_xe.device_models.xe.eu.registers import SR0
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall, Stall
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

_FIRST_STEP, _LEAST_STEP, _MOST_STEP = 4096, 64, 1 << 20
"""Instructions of a step, over all threads."""
_SLM = 16 * (384 << 10)
"""Shared local memory of all subslices."""


class ReferenceUnits:
    """Starts tasks on the interpreter."""

    def start(self, task: Task) -> ReferenceExecution:
        """`ExecutionUnits.start`."""
        return ReferenceExecution(task)


class ReferenceExecution:
    """Batches of as many groups as fit; the next begins when all of one have ended."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._instructions = _FIRST_STEP
        self._batch: _Batch | None = None
        self._held = False
        self.done = task.begin_at
        """Groups that have ended, in the order of the walk."""

    @property
    def begun(self) -> int:
        """`Execution.begun`."""
        return self.done + (self._batch.groups.count if self._batch is not None else 0)

    @property
    def at_boundary(self) -> bool:
        """`Execution.at_boundary`."""
        return self._batch is None

    def save(self) -> bytes:
        """`Execution.save`: batches are too large to be moved, and begin anew."""
        return b""

    def restore(self, data: bytes) -> None:
        """`Execution.restore`."""
        raise ValueError("the reference back end has no groups that are moved")

    def hold(self, held: bool) -> None:
        """`Execution.hold`."""
        self._held = held

    def describe(self) -> str:
        """`Execution.describe`."""
        return self._batch.describe() if self._batch is not None else ""

    def close(self) -> None:
        """`Execution.close`: everything is counted already."""

    @property
    def finished(self) -> bool:
        """All groups have ended."""
        return self.done >= self._task.walker.groups

    def step(self, nanoseconds: int) -> Fault | None:
        """`Execution.step`."""
        if self._batch is None:
            if self._held:
                return None
            count = min(_most_groups(self._task), self._task.walker.groups - self.done)
            self._batch = _Batch(self._task, self.done, count)
        start = self._task.nanoseconds()
        sampler = self._task.sampler()
        count = self._instructions if sampler is None else min(self._instructions, sampler.left)
        ended, fault = self._batch.run(count)
        if sampler is not None:
            due = sampler.passed(count)
            if due and not ended:
                self._batch.sample(sampler, due)
        elapsed = max(1, self._task.nanoseconds() - start)
        wanted = self._instructions * nanoseconds // elapsed
        self._instructions = max(_LEAST_STEP, min(_MOST_STEP, self._instructions * 4, wanted))
        if ended:
            self.done += self._batch.groups.count
            self._batch = None
        return fault


def _most_groups(task: Task) -> int:
    """Groups at once: by threads, and by the shared local memory that there is."""
    interface = task.walker.interface
    groups = task.most_threads // interface.threads
    if interface.slm_bytes:
        groups = min(groups, _SLM // interface.slm_bytes)
    return max(1, groups)


class _Batch:
    """Groups from number `first` of the walk on, that run together."""

    def __init__(self, task: Task, first: int, count: int) -> None:
        self._task = task
        self._first = first
        interface = task.walker.interface
        self._threads = _threads(task, first, count)
        self.groups = Groups(self._threads, interface.threads, interface.slm_bytes)
        self._port = Port(self.groups, task)
        self._interpreter = Interpreter(task.fetch, self._threads, self._port, task.ticks)
        self._stopped: list[int] = []

    def run(self, instructions: int) -> tuple[bool, Fault | None]:
        """Whether all have ended, and a fault to be served."""
        self._threads.resume(self._stopped)
        self._stopped = []
        try:
            state = self._interpreter.run(instructions)
        except (TranslationFault, AccessFault) as fault:
            return False, fault  # of an instruction
        if state is RunState.ENDED:
            return True, None
        self.groups.ended()
        faults, self._port.faults = self._port.faults, []
        if faults:
            self._stopped = np.nonzero(self._threads.status == Status.STOPPED)[0].tolist()
            if self._stopped:
                faults[0].add_note(self._describe(self._stopped[0]))
            return False, faults[0]
        for thread in np.nonzero(self._threads.status == Status.EXCEPTION)[0].tolist():
            exceptions.handle(self._threads, thread, self._task.state.system_routine)
        if state is RunState.WAITING and not (self._threads.status == Status.RUNNING).any():
            self._give_up()
            return True, None
        return False, None

    def sample(self, sampler: EuStall, due: int) -> None:
        """Record samples of the thread that is furthest behind."""
        threads = self._threads
        left = np.nonzero(threads.status != Status.ENDED)[0]
        thread = int(left[threads.executed[left].argmin()])
        waits = {Status.BARRIER: Stall.SYNC, Status.STOPPED: Stall.SEND, Status.WAITING: Stall.SEND}
        stall = waits.get(Status(int(threads.status[thread])), Stall.ACTIVE)
        self._task.sample(sampler, self._first + thread, int(threads.current()[thread]), stall, due)

    def describe(self) -> str:
        """The first thread that has not ended."""
        left = np.nonzero(self._threads.status != Status.ENDED)[0].tolist()
        return self._describe(left[0]) if left else ""

    def _give_up(self) -> None:
        """Threads that nothing can bring to an end: illegal instructions, barriers that others will never reach."""
        left = np.nonzero(self._threads.status != Status.ENDED)[0].tolist()
        self._task.report(
            f"{len(left)} threads of a walker cannot go on and are ended; the first: {self._describe(left[0])}"
        )

    def _describe(self, thread: int) -> str:
        interface = self._task.walker.interface
        group = self._task.group(self._first + thread // interface.threads)
        try:
            text = describe_thread(self._interpreter, thread)
        except (TranslationFault, AccessFault) as fault:
            text = f"its instruction cannot be read: {fault}"
        return f"group {group}, kernel at {interface.kernel:#x}: {text}"


def _threads(task: Task, first: int, count: int) -> Threads:
    """The threads of `count` groups from number `first` of the walk on."""
    size = task.walker.interface.threads
    threads = Threads.create(task.walker.interface.kernel, task.lanes * count, task.control)
    registers = task.registers()
    threads.registers[:, : registers.shape[1]] = np.tile(registers, (count, 1))
    r0 = threads.registers[:, :64].view(np.uint32)
    places = np.array([task.group(first + index) for index in range(count)], dtype=np.uint32).repeat(size, axis=0)
    r0[:, 1], r0[:, 6], r0[:, 7] = places[:, 0], places[:, 1], places[:, 2]
    slots = np.arange(len(threads), dtype=np.uint32)
    # sr0.0: thread 2:0, execution unit 6:4, subslice from bit 8 on.
    threads.registers[:, SR0 : SR0 + 4].view(np.uint32)[:, 0] = slots & 7 | (slots >> 3 & 7) << 4 | (slots >> 6) << 8
    return threads
