"""A draw through the 3-D pipeline, as work of the command streamer in steps."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.memory.address_space import Fault
from vfio_user_xe.device_models.xe.memory.ppgtt import PointerSpace, PpgttSpace
from vfio_user_xe.device_models.xe.render import (
    domain_shader,
    drawn,
    geometry_shader,
    hull_shader,
    mesh_shader,
    vertex_fetch,
    vertex_shader,
)
from vfio_user_xe.device_models.xe.render.blend import BlendState
from vfio_user_xe.device_models.xe.render.clip import POSITION
from vfio_user_xe.device_models.xe.render.compiled_pixels import CompiledPixels
from vfio_user_xe.device_models.xe.render.compiled_state import DrawState, NotCompiled
from vfio_user_xe.device_models.xe.render.depth_stencil import (
    DepthStencil,
    DepthStencilState,
    depth_buffer,
    stencil_buffer,
)
from vfio_user_xe.device_models.xe.render.domain_shader import DomainState
from vfio_user_xe.device_models.xe.render.draw import Draw, MeshDraw
from vfio_user_xe.device_models.xe.render.fast_clear import fast_clear
from vfio_user_xe.device_models.xe.render.fields import bits
from vfio_user_xe.device_models.xe.render.geometry_shader import GeometryState
from vfio_user_xe.device_models.xe.render.hull_shader import HullState
from vfio_user_xe.device_models.xe.render.mesh_shader import Meshes
from vfio_user_xe.device_models.xe.render.pixel_state import PixelState
from vfio_user_xe.device_models.xe.render.pixels import PixelBackend, Pixels
from vfio_user_xe.device_models.xe.render.rasterizer import rasterize
from vfio_user_xe.device_models.xe.render.sample_pattern import samples_of
from vfio_user_xe.device_models.xe.render.setup_backend import SetupBackend, setup_data
from vfio_user_xe.device_models.xe.render.stage import PIXEL, Stage, stage
from vfio_user_xe.device_models.xe.render.state import Op, kept
from vfio_user_xe.device_models.xe.render.statistics import Count, add
from vfio_user_xe.device_models.xe.render.stream_out import STREAMS, StreamOut, StreamOutState
from vfio_user_xe.device_models.xe.render.strips_fans import Drawable, StripsFans
from vfio_user_xe.device_models.xe.render.topology import (
    PATCHLIST_1,
    Primitives,
    Shape,
    Topology,
    UnknownTopology,
    assemble,
    joined,
)
from vfio_user_xe.device_models.xe.render.vertex_fetch import VertexState
from vfio_user_xe.device_models.xe.render.viewport import depth_ranges, viewports

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

_LISTS = frozenset({Topology.POINTLIST, Topology.LINELIST, Topology.TRILIST, Topology.RECTLIST, Topology.QUADLIST})
_TOGETHER, _MOST = 3 << 16, 1 << 21
"""Vertices of an instance that are drawn together, of lists; and of a strip or fan at most."""
_INSTANCES_TOGETHER = 1 << 14
"""Vertices of several instances that are drawn together."""
_SET_UP_TOGETHER = 1 << 11
"""Primitives that are clipped and set up at once: some milliseconds, since a function's quantum may be over behind them."""
Vertices = NDArray[np.uint32]


