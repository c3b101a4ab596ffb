"""One walker on the execution units, as work of the command streamer in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.compute import payload
from vfio_user_xe.device_models.xe.compute.compiled_units import units
from vfio_user_xe.device_models.xe.compute.descriptors import InterfaceDescriptor, Walker
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces, SurfaceType
from vfio_user_xe.device_models.xe.compute.units import Task
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

IN_FLIGHT = 1024
"""Threads at once: what 128 execution units of 8 threads hold."""
_STEP_NS = 800_000
_DENORMALS = 1 << 6 | 1 << 7 | 1 << 10
"""cr0.0: denormals of double, single and half are kept."""


def run(streamer: CommandStreamer, walker: Walker) -> Bulk:
    """Run all groups of `walker` with the context's state, in steps."""
    state = ComputeState.of(streamer.lrc)
    space = streamer.lrc.space
    memory = UnitMemory(space.execution_units if isinstance(space, PpgttSpace) else space)
    surfaces = Surfaces(memory, state, walker.interface.binding_table)
    while True:
        try:
            most = _most_threads(state, surfaces)
            break
        except (TranslationFault, AccessFault) as fault:
            yield fault
    task = Task(
        walker=walker,
        state=state,
        memory=memory,
        surfaces=surfaces,
        registers=payload.group_registers(walker, state.scratch),
        lanes=payload.lanes(walker),
        control=_control(walker.interface),
        most_threads=most,
        nanoseconds=streamer.engine.clock.ns,
        ticks=streamer.engine.timestamp,
        report=streamer.engine.report,
    )
    execution = units().start(task)
    while not execution.finished:
        yield execution.step(_STEP_NS)


def _most_threads(state: ComputeState, surfaces: Surfaces) -> int:
    """Threads that can be in flight: as many as there are slots of scratch. Raises a fault of its surface state."""
    if state.scratch:
        scratch = surfaces.find(SurfaceKind.SS, state.scratch >> 4)
        if scratch.type is SurfaceType.SCRATCH:
            return min(IN_FLIGHT, scratch.entries)
    return IN_FLIGHT


def _control(interface: InterfaceDescriptor) -> int:
    """cr0.0 of new threads: rounding 5:4, and denormals."""
    return interface.rounding << 4 | (_DENORMALS if interface.denormals else 0)
