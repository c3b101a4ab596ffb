"""How blits are carried out: lines and rectangles of bytes, of memory that may be compressed where the card does that."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from vfio_user_xe.device_models.xe.engines import bulk, compression
from vfio_user_xe.device_models.xe.engines.command_streamer import Bulk, CommandStreamer
from vfio_user_xe.device_models.xe.engines.surface import StagedSurface, Surface
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, Fault, TranslationFault
from vfio_user_xe.device_models.xe.memory.vram import Vram


def linear_copy(streamer: CommandStreamer, source: int, target: int, length: int) -> Bulk:
    """Copy `length` bytes."""
    space, vram = streamer.space, streamer.engine.vram
    if vram.flat_ccs is None:
        return bulk.copy(space, source, space, target, length)
    return compression.copy(vram, space, source, space, target, length)


def linear_fill(streamer: CommandStreamer, target: int, length: int, pattern: bytes) -> Bulk:
    """Fill `length` bytes with `pattern` again and again."""
    space, vram = streamer.space, streamer.engine.vram
    if vram.flat_ccs is None:
        return bulk.fill(space, target, length, pattern, vram)
    return compression.fill(vram, space, target, length, pattern)


def rectangle_copy(
    streamer: CommandStreamer,
    source: Surface,
    source_at: tuple[int, int],
    target: Surface,
    target_at: tuple[int, int],
    width: int,
    height: int,
    resolve: bool = False,
) -> Bulk:
    """Copy `height` rows of `width` bytes; a place is (byte of a row, row). A resolve leaves the target plain."""
    if streamer.engine.vram.flat_ccs is None:
        return _copy_rectangle(source, source_at, target, target_at, width, height)
    return _expanded_copy(streamer.engine.vram, source, source_at, target, target_at, width, height, resolve)


def rectangle_fill(
    streamer: CommandStreamer, surface: Surface, at: tuple[int, int], width: int, height: int, data: bytes
) -> Bulk:
    """Fill `height` rows with the first `width` bytes of `data`."""
    if streamer.engine.vram.flat_ccs is None:
        return _fill_rectangle(surface, at, width, height, data)
    return _expanded_fill(streamer.engine.vram, surface, at, width, height, data)


def _expanded_copy(
    vram: Vram,
    source: Surface,
    source_at: tuple[int, int],
    target: Surface,
    target_at: tuple[int, int],
    width: int,
    height: int,
    resolve: bool,
) -> Bulk:
    """`_copy_rectangle` of surfaces that may be compressed: such a one is expanded, changed, and stored anew."""
    staged_source = yield from _staged(vram, source)
    staged_target = yield from _staged(vram, target)
    yield from _copy_rectangle(staged_source, source_at, staged_target, target_at, width, height)
    yield from _stored(vram, staged_target, resolve)


def _expanded_fill(vram: Vram, surface: Surface, at: tuple[int, int], width: int, height: int, data: bytes) -> Bulk:
    staged = yield from _staged(vram, surface)
    yield from _fill_rectangle(staged, at, width, height, data)
    yield from _stored(vram, staged)


def _staged(vram: Vram, surface: Surface) -> Generator[Fault | None, None, Surface]:
    """`surface`, or its expanded bytes when any of it may be compressed."""
    if not compression.involved(surface.space, surface.address, surface.size):
        return surface
    while True:
        try:
            return StagedSurface(surface, compression.plain(vram, surface.space, surface.address, surface.size))
        except (TranslationFault, AccessFault) as fault:
            yield fault


def _stored(vram: Vram, surface: Surface, resolve: bool = False) -> Bulk:
    """Finish a blit to `surface`; a resolve leaves it plain."""
    while True:
        try:
            if isinstance(surface, StagedSurface):
                compression.store(vram, surface.space, surface.address, surface.data, compress=not resolve)
            else:
                compression.forget(vram, surface.space, surface.address, surface.size)
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        return


def _copy_rectangle(
    source: Surface,
    source_at: tuple[int, int],
    target: Surface,
    target_at: tuple[int, int],
    width: int,
    height: int,
) -> Bulk:
    row = 0
    while row < height:
        (from_x, from_y), (to_x, to_y) = (source_at[0], source_at[1] + row), (target_at[0], target_at[1] + row)
        count = min(height - row, source.rows(from_y, from_x, width), target.rows(to_y, to_x, width))
        try:
            target.write(to_y, to_x, source.read(from_y, from_x, count, width))
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        row += count
        yield None


def _fill_rectangle(surface: Surface, at: tuple[int, int], width: int, height: int, data: bytes) -> Bulk:
    line = np.frombuffer(data, np.uint8)[:width]
    x, y, end = at[0], at[1], at[1] + height
    while y < end:
        count = min(end - y, surface.rows(y, x, width))
        try:
            surface.write(y, x, np.broadcast_to(line, (count, width)))
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        y += count
        yield None
