"""Execution units of the compiled back end: which kernel a task runs, and what is kept of kernels and pages."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable

from vfio_user_xe.device_models.xe.compute.compiled_execution import CompiledExecution
from vfio_user_xe.device_models.xe.compute.pages import Pages
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.compute.translation import LateExecution, Translation, room
from vfio_user_xe.device_models.xe.compute.units import Execution, Task
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, find_kernel
from vfio_user_xe.device_models.xe.eu.compiled.library import Library
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK
from vfio_user_xe.device_models.xe.memory.ppgtt import ExecutionUnitSpace
from vfio_user_xe.emulator.fabric.interconnect import Fabric

_KERNELS_KEPT = 256
_Kernels = dict[tuple[int, int], tuple[Kernel, int, bytes]]
"""By instruction base and entry, with the code that they are made from, and where it lies."""


class CompiledUnits:
    """Starts tasks on the compiled back end; kernels and pages are kept by address space."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._spaces: weakref.WeakKeyDictionary[ExecutionUnitSpace, tuple[Pages, _Kernels]] = (
            weakref.WeakKeyDictionary()
        )
        self._rooms: weakref.WeakKeyDictionary[Fabric, defaultdict[int, threading.Semaphore]] = (
            weakref.WeakKeyDictionary()
        )
        """By number of the function."""
        self._reference = ReferenceUnits()

    def start(self, task: Task) -> Execution:
        """`ExecutionUnits.start`. Contexts without a PPGTT, and what is no program, run on the reference back end."""
        space = task.memory.space
        if not isinstance(space, ExecutionUnitSpace):
            return self._reference.start(task)
        kept = self._spaces.get(space)
        if kept is None:
            kept = self._spaces[space] = Pages(space, self._library), {}
        pages, kernels = kept
        try:
            kernel = self._kernel(kernels, task)
        except (TranslationFault, AccessFault):
            # A page fault of its code is raised, and served, by whoever executes it.
            return self._reference.start(task)
        if kernel is not None:
            ended = pages.take_ended()
            if ended is not None:
                if ended.again(task, kernel, pages):
                    return ended
                ended.dissolve(pages)
            return CompiledExecution(task, kernel, pages)
        rooms = self._rooms.setdefault(space.function.gpu.fabric, defaultdict(room))
        translation = Translation(task, self._library, rooms[space.function.vfid])

        def begin() -> Execution:
            try:
                kernel = translation.result()
                self._keep(kernels, task, kernel, translation.code)
            except (TranslationFault, AccessFault, ValueError):
                return self._reference.start(task)
            return CompiledExecution(task, kernel, pages)

        return LateExecution(task, translation, begin)

    def forget_kernels(self) -> None:
        """Those that are in memory: they are looked for in the cache folder again."""
        for _, kernels in self._spaces.values():
            kernels.clear()

    def _kernel(self, kept: _Kernels, task: Task) -> Kernel | None:
        """The kernel as it is in memory now, if it is here or in the user's cache folder.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        found = kept.get((task.state.instruction, task.walker.interface.kernel))
        if found is not None:
            kernel, place, code = found
            if task.memory.space.read(place, len(code)) == code:
                return kernel
        loaded = find_kernel(task.fetch, task.walker.interface.kernel, self._library)
        if loaded is not None:
            self._keep(kept, task, loaded, task.memory.space.read)
        return loaded

    def _keep(self, kept: _Kernels, task: Task, kernel: Kernel, read: Callable[[int, int], bytes]) -> None:
        """Have a kernel at hand, as long as its code is what `read` finds now.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        if len(kept) >= _KERNELS_KEPT:
            kept.clear()
        # What lies between the instructions is compared, too.
        first, last = int(kernel.struct.first), int(kernel.struct.last)
        place = task.state.instruction + first & VA_MASK
        code = read(place, last - first)
        kept[task.state.instruction, task.walker.interface.kernel] = kernel, place, code
