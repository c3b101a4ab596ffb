"""One walker on the execution units, as work of the command streamer in steps."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.compute import payload
from vfio_user_xe.device_models.xe.compute.back_end import units
from vfio_user_xe.device_models.xe.compute.descriptors import InterfaceDescriptor, Walker
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces, SurfaceType
from vfio_user_xe.device_models.xe.compute.units import Execution, Task
from vfio_user_xe.device_models.xe.engines.lrc import WALKER_PROGRESS
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.eu.reference.exceptions import ENABLE_ILLEGAL, ENABLE_SOFTWARE
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace

if TYPE_CHECKING:
    from collections.abc import Generator

    from vfio_user_xe.device_models.xe.engines.command_streamer import CommandStreamer
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc
    from vfio_user_xe.device_models.xe.memory.address_space import Fault

IN_FLIGHT = 1024
"""Threads at once, at most: what 128 execution units of 8 threads hold. A card may have fewer (`Part.threads`)."""
_MOST_GROUPS = 1 << 62
_STEP_NS, _LEAST_STEP_NS = 1_000_000, 100_000
"""A step goes to the end of the command streamer's slice."""
_PATIENCE_NS, _LEAVING_PATIENCE_NS = 2_000_000, 500_000_000
"""How long groups in flight may take to end before the context is preempted in the middle of them: for others' turns, and
when it is disabled or its function is paused, after which it may be saved."""
_DENORMALS = 1 << 6 | 1 << 7 | 1 << 10
"""cr0.0: denormals of double, single and half are kept."""
_FLUSHED = 1 << 6 | 1 << 10
"""cr0.0 where the descriptor asks for flushing: that concerns single alone (Intel's media driver, `DENORM_MODE_FTZ`)."""
_IN_FLIGHT = struct.Struct("<QIII")
"""Groups that had begun, and which walker's they are (`Progress`)."""
_ENABLES = {1 << 7: ENABLE_SOFTWARE, 1 << 11: 1 << 11, 1 << 13: ENABLE_ILLEGAL}
"""Bits of cr0.1 by those of `InterfaceDescriptor.exceptions`."""


def run(streamer: CommandStreamer, walker: Walker, progress: Progress) -> Generator[Fault | None, None, bool]:
    """Run all groups of `walker` with the context's state, in steps. False: it was skipped."""
    if walker.groups >= _MOST_GROUPS:
        streamer.engine.report(f"a walker of {walker.groups} groups is skipped: nobody could wait for its end")
        return False
    state = ComputeState.of(streamer.lrc)
    space = streamer.lrc.space
    memory = UnitMemory(space.execution_units if isinstance(space, PpgttSpace) else space)
    surfaces = Surfaces(memory, state, walker.interface.binding_table)
    while True:
        try:
            most = min(streamer.engine.most_threads, _most_threads(state, surfaces))
            break
        except (TranslationFault, AccessFault) as fault:
            yield fault
    arrived = progress.arrived() if streamer.lrc.arrived else None
    task = Task(
        walker=walker,
        state=state,
        memory=memory,
        surfaces=surfaces,
        lanes=payload.lanes(walker),
        control=_control(walker.interface),
        begin_at=progress.begun() if arrived is None else arrived[0],
        most_threads=most,
        nanoseconds=streamer.engine.clock.ns,
        ticks=streamer.engine.timestamp,
        stalls=streamer.engine.stalls,
        report=streamer.engine.report,
        interpret=streamer.engine.interpret,
        later=streamer.later,
    )
    kernels, function = streamer.engine.kernels, streamer.lrc.function.pci.name
    if kernels.tap.on:
        kernels.kernel(function, "COMPUTE_WALKER", state.instruction, walker.interface.kernel, task.fetch)
        kernels.walker(function, _told(task))
    execution = units().start(task)
    if arrived is not None:
        try:
            execution.restore(arrived[1])
        except ValueError as wrong:
            streamer.engine.report(f"groups in flight that came with a context begin anew: {wrong}")
            execution.close()
            execution = units().start(replace(task, begin_at=progress.begun()))
    progress.in_flight(execution)
    patience = _PATIENCE_NS
    try:
        finished = False
        while not finished:
            if streamer.preempt and streamer.lrc.arbitration:
                at_boundary = yield from _make_room(streamer, execution, progress, patience)
                # Groups that take longer will not end in time the next time either, and the time is another function's.
                patience = _PATIENCE_NS if at_boundary else 0
                finished = execution.finished
                continue
            missed = execution.step(_step(streamer))
            finished = execution.finished
            if missed is not None or not finished:
                yield missed
    except GeneratorExit:
        # A reset, or a context that is gone: whoever asks why has what it was at.
        text = execution.describe()
        if text:
            streamer.engine.thread_report(function, f"a walker is given up in the middle: {text}")
        raise
    finally:
        progress.in_flight(None)
        execution.close()
    progress.forget()
    return True


