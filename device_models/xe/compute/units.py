"""What a dispatch asks of execution units, whichever back end they are: one task, run in steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import payload
from vfio_user_xe.device_models.xe.compute.descriptors import Triple, Walker
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.compute.surfaces import Surfaces
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall, Stall
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

_COMPACTED, _COMPACTED_FLAG = 8, 0x20
"""Bytes of a compacted instruction, and what says so in its byte 3."""


class Dispatched(Protocol):
    """What messages need of whatever dispatched their threads: a walker's task, or a stage of the 3-D pipeline."""

    @property
    def memory(self) -> UnitMemory:
        """The address space that they reach."""
        ...

    @property
    def surfaces(self) -> Surfaces:
        """Found by binding table and offset."""
        ...

    @property
    def state(self) -> ComputeState:
        """Base addresses."""
        ...

    @property
    def sampler_state(self) -> int:
        """Offset from dynamic state base of the samplers that messages without a header name."""
        ...

    @property
    def report(self) -> Callable[[str], None]:
        """Takes what is not emulated or makes no sense, in words."""
        ...


@dataclass(slots=True)
class Task:
    """A walker to be run: what all its groups share. Not to be changed, but not frozen: that would triple what it costs."""

    walker: Walker
    state: ComputeState
    memory: UnitMemory
    surfaces: Surfaces
    lanes: list[int]
    """Dispatch mask of each thread of a group."""
    control: int
    """cr0.0 of new threads, and cr0.1 in bits 63:32."""
    begin_at: int
    """Number of the first group, in the order of the walk: those before it have run already."""
    most_threads: int
    """In flight at once: by scratch slots, and by what execution units hold."""
    nanoseconds: Callable[[], int]
    ticks: Callable[[], int]
    """tm0."""
    stalls: EuStall | None
    """Who samples its threads."""
    report: Callable[[str], None]
    """Takes what is not emulated or makes no sense, in words."""
    interpret: Callable[[str], None]
    """Takes the kind of each instruction that the compiled back end leaves to the reference one."""
    later: Callable[[Callable[[], None]], None]
    """Calls something once when the engine's slice is over."""

    def registers(self) -> NDArray[np.uint8]:
        """[threads of a group, bytes]: what threads begin with, but for the group's place in r0.1, r0.6 and r0.7."""
        return payload.group_registers(self.walker, self.state.scratch)

    @property
    def sampler_state(self) -> int:
        """`Dispatched.sampler_state`."""
        return self.walker.interface.sampler_state

    def fetch(self, address: int, length: int) -> bytes:
        """Instruction memory: `length` bytes at `address` from instruction base.

        An instruction that ends with its page does not need the next one.

        Raises:
            TranslationFault, AccessFault: it is not there.
        """
        return fetch_code(self.memory, self.state.instruction + address, length)

    def sampler(self) -> EuStall | None:
        """`stalls` if samples are wanted."""
        return self.stalls if self.stalls is not None and self.stalls.enabled else None

    def sample(self, sampler: EuStall, core: int, address: int, stall: Stall, samples: int) -> None:
        """Record samples of one thread; a buffer that cannot be reached is reported."""
        try:
            sampler.keep(core, address, stall, samples)
        except (TranslationFault, AccessFault) as fault:
            self.report(f"a sample of EU stalls is lost: {fault}")

    def group(self, index: int) -> Triple:
        """Place of the walk's group number `index`: x fastest, or y."""
        x0, y0, z0 = self.walker.first
        x1, y1, _ = self.walker.end
        wide, high = x1 - x0, y1 - y0
        layer, rest = divmod(index, wide * high)
        if self.walker.y_first:
            x, y = divmod(rest, high)
        else:
            y, x = divmod(rest, wide)
        return x0 + x, y0 + y, z0 + layer


class Readable(Protocol):
    """Memory that code is read from."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`."""
        ...


def fetch_code(memory: Readable, place: int, length: int) -> bytes:
    """Instructions at address `place`: one that ends with its page does not need the next.

    Raises:
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    here = min(length, 0x1000 - (place & 0xFFF))
    data = memory.read(place, here)
    if here == length or (here == _COMPACTED and data[3] & _COMPACTED_FLAG):
        return data
    return data + memory.read(place + here, length - here)


class Execution(Protocol):
    """A task in flight. Used on the card's executor; a step may use other host threads."""

    @property
    def finished(self) -> bool:
        """All groups have ended."""
        ...

    def step(self, nanoseconds: int) -> Fault | None:
        """Run for about so long; a fault is to be served before the next step repeats the access.

        A fault's notes describe the thread that met it.
        """
        ...

    def save(self) -> bytes:
        """Groups in flight, in the middle of their threads; empty if there are none, or this back end cannot.

        Only between steps.
        """
        ...

    def restore(self, data: bytes) -> None:
        """Go on with the groups that `save` gave for the same task, before the first step.

        Raises:
            ValueError: it is of another task, or is damaged; nothing of it has been taken.
        """
        ...

    def hold(self, held: bool) -> None:
        """Begin no more groups, or begin groups again."""
        ...

    def describe(self) -> str:
        """A thread in flight in words: group, instruction, lanes, registers; empty if there is none. Only between steps."""
        ...

    def close(self) -> None:
        """It is over, or given up in the middle (a reset): the ledger learns of all that was accessed."""
        ...

    @property
    def begun(self) -> int:
        """Groups that have begun, and those before: the walk goes on at this number."""
        ...

    @property
    def at_boundary(self) -> bool:
        """No group is in flight: all that have begun have ended."""
        ...


class ExecutionUnits(Protocol):
    """A back end."""

    def start(self, task: Task) -> Execution:
        """Begin with a task; nothing of it has run when this returns."""
        ...
