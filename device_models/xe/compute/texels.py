"""Images in memory: where texels are, and texels of many lanes at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import block_formats, formats, packed_yuv
from vfio_user_xe.device_models.xe.compute.formats import Channels, Format
from vfio_user_xe.device_models.xe.compute.memory import Flags, Numbers, UnitMemory, parts
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL, SurfaceLayout, tiling_of_surface
from vfio_user_xe.device_models.xe.engines.tiling import Tiling

Coordinates = NDArray[np.int64]
_FACES = 6
_TILE_64 = 1
_WIDEST = 8
"""Bytes of an element of memory at most."""


_SAMPLE_TILES: dict[int, tuple[tuple[int, int], ...]] = {
    2: ((128, 256), (256, 128), (256, 128), (512, 64), (1024, 32)),
    4: ((128, 128), (256, 64), (256, 64), (512, 32), (512, 32)),
    8: ((128, 64), (128, 64), (256, 32), (256, 32), (256, 32)),
    16: ((64, 64), (128, 32), (128, 32), (128, 32), (256, 16)),
}
"""Planes of samples in Tile64: bytes of a row, and rows, for texels of 1, 2, 4, 8, 16 bytes."""
_MOST_SAMPLES = max(_SAMPLE_TILES)


class UnknownImage(ValueError):
    """A surface of a format or layout that is not emulated; the text says which."""


@dataclass(frozen=True, slots=True)
class SamplePlanes:
    """How samples lie in Tile64: a tile has a plane for each, of fewer texels."""

    width: int
    """Texels of a row of a plane."""
    height: int
    """Rows of a plane."""
    across: int
    """Tiles of a row."""
    down: int
    """Tiles of a column, of one slice."""


class Image:
    """The view of a surface at one mip level."""

    def __init__(self, memory: UnitMemory, surface: SurfaceState, level: int = 0, *, sampled: bool = False) -> None:
        """The view of `surface` at a mip level, counted from its own first one; only the sampler takes block-compressed and 4:2:2 formats.

        Raises:
            UnknownImage: its format or layout is not emulated.
        """
        form = formats.FORMATS.get(surface.format)
        blocks = block_formats.FORMATS.get(surface.format) if sampled else None
        yuv = packed_yuv.FORMATS.get(surface.format) if sampled else None
        if blocks is not None:
            form = blocks.form
        if yuv is not None:
            form = packed_yuv.FORM
        if form is None and surface.type is not SurfaceType.NULL:
            raise UnknownImage(f"surface format {surface.format:#x}")
        if surface.samples > _MOST_SAMPLES:
            raise UnknownImage(f"a surface of {surface.samples} samples")
        if form is not None and surface.tiling == _TILE_64 and form.bytes > 16:
            raise UnknownImage(f"Tile64 of texels of {form.bytes} bytes")
        self.surface = surface
        self.format: Format = form or formats.FORMATS[0]
        self.blocks = blocks
        self.yuv = yuv
        self._side = 1 if blocks is None else block_formats.SIDE
        """Texels of the side of what an address leads to."""
        self._memory = memory
        self.is_buffer = surface.type in (SurfaceType.BUFFER, SurfaceType.STRUCTURED)
        self.level = level
        self.width = surface.entries if self.is_buffer else max(1, surface.width >> level)
        self.height = 1 if self.is_buffer or surface.type is SurfaceType.D1 else max(1, surface.height >> level)
        deep = surface.depth >> level if surface.type is SurfaceType.D3 else surface.depth
        if surface.type is SurfaceType.CUBE:
            deep *= _FACES
        self.depth = 1 if self.is_buffer else max(1, deep)
        layout = _layout(surface, self.format.bytes, self._side)
        self.tiling = layout.tiling
        try:
            self.place = layout.level(0 if self.is_buffer else level)
        except ValueError as wrong:
            raise UnknownImage(str(wrong)) from wrong

    def inside(self, x: Coordinates, y: Coordinates, layer: Coordinates) -> Flags:
        """Which texels there are."""
        if self.surface.type is SurfaceType.NULL:
            return np.zeros(x.shape, dtype=np.bool_)
        there = (x >= 0) & (x < self.width) & (y >= 0) & (y < self.height) & (layer >= 0) & (layer < self.depth)
        return np.asarray(there)

    def texels(self, x: Coordinates, y: Coordinates, layer: Coordinates) -> Channels:
        """Texels, which are inside.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        if self.yuv is not None:
            pairs = self._memory.load(self.addresses(x & ~1, y, layer), packed_yuv.PAIR)
            return self.yuv.decode(parts(pairs, packed_yuv.PAIR), x & 1 != 0)
        if self.blocks is None:
            return self.load(self.addresses(x, y, layer))
        unique, inverse = np.unique(self.addresses(x // self._side, y // self._side, layer), return_inverse=True)
        decoded = self.blocks.decode(self.load_bytes(unique))
        return np.asarray(decoded[inverse.reshape(-1), y % self._side * self._side + x % self._side])

    def addresses(self, x: Coordinates, y: Coordinates, layer: Coordinates) -> Numbers:
        """Where texels, or blocks of them, begin; they are inside."""
        surface, tiling = self.surface, self.tiling
        if self.is_buffer:
            return (x * surface.pitch + surface.base).astype(np.uint64)
        row = y + self.place.y
        byte = (x + self.place.x) * self.format.bytes
        if surface.type is SurfaceType.D1 and surface.pitch == 1:
            # Without a pitch, slices are "q pitch" texels apart (isl_surface_state.c).
            byte = byte + (layer + surface.first_element) * surface.q_pitch * self.format.bytes
            return (byte + surface.base).astype(np.uint64)
        slices = layer + surface.first_element
        if tiling is None:
            return ((row + slices * surface.q_pitch) * surface.pitch + byte + surface.base).astype(np.uint64)
        columns, rows, planes = tables(tiling)
        slices = slices + self.place.z
        row = row + slices // tiling.depth * surface.q_pitch
        tiles = row // tiling.height * (surface.pitch // tiling.width) + byte // tiling.width
        offset = columns[byte % tiling.width] | rows[row % tiling.height] | planes[slices % tiling.depth]
        return np.asarray((tiles * tiling.size + offset + surface.base).astype(np.uint64))

    def sample_addresses(
        self, x: Coordinates, y: Coordinates, layer: Coordinates, sample: int | Coordinates, samples: int = 0
    ) -> Numbers:
        """Where a sample of texels is, of `samples` (those of the surface, if not given).

        Where texels are in a plane of Tile64 is the emulation's own: nobody but the pipeline looks at surfaces with several samples.
        """
        count = samples or self.surface.samples
        if count == 1:
            return self.addresses(x, y, layer)
        planes = self.sample_planes(count)
        if planes is None or self.tiling is None:
            return self.addresses(x, y, layer * count + sample)
        surface, wide, high = self.surface, planes.width, planes.height
        tile = ((layer + surface.first_element) * planes.down + y // high) * planes.across + x // wide
        within = (sample * high + y % high) * wide + x % wide
        return np.asarray((tile * self.tiling.size + within * self.format.bytes + surface.base).astype(np.uint64))

    def sample_planes(self, samples: int) -> SamplePlanes | None:
        """How so many samples lie; None: each is a slice of its own."""
        surface, tiling = self.surface, self.tiling
        if samples == 1 or surface.tiling != _TILE_64 or tiling is None:
            return None
        width, high = self._sample_tile(samples)
        across = surface.pitch // (tiling.width if surface.depth_samples else width)
        return SamplePlanes(width // self.format.bytes, high, across, -(-surface.height // high))

    def _sample_tile(self, samples: int) -> tuple[int, int]:
        """Bytes of a row and rows of a plane of Tile64 (isl.c:isl_tiling_get_info)."""
        assert self.tiling is not None  # the caller looked
        if not self.surface.depth_samples:
            return _SAMPLE_TILES[samples][self.format.bytes.bit_length() - 1]
        width, high = self.tiling.width, self.tiling.height
        for step in range(samples.bit_length() - 1):
            width, high = (width, high // 2) if step % 2 else (width // 2, high)
        return width, high

    def load(self, addresses: Numbers) -> Channels:
        """Texels at `addresses`.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        return formats.decode(self.format, self.load_bytes(addresses))

    def load_bytes(self, addresses: Numbers) -> NDArray[np.uint8]:
        """Texels at `addresses` as they are in memory: [texels, bytes].

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        size = self.format.bytes
        unit = _unit(size)
        pieces = [parts(self._memory.load(addresses + np.uint64(at), unit), unit) for at in range(0, size, unit)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def store(self, addresses: Numbers, values: Channels) -> None:
        """Store texels.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        self.store_bytes(addresses, formats.encode(self.format, values))

    def store_bytes(self, addresses: Numbers, texels: NDArray[np.uint8]) -> None:
        """Store texels [texels, bytes] as they are.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        self._store_whole(addresses, texels)

    def _store_whole(self, addresses: Numbers, texels: NDArray[np.uint8]) -> None:
        size = texels.shape[1]
        unit = _unit(size)
        for at in range(0, size, unit):
            piece = np.ascontiguousarray(texels[:, at : at + unit])
            self._memory.store(addresses + np.uint64(at), piece.view(f"<u{unit}").reshape(-1).astype(np.uint64), unit)

    def fill(
        self, columns: tuple[int, int], rows: Coordinates, layer: int, sample: int, texel: bytes, samples: int = 0
    ) -> None:
        """Store one texel in some columns (the first, and the one behind the last) of rows, which are inside.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        left, right = columns
        # Neighbours in a row are neighbours in memory, for 16 bytes at least: a store takes several.
        count = _WIDEST // len(texel) if not _WIDEST % len(texel) else 1
        moved = 0 if self.sample_planes(samples or self.surface.samples) else self.place.x
        first = min(right, left + -(left + moved) % count)
        last = first + (right - first) // count * count
        single = np.concatenate([np.arange(left, first), np.arange(last, right)]) if count > 1 else np.arange(0)
        for places, together in ((np.arange(first, last, count), count), (single, 1)):
            y, x = (part.reshape(-1) for part in np.meshgrid(rows, places.astype(np.int64), indexing="ij"))
            if len(x):
                where = self.sample_addresses(x, y, np.full(len(x), layer), sample, samples)
                same = np.frombuffer(texel * together, dtype=np.uint8)
                self._store_whole(where, np.broadcast_to(same, (len(x), len(same))))

    def from_bits(self, bits: Numbers) -> Channels:
        """Register contents of 32 bits as numbers of the kind that the format has."""
        words = bits.astype(np.uint32)
        if self.format.kind is formats.Kind.UINT:
            return words.astype(np.float64)
        if self.format.kind is formats.Kind.SINT:
            return words.view(np.int32).astype(np.float64)
        return words.view(np.float32).astype(np.float64)

    def to_bits(self, values: Channels) -> Numbers:
        """As `from_bits`, the other way."""
        if self.format.is_integer:
            return np.asarray(values.astype(np.int64).astype(np.uint64) & np.uint64(0xFFFF_FFFF))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(values.astype(np.float32)).view(np.uint32).astype(np.uint64)


def _unit(size: int) -> int:
    """Bytes that texels of `size` are moved in."""
    return next(unit for unit in (8, 4, 2, 1) if not size % unit)


def _layout(surface: SurfaceState, texel: int, side: int) -> SurfaceLayout:
    try:
        tiling = tiling_of_surface(surface.tiling, texel, volume=surface.type is SurfaceType.D3)
    except ValueError as wrong:
        raise UnknownImage(str(wrong)) from wrong
    return SurfaceLayout(
        tiling,
        texel,
        surface.width,
        surface.height,
        surface.depth,
        surface.alignment,
        one_dimensional=surface.type is SurfaceType.D1,
        tail=surface.tail if surface.samples == 1 else NO_TAIL,
        side=side,
    )


@cache
def tables(tiling: Tiling) -> tuple[Coordinates, Coordinates, Coordinates]:
    """Bits of an offset in a tile that come from each byte of a row, from each row, and from each slice."""
    columns = _spread(np.arange(tiling.width, dtype=np.int64), tiling.x_mask)
    rows = _spread(np.arange(tiling.height, dtype=np.int64), tiling.y_mask)
    return columns, rows, _spread(np.arange(tiling.depth, dtype=np.int64), tiling.z_mask)


def _spread(values: Coordinates, mask: int) -> Coordinates:
    """The bits of each value, lowest first, at the places where `mask` has bits."""
    result = np.zeros_like(values)
    bit = 0
    for place in range(mask.bit_length()):
        if mask >> place & 1:
            result |= (values >> bit & 1) << place
            bit += 1
    return result
