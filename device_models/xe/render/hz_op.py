"""3DSTATE_WM_HZ_OP: depth and stencil buffers cleared by a rectangle, without a draw.

There is no hierarchical depth in memory here, so resolves have nothing to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage
from vfio_user_xe.device_models.xe.engines.command_streamer import BULK
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.device_models.xe.render.depth_stencil import depth_buffer, stencil_buffer
from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag, real

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer

_BAND = 64
"""Rows that are cleared at once."""


def wm_hz_op(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """Clear at once; the command that takes the state away again (no operation) does nothing."""
    dwords = words[index : index + length].tolist()
    if not flag(dwords, 1, 30) and not flag(dwords, 1, 31):
        return None
    streamer.lrc.bulk = _clear(streamer, dwords)
    return BULK


def _clear(streamer: CommandStreamer, words: Words) -> Bulk:
    space = streamer.lrc.space
    memory = UnitMemory(space.fixed_functions if isinstance(space, PpgttSpace) else space)
    samples = 1 << bits(words, 1, 15, 13)
    try:
        depth = depth_buffer(streamer.lrc, memory) if flag(words, 1, 30) else None
        stencil = stencil_buffer(streamer.lrc, memory) if flag(words, 1, 31) else None
    except UnknownImage as unknown:
        streamer.engine.report(f"a depth or stencil clear is skipped: {unknown}")
        return
    if depth is not None:
        yield from _fill(depth.image, words, samples, depth.texel(real(words, 5)))
    if stencil is not None:
        yield from _fill(stencil, words, samples, bytes([bits(words, 1, 23, 16)]))


def _fill(image: Image, words: Words, samples: int, texel: bytes) -> Iterator[None]:
    """All samples in the rectangle, in bands; of all layers of the view."""
    left, top = bits(words, 2, 15, 0), bits(words, 2, 31, 16)
    right, bottom = min(bits(words, 3, 15, 0), image.width), min(bits(words, 3, 31, 16), image.height)
    if right <= left:
        return
    for layer in range(image.surface.extent):
        for first in range(top, bottom, _BAND):
            rows = np.arange(first, min(bottom, first + _BAND), dtype=np.int64)
            for sample in range(samples):
                image.fill((left, right), rows, layer, sample, texel, samples)
                yield
