"""Walks of one address space that are over, kept for the next walker of their form.

A small kernel that is dispatched again and again runs for less time than it takes to lay out what its threads begin with, so
only what is the walker's own is written anew: its extent, indirect and inline data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import payload
from vfio_user_xe.device_models.xe.compute.descriptors import Walker
from vfio_user_xe.device_models.xe.compute.units import Task
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.slot import Walk

_KEPT = 64
_Form = tuple[Kernel, int, int, int, tuple[int, ...]]
"""All that threads of a walk begin with but for the walker's own: kernel, scratch, general state base, cr0, `Walker.form`."""


class TaskWalk(Walk):
    """A walk with the registers that its threads begin with."""

    def __init__(self, task: Task, kernel: Kernel, form: _Form) -> None:
        registers = np.ascontiguousarray(task.registers())
        walker = task.walker
        super().__init__(
            kernel,
            registers,
            task.lanes,
            walker.interface.kernel,
            walker.end,
            walker.first,
            cr0=task.control,
            stateless_base=task.state.general,
            fastest=int(walker.y_first),
        )
        self.form = form
        self.words: NDArray[np.uint32] = registers.view(np.uint32)
        self.data = walker.indirect_data, walker.inline

    def renew(self, walker: Walker) -> None:
        """Walk over the groups of `walker`, which is of the same form."""
        self.again(walker.end, walker.first)
        data = walker.indirect_data, walker.inline
        if data != self.data:
            payload.put_data(self.words, walker)
            self.data = data


def form_of(task: Task, kernel: Kernel) -> _Form:
    """The form of a walk over the groups of `task`."""
    state = task.state
    return kernel, state.scratch, state.general, task.control, task.walker.form


class Walks:
    """On the card's executor."""

    def __init__(self) -> None:
        self._kept: dict[_Form, TaskWalk] = {}

    def take(self, task: Task, kernel: Kernel) -> TaskWalk:
        """A walk over the groups of `task`, which nobody else has until it is given back."""
        form = form_of(task, kernel)
        walk = self._kept.pop(form, None)
        if walk is None:
            return TaskWalk(task, kernel, form)
        walk.renew(task.walker)
        return walk

    def give_back(self, walk: TaskWalk) -> None:
        """No group of it runs any more."""
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[walk.form] = walk
