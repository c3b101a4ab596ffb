"""Threads of shaders on the execution units: many at once, each with a payload of its own.

    yield from run(stage, payload, lanes, port)

The compiled back end runs each until it ends or comes to a message that is not for compiled code; those of all threads are
then served together by the port, and all go on. Without a compiler the reference back end runs them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.back_end import units as compute_units
from vfio_user_xe.device_models.xe.compute.pages import Pages
from vfio_user_xe.device_models.xe.compute.reference_units import ReferenceUnits
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceType
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel, load_kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason
from vfio_user_xe.device_models.xe.eu.compiled.library import Library, load
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.kinds import describe_kind
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter, RunState
from vfio_user_xe.device_models.xe.eu.reference.report import describe_thread
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads
from vfio_user_xe.device_models.xe.eu.registers import ARF_BASE
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault
from vfio_user_xe.device_models.xe.memory.ppgtt import ExecutionUnitSpace, PointerSpace
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import Stage

Steps = Iterator[Fault | None]
_BUDGET = 2_000_000
"""Ops of compiled code before others get a look in: a few milliseconds."""
_INSTRUCTIONS = 1 << 14
_SIZES = (16, 64, 256, 1024)
"""Threads of a slot: the smallest that is enough."""
MOST = _SIZES[-1]
"""Threads of one run."""
_KERNELS_KEPT = 256
_KIND = {kind.value: kind for kind in SurfaceKind}


def run(stage: Stage, payload: NDArray[np.uint8], lanes: Sequence[int], port: ShaderPort) -> Steps:
    """Run a thread for each row of `payload` (registers from r0 on) with its dispatch mask in `lanes`, at most `MOST`.

    Yields a fault that is to be served before it goes on, or None where somebody else may have a turn.
    """
    compiled = compiled_back_end()
    space = stage.memory.space
    # State may ask for more registers than there are.
    payload = payload[:, :ARF_BASE]
    if compiled is not None and isinstance(space, ExecutionUnitSpace):
        kernel = compiled.kernel(space, stage)
        if kernel is not None:
            yield from _run_compiled(stage, kernel, compiled.pages(space), payload, lanes, port)
            return
    yield from _run_reference(stage, payload, lanes, port)


class Compiled:
    """Kernels and pages by address space."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._pages: weakref.WeakKeyDictionary[PointerSpace, Pages] = weakref.WeakKeyDictionary()
        self._kernels: weakref.WeakKeyDictionary[ExecutionUnitSpace, dict[tuple[int, int], tuple[Kernel, bytes]]] = (
            weakref.WeakKeyDictionary()
        )

    def pages(self, space: PointerSpace) -> Pages:
        """Those of an address space."""
        pages = self._pages.get(space)
        if pages is None:
            pages = self._pages[space] = Pages(space, self.library)
        return pages

    def kernel(self, space: ExecutionUnitSpace, stage: Stage) -> Kernel | None:
        """The kernel as it is in memory now; None if it cannot be read, which whoever executes it then finds too."""
        kept = self._kernels.setdefault(space, {})
        key = (stage.state.instruction, stage.kernel)
        try:
            found = kept.get(key)
            if found is not None and _code(stage, found[0]) == found[1]:
                return found[0]
            kernel = load_kernel(stage.fetch, stage.kernel, self.library)
            if len(kept) >= _KERNELS_KEPT:
                kept.clear()
            kept[key] = kernel, _code(stage, kernel)
        except (TranslationFault, AccessFault, ValueError):
            return None
        return kernel


def compiled_back_end() -> Compiled | None:
    """The compiled back end; None where it cannot be built, or is not yet."""
    return None if isinstance(compute_units(), ReferenceUnits) else _loaded()


@cache
def _loaded() -> Compiled:
    return Compiled(load())


def _code(stage: Stage, kernel: Kernel) -> bytes:
    first, last = int(kernel.struct.first), int(kernel.struct.last)
    return stage.memory.read(stage.state.instruction + first, last - first)


