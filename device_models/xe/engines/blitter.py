"""Blits: MEM_COPY and MEM_SET, the XY_* commands, copies of compression metadata (`instructions/xe_gpu_commands.h`).

Fields are those of Intel's published Xe2 command definitions; the driver itself uses MEM_COPY and MEM_SET
(`xe_migrate.c`). What is stored compressed is the matter of page-table entries (`compression.py`): compression formats
have no effect.
"""

from __future__ import annotations

from typing import NamedTuple

from vfio_user_xe.device_models.xe.engines import blits, compression
from vfio_user_xe.device_models.xe.engines.command_streamer import BULK, Bulk, CommandStreamer
from vfio_user_xe.device_models.xe.engines.surface import Surface
from vfio_user_xe.device_models.xe.engines.surface_layout import Place, SurfaceLayout, tiling_of_surface
from vfio_user_xe.device_models.xe.engines.tiling import Tiling
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, TranslationFault

PAGE_COPY_UNIT = 256
_MATRIX = 1 << 17
_PAGE_MODE = 1 << 19
_EVICT = 1 << 19  # of MEM_SET: bits 20:19

_XY_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 12, 5: 16}
"""Color depth of XY_BLOCK_COPY_BLT and XY_FAST_COLOR_BLT."""
_FULL_RESOLVE = 1
"""Special mode of XY_BLOCK_COPY_BLT, bits 13:12: the target is left uncompressed."""
_FAST_COPY_BYTES = {0: 1, 1: 2, 3: 4, 4: 8, 5: 16}
_TILE_MODES = (0, 2, 3, 1)
"""RENDER_SURFACE_STATE's codes of linear, TileX, Tile4, Tile64."""
_3D = 2
"""Surface type in an extension."""

_CCS_PER_PAGE = 8
"""Bytes of compression metadata for 4 KiB: one for 512 (xe_gpu_commands.h: NUM_BYTES_PER_CCS_BYTE)."""


