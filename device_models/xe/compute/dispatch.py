"""One walker's groups on the execution units: batches of groups, each run until all its threads have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vfio_user_xe.device_models.xe.compute import payload
from vfio_user_xe.device_models.xe.compute.descriptors import Triple, Walker
from vfio_user_xe.device_models.xe.compute.groups import Groups
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.port import Port
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces, SurfaceType
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter, RunState
from vfio_user_xe.device_models.xe.eu.reference.report import describe_thread
from vfio_user_xe.device_models.xe.eu.reference.threads import Status, Threads
from vfio_user_xe.device_models.xe.eu.registers import SR0
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

IN_FLIGHT = 1024
"""Threads at once: what 128 execution units of 8 threads hold."""
_SLICE_NS = 800_000
"""Of a step."""
_FIRST_STEP, _LEAST_STEP, _MOST_STEP = 4096, 64, 1 << 20
"""Instructions of a step, over all threads."""
_COMPACTED, _COMPACTED_FLAG = 8, 0x20
"""Bytes of a compacted instruction, and what says so in its byte 3."""


class Dispatch:
    """A walker in flight."""

    def __init__(self, streamer: CommandStreamer, walker: Walker, state: ComputeState) -> None:
        self._streamer = streamer
        self._walker = walker
        self._state = state
        space = streamer.lrc.space
        self._memory = UnitMemory(space.execution_units if isinstance(space, PpgttSpace) else space)
        self._surfaces = Surfaces(self._memory, state, walker.interface.binding_table)
        self._clock = streamer.engine.clock
        self._step = _FIRST_STEP
        self.done = 0
        """Groups that have ended, in the order of the walk."""

    def run(self) -> Bulk:
        """Run all groups, in steps."""
        while True:
            try:
                most = self._most_groups()
                break
            except (TranslationFault, AccessFault) as fault:
                yield fault
        registers = payload.group_registers(self._walker, self._state.scratch)
        while self.done < self._walker.groups:
            count = min(most, self._walker.groups - self.done)
            yield from self._run_batch(self._threads(registers, self.done, count))
            self.done += count

    def _run_batch(self, threads: Threads) -> Bulk:
        interface = self._walker.interface
        groups = Groups(threads, interface.threads, interface.slm_bytes)
        port = Port(groups, self._memory, self._surfaces, self._state.general, self._streamer.engine.report)
        interpreter = Interpreter(self._fetch, threads, port, self._streamer.engine.timestamp)
        while True:
            start = self._clock.ns()
            try:
                state = interpreter.run(self._step)
            except (TranslationFault, AccessFault) as fault:
                yield fault  # of an instruction
                continue
            self._adapt(self._clock.ns() - start)
            if state is RunState.ENDED:
                return
            groups.ended()
            if port.faults:
                yield from self._faulted(interpreter, port)
            elif state is RunState.WAITING and not (threads.status == Status.RUNNING).any():
                self._hung(interpreter)
                return
            yield None

    def _faulted(self, interpreter: Interpreter, port: Port) -> Bulk:
        """Have the faults of messages served, then let their threads repeat them."""
        stopped = np.nonzero(interpreter.threads.status == Status.STOPPED)[0].tolist()
        faults, port.faults = port.faults, []
        first = faults[0]
        if stopped:
            first.add_note(self._describe(interpreter, stopped[0]))
        yield first
        interpreter.threads.resume(stopped)

    def _hung(self, interpreter: Interpreter) -> None:
        """Threads that nothing can bring to an end: illegal instructions, barriers that others will never reach."""
        left = np.nonzero(interpreter.threads.status != Status.ENDED)[0].tolist()
        self._streamer.engine.report(
            f"{len(left)} threads of a walker cannot go on and are ended; the first: {self._describe(interpreter, left[0])}"
        )

    def _describe(self, interpreter: Interpreter, thread: int) -> str:
        group = self._group(self.done + thread // self._walker.interface.threads)
        try:
            text = describe_thread(interpreter, thread)
        except (TranslationFault, AccessFault) as fault:
            text = f"its instruction cannot be read: {fault}"
        return f"group {group}, kernel at {self._walker.interface.kernel:#x}: {text}"

    def _adapt(self, elapsed: int) -> None:
        """Have the next step take a slice."""
        wanted = self._step * _SLICE_NS // max(elapsed, 1)
        self._step = max(_LEAST_STEP, min(_MOST_STEP, self._step * 4, wanted))

    def _threads(self, registers: np.ndarray[tuple[int, int], np.dtype[np.uint8]], first: int, count: int) -> Threads:
        """The threads of `count` groups from number `first` of the walk on."""
        walker = self._walker
        threads = Threads.create(walker.interface.kernel, payload.lanes(walker) * count, self._control())
        size = walker.interface.threads
        threads.registers[:, : registers.shape[1]] = np.tile(registers, (count, 1))
        r0 = threads.registers[:, :64].view(np.uint32)
        places = np.array([self._group(first + index) for index in range(count)], dtype=np.uint32).repeat(size, axis=0)
        r0[:, 1], r0[:, 6], r0[:, 7] = places[:, 0], places[:, 1], places[:, 2]
        slots = np.arange(len(threads), dtype=np.uint32)
        # sr0.0: thread 2:0, execution unit 6:4, subslice from bit 8 on.
        threads.registers[:, SR0 : SR0 + 4].view(np.uint32)[:, 0] = slots & 7 | (slots >> 3 & 7) << 4 | (slots >> 6) << 8
        return threads

    def _control(self) -> int:
        """cr0.0 of new threads: rounding 5:4, denormals of double 6, single 7, half 10."""
        interface = self._walker.interface
        return interface.rounding << 4 | (0x4C0 if interface.denormals else 0)

    def _group(self, index: int) -> Triple:
        """Place of the walk's group number `index`: x fastest."""
        x0, y0, z0 = self._walker.first
        x1, y1, _ = self._walker.end
        wide, high = x1 - x0, y1 - y0
        return x0 + index % wide, y0 + index // wide % high, z0 + index // (wide * high)

    def _most_groups(self) -> int:
        """Groups that can be in flight: by threads, and by slots of scratch."""
        threads = IN_FLIGHT
        if self._state.scratch:
            scratch = self._surfaces.find(SurfaceKind.SS, self._state.scratch >> 4)
            if scratch.type is SurfaceType.SCRATCH:
                threads = min(threads, scratch.entries)
        return max(1, threads // self._walker.interface.threads)

    def _fetch(self, address: int, length: int) -> bytes:
        """Instruction memory: `length` bytes at `address` from instruction base.

        An instruction that ends with its page does not need the next one.
        """
        place = self._state.instruction + address
        here = min(length, 0x1000 - (place & 0xFFF))
        data = self._memory.read(place, here)
        if here == length or (here == _COMPACTED and data[3] & _COMPACTED_FLAG):
            return data
        return data + self._memory.read(place + here, length - here)

