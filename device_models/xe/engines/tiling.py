"""Tilings of Xe2 surfaces: how the bytes of a tile are permuted, bit by bit.

A tile is a power of two of bytes. Each bit of the offset in it is a bit of x (in bytes), of y (in rows) or of z (in slices);
the masks below say of which, the lowest bit of a coordinate going to the lowest bit that is set. The permutations are
Intel's published ones (TileX; Tile4; Tile64 without multisampling, which depends on the pixel's size, and on whether the
surface is three-dimensional: gmmlib CpuSwizzleBlt.c:INTEL_TILE_64 and INTEL_TILE_64_V2_3D, isl.c:xe2_tile64_3d_*_swiz).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True)
class Tiling:
    """A tile of `width` bytes by `height` rows by `depth` slices.

    Bits of `x_mask` in an offset come from x, those of `z_mask` from z, the others from y.
    """

    name: str
    width: int
    height: int
    x_mask: int
    depth: int = 1
    z_mask: int = 0
    z: int = 0
    """The slice that offsets are in, 0 to `depth` - 1."""

    @property
    def size(self) -> int:
        """Bytes of a tile."""
        return self.width * self.height * self.depth

    @property
    def y_mask(self) -> int:
        """Bits of an offset that come from y."""
        return self.size - 1 & ~self.x_mask & ~self.z_mask

    def slice(self, z: int) -> Tiling:
        """The same with offsets in slice `z` of a surface."""
        return replace(self, z=z % self.depth)

    @property
    def run(self) -> int:
        """Bytes of a row that are contiguous in memory."""
        return (~self.x_mask & -~self.x_mask) or self.width

    def offset(self, x: int, y: int) -> int:
        """Offset in its tile of byte `x` of row `y`, both inside the tile."""
        return spread(x, self.x_mask) | spread(y, self.y_mask) | spread(self.z, self.z_mask)

    def rows(self) -> list[int]:
        """Offset of each row's first byte."""
        return _rows(self)

    def columns(self) -> list[int]:
        """Offset, from its row's first byte, of each run's first byte."""
        return _columns(self)


TILE_X = Tiling("TileX", 512, 8, 0b0001_1111_1111)
TILE_4 = Tiling("Tile4", 128, 32, 0b0010_1100_1111)
_TILE_64_8 = Tiling("Tile64", 256, 256, 0b0001_0010_1100_1111)
_TILE_64_16_32 = Tiling("Tile64", 512, 128, 0b0011_0010_1100_1111)
_TILE_64_64_128 = Tiling("Tile64", 1024, 64, 0b0111_0010_1100_1111)
_TILE_64_3D_8_16 = Tiling("Tile64", 64, 32, 0b0000_0000_1100_1111, 32, 0b1110_0011_0000_0000)
_TILE_64_3D_32 = Tiling("Tile64", 128, 32, 0b0001_0000_1100_1111, 16, 0b1100_0011_0000_0000)
_TILE_64_3D_64_128 = Tiling("Tile64", 256, 16, 0b0001_1000_1100_1111, 16, 0b1100_0011_0000_0000)


def tile_64(bytes_per_pixel: int) -> Tiling:
    """Tile64 of pixels of 1, 2, 4, 8 or 16 bytes, of surfaces that are not three-dimensional."""
    if bytes_per_pixel == 1:
        return _TILE_64_8
    return _TILE_64_16_32 if bytes_per_pixel in (2, 4) else _TILE_64_64_128


def tile_64_3d(bytes_per_pixel: int) -> Tiling:
    """Tile64 of pixels of 1, 2, 4, 8 or 16 bytes, of three-dimensional surfaces."""
    if bytes_per_pixel in (1, 2):
        return _TILE_64_3D_8_16
    return _TILE_64_3D_32 if bytes_per_pixel == 4 else _TILE_64_3D_64_128


def spread(value: int, mask: int) -> int:
    """The bits of `value`, lowest first, at the places where `mask` has bits."""
    result = 0
    while mask:
        lowest = mask & -mask
        if value & 1:
            result |= lowest
        value >>= 1
        mask ^= lowest
    return result


@cache
def _rows(tiling: Tiling) -> list[int]:
    return [tiling.offset(0, y) for y in range(tiling.height)]


@cache
def _columns(tiling: Tiling) -> list[int]:
    return [spread(x, tiling.x_mask) for x in range(0, tiling.width, tiling.run)]