class Pipeline:
    """The state that one draw takes from its context, and the way through the stages."""

    def __init__(self, streamer: CommandStreamer) -> None:
        """The state of the streamer's context now.

        Raises:
            TranslationFault: an address of state in memory is not mapped.
            AccessFault: an address of state in memory is refused, or leads nowhere.
        """
        lrc = streamer.lrc
        space = lrc.space
        self._streamer = streamer
        self._fixed = UnitMemory(space.fixed_functions if isinstance(space, PpgttSpace) else space)
        self._units = UnitMemory(space.execution_units if isinstance(space, PpgttSpace) else space)
        self._report = streamer.engine.report
        dynamic = ComputeState.of(lrc).dynamic
        self._vertex_state = VertexState.of(lrc)
        stream_out = StreamOutState.of(lrc)
        self._out = None if stream_out is None else StreamOut(lrc.registers, stream_out, self._fixed)
        self._pixel = PixelState.of(lrc)
        samples = samples_of(lrc)
        depth = depth_buffer(lrc, self._fixed)
        self._strips_fans = StripsFans(lrc, viewports(lrc, dynamic, self._fixed), None if depth is None else depth.form)
        self._tests = DepthStencil(
            DepthStencilState.of(lrc),
            depth,
            stencil_buffer(lrc, self._fixed),
            self._fixed,
            len(samples),
        )
        mask = kept(lrc, Op.SAMPLE_MASK)
        self._pixels = PixelBackend(
            state=self._pixel,
            stage=self._pixel_stage(),
            backend=SetupBackend.of(lrc),
            blend=BlendState.of(lrc, dynamic, self._fixed),
            tests=self._tests,
            memory=self._fixed,
            samples=samples,
            sample_mask=bits(mask, 1, 15, 0) if mask else 0xFFFF,
            depth_ranges=depth_ranges(lrc, dynamic, self._fixed),
            report=self._report,
            drawn=lambda surface: drawn.note(streamer.lrc, surface, streamer.engine.clock.ns()),
        )
        self._compiled = self._compiled_state()
        self._stipples = True
        """Polygons are stippled, if state says so."""

    def _compiled_state(self) -> DrawState | None:
        """For compiled code, if it takes the draw."""
        try:
            return DrawState(self._pixels)
        except NotCompiled:
            return None

    @property
    def generations(self) -> tuple[int, int]:
        """What changes when translations are taken back."""
        units, fixed = self._units.space, self._fixed.space
        return (
            units.generation if isinstance(units, PointerSpace) else 0,
            fixed.generation if isinstance(fixed, PointerSpace) else 0,
        )

    @property
    def is_kept(self) -> bool:
        """A further draw may use it: its accesses go by what `generations` says, and nothing of it is a draw's own."""
        return self._out is None and self._compiled is not None

    @property
    def joins_draws(self) -> bool:
        """Draws of this state that follow one another may be drawn as one: nothing in it counts vertices or primitives from a draw's first."""
        state = self._vertex_state
        counts = state.vertex_id is not None or any(parameter is not None for parameter in state.parameters)
        kind = state.topology
        return self.is_kept and not (
            counts or self._pixels.backend.counts_primitives or self._geometry is not None or kind >= PATCHLIST_1
        )

    def run(self, draws: Sequence[Draw]) -> Bulk:
        """All instances of a draw, one after the other; or several draws with one instance each (`joins_draws`)."""
        self._draw = draws[0]
        self._stipples = (draws[0].topology or self._vertex_state.topology) != Topology.TRIFAN_NOSTIPPLE
        yield from self._all() if len(draws) == 1 else self._joined(draws)
        if self._out is not None:
            self._out.finish()

    def run_meshes(self, draw: MeshDraw) -> Bulk:
        """All thread groups of a draw of meshes."""
        yield from mesh_shader.draw(self._streamer, self._units, draw, self._meshes)

    def _meshes(self, made: Meshes) -> Bulk:
        yield from self._primitives(made.vertices, made.primitives, made.own)

    def _all(self) -> Bulk:
        draw = self._draw
        kind = draw.topology or self._vertex_state.topology
        if draw.vertices <= _TOGETHER:
            yield from self._part(draw)
        elif kind in _LISTS:
            for first in range(0, draw.vertices, _TOGETHER):
                count = min(_TOGETHER, draw.vertices - first)
                yield None
                yield from self._part(replace(draw, vertices=count, first=draw.first + first), first)
        elif draw.vertices <= _MOST:
            yield from self._part(draw)
        else:
            self._report(f"a strip or fan of {draw.vertices} vertices is skipped: {_MOST} are drawn at most")

    def _part(self, draw: Draw, begins: int = 0) -> Bulk:
        """Some of the draw's vertices, of all instances; `begins` is how many vertices of each are before them."""
        state = self._vertex_state
        ids = vertex_fetch.indices(state, draw, self._fixed)
        if not draw.indexed:
            ids = ids + begins
        try:
            primitives = self._strips(ids)
        except UnknownTopology as unknown:
            self._report(f"a draw is skipped: {unknown} is not assembled")
            return
        unique, inverse = ids, np.arange(len(ids))
        if draw.indexed:
            unique, inverse = np.unique(ids, return_inverse=True)
        # Patches are numbered by the hull shader's dispatch, from the first of each instance.
        alone = primitives.shape is Shape.PATCH or not len(ids)
        most = 1 if alone else max(1, _INSTANCES_TOGETHER // len(ids))
        for first in range(0, draw.instances, most):
            each = np.arange(first, min(draw.instances, first + most), dtype=np.int64)
            behind = len(unique) * np.arange(len(each), dtype=np.int64)
            yield from self._instances(
                np.tile(unique, len(each)),
                (inverse.reshape(-1) + behind[:, None]).reshape(-1),
                primitives.repeated(len(each), len(ids)),
                np.repeat(each, len(unique)),
            )

    def _joined(self, draws: Sequence[Draw]) -> Bulk:
        """The vertices of several draws, one behind the other; each is shaded once for each draw, as if it were alone."""
        state, parts = self._vertex_state, list[tuple[int, Primitives]]()
        unique, inverse = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        vertices = shaded = 0
        try:
            for draw in draws:
                ids = vertex_fetch.indices(state, draw, self._fixed)
                parts.append((vertices, self._strips(ids)))
                own, of_own = np.unique(ids, return_inverse=True) if draw.indexed else (ids, ids)
                unique.append(own if draw.indexed else own + draw.first)
                inverse.append(of_own.reshape(-1) + shaded)
                vertices, shaded = vertices + len(ids), shaded + len(own)
        except UnknownTopology as unknown:
            self._report(f"a draw is skipped: {unknown} is not assembled")
            return
        if not draws[0].indexed:
            self._draw = replace(draws[0], first=0)
        instances = np.zeros(shaded, dtype=np.int64)
        yield from self._instances(np.concatenate(unique), np.concatenate(inverse), joined(parts), instances)

    def _strips(self, ids: NDArray[np.int64]) -> Primitives:
        """The primitives of all parts between cut indices."""
        kind = self._draw.topology or self._vertex_state.topology
        cut = self._vertex_state.cut if self._draw.indexed else None
        if cut is None or not (ids == cut).any():
            return assemble(kind, len(ids))
        ends = [*np.nonzero(ids == cut)[0].tolist(), len(ids)]
        begins = [0, *(end + 1 for end in ends[:-1])]
        return joined([(begin, assemble(kind, end - begin)) for begin, end in zip(begins, ends, strict=True)])

    def _instances(
        self,
        unique: NDArray[np.int64],
        inverse: NDArray[np.int64],
        primitives: Primitives,
        instances: NDArray[np.int64],
    ) -> Bulk:
        """Some instances: vertices that are shaded, which instance each is of, and which of them each of the draw's is."""
        elements = vertex_fetch.fetch(self._vertex_state, self._draw, self._fixed, unique, instances)
        yield None
        edge_flags = vertex_fetch.edge_flags(self._vertex_state, elements)
        if edge_flags is not None:
            primitives = primitives.flagged(edge_flags[inverse])
        if vertex_shader.is_enabled(self._streamer.lrc):
            shader, chosen, entry = self._vertex_shader
            add(self._streamer, Count.VS_INVOCATION, len(unique))
            shaded = yield from vertex_shader.shade(shader, elements, chosen, entry)
        else:
            shaded = elements.reshape(len(elements), -1)
        vertices = shaded[inverse]
        add(self._streamer, Count.IA_VERTICES, len(inverse))
        add(self._streamer, Count.IA_PRIMITIVES, len(primitives.vertices))
        yield None
        yield from self._shaded(vertices, primitives)

    @cached_property
    def _vertex_shader(self) -> tuple[Stage, NDArray[np.int64], int]:
        """The vertex shader, which components of elements are in its registers, and bytes of what it writes."""
        lrc = self._streamer.lrc
        shader = vertex_shader.vertex_stage(self._streamer, self._units)
        return shader, vertex_shader.columns(lrc, self._vertex_state), vertex_shader.entry_bytes(lrc)

    @cached_property
    def _geometry(self) -> GeometryState | None:
        return GeometryState.of(self._streamer.lrc)

    def _tessellated(
        self, vertices: Vertices, patches: Primitives
    ) -> Generator[Fault | None, None, tuple[Vertices, Primitives] | None]:
        """Through hull shader, tessellator and domain shader; None where patches cannot be drawn."""
        lrc = self._streamer.lrc
        hull, domain = HullState.of(lrc), DomainState.of(lrc)
        if hull is None or domain is None:
            self._report("patches without tessellation are not drawn")
            return None
        shader = hull_shader.hull_stage(self._streamer, self._units)
        add(self._streamer, Count.HS_INVOCATION, len(patches.vertices))
        entries = yield from hull_shader.shade(shader, hull, vertices, patches.vertices)
        points, primitives = domain_shader.tessellated(domain, entries)
        shader = domain_shader.domain_stage(self._streamer, self._units)
        add(self._streamer, Count.DS_INVOCATION, sum(len(part.places) for part in points))
        shaded = yield from domain_shader.shade(shader, domain, entries, points)
        return shaded, primitives

    def _shaded(self, vertices: Vertices, primitives: Primitives) -> Bulk:
        """Through tessellation and the geometry shader, if there are such, and stream-out."""
        if primitives.shape is Shape.PATCH:
            made = yield from self._tessellated(vertices, primitives)
            if made is None:
                return
            vertices, primitives = made
        state = self._geometry
        if state is None or not len(primitives.vertices):
            self._stream_out(0, vertices, primitives)
            if self._rendered(0):
                yield from self._primitives(vertices, primitives)
            return
        shader = geometry_shader.geometry_stage(self._streamer, self._units)
        add(self._streamer, Count.GS_INVOCATION, len(primitives.vertices) * state.instances)
        entries = yield from geometry_shader.shade(shader, state, vertices, primitives)
        for stream in range(STREAMS if state.streams else 1):
            vertices, primitives = geometry_shader.strips(state, entries, stream)
            add(self._streamer, Count.GS_PRIMITIVES, len(primitives.vertices))
            self._stream_out(stream, vertices, primitives)
            if self._rendered(stream):
                yield from self._primitives(vertices, primitives)

    def _stream_out(self, stream: int, vertices: Vertices, primitives: Primitives) -> None:
        if self._out is not None:
            self._out.write(stream, vertices, primitives)

    def _rendered(self, stream: int) -> bool:
        """Whether a stream's primitives are drawn: those of the first one, if state does not say otherwise."""
        return stream == (0 if self._out is None else self._out.state.renders)

    def _primitives(self, vertices: Vertices, primitives: Primitives, own: Vertices | None = None) -> Bulk:
        """Clipped, set up and drawn; `own` [primitives, dwords] are data of each, from a mesh shader."""
        if not len(primitives.vertices) or vertices.shape[1] < POSITION + 4:
            return
        add(self._streamer, Count.CL_INVOCATION, len(primitives.vertices))
        for begins, ends, piece in primitives.pieces(_SET_UP_TOGETHER):
            for drawable in self._strips_fans.set_up(vertices[begins:ends], piece, stipples=self._stipples):
                yield from self._drawn(drawable, own)
            yield None

    def _drawn(self, piece: Drawable, own: Vertices | None) -> Bulk:
        """From the rasteriser on."""
        setup = piece.setup
        add(self._streamer, Count.CL_PRIMITIVES, piece.count)
        if self._pixel.fast_clear:
            yield from fast_clear(self._pixels, setup, piece.vertices)
            return
        passed = self._tests.passed
        data = setup_data(self._pixels.backend, setup, piece.vertices, points=piece.points, own=own)
        pixels: Pixels | CompiledPixels
        if self._compiled is not None:
            pixels = CompiledPixels(self._compiled, self._streamer.engine.clock)
            yield from pixels.draw(setup, data, piece.offset, piece.stipple)
        else:
            pixels = Pixels(self._pixels, setup, data, piece.offset)
            for quads in rasterize(setup, self._pixels.samples, piece.stipple):
                yield from pixels.draw(quads)
                yield None
        add(self._streamer, Count.PS_INVOCATION, pixels.shaded)
        add(self._streamer, Count.PS_DEPTH, self._tests.passed - passed)

    def _pixel_stage(self) -> Stage | None:
        if not self._pixel.valid or not self._pixel.kernels:
            return None
        return stage(
            self._streamer,
            self._units,
            PIXEL,
            kernel=self._pixel.kernels[0].start,
            first_register=self._pixel.kernels[0].first_register,
            scratch=self._pixel.scratch,
        )
