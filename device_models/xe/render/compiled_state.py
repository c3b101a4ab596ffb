"""A draw's state as compiled code takes it: which draws it takes, render targets, depth test, textures and samplers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from struct import pack

import numpy as np

from vfio_user_xe.device_models.xe.compute.compiled_images import can_store, image_struct
from vfio_user_xe.device_models.xe.compute.sampler_state import STATE_BYTES as SAMPLER_BYTES
from vfio_user_xe.device_models.xe.compute.sampling import Sampling
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.eu.compiled.draw_layout import (
    DrawStruct,
    EquationStruct,
    FaceStruct,
    TargetStruct,
)
from vfio_user_xe.device_models.xe.eu.compiled.kernel import Kernel
from vfio_user_xe.device_models.xe.eu.compiled.pixel_messages import RENDER_WRITE, SAMPLE, SAMPLER_HANDLERS
from vfio_user_xe.device_models.xe.eu.compiled.slot import Slot, Walk
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault
from vfio_user_xe.device_models.xe.memory.ppgtt import ExecutionUnitSpace, FixedFunctionSpace
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.blend import BlendState, Equation, TargetBlend
from vfio_user_xe.device_models.xe.render.depth_stencil import Face
from vfio_user_xe.device_models.xe.render.pixel_state import Kernel as KernelState
from vfio_user_xe.device_models.xe.render.pixels import PixelBackend
from vfio_user_xe.device_models.xe.render.render_target import RenderTarget
from vfio_user_xe.device_models.xe.render.stage import REGISTER, Stage

_NO_LOGIC = 16
_TARGET_AT, _SURFACE_AT, _NULL_AT = 15, 23, 16
"""Bytes of `RENDER_WRITE`: the target's number, its binding table index, whether it is the null target."""


_TARGETS: dict[tuple[SurfaceState, TargetBlend, bytes, bool], TargetStruct] = {}
_MOST_TARGETS = 256
"""Targets that are kept: a draw has those of the draw before, most often."""


class NotCompiled(Exception):
    """Compiled code does not take this draw; the text says why."""


