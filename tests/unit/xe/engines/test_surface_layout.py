"""Where mip levels are in a surface."""

from __future__ import annotations

import pytest

from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL, SurfaceLayout, tiling_of_surface

LINEAR, TILE_64, TILE_X, TILE_4 = range(4)


def layout(
    code: int, texel: int, size: tuple[int, int, int], *, tail: int = NO_TAIL, volume: bool = False, flat: bool = False
) -> SurfaceLayout:
    tiling = tiling_of_surface(code, texel, volume=volume)
    return SurfaceLayout(tiling, texel, *size, alignment=(1, 1), one_dimensional=flat, tail=tail)


def test_levels_are_below_beside_and_below_again() -> None:
    # 32 bytes are 8 texels of 4; 4 rows.
    levels = layout(TILE_4, 4, (50, 30, 1))
    assert [levels.level(number) for number in range(5)] == [
        (0, 0, 0), (0, 32, 0), (32, 32, 0), (32, 40, 0), (32, 44, 0),
    ]  # fmt: skip


def test_levels_of_a_line_are_one_behind_the_other() -> None:
    levels = layout(LINEAR, 4, (50, 1, 1), flat=True)
    assert [levels.level(number).x for number in range(4)] == [0, 56, 88, 104]


def test_levels_of_tile_64_take_whole_tiles_without_a_tail() -> None:
    levels = layout(TILE_64, 4, (300, 200, 1))
    assert [levels.level(number) for number in range(4)] == [(0, 0, 0), (0, 256, 0), (256, 256, 0), (256, 384, 0)]


@pytest.mark.parametrize("texel", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("volume", [False, True])
def test_levels_in_a_tail_do_not_overlap(texel: int, volume: bool) -> None:
    tiling = tiling_of_surface(TILE_64, texel, volume=volume)
    assert tiling is not None
    # The largest level that a tail holds: half of the tile.
    size = (tiling.width // texel // 2, tiling.height, tiling.depth)
    levels = layout(TILE_64, texel, size, tail=0, volume=volume)
    taken: set[tuple[int, int, int]] = set()
    for number in range(max(size).bit_length()):
        x, y, z = levels.level(number)
        wide, high, deep = (max(1, length >> number) for length in size)
        assert x + wide <= tiling.width // texel
        assert y + high <= tiling.height
        assert z + deep <= tiling.depth
        texels = {(x + i, y + j, z + k) for i in range(wide) for j in range(high) for k in range(deep)}
        assert not taken & texels
        taken |= texels


def test_the_first_level_of_a_tail_is_beside_its_corner() -> None:
    levels = layout(TILE_64, 4, (256, 200, 1), tail=2)
    assert [levels.level(number) for number in (1, 2, 3, 4)] == [
        (0, 256, 0), (128 + 64, 256, 0), (128, 256 + 64, 0), (128 + 32, 256, 0),
    ]  # fmt: skip
    deep = layout(TILE_64, 4, (32, 16, 32), tail=1, volume=True)
    assert [deep.level(number) for number in (0, 1, 2, 3)] == [(0, 0, 0), (16, 32, 0), (0, 32 + 16, 0), (0, 32, 8)]


def test_a_level_that_is_larger_than_a_slot_is_in_no_tail() -> None:
    assert layout(TILE_64, 4, (65, 128, 1), tail=0).level(0) == (0, 0, 0)
    assert layout(TILE_64, 4, (64, 128, 1), tail=0).level(0) == (64, 0, 0)
    assert layout(TILE_4, 4, (64, 128, 1), tail=0).level(0) == (0, 0, 0)


def test_a_tail_has_fifteen_slots() -> None:
    levels = layout(TILE_64, 1, (1, 1, 1), tail=0)
    assert levels.level(14) == (0, 12, 0)
    with pytest.raises(ValueError, match="slot 15"):
        levels.level(15)


def test_tile_64_has_no_texels_of_three_parts() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        tiling_of_surface(TILE_64, 12, volume=False)
