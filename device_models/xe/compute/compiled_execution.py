"""A walk on the compiled back end: groups in slots, on as many host threads as there are processors."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from vfio_user_xe.device_models.xe.compute.pages import Pages
from vfio_user_xe.device_models.xe.compute.place import Place
from vfio_user_xe.device_models.xe.compute.sampling import Sampling
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceType
from vfio_user_xe.device_models.xe.compute.units import Task
from vfio_user_xe.device_models.xe.compute.walks import form_of
from vfio_user_xe.device_models.xe.eu.compiled import group_state
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Reason, ThreadState
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.eu.reference.interpreter import Interpreter
from vfio_user_xe.device_models.xe.eu.reference.report import describe_thread
from vfio_user_xe.device_models.xe.eu.reference.threads import Cause, Status, Threads
from vfio_user_xe.device_models.xe.eu.registers import STORAGE_BYTES
from vfio_user_xe.device_models.xe.gt.eu_stall import EuStall, Stall
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault

_FIRST_BUDGET, _LEAST_BUDGET = 8_000, 1_000
"""Ops that a walk's first slot runs before others are begun, and that each runs at least, however late it is."""
_HARVEST_NS = 10_000_000
"""The ledger is told so often while a kernel runs, and whenever it stops."""
_ROUNDS_AFTER_FAULT = 8
_SAVED = struct.Struct("<4sIII")
_SAVED_MAGIC = b"EUgr"
"""Saved groups: threads of a group, its shared local memory, bytes of a thread's registers."""
_SAVED_GROUP = struct.Struct("<II")
"""Its place, and how many bytes follow."""
_KIND = {kind.value: kind for kind in SurfaceKind}