class DrawState:
    """All of a draw's state that its pixels depend on; primitives come later."""

    def __init__(self, backend: PixelBackend) -> None:
        """`backend`'s state.

        Raises:
            NotCompiled: the draw is for `pixels.py`.
            TranslationFault: an address of a surface state is not mapped.
            AccessFault: an address of a surface state is refused, or leads nowhere.
        """
        compiled, fixed = threads.compiled_back_end(), backend.memory.space
        if compiled is None or not isinstance(fixed, FixedFunctionSpace):
            raise NotCompiled("there is no compiled back end")
        _refuse(backend)
        state = backend.state
        self.library = compiled.library
        self.memory = backend.memory
        self.tests = backend.tests
        self.depth_ranges = backend.depth_ranges
        self.stage = backend.stage if state.valid and state.kernels else None
        self._choose = state.kernel
        self._drawn = backend.drawn
        self._surfaces: list[SurfaceState] = []
        self.in_order = state.has_uav
        """Threads may have to run in the order of their quads."""
        self.fixed = compiled.pages(fixed)
        self.units = self.fixed
        self.kernels: dict[int, Kernel] = {}
        """By where they start."""
        self.walks: dict[int, Walk] = {}
        """What threads of each kernel begin with, by where it starts."""
        self._bound: dict[int, int] = {}
        """Binding table index of each target."""
        self.struct = DrawStruct(early=backend.early, modes=sum(1 << mode for mode in state.modes))
        self.struct.source_depth, self.struct.source_w = state.source_depth, state.source_w
        self.struct.input_coverage, self.struct.whole_quads = state.input_coverage, state.whole_quads
        self._samples(backend)
        if backend.blend.alpha_test is not None:
            self.struct.alpha_test = True
            self.struct.alpha_function, self.struct.alpha_reference = backend.blend.alpha_test
        self._depth()
        self._stencil()
        if self.stage is None:
            self.struct.early = True
            return
        if not isinstance(self.stage.memory.space, ExecutionUnitSpace):
            raise NotCompiled("shaders run in an address space that is not the execution units'")
        self.units = compiled.pages(self.stage.memory.space)
        self.sampling = Sampling(self.stage.memory, self.stage.surfaces, self.stage.state, self.stage.sampler_state)
        for kernel in state.kernels:
            self._kernel(compiled, backend, kernel)
        self._constants(self.stage)

    def kernel(self, quads: int, primitives: int) -> KernelState | None:
        """The kernel for about so many quads of so many primitives; None: nothing is shaded."""
        return None if self.stage is None else self._choose(quads, primitives)

    def drawn(self) -> None:
        """Threads have run that write to the targets."""
        for surface in self._surfaces:
            self._drawn(surface)

    def refresh(self) -> None:
        """Before compiled code runs: forget pages that may be out of date."""
        self.units.refresh()
        self.fixed.refresh()

    def harvest(self) -> None:
        """Tell the ledger what was accessed."""
        self.units.harvest()
        self.fixed.harvest()

    @contextmanager
    def running(self, slots: list[Slot]) -> Iterator[bool]:
        """While slots run on both maps: whoever takes memory away makes them return, and waits. False: they must not run."""
        maps = [self.fixed] if self.units is self.fixed else [self.units, self.fixed]
        for pages in maps:
            pages.running.acquire()
        try:
            if any(pages.is_stale for pages in maps):
                yield False
                return
            for pages in maps:
                pages.stop[:] = slots
            yield True
            for pages in maps:
                pages.stop.clear()
        finally:
            for pages in maps:
                pages.running.release()

    def _depth(self) -> None:
        test, tests = self.struct.depth_test, self.tests
        buffer, state = tests.buffer, tests.state
        if buffer is None or not tests.uses_depth:
            return
        try:
            test.image = image_struct(buffer.image, int(self.struct.samples))
        except UnknownImage as unknown:
            raise NotCompiled(str(unknown)) from unknown
        test.on, test.test, test.write = True, state.depth_test, state.depth_write
        test.function, test.form = state.depth_function, buffer.form
        if state.bounds is not None:
            test.bounded = True
            test.low, test.high = (float(buffer.quantized(np.array(limit))) for limit in state.bounds)

    def _stencil(self) -> None:
        test, tests = self.struct.stencil_test, self.tests
        if tests.stencil is None or not tests.state.stencil_test:
            return
        try:
            test.image = image_struct(tests.stencil, int(self.struct.samples))
        except UnknownImage as unknown:
            raise NotCompiled(str(unknown)) from unknown
        test.on, test.write = True, tests.state.stencil_write
        test.front, test.back = _face(tests.state.front), _face(tests.state.back)

    def _samples(self, backend: PixelBackend) -> None:
        struct, state, count = self.struct, backend.state, len(backend.samples)
        struct.samples, struct.sample_mask = count, backend.sample_mask
        struct.sample_x[:count], struct.sample_y[:count] = backend.samples.T.tolist()
        struct.per_sample = state.per_sample and count > 1
        struct.position_offsets, struct.sample_offsets = state.position_offsets, state.sample_offsets
        struct.alpha_to_coverage = backend.blend.alpha_to_coverage

    def _kernel(self, compiled: threads.Compiled, backend: PixelBackend, state: KernelState) -> None:
        stage = self._needed_stage()
        if stage.kernel != state.start:
            stage = replace(stage, kernel=state.start)
        space = stage.memory.space
        assert isinstance(space, ExecutionUnitSpace)  # the caller looked
        kernel = compiled.kernel(space, stage)
        if kernel is None or kernel.interpreted:
            raise NotCompiled("a kernel has instructions without handlers")
        self.kernels[state.start] = kernel
        for message in kernel.messages("render_write", RENDER_WRITE.size):
            if not message[_NULL_AT]:
                self._target(backend, message[_TARGET_AT], message[_SURFACE_AT])
        for handler in SAMPLER_HANDLERS:
            for message in kernel.messages(handler, SAMPLE.size):
                key, pointer, header, sampler = (SAMPLE.unpack(message)[index] for index in (0, 9, 11, 14))
                if not (self._has(None if pointer else key, None if header or handler == "sampler_fetch" else sampler)):
                    raise NotCompiled("a texture or sampler that compiled code does not have")

    def _has(self, key: int | None, sampler: int | None) -> bool:
        """Whether compiled code has a texture and a sampler; one whose state is not there is looked at when a thread names it."""
        try:
            return (key is None or self.sampling.texture(key)) and (
                sampler is None or self.sampling.sampler(self.sampling.first + SAMPLER_BYTES * sampler)
            )
        except (TranslationFault, AccessFault):
            return True

    def _needed_stage(self) -> Stage:
        assert self.stage is not None  # there are kernels
        return self.stage

    def _target(self, backend: PixelBackend, number: int, index: int) -> None:
        target = self.struct.targets[number]
        if self._bound.setdefault(number, index) != index:
            raise NotCompiled("a target's writes name several surfaces")
        if target.present:
            return
        try:
            surface = self._needed_stage().surfaces.find(SurfaceKind.BTI, index)
            if surface.type is SurfaceType.NULL:
                return
            self.struct.targets[number] = _target_struct(backend, surface, number)
            self._surfaces.append(surface)
        except (UnknownImage, TranslationFault, AccessFault) as unknown:
            # If it is written to at all, `pixels.py` says so.
            raise NotCompiled(str(unknown)) from unknown

    def _constants(self, stage: Stage) -> None:
        self._held = np.ascontiguousarray(stage.constants), stage.header(1)
        self.struct.constants, self.struct.header = (array.ctypes.data for array in self._held)
        self.struct.constant_registers = len(stage.constants) // REGISTER


