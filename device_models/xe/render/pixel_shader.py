"""Pixel shader dispatch: quads packed into threads, and what these find in their registers (`brw_fs_thread_payload.cpp`).

A thread has one or two halves of 16 lanes, four quads each. Each half has a register with its quads' places and masks, then
per half barycentrics and what else 3DSTATE_PS_EXTRA asks for; then push constants; then setup data, five components a
register: the value at vertex 2, and what vertices 0 and 1 differ from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render.clip import Floats
from vfio_user_xe.device_models.xe.render.pixel_state import Kernel, PixelState
from vfio_user_xe.device_models.xe.render.rasterizer import PIXEL_X, PIXEL_Y, Quads, edge_values
from vfio_user_xe.device_models.xe.render.setup import SUBPIXELS, Indices, Setup
from vfio_user_xe.device_models.xe.render.stage import REGISTER, Stage

HALF = 16
_QUADS_OF_HALF = 4
_WORDS = REGISTER // 4
_BACK = 0x800
"""Of a word of a pair of quads: they are back-facing; bits 10:0 are the layer, 15:12 the viewport."""


@dataclass(frozen=True)
class Packed:
    """Quads in threads."""

    kernel: Kernel
    threads: int
    place: Indices
    """[quads]: number of the quad's place; each thread has a quarter as many as lanes."""
    payload: NDArray[np.uint8]
    lanes: list[int]

    @property
    def lane_of(self) -> Indices:
        """[quads, 4]: number of each pixel's lane."""
        return np.asarray(self.place[:, None] * 4 + np.arange(4))


