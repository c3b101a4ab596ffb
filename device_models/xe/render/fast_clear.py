"""Fast clears: the pixel shader's colour for whole blocks of a render target, by a rectangle whose pixels are blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.texels import UnknownImage
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.render import threads
from vfio_user_xe.device_models.xe.render.pixel_output import PixelOutput
from vfio_user_xe.device_models.xe.render.pixel_shader import pack
from vfio_user_xe.device_models.xe.render.rasterizer import Quads
from vfio_user_xe.device_models.xe.render.render_target import RenderTarget
from vfio_user_xe.device_models.xe.render.setup import Setup
from vfio_user_xe.device_models.xe.render.setup_backend import setup_data
from vfio_user_xe.device_models.xe.render.shader_port import ShaderPort

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.render.pixels import PixelBackend


def fast_clear(backend: PixelBackend, setup: Setup, vertices: NDArray[np.uint32]) -> threads.Steps:
    """Clear what each rectangle stands for.

    Raises:
        TranslationFault: an address of the target is not mapped.
        AccessFault: an address of the target is refused, or leads nowhere.
    """
    stage, state = backend.stage, backend.state
    if stage is None:
        return
    kernel = state.kernels[0]
    data = setup_data(backend.backend, setup, vertices)
    for number in range(len(setup)):
        left, top = setup.bounds[number, :2].tolist()
        # All pixels have the same colour: one quad says it.
        quad = Quads(
            np.array([number]), np.array([left & ~1]), np.array([top & ~1]), np.full((1, 4), 1, dtype=np.uint16)
        )
        packed = pack(state, stage, kernel, setup, data, quad, backend.samples)
        output = PixelOutput(packed.threads, kernel.width)
        yield from threads.run(stage, packed.payload, packed.lanes, ShaderPort(stage, output=output))
        for written in output.targets.values():
            lanes = np.nonzero(written.written)[0]
            try:
                target = RenderTarget(backend.memory, stage.surfaces.find(SurfaceKind.BTI, written.surface))
            except UnknownImage as unknown:
                backend.report(f"fast clear of {unknown}: nothing is written")
                continue
            if len(lanes) and not target.is_null:
                backend.drawn(target.surface)
                bounds = _rectangle(setup, number)
                yield from target.fast_clear(bounds, int(setup.layer[number]), written.colours[lanes[0]])


def _rectangle(setup: Setup, number: int) -> tuple[int, int, int, int]:
    """Pixels whose centres are in the primitive's extent, inside of its bounds."""
    extent = np.floor(setup.extent[number] / 256 + 0.5).astype(np.int64)
    low = np.maximum(extent[:2], setup.bounds[number, :2])
    high = np.minimum(extent[2:], setup.bounds[number, 2:])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
