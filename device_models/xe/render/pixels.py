"""From quads to render targets: depth and stencil tests, pixel shaders, blending, in the order of primitives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState
from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.blend import BlendState
from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.depth_stencil import DepthStencil, compare, rounds
from vfio_user_xe.device_models.xe.render.pixel_output import Lanes, PixelOutput, Target
from vfio_user_xe.device_models.xe.render.pixel_shader import depth_of, pack
from vfio_user_xe.device_models.xe.render.pixel_state import PixelState
from vfio_user_xe.device_models.xe.render.rasterizer import PIXEL_X, PIXEL_Y, Quads, edge_values, line_coverage
from vfio_user_xe.device_models.xe.render.render_target import RenderTarget
from vfio_user_xe.device_models.xe.render.setup import SUBPIXELS, Indices, Setup
from vfio_user_xe.device_models.xe.render.setup_backend import SetupBackend
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort
from vfio_user_xe.device_models.xe.render.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

Flags = NDArray[np.bool_]
_LATE_FORCED, _EARLY_FORCED = 1, 2
_TOGETHER = 1 << 12
"""Quads that are shaded together."""


@dataclass(frozen=True)
class PixelBackend:
    """What a draw's pixels need, from the context's state."""

    state: PixelState
    stage: Stage | None
    backend: SetupBackend
    blend: BlendState
    tests: DepthStencil
    memory: UnitMemory
    samples: Floats
    """[samples, 2]: where in a pixel, in subpixels."""
    sample_mask: int
    depth_ranges: Floats
    report: Callable[[str], None]
    drawn: Callable[[SurfaceState], None]
    """Told of each target that is drawn to."""

    @property
    def early(self) -> bool:
        """Depth and stencil are tested before the shader runs."""
        state = self.state
        late = (
            state.kills or state.computes_depth or state.computes_stencil or state.output_mask
            or self.blend.alpha_to_coverage or self.blend.alpha_test is not None
        )  # fmt: skip
        return state.early == _EARLY_FORCED or not (late or state.early == _LATE_FORCED)


class Pixels:
    """The pixels of one draw."""

    def __init__(
        self, backend: PixelBackend, setup: Setup, data: NDArray[np.float32], offset: Floats | None = None
    ) -> None:
        """`data` is what `setup_data` gives, `offset` [primitives] is added to their depths."""
        self._backend = backend
        self._setup = setup
        self._data = data
        self.shaded = 0
        """Pixels that shaders ran for."""
        self._targets: dict[int, RenderTarget | None] = {}
        self._offset = offset
        self._early = backend.early

    def draw(self, quads: Quads) -> threads.Steps:
        """One piece of the rasteriser's quads."""
        backend, state = self._backend, self._backend.state
        quads = quads.with_coverage(quads.coverage & np.uint16(backend.sample_mask))
        if self._early and len(quads):
            quads = self._tested(quads, None)
        if not len(quads):
            return
        if not state.valid or backend.stage is None or not state.kernels:
            if not self._early:
                self._tested(quads, None)
            return
        each: list[int | None] = (
            list(range(len(backend.samples))) if state.per_sample and len(backend.samples) > 1 else [None]
        )
        for first in range(0, len(quads), _TOGETHER):
            part = quads.of(slice(first, first + _TOGETHER))
            for sample in each:
                some = part if sample is None else part.with_coverage(part.coverage & np.uint16(1 << sample))
                if len(some):
                    yield from self._shaded(some, sample)
            yield None

    def _shaded(self, quads: Quads, sample: int | None) -> threads.Steps:
        backend, state = self._backend, self._backend.state
        stage = backend.stage
        assert stage is not None  # the caller looked
        kernel = state.kernel(len(quads), int(np.count_nonzero(np.diff(quads.primitive))) + 1)
        stage = replace(stage, kernel=kernel.start, first_register=kernel.first_register)
        self.shaded += int(np.count_nonzero(quads.coverage))
        packed = pack(state, stage, kernel, self._setup, self._data, quads, backend.samples, sample)
        lane_of = packed.lane_of
        output = PixelOutput(packed.threads, kernel.width, self._reader(quads, lane_of, sample))
        port = ShaderPort(stage, output=output)
        for begin in range(0, packed.threads, threads.MOST):
            rows = slice(begin, begin + threads.MOST)
            output.first_thread = begin
            yield from threads.run(stage, packed.payload[rows], packed.lanes[rows], port)
        self._finish(quads, lane_of, output)

    def _finish(self, quads: Quads, lane_of: Indices, output: PixelOutput) -> None:
        """What is left after the shader: masks, tests, blending."""
        alive = output.alive[lane_of]
        coverage = np.where(alive, quads.coverage, 0).astype(np.uint16)
        if output.mask is not None:
            coverage &= output.mask[lane_of]
        self._smooth(quads, lane_of, output)
        coverage = self._alpha(coverage, lane_of, output)
        places = np.arange(len(quads))
        if not self._early:
            left = coverage.any(axis=1)
            places = places[left]
            depth = None if output.depth is None else output.depth[lane_of[places]].astype(np.float64)
            stencil = None if output.stencil is None else output.stencil[lane_of[places]].astype(np.int64)
            tested = Quads(quads.primitive[left], quads.x[left], quads.y[left], coverage[left])
            coverage[places] = self._test(tested, depth, stencil)
        for number, target in sorted(output.targets.items()):
            self._write(quads, coverage, lane_of, number, target)

    def _smooth(self, quads: Quads, lane_of: Indices, output: PixelOutput) -> None:
        """Alpha of antialiased lines, by how much of each pixel they cover."""
        if not self._setup.smooth.shape[1]:
            return
        share = line_coverage(self._setup, quads).astype(np.float32)
        for target in output.targets.values():
            alpha = target.colours[lane_of, 3].view(np.float32)
            target.colours[lane_of, 3] = (alpha * share).view(np.uint32)

    def _alpha(self, coverage: NDArray[np.uint16], lane_of: Indices, output: PixelOutput) -> NDArray[np.uint16]:
        """Alpha test, and alpha to coverage."""
        blend, first = self._backend.blend, output.targets.get(0)
        if first is None or (blend.alpha_test is None and not blend.alpha_to_coverage):
            return coverage
        alpha = first.colours[lane_of][:, :, 3].view(np.float32).astype(np.float64)
        if blend.alpha_test is not None:
            function, reference = blend.alpha_test
            coverage = np.where(compare(function, alpha, np.full(alpha.shape, reference)), coverage, 0).astype(
                np.uint16
            )
        if blend.alpha_to_coverage:
            count = len(self._backend.samples)
            kept = np.rint(np.clip(np.nan_to_num(alpha), 0, 1) * count).astype(np.int64)
            coverage = coverage & ((1 << kept) - 1).astype(np.uint16)
        return coverage

    def _tested(self, quads: Quads, depth: Floats | None) -> Quads:
        return quads.with_coverage(self._test(quads, depth))

    def _test(self, quads: Quads, depth: Floats | None, stencil: NDArray[np.int64] | None = None) -> NDArray[np.uint16]:
        """Coverage after depth and stencil tests; `depth` and `stencil` [quads, 4] are the shader's."""
        tests = self._backend.tests
        if tests.is_idle:
            tests.passed += int(np.bitwise_count(quads.coverage).sum())
            return quads.coverage
        coverage = np.zeros_like(quads.coverage)
        layer = self._setup.layer[quads.primitive]
        front = self._setup.front[quads.primitive]
        for chosen in rounds(_key(quads, layer)):
            some = quads.of(chosen)
            x, y = some.x[:, None] + PIXEL_X, some.y[:, None] + PIXEL_Y
            for sample in range(len(self._backend.samples)):
                covered = (some.coverage >> np.uint16(sample) & 1).astype(np.bool_)
                if not covered.any():
                    continue
                values = self._depth(some, sample) if depth is None else self._clamped(some, depth[chosen])
                passes = np.zeros(covered.shape, dtype=np.bool_)
                passes[covered] = tests.test(
                    x[covered],
                    y[covered],
                    np.broadcast_to(layer[chosen][:, None], covered.shape)[covered],
                    sample,
                    values[covered],
                    np.broadcast_to(front[chosen][:, None], covered.shape)[covered],
                    None if stencil is None else stencil[chosen][covered],
                )
                tests.passed += int(np.count_nonzero(passes))
                coverage[chosen] |= passes.astype(np.uint16) << np.uint16(sample)
        return coverage

    def _depth(self, quads: Quads, sample: int) -> Floats:
        """[quads, 4]: interpolated at a sample."""
        offset_x, offset_y = self._backend.samples[sample]
        x = (quads.x[:, None] + PIXEL_X) * SUBPIXELS + offset_x
        y = (quads.y[:, None] + PIXEL_Y) * SUBPIXELS + offset_y
        depth = depth_of(self._setup, quads.primitive, edge_values(self._setup, quads.primitive, x, y))
        if self._offset is not None:
            depth = depth + self._offset[quads.primitive][:, None]
        return self._clamped(quads, depth)

    def _clamped(self, quads: Quads, depth: Floats) -> Floats:
        ranges = self._backend.depth_ranges
        found = ranges[np.minimum(self._setup.viewport[quads.primitive], len(ranges) - 1)]
        low, high = found.min(axis=1)[:, None], found.max(axis=1)[:, None]
        return np.asarray(np.clip(np.nan_to_num(depth), low, high))

    def _write(
        self, quads: Quads, coverage: NDArray[np.uint16], lane_of: Indices, number: int, written: Target
    ) -> None:
        target = self._target(written.surface)
        if target is None or target.is_null:
            return
        covered = np.where(written.written[lane_of], coverage, 0).astype(np.uint16)
        layer = self._setup.layer[quads.primitive]
        whole = np.nonzero(covered.any(axis=1))[0]
        for chosen in rounds(_key(quads.of(whole), layer[whole])):
            places = whole[chosen]
            x, y = quads.x[places, None] + PIXEL_X, quads.y[places, None] + PIXEL_Y
            layers = np.broadcast_to(layer[places, None], x.shape)
            inside = target.inside(x, y, layers)
            for sample in range(len(self._backend.samples)):
                drawn = (covered[places] >> np.uint16(sample) & 1).astype(np.bool_) & inside
                if drawn.any():
                    lanes = lane_of[places][drawn]
                    second = None if written.second is None else written.second[lanes]
                    target.write(
                        x[drawn],
                        y[drawn],
                        layers[drawn],
                        sample,
                        written.colours[lanes],
                        second,
                        self._backend.blend,
                        number,
                    )

    def _target(self, index: int) -> RenderTarget | None:
        if index not in self._targets:
            backend = self._backend
            assert backend.stage is not None  # it has written
            surface = backend.stage.surfaces.find(SurfaceKind.BTI, index)
            try:
                self._targets[index] = RenderTarget(backend.memory, surface)
                backend.drawn(surface)
            except UnknownImage as unknown:
                backend.report(f"render target of {unknown}: nothing is written")
                self._targets[index] = None
        return self._targets[index]

    def _reader(self, quads: Quads, lane_of: Indices, sample: int | None) -> Callable[[int, Lanes], NDArray[np.uint32]]:
        """What render target reads of these quads' lanes find."""

        def read(surface: int, lanes: Lanes) -> NDArray[np.uint32]:
            target = self._target(surface)
            result = np.zeros((len(lanes), 4), dtype=np.uint32)
            if target is None or target.is_null:
                return result
            owner = np.full(int(max(lane_of.max(), lanes.max())) + 1, -1, dtype=np.int64)
            owner[lane_of.reshape(-1)] = np.arange(lane_of.size)
            place = owner[lanes]
            quad, pixel = place // 4, place % 4
            x, y = quads.x[quad] + PIXEL_X[pixel], quads.y[quad] + PIXEL_Y[pixel]
            layer = self._setup.layer[quads.primitive[quad]]
            there = (place >= 0) & target.inside(x, y, layer)
            result[there] = target.read(x[there], y[there], layer[there], sample or 0)
            return result

        return read


def _key(quads: Quads, layer: Indices) -> Indices:
    """A number for each place."""
    return np.asarray(layer << 32 | quads.y << 16 | quads.x)