def pack(
    state: PixelState,
    stage: Stage,
    kernel: Kernel,
    setup: Setup,
    data: NDArray[np.float32],
    quads: Quads,
    samples: Floats,
    sample: int | None = None,
) -> Packed:
    """Threads for quads; `sample` is the one that they shade, None if they shade whole pixels."""
    per_polygon = kernel.quads
    place, polygon = _places(quads.primitive, per_polygon)
    polygons = -(-len(polygon) // kernel.polygons) * kernel.polygons
    polygon = np.concatenate([polygon, np.full(polygons - len(polygon), polygon[-1] if len(polygon) else 0)])
    threads = polygons // kernel.polygons
    builder = _Payload(state, stage, kernel, threads, place, quads, sample)
    builder.headers(setup)
    builder.interpolated(setup, samples)
    builder.planes(setup, polygon)
    builder.constants()
    builder.setup_data(data, polygon)
    return Packed(kernel, threads, place, builder.bytes(), builder.lanes())


def _places(primitive: Indices, per_polygon: int) -> tuple[Indices, Indices]:
    """Place of each quad, so that no `per_polygon` places of one group have quads of two primitives; the groups' primitives."""
    begins = np.concatenate([[True], primitive[1:] != primitive[:-1]])
    starts = np.nonzero(begins)[0]
    counts = np.diff(np.append(starts, len(primitive)))
    groups = -(-counts // per_polygon)
    first_group = np.cumsum(groups) - groups
    within = np.arange(len(primitive)) - np.repeat(starts, counts)
    place = np.repeat(first_group * per_polygon, counts) + within
    return place, np.repeat(primitive[starts], groups)


class _Payload:
    """Registers of threads, filled from r0 on in the order in which they lie."""

    def __init__(
        self,
        state: PixelState,
        stage: Stage,
        kernel: Kernel,
        threads: int,
        place: Indices,
        quads: Quads,
        sample: int | None,
    ) -> None:
        self._state = state
        self._stage = stage
        self._kernel = kernel
        self._threads = threads
        self._place = place
        self._quads = quads
        self._sample = sample
        self._halves = kernel.width // HALF
        self._registers: list[NDArray[np.uint32]] = []
        """Each [threads, 16]."""
        self._masks = np.zeros(0, dtype=np.uint16)

    def headers(self, setup: Setup) -> None:
        """Places, facing, layers and masks of the quads."""
        quads, primitive = self._quads, self._quads.primitive
        word = setup.layer[primitive] & 0x7FF | setup.viewport[primitive] << 12
        word = np.where(setup.front[primitive], word, word | _BACK)
        x, y = self._spread(quads.x), self._spread(quads.y)
        info = self._spread(word)
        covered = (
            (quads.coverage != 0) if self._sample is None else (quads.coverage >> np.uint16(self._sample) & 1 != 0)
        )
        live = self._spread((covered * (1 << np.arange(4))).sum(axis=1))
        there = self._spread(np.full(len(quads), 0xF))
        shape = (self._threads, self._halves, _QUADS_OF_HALF)
        shifts = 4 * np.arange(_QUADS_OF_HALF)
        live16 = (live.reshape(shape) << shifts).sum(axis=2)
        quad16 = (there.reshape(shape) << shifts).sum(axis=2)
        self._masks = np.asarray(quad16 if self._state.whole_quads else live16)
        for half in range(self._halves):
            register = self._stage.header(self._threads)
            words = register.view(np.uint16)
            if self._sample is not None:
                register[:, 8] = self._sample * 0x1111
            words[:, 18], words[:, 19] = info.reshape(shape)[:, half, 0], info.reshape(shape)[:, half, 2]
            words[:, 20:28:2] = x.reshape(shape)[:, half]
            words[:, 21:28:2] = y.reshape(shape)[:, half]
            register[:, 15] = live16[:, half]
            self._registers.append(register)

    def interpolated(self, setup: Setup, samples: Floats) -> None:
        """Barycentrics, depth, w, coverage; of each half one behind the other."""
        state, quads = self._state, self._quads
        columns: list[NDArray[np.uint32]] = []
        for mode in state.modes:
            values = self._values(setup, mode % 3, samples)
            weights = (setup.perspective if mode < 3 else setup.screen)[quads.primitive]
            weighted = values * weights[:, None, :]
            with np.errstate(all="ignore"):
                shares = weighted / weighted.sum(axis=2, keepdims=True)
            columns += [self._lanes(shares[:, :, 0]), self._lanes(shares[:, :, 1])]
        if state.source_depth or state.source_w:
            place = 2 if self._sample is not None else 0
            values = self._values(setup, place, samples)
            if state.source_depth:
                columns.append(self._lanes(depth_of(setup, quads.primitive, values)))
            if state.source_w:
                with np.errstate(all="ignore"):
                    n = (values * setup.screen[quads.primitive][:, None, :]).sum(axis=2)
                    q = (values * setup.perspective[quads.primitive][:, None, :]).sum(axis=2)
                    columns.append(self._lanes(n / q))
        if state.input_coverage:
            coverage = quads.coverage if self._sample is None else quads.coverage & np.uint16(1 << self._sample)
            columns.append(self._spread_pixels(coverage.astype(np.uint32)))
        shape = (self._threads, self._halves, HALF)
        for half in range(self._halves):
            self._registers += [column.reshape(shape)[:, half] for column in columns]
            if half == 0:
                if state.position_offsets:
                    self._registers.append(self._offsets(samples))
                if state.sample_offsets:
                    self._registers.append(self._sample_offsets(samples))

    def planes(self, setup: Setup, polygon: Indices) -> None:
        """Planes of barycentrics, depth and 1/w, a register for each primitive of a thread."""
        state = self._state
        if state.perspective_planes or state.depth_planes:
            self._plane_registers(setup, polygon, setup.perspective)
        if state.screen_planes:
            self._plane_registers(setup, polygon, setup.screen)

    def constants(self) -> None:
        """Push constants."""
        first = max(1, self._kernel.first_register)
        missing = first - len(self._registers)
        if missing < 0:
            del self._registers[first:]
        self._registers += [np.zeros((self._threads, _WORDS), dtype=np.uint32)] * missing
        constants = np.frombuffer(self._stage.constants.tobytes(), dtype=np.uint32).reshape(-1, _WORDS)
        self._registers += [np.broadcast_to(row, (self._threads, _WORDS)) for row in constants]

    def setup_data(self, data: NDArray[np.float32], polygon: Indices) -> None:
        """Attributes, a register of each primitive of a thread beside that of the others."""
        by_thread = polygon.reshape(self._threads, self._kernel.polygons)
        for number in range(data.shape[1]):
            for index in range(self._kernel.polygons):
                register = np.zeros((self._threads, _WORDS), dtype=np.uint32)
                register[:, : data.shape[2]] = np.ascontiguousarray(data[by_thread[:, index], number]).view(np.uint32)
                self._registers.append(register)

    def bytes(self) -> NDArray[np.uint8]:
        """[threads, bytes]"""
        return np.ascontiguousarray(np.stack(self._registers, axis=1)).reshape(self._threads, -1).view(np.uint8)

    def lanes(self) -> list[int]:
        """Dispatch masks."""
        masks = self._masks[:, 0].astype(np.int64)
        if self._halves > 1:
            masks = masks | self._masks[:, 1].astype(np.int64) << HALF
        found: list[int] = masks.tolist()
        return found

    def _values(self, setup: Setup, where: int, samples: Floats) -> Floats:
        """Edge functions at pixel centres (0), centroids (1) or the sample (2)."""
        quads = self._quads
        x = (quads.x[:, None] + PIXEL_X) * SUBPIXELS + SUBPIXELS // 2
        y = (quads.y[:, None] + PIXEL_Y) * SUBPIXELS + SUBPIXELS // 2
        offset = self._offset(where, samples)
        return edge_values(setup, quads.primitive, x + offset[..., 0], y + offset[..., 1])

    def _offset(self, where: int, samples: Floats) -> Floats:
        """[quads, 4, 2] or less: from pixel centres, in subpixels."""
        centre = SUBPIXELS / 2
        if where == 2 and self._sample is not None:
            return np.asarray(samples[self._sample] - centre)
        if where == 1 and len(samples) > 1:
            coverage = self._quads.coverage
            whole = coverage == (1 << len(samples)) - 1
            lowest = np.zeros(coverage.shape, dtype=np.int64)
            for number in reversed(range(len(samples))):
                lowest = np.where(coverage >> np.uint16(number) & 1, number, lowest)
            found = samples[lowest] - centre
            found[whole | (coverage == 0)] = 0
            return np.asarray(found)
        return np.zeros(2)

    def _offsets(self, samples: Floats) -> NDArray[np.uint32]:
        """Position offsets: bytes of x and y, in sixteenths, of all lanes."""
        where = 2 if self._state.position_offsets == 3 else 1
        offset = np.broadcast_to(self._offset(where, samples), (len(self._quads), 4, 2))
        steps = ((offset + SUBPIXELS / 2) * 16 / SUBPIXELS).astype(np.int64)
        pair = self._spread_pixels((steps[..., 0] | steps[..., 1] << 8).astype(np.uint32))
        register = np.zeros((self._threads, 2 * _WORDS), dtype=np.uint16)
        register[:, : self._kernel.width] = pair.reshape(self._threads, -1)
        return register.view(np.uint32)

    def _sample_offsets(self, samples: Floats) -> NDArray[np.uint32]:
        """X of the samples in sixteenths in the first words, Y from the eighth dword on."""
        register = np.zeros((self._threads, _WORDS), dtype=np.uint32)
        steps = (samples * 16 / SUBPIXELS).astype(np.uint8)
        view = register.view(np.uint8)
        view[:, : len(samples)] = steps[:, 0]
        view[:, 16 : 16 + len(samples)] = steps[:, 1]
        return register

    def _plane_registers(self, setup: Setup, polygon: Indices, weights: Floats) -> None:
        """Dwords: y, x and constant of b1, then of b2, then where it starts; behind them those of depth and 1/w."""
        by_thread = polygon.reshape(self._threads, self._kernel.polygons)
        for index in range(self._kernel.polygons):
            chosen = by_thread[:, index]
            edges, q = setup.edges[chosen], weights[chosen]
            n, z = setup.screen[chosen], setup.depth[chosen]
            start_x, start_y = setup.bounds[chosen, 0], setup.bounds[chosen, 1]
            with np.errstate(all="ignore"):
                total = (edges * n[:, :, None]).sum(axis=1)
                scale = total[:, 2] + total[:, 0] * start_x * SUBPIXELS + total[:, 1] * start_y * SUBPIXELS
                register = np.zeros((self._threads, _WORDS), dtype=np.float32)
                planes = [edges[:, 0] * q[:, :1], edges[:, 1] * q[:, 1:2]]
                planes += [
                    (edges * z[:, :, None]).sum(axis=1),
                    (edges * setup.perspective[chosen][:, :, None]).sum(axis=1),
                ]
                for at, plane in zip((0, 3, 8, 11), planes, strict=True):
                    constant = plane[:, 2] + (plane[:, 0] * start_x + plane[:, 1] * start_y) * SUBPIXELS
                    register[:, at] = plane[:, 1] * SUBPIXELS / scale
                    register[:, at + 1] = plane[:, 0] * SUBPIXELS / scale
                    register[:, at + 2] = constant / scale
                register[:, 6], register[:, 7] = start_x, start_y
            self._registers.append(register.view(np.uint32))

    def _spread(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Values of quads at their places; places without a quad are zero."""
        found = np.zeros(self._threads * self._kernel.width // 4, dtype=np.int64)
        found[self._place] = values
        return found

    def _spread_pixels(self, values: NDArray[np.uint32]) -> NDArray[np.uint32]:
        found = np.zeros((self._threads * self._kernel.width // 4, 4), dtype=np.uint32)
        found[self._place] = values
        return found

    def _lanes(self, values: Floats) -> NDArray[np.uint32]:
        with np.errstate(over="ignore", invalid="ignore"):
            return self._spread_pixels(np.ascontiguousarray(values.astype(np.float32)).view(np.uint32))


def depth_of(setup: Setup, primitive: Indices, values: Floats) -> Floats:
    """[quads, 4]: depth where the edge functions have these values [quads, 4, 3]."""
    with np.errstate(all="ignore"):
        depth = (values * setup.depth[primitive][:, None, :]).sum(axis=2)
        return np.asarray(depth / (values * setup.screen[primitive][:, None, :]).sum(axis=2))
