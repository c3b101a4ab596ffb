"""Where mip levels are in the slices of a surface, mip tails of Tile64 included (isl.c:get_image_offset_sa_gfx4_2d, _gfx9_1d).

Level 1 is below level 0, level 2 beside level 1, the others below level 2. From its first level in the mip tail on, a Tile64
surface has the levels in slots of one tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64, tile_64_3d

NO_TAIL = 15
"""First level in the mip tail of a surface that has none."""


class Place(NamedTuple):
    """The first texel of a level."""

    x: int
    """Texels."""
    y: int
    """Rows."""
    z: int
    """Slices; of a mip tail in a three-dimensional surface only."""


_SLOTS_2D = (
    ((32, 0), (64, 0), (64, 0), (128, 0), (128, 0)),
    ((0, 32), (0, 32), (0, 64), (0, 64), (0, 128)),
    ((16, 0), (32, 0), (32, 0), (64, 0), (64, 0)),
    ((0, 16), (0, 16), (0, 32), (0, 32), (0, 64)),
    ((8, 0), (16, 0), (16, 0), (32, 0), (32, 0)),
    ((4, 8), (8, 8), (8, 16), (16, 16), (16, 32)),
    ((0, 12), (0, 12), (0, 24), (0, 24), (0, 48)),
    ((0, 8), (0, 8), (0, 16), (0, 16), (0, 32)),
    ((4, 4), (8, 4), (8, 8), (16, 8), (16, 16)),
    ((4, 0), (8, 0), (8, 0), (16, 0), (16, 0)),
    ((0, 4), (0, 4), (0, 8), (0, 8), (0, 16)),
    ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
    ((1, 0), (2, 0), (0, 4), (0, 4), (0, 4)),
    ((2, 0), (4, 0), (4, 0), (8, 0), (0, 8)),
    ((3, 0), (6, 0), (4, 4), (8, 4), (0, 12)),
)
"""By slot and by bytes of a texel, 16, 8, 4, 2, 1: texels and rows from the tile's corner (GmmTexture.h, GmmGen12Texture.cpp)."""
_SLOTS_3D = (
    ((8, 0, 0), (16, 0, 0), (16, 0, 0), (16, 0, 0), (32, 0, 0)),
    ((0, 8, 0), (0, 8, 0), (0, 16, 0), (0, 16, 0), (0, 16, 0)),
    ((0, 0, 8), (0, 0, 8), (0, 0, 8), (0, 0, 16), (0, 0, 16)),
    ((4, 0, 0), (8, 0, 0), (8, 0, 0), (8, 0, 0), (16, 0, 0)),
    ((0, 4, 0), (0, 4, 0), (0, 8, 0), (0, 8, 0), (0, 8, 0)),
    ((2, 0, 4), (4, 0, 4), (4, 0, 4), (0, 4, 8), (0, 4, 8)),
    ((1, 0, 4), (2, 0, 4), (0, 4, 4), (0, 0, 12), (0, 0, 12)),
    ((0, 0, 4), (0, 0, 4), (0, 0, 4), (0, 0, 8), (0, 0, 8)),
    ((3, 0, 0), (6, 0, 0), (4, 4, 0), (0, 4, 4), (0, 4, 4)),
    ((2, 0, 0), (4, 0, 0), (4, 0, 0), (0, 4, 0), (0, 4, 0)),
    ((1, 0, 0), (2, 0, 0), (0, 4, 0), (0, 0, 4), (0, 0, 4)),
    ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    ((0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 0, 1)),
    ((0, 0, 2), (0, 0, 2), (0, 0, 2), (0, 0, 2), (0, 0, 2)),
    ((0, 0, 3), (0, 0, 3), (0, 0, 3), (0, 0, 3), (0, 0, 3)),
)
"""The same of three-dimensional surfaces, with slices."""


@dataclass(frozen=True, slots=True)
class SurfaceLayout:
    """A surface's levels."""

    tiling: Tiling | None
    texel: int
    """Bytes of a texel, or of a block of texels in block-compressed formats; places are texels and rows of these."""
    width: int
    height: int
    depth: int
    """Of level 0, in texels."""
    alignment: tuple[int, int]
    """Horizontal and vertical, codes as in RENDER_SURFACE_STATE: 16 bytes << code; 4, 4, 8, 16 rows. Tile64 does not look at them."""
    one_dimensional: bool = False
    tail: int = NO_TAIL
    """First level in the mip tail; where that level is larger than a tail's largest slot, there is no tail, since nothing else
    would keep levels apart (programs leave the field 0 in surfaces without levels)."""

    side: int = 1
    """Texels of a block's side."""

    def level(self, number: int) -> Place:
        """Where level `number` begins in its slice.

        Raises:
            ValueError: the mip tail has no slot for it.
        """
        if number < self.tail or not self._has_tail:
            return Place(*self._before(number), 0)
        x, y = self._before(self.tail)
        column, row, z = self._slot(number - self.tail)
        return Place(x + column, y + row, z)

    @property
    def _is_tile_64(self) -> bool:
        return self.tiling is not None and self.tiling not in (TILE_X, TILE_4)

    @property
    def _has_tail(self) -> bool:
        tiling = self.tiling
        if tiling is None or not self._is_tile_64:
            return False
        column, row, z = self._slot(0)
        room = tiling.width // self.texel - column, tiling.height - row, tiling.depth - z
        sizes = (self.width, self.height, self.depth if tiling.depth > 1 else 1)
        return all(self._minified(size, self.tail) <= most for size, most in zip(sizes, room, strict=True))

    def _minified(self, size: int, level: int) -> int:
        return -(-max(1, size >> level) // self.side)

    def _before(self, number: int) -> tuple[int, int]:
        """Texels and rows before a level that is not in a mip tail."""
        x, y = 0, 0
        if self._is_tile_64 and self.tiling is not None:
            wide, high = self.tiling.width // self.texel, self.tiling.height
        else:
            wide = max(1, (16 << self.alignment[0]) // self.texel)
            high = 4 << max(0, self.alignment[1] - 1)
        for level in range(number):
            if level == 1 or self.one_dimensional:
                x += -(-self._minified(self.width, level) // wide) * wide
            else:
                y += -(-self._minified(self.height, level) // high) * high
        return x, y

    def _slot(self, slot: int) -> tuple[int, int, int]:
        column = 5 - self.texel.bit_length()
        if slot >= len(_SLOTS_2D):
            raise ValueError(f"slot {slot} of a mip tail: there are {len(_SLOTS_2D)}")
        if self.tiling is not None and self.tiling.depth > 1:
            return _SLOTS_3D[slot][column]
        return (*_SLOTS_2D[slot][column], 0)


def tiling_of_surface(code: int, texel: int, *, volume: bool) -> Tiling | None:
    """By RENDER_SURFACE_STATE's code: 0 linear, 1 Tile64, 2 TileX, 3 Tile4; of texels of `texel` bytes.

    Raises:
        ValueError: Tile64 of texels whose size is no power of two.
    """
    if code != 1:
        return (None, None, TILE_X, TILE_4)[code]
    if texel & texel - 1:
        raise ValueError(f"Tile64 of texels of {texel} bytes")
    return tile_64_3d(texel) if volume else tile_64(texel)
