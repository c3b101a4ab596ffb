"""A slot of the compiled back end and what serves it: messages of its group, and the interpreter of single instructions."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.pages import Pages
from vfio_user_xe.device_models.xe.compute.port import Port
from vfio_user_xe.device_models.xe.compute.sampling import Sampling
from vfio_user_xe.device_models.xe.compute.units import Task
from vfio_user_xe.device_models.xe.eu.compiled import group_state
from vfio_user_xe.device_models.xe.eu.compiled.fallback import Fallback
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.messages.payload import BarrierSignal


class SlotGroup:
    """The group of one slot, for messages of a thread of it that is interpreted."""

    def __init__(self, slot: Slot, slm_bytes: int, first_scratch: int, report: Task) -> None:
        self.slot = slot
        self.thread = 0
        """Which is interpreted."""
        self._slm_bytes = slm_bytes
        self.first_scratch = first_scratch
        self._task = report

    @property
    def slm_bytes(self) -> int:
        """Shared local memory of the group."""
        return self._slm_bytes

    @property
    def memory(self) -> NDArray[np.uint8]:
        """It."""
        return self.slot.slm

    def slm_start(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """There is one group."""
        return np.zeros(len(threads), dtype=np.int64)

    def scratch_slot(self, threads: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number that no other thread of the task has."""
        return np.full(len(threads), self.first_scratch + self.thread, dtype=np.int64)

    def signal(self, thread: int, signal: BarrierSignal) -> None:
        """Barriers are the compiled code's; one that it does not take has no meaning."""
        self._task.report(f"a barrier message with id {signal.number} and type {signal.kind} has no meaning: ignored")


class Place:
    """A slot with what is needed to serve it."""

    def __init__(self, task: Task, walk: Walk, pages: Pages, index: int, sampling: Sampling | None) -> None:
        interface = task.walker.interface
        self.task = task
        self.slot = pages.take_slot(walk.threads, interface.slm_bytes)
        self.slot.begin(walk, index * walk.threads)
        self.slot.struct.sampling = None if sampling is None else sampling.address
        self._first_scratch = index * walk.threads
        self.aside: dict[int, bool] = {}
        """Threads that wait for a fault to be served; True: in the interpreter."""
        self.gone = False

    @property
    def is_plain(self) -> bool:
        """Nothing of the task was needed beside its walk."""
        return "group" not in self.__dict__  # cached_property; the others are made of it

    @cached_property
    def group(self) -> SlotGroup:
        """Answers messages of threads that are interpreted."""
        return SlotGroup(self.slot, self.task.walker.interface.slm_bytes, self._first_scratch, self.task)

    @cached_property
    def port(self) -> Port:
        """Serves messages of threads that are interpreted."""
        return Port(self.group, self.task)

    @cached_property
    def fallback(self) -> Fallback:
        """Interprets single instructions."""
        return Fallback(self.task.fetch, self.port, self.task.ticks, self.task.interpret)

    def save(self) -> group_state.Saved:
        """The group in flight."""
        threads = range(len(self.slot.threads))
        begun = "fallback" in self.__dict__  # cached_property: something was interpreted
        lanes = [self.fallback.in_routine(self.slot, thread) if begun else 0 for thread in threads]
        return self.slot.save() | {"routine": np.array(lanes, dtype=np.uint32)}

    def restore(self, saved: group_state.Saved) -> None:
        """Put a group back that `save` gave."""
        self.slot.restore(saved)
        for thread, lanes in enumerate(saved["routine"].tolist()):
            if lanes:
                self.fallback.put_in_routine(self.slot, thread, lanes)