def _step(streamer: CommandStreamer) -> int:
    """Nanoseconds of the slice that are left, but some progress is made in any."""
    left = int(1e9 * (streamer.deadline - streamer.engine.clock.seconds()))
    return min(max(left, _LEAST_STEP_NS), _STEP_NS)


def _told(task: Task) -> dict[str, object]:
    """A walker's fields for the trace."""
    walker = task.walker
    return {
        "kernel": task.state.instruction + walker.interface.kernel,
        "groups": "x".join(str(end - first) for first, end in zip(walker.first, walker.end, strict=True)),
        "local": "x".join(str(size) for size in walker.local),
        "simd": walker.simd,
        "threads": walker.interface.threads,
        "slm": walker.interface.slm_bytes,
    }


def _make_room(
    streamer: CommandStreamer, execution: Execution, progress: Progress, patience: int
) -> Generator[Fault | None, None, bool]:
    """The context is to leave the engine: groups in flight are given time to end first. Whether all did.

    State in the middle of threads stays with the context in this process, and moves with a VF that is saved then; the context's
    image has only what lies between groups.
    """
    lrc, clock = streamer.lrc, streamer.engine.clock
    end = clock.ns() + (_LEAVING_PATIENCE_NS if streamer.leaving else patience)
    execution.hold(True)
    while not execution.at_boundary and clock.ns() < end:
        lrc.bulk_preemptible = False
        yield execution.step(_step(streamer))
    lrc.bulk_preemptible = True
    at_boundary = execution.at_boundary
    if at_boundary:
        progress.keep(execution.begun)
    yield None
    execution.hold(False)
    return at_boundary


class Progress:
    """How far a walker came, kept with the context's state so that it is saved: groups that have ended."""

    def __init__(self, lrc: Lrc, place: int, number: int = 0) -> None:
        """The walker at address `place`; `number` tells those of one command apart."""
        self._lrc = lrc
        self._key = [number, place & 0xFFFF_FFFF, place >> 32]

    @staticmethod
    def number_at(lrc: Lrc, place: int) -> int:
        """Which walker of the command at `place` was in flight; 0 if none was."""
        kept = lrc.state.get(WALKER_PROGRESS)
        return kept[1] if kept is not None and kept[2:] == [place & 0xFFFF_FFFF, place >> 32] else 0

    def begun(self) -> int:
        """Where to go on."""
        kept = self._lrc.state.get(WALKER_PROGRESS)
        return kept[0] if kept is not None and kept[1:] == self._key else 0

    def in_flight(self, execution: Execution | None) -> None:
        """Groups in flight are those of `execution` from now on, if the context is saved for another card."""
        self._lrc.in_flight = None if execution is None else partial(_save, execution, self._key)

    def arrived(self) -> tuple[int, bytes] | None:
        """Groups in flight of this walker that came with a context from another card, and how many had begun; once."""
        data, self._lrc.arrived = self._lrc.arrived, b""
        if len(data) < _IN_FLIGHT.size:
            return None
        begun, *key = _IN_FLIGHT.unpack_from(data)
        return (begun, data[_IN_FLIGHT.size :]) if key == self._key else None

    def keep(self, begun: int) -> None:
        """`begun` groups have ended, and no other has begun."""
        self._lrc.state[WALKER_PROGRESS] = [begun, *self._key]

    def forget(self) -> None:
        """The walker is done."""
        self._lrc.state.pop(WALKER_PROGRESS, None)


def _save(execution: Execution, key: list[int]) -> bytes:
    """Groups in flight of the walker that `key` names (`Progress`)."""
    groups = execution.save()
    return _IN_FLIGHT.pack(execution.begun, *key) + groups if groups else b""


def _most_threads(state: ComputeState, surfaces: Surfaces) -> int:
    """Threads that can be in flight: as many as there are slots of scratch.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    if state.scratch:
        scratch = surfaces.find(SurfaceKind.SS, state.scratch >> 4)
        if scratch.type is SurfaceType.SCRATCH:
            return min(IN_FLIGHT, scratch.entries)
    return IN_FLIGHT


def _control(interface: InterfaceDescriptor) -> int:
    """cr0.0 of new threads: rounding 5:4, and denormals; in bits 63:32 cr0.1: which exceptions are enabled."""
    enabled = 0
    if interface.exceptions:
        enabled = sum(bit for field, bit in _ENABLES.items() if interface.exceptions & field)
    return interface.rounding << 4 | (_DENORMALS if interface.denormals else _FLUSHED) | enabled << 32
