"""Tilings: permutations of bytes in a tile."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, spread, tile_64, tile_64_3d

TILINGS = [TILE_X, TILE_4, tile_64(1), tile_64(4), tile_64(16)]
VOLUMES = [tile_64_3d(1), tile_64_3d(4), tile_64_3d(16)]


@pytest.mark.parametrize("tiling", TILINGS)
def test_every_byte_of_a_tile_has_one_place(tiling: Tiling) -> None:
    places = {tiling.offset(x, y) for y in range(tiling.height) for x in range(tiling.width)}
    assert places == set(range(tiling.size))


@pytest.mark.parametrize("tiling", VOLUMES)
def test_every_byte_of_a_tile_with_slices_has_one_place(tiling: Tiling) -> None:
    places: set[int] = set()
    for z in range(tiling.depth):
        slice_ = tiling.slice(z)
        places |= {row + column + byte for row in slice_.rows() for column in slice_.columns() for byte in range(16)}
    assert places == set(range(0x1_0000))


@pytest.mark.parametrize(
    ("pixel", "width", "height", "depth"),
    [(1, 64, 32, 32), (2, 64, 32, 32), (4, 128, 32, 16), (8, 256, 16, 16), (16, 256, 16, 16)],
)
def test_sizes_of_tiles_with_slices(pixel: int, width: int, height: int, depth: int) -> None:
    # gmmlib GmmGen12Platform.cpp: TILE__64_3D_*bpe.
    tiling = tile_64_3d(pixel)
    assert (tiling.width, tiling.height, tiling.depth, tiling.size) == (width, height, depth, 0x1_0000)


def test_a_slice_beyond_a_tiles_depth_is_one_of_the_next_tile() -> None:
    assert tile_64_3d(4).slice(17) == tile_64_3d(4).slice(1) != tile_64_3d(4)


@pytest.mark.parametrize(
    ("tiling", "size", "width", "height"),
    [
        (TILE_X, 4096, 512, 8),
        (TILE_4, 4096, 128, 32),
        (tile_64(1), 65536, 256, 256),
        (tile_64(2), 65536, 512, 128),
        (tile_64(4), 65536, 512, 128),
        (tile_64(8), 65536, 1024, 64),
        (tile_64(16), 65536, 1024, 64),
    ],
)
def test_sizes(tiling: Tiling, size: int, width: int, height: int) -> None:
    assert (tiling.size, tiling.width, tiling.height) == (size, width, height)


def test_tile_x_is_rows_of_512_bytes() -> None:
    assert [TILE_X.offset(0, 1), TILE_X.offset(511, 0), TILE_X.offset(5, 7)] == [512, 511, 3589]


def tile_4_by_arithmetic(x: int, y: int) -> int:
    """Independent of the masks: 64-byte blocks of 16 bytes by 4 rows, and how those are ordered in the tile."""
    block_x, block_y = x // 16, y // 4
    block = (block_y // 2) * 16 + (block_y % 2) * 4 + block_x % 4 + (block_x // 4) * 8
    return block * 64 + y % 4 * 16 + x % 16


def test_tile_4() -> None:
    for y in range(32):
        for x in range(128):
            assert TILE_4.offset(x, y) == tile_4_by_arithmetic(x, y)


@pytest.mark.parametrize(
    ("tiling", "bits"),
    [
        # Bit 15 to bit 0 of the offset in a tile.
        (tile_64(16), "YXXXYYXYXXYYXXXX"),
        (tile_64(4), "YYXXYYXYXXYYXXXX"),
        (tile_64(1), "YYYXYYXYXXYYXXXX"),
    ],
)
def test_tile_64_bit_by_bit(tiling: Tiling, bits: str) -> None:
    x_bits = [15 - n for n, bit in enumerate(bits) if bit == "X"][::-1]
    y_bits = [15 - n for n, bit in enumerate(bits) if bit == "Y"][::-1]
    assert [tiling.offset(1 << n, 0) for n in range(len(x_bits))] == [1 << bit for bit in x_bits]
    assert [tiling.offset(0, 1 << n) for n in range(len(y_bits))] == [1 << bit for bit in y_bits]


def test_spread() -> None:
    assert spread(0b1011, 0b0110_1100) == 0b0100_1100