def _refuse(backend: PixelBackend) -> None:
    """Draws that are for `pixels.py`.

    Raises:
        NotCompiled: this is one.
    """
    state = backend.state
    for wanted, what in (
        (state.perspective_planes or state.screen_planes or state.depth_planes, "planes of barycentrics"),
        (state.computes_stencil, "stencil from the shader"),
    ):
        if wanted:
            raise NotCompiled(what)


def _target_struct(backend: PixelBackend, surface: SurfaceState, number: int) -> TargetStruct:
    """Whoever takes it copies it.

    Raises:
        UnknownImage: the surface's format or layout is not emulated.
        NotCompiled: compiled code does not encode its texels.
    """
    blend = backend.blend
    # By bits: a constant of -0 is not one of 0.
    constant = pack("<4d", *blend.constant)
    key = (surface, blend.targets[number], constant, blend.alpha_to_one)
    found = _TARGETS.get(key)
    if found is None:
        target = RenderTarget(backend.memory, surface)
        if not can_store(target.image.format):
            raise NotCompiled(f"a target of surface format {surface.format:#x}")
        if len(_TARGETS) >= _MOST_TARGETS:
            _TARGETS.clear()
        found = _TARGETS[key] = _made_target(target, blend, number)
    return found


def _made_target(target: RenderTarget, blend: BlendState, number: int) -> TargetStruct:
    state = blend.targets[number]
    how, integer = target.clamp(state.clamp_range), target.image.format.is_integer
    found = TargetStruct(
        image=image_struct(target.image),
        layers=target.surface.extent,
        constant=tuple(float(value) for value in target.clamped(np.array([blend.constant]), state)[0]),
        colour=_equation(state.colour),
        alpha=_equation(state.alpha),
        present=True,
        copies=state.is_copy or (integer and all(state.write) and state.logic_op is None),
        blends=state.enabled and not integer,
        pre_clamp=how if state.pre_clamp and not integer else 0,
        post_clamp=how if state.post_clamp and not integer else 0,
        logic=_NO_LOGIC if state.logic_op is None else state.logic_op,
        write_all=all(state.write),
        alpha_to_one=blend.alpha_to_one,
    )
    written = target.written(state)
    found.write[: len(written)] = written.tolist()
    return found


def _face(face: Face) -> FaceStruct:
    return FaceStruct(
        function=face.function,
        fail=face.fail,
        depth_fail=face.depth_fail,
        both_pass=face.both_pass,
        test_mask=face.test_mask,
        write_mask=face.write_mask,
        reference=face.reference,
    )


def _equation(equation: Equation) -> EquationStruct:
    return EquationStruct(equation.function, equation.source, equation.destination)