class CompiledExecution:
    """A walk over all groups, by slots."""

    def __init__(self, task: Task, kernel: Kernel, pages: Pages) -> None:
        self._pages = pages
        self._walk = pages.walks.take(task, kernel)
        self._sampling = _sampling(task, kernel)
        self._arm(task)
        self._places = [Place(task, self._walk, pages, 0, self._sampling)]

    def again(self, task: Task, kernel: Kernel, pages: Pages) -> bool:
        """`Ended.again`: little is done, as most small walkers come after one like them."""
        walk = self._walk
        if walk.kernel is not kernel or form_of(task, kernel) != walk.form:
            return False
        walk.renew(task.walker)
        self._pages = pages
        self._arm(task)
        place = self._places[0]
        place.task, place.gone = task, False
        place.slot.begin_again()
        return True

    def _arm(self, task: Task) -> None:
        walker, struct = task.walker, self._walk.struct
        self._task = task
        self._total: int = struct.total
        if task.begin_at:
            struct.next = task.begin_at
        fitting = task.most_threads // self._walk.threads
        self._most = max(1, fitting if fitting < walker.groups else walker.groups)
        """Slots that there can be."""
        processors = _processors()
        self._wanted = processors if processors < self._most else self._most
        """Slots that there are to be, if the first takes long."""
        self._harvested = task.nanoseconds()

    @property
    def finished(self) -> bool:
        """All groups have ended."""
        return self.begun >= self._total and self.at_boundary

    @property
    def begun(self) -> int:
        """`Execution.begun`."""
        # Slots that found none left have counted on.
        struct = self._walk.struct
        begun: int = struct.next
        total: int = struct.total
        return begun if begun < total else total

    @property
    def at_boundary(self) -> bool:
        """`Execution.at_boundary`."""
        for place in self._places:  # noqa: SIM110 - `all` takes twice as long, and a walker asks three times
            if place.slot.struct.occupied:
                return False
        return True

    def save(self) -> bytes:
        """`Execution.save`."""
        parts = [_SAVED.pack(_SAVED_MAGIC, self._walk.threads, self._task.walker.interface.slm_bytes, STORAGE_BYTES)]
        for index, place in enumerate(self._places):
            if place.slot.struct.occupied:
                data = group_state.pack(place.save(), *place.slot.size)
                parts += [_SAVED_GROUP.pack(index, len(data)), data]
        return b"".join(parts) if len(parts) > 1 else b""

    def restore(self, data: bytes) -> None:
        """`Execution.restore`."""
        threads, slm_bytes = self._places[0].slot.size
        if data[: _SAVED.size] != _SAVED.pack(_SAVED_MAGIC, threads, slm_bytes, STORAGE_BYTES):
            raise ValueError("saved groups are of another kind of task")
        found: dict[int, group_state.Saved] = {}
        at = _SAVED.size
        while at < len(data):
            try:
                index, length = _SAVED_GROUP.unpack_from(data, at)
            except struct.error as error:
                raise ValueError(f"saved groups are cut off: {error}") from error
            at += _SAVED_GROUP.size
            if index >= self._most or index in found:
                raise ValueError(f"a saved group at place {index} of {self._most}")
            found[index] = group_state.unpack(data[at : at + length], threads, slm_bytes)
            at += length
        # Each goes where it was: its scratch memory is by its place.
        for index in range(1, max(found, default=0) + 1):
            self._places.append(Place(self._task, self._walk, self._pages, index, self._sampling))
        for index, saved in found.items():
            self._places[index].restore(saved)

    def hold(self, held: bool) -> None:
        """`Execution.hold`."""
        self._pages.harvest()
        begun = self.begun
        self._walk.struct.next = begun
        self._walk.struct.total = begun if held else self._total
        if not held:
            for place in self._places:
                place.gone = False

    def step(self, nanoseconds: int) -> Fault | None:
        """`Execution.step`."""
        task = self._task
        now = task.nanoseconds()
        end = now + nanoseconds
        for place in self._places:
            if place.aside:
                self._go_on(place)
        fault: Fault | None = None
        rounds = 0
        able = [place for place in self._places if not place.gone]
        while able and (now < end or rounds > 0):
            rounds -= 1
            self._pages.refresh()
            sampler = task.sampler()
            reasons = self._run(able, end - now) if sampler is None else self._run_sampled(sampler, able)
            able, ran_out, blocked = [], sampler is None, False
            for place, reason in reasons:
                found = self._serve(place, reason)
                ran_out = ran_out and reason is Reason.RAN_OUT
                if reason is Reason.BLOCKED:
                    blocked = True
                elif not place.gone:
                    able.append(place)
                if found is not None and fault is None:
                    # Serving it takes long: the others have a slice before it is told, however busy the host is.
                    fault, end, rounds = found, task.nanoseconds() + nanoseconds, _ROUNDS_AFTER_FAULT
            now = task.nanoseconds()
            if ran_out or blocked:
                able += self._more_places()
        if fault is not None or now - self._harvested >= _HARVEST_NS:
            self._pages.harvest()
            self._harvested = now
        return fault

    def describe(self) -> str:
        """`Execution.describe`."""
        for place in self._places:
            if place.slot.struct.occupied:
                left = [index for index, one in enumerate(place.slot.threads) if one.state != ThreadState.DONE]
                if left:
                    return self._describe(place, left[0], Status.RUNNING)
        return ""

    def close(self) -> None:
        """`Execution.close`."""
        pages, places = self._pages, self._places
        if not self.finished:
            pages.harvest()
            for place in places:
                place.slot.struct.sampling = None
                pages.drop(place.slot)
            places.clear()
            return
        # A batch of small walkers has the ledger told once: its slice is short.
        self._task.later(pages.harvest)
        if self._sampling is None and len(places) == 1 and places[0].is_plain:
            # Its pages keep it: it must not keep them, nor the address space.
            del self._task, self._pages, places[0].task
            pages.keep(self)
        else:
            self.dissolve(pages)

    def dissolve(self, pages: Pages) -> None:
        """It is over, and will not be used again: others get its slots and its walk."""
        for place in self._places:
            place.slot.struct.sampling = None
            pages.give_back(place.slot)
        pages.walks.give_back(self._walk)
        self._places.clear()

    def _more_places(self) -> list[Place]:
        """Slots for the other processors, once there turned out to be enough to do for them."""
        if len(self._places) >= self._wanted or self.begun >= self._walk.struct.total:
            return []
        places = range(len(self._places), self._wanted)
        new = [Place(self._task, self._walk, self._pages, index, self._sampling) for index in places]
        self._places += new
        return new

    def _run_sampled(self, sampler: EuStall, places: list[Place]) -> list[tuple[Place, Reason]]:
        """Run slots one after the other until a sample is due, and take it."""
        reasons = []
        for place in places:
            before = place.slot.executed
            reasons += self._run([place], budget=sampler.left)
            due = sampler.passed(place.slot.executed - before)
            if due and place.slot.struct.occupied:
                self._sample(sampler, place, reasons[-1][1], due)
        return reasons

    def _sample(self, sampler: EuStall, place: Place, reason: Reason, due: int) -> None:
        slot = place.slot
        thread = slot.struct.current if reason in (Reason.RAN_OUT, Reason.STOPPED) else slot.culprit
        states = [one.state for one in slot.threads]
        if states[thread] == ThreadState.DONE:
            thread = next(index for index, state in enumerate(states) if state != ThreadState.DONE)
        stall = Stall.ACTIVE
        if states[thread] == ThreadState.AT_BARRIER:
            stall = Stall.SYNC
        elif reason in (Reason.MISS, Reason.SURFACE, Reason.TEXTURE, Reason.SAMPLER, Reason.INTERPRET):
            stall = Stall.SEND
        address = int(slot.places[thread].min())
        self._task.sample(sampler, sum(slot.group) * self._walk.threads + thread, address, stall, due)

    def _run(
        self, places: list[Place], nanoseconds: int = 0, budget: int = _LEAST_BUDGET
    ) -> list[tuple[Place, Reason]]:
        """Run slots in parallel for so long, or for `budget` ops if that is longer.

        They end at the same moment, so that none waits for another, whichever of the host's processors was busy meanwhile.
        """
        pages, walk = self._pages, self._walk.struct
        deadline = 0
        if nanoseconds > 0:
            if len(self._places) < self._wanted and walk.next < walk.total:
                budget = _FIRST_BUDGET
            else:
                deadline = self._walk.kernel.library.deadline(nanoseconds)
        with pages.running:
            if pages.is_stale:
                # Between the look at it and the lock; from here on who takes memory away waits.
                return [(place, Reason.STOPPED) for place in places]
            halts = walk.halts
            if len(places) == 1:
                slot = places[0].slot
                pages.stop.append(slot)
                reason = slot.run(budget, halts, deadline)
                pages.stop.clear()
                return [(places[0], reason)]
            pages.stop[:] = [place.slot for place in places]
            first, *rest = places
            others = [_pool().submit(place.slot.run, budget, halts, deadline) for place in rest]
            reasons = [(first, first.slot.run(budget, halts, deadline))]
            for place, other in zip(rest, others, strict=True):
                reasons.append((place, other.result()))
            pages.stop.clear()
        return reasons

    def _go_on(self, place: Place) -> None:
        """A fault was served: its threads repeat what they were at."""
        for thread, interpreted in place.aside.items():
            if interpreted:
                place.group.thread = thread
                place.fallback.resume(place.slot, thread)
            else:
                place.slot.resume(thread)
        place.aside.clear()

    def _serve(self, place: Place, reason: Reason) -> Fault | None:
        slot = place.slot
        match reason:
            case Reason.GONE:
                place.gone = True
            case Reason.STOPPED:
                slot.go_on()
            case Reason.MISS:
                miss = slot.miss
                try:
                    if not self._pages.enter(miss.address, miss.bytes, miss.writes):
                        return self._interpret(place, slot.culprit)
                except (TranslationFault, AccessFault) as fault:
                    return self._set_aside(place, slot.culprit, fault)
            case Reason.SURFACE:
                return self._bind(place, slot.culprit)
            case Reason.TEXTURE | Reason.SAMPLER:
                return self._bind_sampled(place, slot.culprit, reason)
            case Reason.INTERPRET | Reason.STRAYED:
                return self._interpret(place, slot.culprit)
            case _:
                pass
        return None

    def _bind(self, place: Place, thread: int) -> Fault | None:
        """Enter the surface that a thread names. Scratch with fewer slots than threads is interpreted."""
        key = place.slot.missing_surface
        try:
            surface = self._task.surfaces.find(_KIND[key >> 32 & 3], key & 0xFFFF_FFFF)
        except (TranslationFault, AccessFault) as fault:
            return self._set_aside(place, thread, fault)
        base, stride = surface.base, 0
        if surface.type is SurfaceType.SCRATCH:
            if surface.entries < self._wanted * self._walk.threads:
                return self._interpret(place, thread)
            base, stride = base + place.group.first_scratch * surface.pitch, surface.pitch
        try:
            place.slot.bind_surface(key, base, surface.bytes, stride)
        except ValueError:
            place.slot.forget_surfaces()
            place.slot.bind_surface(key, base, surface.bytes, stride)
        return None

    def _bind_sampled(self, place: Place, thread: int, reason: Reason) -> Fault | None:
        """Enter the texture or sampler state that a thread names. What compiled code has nothing for is interpreted."""
        sampling, key = self._sampling, int(place.slot.threads[thread].miss_address)
        assert sampling is not None  # without it the handlers ask for the interpreter
        try:
            found = sampling.texture(key) if reason is Reason.TEXTURE else sampling.sampler(key)
        except (TranslationFault, AccessFault) as fault:
            return self._set_aside(place, thread, fault)
        return None if found else self._interpret(place, thread)

    def _interpret(self, place: Place, thread: int) -> Fault | None:
        """Execute one instruction of a thread in the interpreter."""
        place.group.thread = thread
        try:
            status = place.fallback.step(place.slot, thread)
        except (TranslationFault, AccessFault) as fault:
            return self._set_aside(place, thread, fault)  # of an instruction
        if status is Status.STOPPED:
            faults, place.port.faults = place.port.faults, []
            place.aside[thread] = True
            return self._described(place, thread, faults[0])
        if status is Status.EXCEPTION:
            if place.fallback.handle(place.slot, thread, self._task.state.system_routine):
                return None
            cause = place.fallback.cause(place.slot, thread)
            text = self._describe(place, thread, Status.EXCEPTION, cause)
            self._task.report(f"a thread of a walker cannot go on and is ended: {text}")
            place.slot.end(thread)
        return None

    def _set_aside(self, place: Place, thread: int, fault: Fault) -> Fault:
        place.slot.set_aside(thread)
        place.aside[thread] = False
        return self._described(place, thread, fault)

    def _described(self, place: Place, thread: int, fault: Fault) -> Fault:
        fault.add_note(self._describe(place, thread, Status.STOPPED))
        return fault

    def _describe(self, place: Place, thread: int, status: Status, cause: Cause = Cause.NONE) -> str:
        slot = place.slot
        view = Threads.create(0, [0] * self._walk.threads)
        view.registers, view.place, view.depth = slot.registers, slot.places, slot.depths
        view.cause[thread], view.status[thread] = cause, status
        try:
            text = describe_thread(Interpreter(self._task.fetch, view, place.port), thread)
        except (TranslationFault, AccessFault) as fault:
            text = f"its instruction cannot be read: {fault}"
        return f"group {slot.group}, kernel at {self._task.walker.interface.kernel:#x}: {text}"


def _sampling(task: Task, kernel: Kernel) -> Sampling | None:
    """For a kernel with messages that reach images; None: it has none."""
    if not kernel.reaches_images:
        return None
    return Sampling(task.memory, task.surfaces, task.state, task.sampler_state)


@cache
def _processors() -> int:
    return len(os.sched_getaffinity(0))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="eu")