def _run_compiled(
    stage: Stage, kernel: Kernel, pages: Pages, payload: NDArray[np.uint8], lanes: Sequence[int], port: ShaderPort
) -> Steps:
    size = next(size for size in _SIZES if size >= len(lanes))
    rows = np.zeros((size, payload.shape[1]), dtype=np.uint8)
    rows[: len(payload)] = payload
    masks = [*lanes, *[0] * (size - len(lanes))]
    walk = Walk(
        kernel,
        rows,
        masks,
        stage.kernel,
        (1, 1, 1),
        cr0=stage.control,
        stateless_base=stage.state.general,
        shaders=True,
    )
    slot = pages.take_slot(size, port.slm_bytes)
    slot.begin(walk)
    port.lend(slot)
    gathered = Gathered(stage, slot, port)
    ended = False
    try:
        while not ended:
            pages.refresh()
            match _run_slot(pages, slot):
                case Reason.GONE:
                    ended = True
                case Reason.BLOCKED:
                    yield from gathered.serve()
                case Reason.STOPPED:
                    slot.go_on()
                case Reason.MISS:
                    yield from enter(pages, slot, gathered)
                case Reason.SURFACE:
                    yield from bind(stage, slot, gathered)
                case Reason.STRAYED:
                    stage.report(f"a {stage.name} thread left its kernel at {stage.kernel:#x} and is ended")
                    slot.end(slot.culprit)
                case _:
                    yield None
    finally:
        slot.struct.urb = None
        pages.harvest()
        if ended:
            pages.give_back(slot)
        else:
            pages.drop(slot)


def _run_slot(pages: Pages, slot: Slot) -> Reason:
    with pages.running:
        if pages.is_stale:
            # Between the look at it and the lock; from here on who takes memory away waits.
            return Reason.STOPPED
        pages.stop[:] = [slot]
        reason = slot.run(_BUDGET)
        pages.stop.clear()
    return reason


def enter(pages: Pages, slot: Slot, gathered: Gathered) -> Steps:
    """Enter a page that a thread has missed; the thread is set aside where no pointer leads to it."""
    miss = slot.miss
    while True:
        try:
            if not pages.enter(miss.address, miss.bytes, miss.writes):
                slot.set_aside(slot.culprit)
        except (TranslationFault, AccessFault) as fault:
            yield gathered.described(slot.culprit, fault)
            continue
        return


def bind(stage: Stage, slot: Slot, gathered: Gathered, number: int = 0) -> Steps:
    """Enter the surface that a thread names; `number` is that of the slot's first thread among all that run.

    Scratch that has fewer slots than there are threads is interpreted.
    """
    key = slot.missing_surface
    while True:
        try:
            surface = stage.surfaces.find(_KIND[key >> 32 & 3], key & 0xFFFF_FFFF)
        except (TranslationFault, AccessFault) as fault:
            yield gathered.described(slot.culprit, fault)
            continue
        break
    base, stride = surface.base, 0
    if surface.type is SurfaceType.SCRATCH:
        if surface.entries < number + len(slot.threads):
            slot.set_aside(slot.culprit)
            return
        stride = surface.pitch
        base += number * stride
    try:
        slot.bind_surface(key, base, surface.bytes, stride)
    except ValueError:
        slot.forget_surfaces()
        slot.bind_surface(key, base, surface.bytes, stride)


def _view(slot: Slot) -> Threads:
    """A slot's threads as the interpreter takes them, all of them at rest."""
    count = len(slot.threads)
    return Threads(
        registers=slot.registers,
        place=slot.places,
        depth=slot.depths,
        dispatched=np.zeros(count, dtype=np.uint32),
        status=np.full(count, Status.ENDED, dtype=np.uint8),
        cause=np.zeros(count, dtype=np.uint8),
        pending=np.full(count, -1, dtype=np.int64),
        pending_lanes=np.zeros(count, dtype=np.uint32),
        notifications=np.zeros(count, dtype=np.uint32),
        skip_breakpoint=np.zeros(count, dtype=np.bool_),
        system_lanes=np.zeros(count, dtype=np.uint32),
        executed=np.zeros(count, dtype=np.int64),
    )