def mem_copy(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MEM_COPY: linear or matrix, in units of a byte or (page mode, linear only) of 256 bytes."""
    header = words[index]
    source, target = _address(words, index + 5), _address(words, index + 7)
    space = streamer.space
    if header & _PAGE_MODE or not header & 3 << 17:
        unit = PAGE_COPY_UNIT if header & _PAGE_MODE else 1
        width = ((words[index + 1] & 0xFFFFFF) + 1) * unit
        streamer.lrc.bulk = blits.linear_copy(streamer, source, target, width)
        return BULK
    width, height = (words[index + 1] & 0x3FFFF) + 1, (words[index + 2] & 0x3FFFF) + 1
    source_pitch, target_pitch = (words[index + 3] & 0x3FFFF) + 1, (words[index + 4] & 0x3FFFF) + 1
    if width == source_pitch == target_pitch:
        streamer.lrc.bulk = blits.linear_copy(streamer, source, target, width * height)
    else:
        streamer.lrc.bulk = blits.rectangle_copy(
            streamer,
            Surface(space, source, source_pitch, height, None, writable=False),
            (0, 0),
            Surface(space, target, target_pitch, height, None, writable=True),
            (0, 0),
            width,
            height,
        )
    return BULK


def mem_set(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """MEM_SET: bytes, linear or matrix. (Its evict mode touches nothing but caches.)"""
    header = words[index]
    if header & 3 << 19 == _EVICT:
        return None
    target = _address(words, index + 4)
    byte = (words[index + 6] >> 24).to_bytes(1, "little")
    if not header & _MATRIX:
        streamer.lrc.bulk = blits.linear_fill(streamer, target, (words[index + 1] & 0xFFFFFF) + 1, byte)
        return BULK
    width, height = (words[index + 1] & 0x3FFFF) + 1, (words[index + 2] & 0x3FFFF) + 1
    pitch = (words[index + 3] & 0x3FFFF) + 1
    if width == pitch:
        streamer.lrc.bulk = blits.linear_fill(streamer, target, width * height, byte)
    else:
        surface = Surface(streamer.space, target, pitch, height, None, writable=True)
        streamer.lrc.bulk = blits.rectangle_fill(streamer, surface, (0, 0), width, height, byte * width)
    return BULK


def xy_fast_copy(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """XY_FAST_COPY_BLT. Pitches are in bytes, of tiled surfaces in dwords."""
    header, depth = words[index], words[index + 1]
    pixel = _FAST_COPY_BYTES.get(depth >> 24 & 7)
    rectangle = _rectangle(words[index + 2], words[index + 3])
    if pixel is None or rectangle is None:
        return _refuse(streamer, "XY_FAST_COPY_BLT", "its color depth or rectangle")
    x, y, width, height = rectangle
    source_x, source_y = _point(words[index + 6])
    try:
        of, to = (_slice(None, code & 3, pixel) for code in (header >> 20, header >> 13))
        source = _surface(streamer, _address(words, index + 8), words[index + 7] & 0xFFFF, of.tiling, source_y + height)
        target = _surface(streamer, _address(words, index + 4), depth & 0xFFFF, to.tiling, y + height, writable=True)
    except ValueError as error:
        return _refuse(streamer, "XY_FAST_COPY_BLT", str(error))
    return _start_copy(streamer, source, (source_x * pixel, source_y), target, (x * pixel, y), width * pixel, height)


def xy_block_copy(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """XY_BLOCK_COPY_BLT, short (12 dwords) or extended (22): the latter names a mip level and a slice."""
    header = words[index]
    pixel = _XY_BYTES.get(header >> 19 & 7)
    rectangle = _rectangle(words[index + 2], words[index + 3])
    if pixel is None or rectangle is None:
        return _refuse(streamer, "XY_BLOCK_COPY_BLT", "its color depth or rectangle")
    x, y, width, height = rectangle
    target_offset, source_offset = words[index + 6], words[index + 11]
    x, y = x + (target_offset & 0x3FFF), y + (target_offset >> 16 & 0x3FFF)
    source_x, source_y = _point(words[index + 7])
    source_x, source_y = source_x + (source_offset & 0x3FFF), source_y + (source_offset >> 16 & 0x3FFF)
    source_word, target_word = words[index + 8], words[index + 1]
    extended = length >= 22
    try:
        to = _slice(words[index + 16 : index + 19] if extended else None, target_word >> 30, pixel)
        of = _slice(words[index + 19 : index + 22] if extended else None, source_word >> 30, pixel)
        x, y, source_x, source_y = x + to.x, y + to.y, source_x + of.x, source_y + of.y
        source = _surface(
            streamer, _address(words, index + 9), (source_word & 0x3FFFF) + 1, of.tiling, source_y + height
        )
        target = _surface(
            streamer, _address(words, index + 4), (target_word & 0x3FFFF) + 1, to.tiling, y + height, writable=True
        )
    except ValueError as error:
        return _refuse(streamer, "XY_BLOCK_COPY_BLT", str(error))
    resolve = header >> 12 & 3 == _FULL_RESOLVE
    return _start_copy(
        streamer, source, (source_x * pixel, source_y), target, (x * pixel, y), width * pixel, height, resolve
    )


def xy_fast_color(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """XY_FAST_COLOR_BLT: fill a rectangle with one pixel value."""
    header, word = words[index], words[index + 1]
    pixel = _XY_BYTES.get(header >> 19 & 7)
    rectangle = _rectangle(words[index + 2], words[index + 3])
    if pixel is None or rectangle is None:
        return _refuse(streamer, "XY_FAST_COLOR_BLT", "its color depth or rectangle")
    x, y, width, height = rectangle
    x, y = x + (words[index + 6] & 0x3FFF), y + (words[index + 6] >> 16 & 0x3FFF)
    color = words[index + 7 : index + 11].tobytes()[:pixel]
    try:
        to = _slice(words[index + 13 : index + 16] if length >= 16 else None, word >> 30, pixel)
        x, y = x + to.x, y + to.y
        surface = _surface(
            streamer, _address(words, index + 4), (word & 0x3FFFF) + 1, to.tiling, y + height, writable=True
        )
    except ValueError as error:
        return _refuse(streamer, "XY_FAST_COLOR_BLT", str(error))
    if not width or not height:
        return None
    if surface.tiling is None and x == 0 and width * pixel == surface.pitch:
        start = surface.address + y * surface.pitch
        streamer.lrc.bulk = blits.linear_fill(streamer, start, height * surface.pitch, color)
    else:
        streamer.lrc.bulk = blits.rectangle_fill(
            streamer, surface, (x * pixel, y), width * pixel, height, color * width
        )
    return BULK


def xy_ctrl_surf_copy(streamer: CommandStreamer, words: memoryview, index: int, length: int) -> int | None:
    """XY_CTRL_SURF_COPY_BLT: compression metadata of pages of 4 KiB, from or to plain memory ("direct")."""
    header = words[index]
    pages = (header >> 9 & 0x3FF) + 1
    source = words[index + 1] | (words[index + 2] & 0xFFFF) << 32
    target = words[index + 3] | (words[index + 4] & 0xFFFF) << 32
    streamer.lrc.bulk = _copy_metadata(streamer, source, header >> 21 & 1, target, header >> 20 & 1, pages)
    return BULK


def _start_copy(
    streamer: CommandStreamer,
    source: Surface,
    source_at: tuple[int, int],
    target: Surface,
    target_at: tuple[int, int],
    width: int,
    height: int,
    resolve: bool = False,
) -> int | None:
    if not width or not height:
        return None
    if min(*source_at, *target_at) < 0:
        return _refuse(streamer, "a blit", "coordinates below 0")
    whole_rows = (
        source.tiling is None
        and target.tiling is None
        and width == source.pitch == target.pitch
        and source_at[0] == target_at[0] == 0
        and not resolve
    )
    if whole_rows:
        streamer.lrc.bulk = blits.linear_copy(
            streamer,
            source.address + source_at[1] * source.pitch,
            target.address + target_at[1] * target.pitch,
            width * height,
        )
    else:
        streamer.lrc.bulk = blits.rectangle_copy(streamer, source, source_at, target, target_at, width, height, resolve)
    return BULK


def _copy_metadata(
    streamer: CommandStreamer, source: int, source_direct: int, target: int, target_direct: int, pages: int
) -> Bulk:
    page = 0
    while page < pages:
        try:
            data = _metadata(streamer, source, source_direct, page, None)
            _metadata(streamer, target, target_direct, page, data)
        except (TranslationFault, AccessFault) as fault:
            yield fault
            continue
        page += 1
        yield None


def _metadata(streamer: CommandStreamer, address: int, direct: int, page: int, data: bytes | None) -> bytes:
    """Read, or store `data` as, the metadata of a page; a page that has none reads as zeros and drops writes."""
    space, vram = streamer.space, streamer.engine.vram
    if direct:
        place = address + page * _CCS_PER_PAGE
        if data is not None:
            space.write(place, data)
        return space.read(place, _CCS_PER_PAGE) if data is None else data
    extent = space.extent(address + page * 0x1000, 0x1000, data is not None)
    at = compression.metadata_place(vram, space, extent)
    if at is None:
        return bytes(_CCS_PER_PAGE)
    if data is not None:
        vram.memory.view[at : at + _CCS_PER_PAGE] = data
    return bytes(vram.memory.view[at : at + _CCS_PER_PAGE])


class _Slice(NamedTuple):
    """The mip level and the slice of a surface that a blit reaches."""

    tiling: Tiling | None
    x: int
    """Texels before it."""
    y: int
    """Rows before it."""


def _slice(extension: memoryview | None, tiling_code: int, pixel: int) -> _Slice:
    """What the three dwords of an extended command say; without them there is one level of one slice.

    Raises:
        ValueError: the surface makes no sense.
    """
    size, counts, layout = extension if extension is not None else (0, 0, 0)
    volume = size >> 29 == _3D
    tiling = tiling_of_surface(_TILE_MODES[tiling_code], pixel, volume=volume)
    levels = SurfaceLayout(
        tiling,
        pixel,
        width=(size >> 14 & 0x3FFF) + 1,
        height=(size & 0x3FFF) + 1,
        depth=(counts >> 21) + 1,
        alignment=(layout & 3, layout >> 3 & 3),
        one_dimensional=extension is not None and not size >> 29,
        tail=layout >> 8 & 0xF,
    )
    level, q_pitch, slice_ = counts & 0xF, (counts >> 4 & 0x7FFF) * 4, layout >> 21
    place = levels.level(level) if extension is not None else Place(0, 0, 0)
    if tiling is None:
        return _Slice(None, place.x, place.y + slice_ * q_pitch)
    slice_ += place.z
    return _Slice(tiling.slice(slice_), place.x, place.y + slice_ // tiling.depth * q_pitch)


def _surface(
    streamer: CommandStreamer, address: int, pitch: int, tiling: Tiling | None, rows: int, *, writable: bool = False
) -> Surface:
    """The surface that a copy's dwords describe; pitches of tiled ones are in dwords.

    Raises:
        ValueError: the surface makes no sense.
    """
    return Surface(streamer.space, address, pitch * 4 if tiling else pitch, rows, tiling, writable=writable)


def _rectangle(top_left: int, bottom_right: int) -> tuple[int, int, int, int] | None:
    """(x, y, width, height); the right and bottom coordinates are exclusive. None when it is turned around."""
    x1, y1 = _point(top_left)
    x2, y2 = _point(bottom_right)
    return (x1, y1, x2 - x1, y2 - y1) if x1 <= x2 and y1 <= y2 and x1 >= 0 and y1 >= 0 else None


def _point(word: int) -> tuple[int, int]:
    x, y = word & 0xFFFF, word >> 16
    return x - (x >> 15 << 16), y - (y >> 15 << 16)


def _address(words: memoryview, index: int) -> int:
    return words[index] | (words[index + 1] & 0xFFFF) << 32


def _refuse(streamer: CommandStreamer, command: str, what: str) -> int | None:
    streamer.engine.report(f"{command}: not done because of {what}")
    return None
