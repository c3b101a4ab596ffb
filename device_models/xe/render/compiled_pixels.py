"""The pixels of a draw in compiled code: rasteriser, depth test, pixel shader threads, sampler, blending (`eu/compiled/runtime/raster.c`).

`pixels.py` is the same in numpy, for many quads at a time: the reference, and the way of draws that this one does not take (formats
and messages that have no handlers). Both leave the same bytes in memory, and count the same pixels.

Large draws run in bands of rows on all processors of the host, each band in the order of primitives. On the card's executor.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.draw_layout import DrawStruct, OutputStruct
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.layout import Access, Reason, ThreadState
from vfio_user_xe.device_models.xe.eu.compiled.slot import Walk
from vfio_user_xe.device_models.xe.eu.registers import CE0
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.compiled_state import DrawState
from vfio_user_xe.device_models.xe.render.pixel_state import Kernel as KernelState
from vfio_user_xe.device_models.xe.render.setup import Setup
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import Stage
from vfio_user_xe.emulator.model.clock import CardClock

_REASONS = tuple(Reason)
_FIRST_BUDGET, _LEAST_BUDGET, _MOST_BUDGET = 50_000, 10_000, 4_000_000
_SLICE_NS = 2_000_000
"""How long compiled code runs before others get a look in."""
_MANY_QUADS = 1 << 13
"""Quads of a draw from which the other processors help."""
_NO_KERNEL = 16, 1
"""Lanes and primitives of the threads of draws that have none."""
_NOT_BEGUN = -(1 << 63)
"""Row of a primitive that has not begun: INT64_MIN."""


class CompiledPixels:
    """The pixels of primitives that share a draw's state."""

    def __init__(self, state: DrawState, clock: CardClock) -> None:
        self._state = state
        self._clock = clock
        self._budget = _FIRST_BUDGET
        self.shaded = 0
        """Pixels that shaders ran for."""

    def draw(
        self,
        setup: Setup,
        data: NDArray[np.float32],
        offset: Floats | None = None,
        stipple: NDArray[np.uint32] | None = None,
    ) -> threads.Steps:
        """All of the primitives; `data` is what `setup_data` gives, `offset` what is added to depths, `stipple` of `polygon_stipple`."""
        state = self._state
        arrays = _Arrays(setup, data, offset, stipple, state.depth_ranges)
        wide, high = setup.bounds[:, 2] - setup.bounds[:, 0], setup.bounds[:, 3] - setup.bounds[:, 1]
        quads = int((wide * high).sum()) // (4 if setup.rectangle.all() else 8)
        bands = _processors() if quads >= _MANY_QUADS and not state.in_order else 1
        workers = [_Worker(state, arrays, state.kernel(quads, len(setup)), band, bands) for band in range(bands)]
        ended = False
        try:
            since = self._clock.ns()
            while not ended:
                able = [worker for worker in workers if not worker.gone]
                state.refresh()
                for worker, reason in zip(able, self._run(able), strict=True):
                    yield from worker.serve(reason)
                ended = all(worker.gone for worker in workers)
                if self._clock.ns() - since > _SLICE_NS:
                    # Pages that are entered, and accesses that the caller makes, take their time too.
                    yield None
                    since = self._clock.ns()
        finally:
            state.harvest()
            for worker in workers:
                worker.close(ended)
                self.shaded += worker.struct.shaded
                state.tests.passed += worker.struct.passed
            if self.shaded:
                state.drawn()

    def _run(self, workers: list[_Worker]) -> list[Reason]:
        """Run each for a slice."""
        state = self._state
        begun = self._clock.ns()
        with state.running([worker.slot for worker in workers]) as may_run:
            if not may_run:
                return [Reason.STOPPED for _ in workers]
            others = [_pool().submit(worker.run, self._budget) for worker in workers[1:]]
            reasons = [workers[0].run(self._budget), *(other.result() for other in others)]
        if Reason.RAN_OUT in reasons:
            taken = max(1, self._clock.ns() - begun)
            self._budget = min(_MOST_BUDGET, max(_LEAST_BUDGET, self._budget * _SLICE_NS // taken))
        return reasons


class _Arrays:
    """Primitives as compiled code takes them; it holds what the pointers are to."""

    def __init__(
        self,
        setup: Setup,
        data: NDArray[np.float32],
        offset: Floats | None,
        stipple: NDArray[np.uint32] | None,
        ranges: Floats,
    ) -> None:
        self.count = len(setup)
        found = ranges[np.minimum(setup.viewport, len(ranges) - 1)]
        self.pointers: dict[str, NDArray[np.generic]] = {
            "edges": setup.edges,
            "perspective": setup.perspective,
            "screen": setup.screen,
            "depth": setup.depth,
            "planes": setup.planes,
            "extent": setup.extent,
            "range": np.stack([found.min(axis=1), found.max(axis=1)], axis=1),
            "inclusive": setup.inclusive,
            "rectangle": setup.rectangle,
            "front": setup.front,
            "bounds": setup.bounds,
            "layer": setup.layer,
            "viewport": setup.viewport,
            "data": data,
        }
        if offset is not None:
            self.pointers["offset"] = offset
        if stipple is not None:
            self.pointers["stipple"] = stipple
        if setup.smooth.shape[1]:
            self.pointers["smooth"] = setup.smooth
        self.pointers = {name: np.ascontiguousarray(array) for name, array in self.pointers.items()}
        self.planes = setup.planes.shape[2]
        self.registers = data.shape[1]

    def into(self, struct: DrawStruct) -> None:
        """Set the pointers."""
        struct.primitives, struct.plane_count, struct.data_registers = self.count, self.planes, self.registers
        for name, array in self.pointers.items():
            setattr(struct, name, array.__array_interface__["data"][0])


class _Worker:
    """One band of a draw, in slots of its own."""

    def __init__(self, state: DrawState, arrays: _Arrays, kernel: KernelState | None, band: int, bands: int) -> None:
        self._state = state
        self._arrays = arrays
        self._band = band
        self.gone = False
        self.slot = state.units.take_slot(1, 0)
        self._fixed = state.fixed.take_slot(1, 0)
        self._output = OutputStruct()
        self.struct = struct = DrawStruct.from_buffer_copy(state.struct)
        arrays.into(struct)
        struct.band, struct.bands = band, bands
        struct.y = _NOT_BEGUN
        struct.output = ctypes.addressof(self._output)
        struct.threads, struct.fixed = ctypes.addressof(self.slot.struct), ctypes.addressof(self._fixed.struct)
        struct.width, struct.polygons = _NO_KERNEL
        if kernel is not None:
            self._begin(kernel)

    def _begin(self, state: KernelState) -> None:
        """The shader's threads are to run this kernel."""
        stage, struct = self._state.stage, self.struct
        assert stage is not None  # there is a kernel
        self._stage = replace(stage, kernel=state.start, first_register=state.first_register)
        kernel = self._state.kernels[state.start]
        self._walk = self._state.walks.get(state.start) or _walk(kernel, self._stage)
        self._state.walks[state.start] = self._walk
        self.slot.begin(self._walk, self._band)
        self.slot.struct.output = struct.output
        self.slot.struct.sampling = self._state.sampling.address
        walk = self._walk.struct
        struct.kernel, struct.entry = kernel.address, state.start
        struct.arfs, struct.arf_bytes, struct.arf_at = walk.arfs, walk.arf_bytes, walk.arf_at
        struct.dispatch_at = CE0 - walk.arf_at
        struct.width, struct.polygons, struct.first_register = state.width, state.polygons, state.first_register
        self._gathered = threads.Gathered(self._stage, self.slot, ShaderPort(self._stage, first_slot=self._band))

    def run(self, budget: int) -> Reason:
        """Go on for about `budget` ops. May be called from any thread; with the locks of both maps held."""
        for slot in (self.slot, self._fixed):
            slot.struct.counts, slot.struct.touched = slot.counts.address, slot.counts.touched_address
        return _REASONS[int(self._state.library.draw(ctypes.addressof(self.struct), budget))]

    def serve(self, reason: Reason) -> threads.Steps:
        """What it has stopped for."""
        match reason:
            case Reason.GONE:
                self.gone = True
            case Reason.STOPPED:
                self.slot.go_on()
            case Reason.RAN_OUT:
                yield None
            case Reason.MISS if self.slot.culprit:
                yield from self._enter_fixed()
            case Reason.MISS:
                yield from threads.enter(self._state.units, self.slot, self._gathered)
            case Reason.SURFACE:
                yield from threads.bind(self._stage, self.slot, self._gathered, self._band)
            case Reason.TEXTURE | Reason.SAMPLER:
                yield from self._bind(reason)
            case Reason.STRAYED:
                self._stage.report(
                    f"a {self._stage.name} thread left its kernel at {self._stage.kernel:#x} and is ended"
                )
                self.slot.end(0)
            case _:
                self.slot.set_aside(0)
        if self.slot.threads[0].state == ThreadState.SET_ASIDE:
            yield from self._gathered.serve()

    def close(self, ended: bool) -> None:
        """Give the slots back, or up."""
        for pages, slot in ((self._state.units, self.slot), (self._state.fixed, self._fixed)):
            slot.struct.output = slot.struct.sampling = None
            if ended:
                pages.give_back(slot)
            else:
                pages.drop(slot)

    def _bind(self, reason: Reason) -> threads.Steps:
        """Enter a texture or sampler state that a thread names; what compiled code has nothing for is interpreted."""
        sampling, key = self._state.sampling, int(self.slot.threads[0].miss_address)
        while True:
            try:
                found = sampling.texture(key) if reason is Reason.TEXTURE else sampling.sampler(key)
            except (TranslationFault, AccessFault) as fault:
                yield self._gathered.described(0, fault)
                continue
            break
        if not found:
            self.slot.set_aside(0)

    def _enter_fixed(self) -> threads.Steps:
        """Enter a page that a fixed function has missed, or access in another way what no pointer leads to."""
        struct, write = self.struct, bool(self.struct.miss_kind & Access.WRITE)
        while True:
            try:
                if not self._state.fixed.enter(struct.miss, struct.miss_bytes, write):
                    self._detour(write)
            except (TranslationFault, AccessFault) as fault:
                yield fault
                continue
            return

    def _detour(self, write: bool) -> None:
        struct = self.struct
        detour = struct.detour[struct.detours]
        places = np.arange(struct.miss, struct.miss + struct.miss_bytes, dtype=np.uint64)
        data = np.frombuffer(detour.data, dtype=np.uint8)
        if write:
            self._state.memory.store(places, data[: len(places)].astype(np.uint64), 1)
        else:
            data[: len(places)] = self._state.memory.load(places, 1).astype(np.uint8)
        detour.address, detour.bytes, detour.access = struct.miss, struct.miss_bytes, struct.miss_kind
        struct.detours += 1


def _walk(kernel: Kernel, stage: Stage) -> Walk:
    """What new threads find in their architecture registers, and stateless messages."""
    return Walk(
        kernel,
        np.zeros((1, 64), dtype=np.uint8),
        [0],
        stage.kernel,
        (1, 1, 1),
        cr0=stage.control,
        stateless_base=stage.state.general,
        shaders=True,
    )


@cache
def _processors() -> int:
    return len(os.sched_getaffinity(0))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="3d")