class Gathered:
    """Instructions that compiled code does not have, of all threads of a slot that have come to one."""

    def __init__(self, stage: Stage, slot: Slot, port: ShaderPort) -> None:
        self._stage = stage
        self._slot = slot
        self._port = port
        self._view = view = _view(slot)
        self._interpreter = Interpreter(stage.fetch, view, port, stage.ticks)

    def serve(self) -> Steps:
        """Execute one instruction of each, and let them go on."""
        waiting = self._slot.aside()
        places = self._view.current()
        for place in np.unique(places[waiting]).tolist():
            yield from self._step(waiting[places[waiting] == place])

    def described(self, thread: int, fault: Fault) -> Fault:
        """With a note that names the thread."""
        self._view.status[thread] = Status.STOPPED
        fault.add_note(self._describe(thread))
        self._view.status[thread] = Status.ENDED
        return fault

    def _step(self, threads: NDArray[np.int64]) -> Steps:
        """One instruction of threads that are at the same place; those whose message meets a fault repeat it."""
        view = self._view
        while len(threads):
            view.status[threads] = Status.RUNNING
            fault: Fault | None = None
            try:
                self._tell(threads)
                self._interpreter.run(1)
            except (TranslationFault, AccessFault) as found:
                fault = found
            status = view.status[threads].copy()
            view.status[threads] = Status.ENDED
            if fault is not None:
                yield self.described(int(threads[0]), fault)
                continue
            self._slot.end_all(threads[status == Status.ENDED])
            for thread in threads[status == Status.EXCEPTION].tolist():
                self._stage.report(f"a {self._stage.name} thread cannot go on and is ended: {self._describe(thread)}")
                self._slot.end(thread)
            self._slot.resume_all(threads[status == Status.RUNNING])
            threads = threads[status == Status.STOPPED]
            faults, self._port.faults[:] = list(self._port.faults), []
            if len(threads) and faults:
                yield self.described(int(threads[0]), faults[0])

    def _tell(self, threads: NDArray[np.int64]) -> None:
        instruction = self._interpreter.instruction(int(threads[0]))
        if instruction is not None:
            self._stage.interpret(describe_kind(instruction), len(threads))

    def _describe(self, thread: int) -> str:
        if self._view.cause[thread] == Cause.NONE:
            self._view.status[thread] = Status.STOPPED
        try:
            text = describe_thread(self._interpreter, thread)
        except (TranslationFault, AccessFault) as fault:
            text = f"its instruction cannot be read: {fault}"
        return f"{self._stage.name} thread, kernel at {self._stage.kernel:#x}: {text}"


def _run_reference(stage: Stage, payload: NDArray[np.uint8], lanes: Sequence[int], port: ShaderPort) -> Steps:
    threads = Threads.create(stage.kernel, lanes, stage.control)
    threads.registers[:, : payload.shape[1]] = payload
    threads.status[np.array(lanes, dtype=np.int64) == 0] = Status.ENDED
    port.serves(threads)
    interpreter = Interpreter(stage.fetch, threads, port, stage.ticks)
    while True:
        try:
            state = interpreter.run(_INSTRUCTIONS)
        except (TranslationFault, AccessFault) as fault:
            yield fault  # of an instruction
            continue
        if state is RunState.ENDED:
            return
        faults, port.faults[:] = list(port.faults), []
        stopped = np.nonzero(threads.status == Status.STOPPED)[0].tolist()
        yield faults[0] if faults else None
        threads.resume(stopped)
        if state is RunState.WAITING and not stopped:
            left = np.nonzero(threads.status != Status.ENDED)[0].tolist()
            text = describe_thread(interpreter, left[0])
            stage.report(f"{len(left)} {stage.name} threads cannot go on and are ended; the first: {text}")
            return
