"""Levels of detail, cubes, comparison, gather: filtering without messages."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.compute.anisotropy import Stretch, stretched
from vfio_user_xe.device_models.xe.compute.filtering import Mips, Places, detail, filtered, gather, level_of_detail
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory, numbers
from vfio_user_xe.device_models.xe.compute.sampler_state import AddressMode, MipFilter, Reduction, SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image

R32_FLOAT = 0x0D8
NEAREST = SamplerState(
    linear=False, linear_min=False, rounds=(False,) * 3, rounds_min=(False,) * 3, mip=MipFilter.NEAREST, anisotropy=1, bias=0, least=0, most=14, shadow=2,
    modes=(AddressMode.CLAMP,) * 3, texel_coordinates=False, seamless=True, reduction=Reduction.STANDARD, border=(0, 0, 0, 0), border_bits=(0, 0, 0, 0),
)  # fmt: skip
SURFACE = SurfaceState(
    type=SurfaceType.D2, format=R32_FLOAT, tiling=0, base=0, width=8, height=8, depth=1, pitch=128, entries=1,
    q_pitch=16, first_element=0, array=False, level=0, levels=3, swizzle=(4, 5, 6, 7), alignment=(0, 1),
)  # fmt: skip


def mips(surface: SurfaceState, texels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Mips:
    """Levels in memory: a row of `texels` is a row of the pitch."""
    memory = create_autospec(UnitMemory, instance=True)
    raw = texels.astype(np.float32).reshape(-1).view(np.uint8)
    memory.load.side_effect = lambda where, size: numbers(raw[where.astype(np.int64)[:, None] + np.arange(size)], size)
    return Mips(memory, surface)


def chain() -> Mips:
    """Level n has n everywhere: level 1 is below level 0, level 2 beside that."""
    texels = np.full((16, 32), -1.0, dtype=np.float32)
    texels[0:8, :8] = 0
    texels[8:12, :4] = 1
    texels[8:12, 4:6] = 2
    return mips(SURFACE, texels)


def at(u: float, v: float = 0.5, r: float = 0.0, layer: float = 0.0, lanes: int = 1) -> Places:
    return Places(*(np.full(lanes, value) for value in (u, v, r, layer)))


@pytest.mark.parametrize(("lod", "expected"), [(-3, 0), (0.49, 0), (0.51, 1), (1.5, 1), (1.51, 2), (9, 2)])
def test_the_nearest_level_is_taken(lod: float, expected: float) -> None:
    assert filtered(chain(), NEAREST, at(0.4), np.array([lod]))[0, 0] == expected


@pytest.mark.parametrize(("lod", "expected"), [(0.25, 0.25), (1, 1), (1.75, 1.75), (5, 2)])
def test_levels_are_mixed(lod: float, expected: float) -> None:
    trilinear = replace(NEAREST, linear=True, linear_min=True, mip=MipFilter.LINEAR)
    assert filtered(chain(), trilinear, at(0.4), np.array([lod]))[0, 0] == pytest.approx(expected)


def test_without_mip_filter_the_first_level_is_taken_with_the_filter_of_what_is_made_smaller() -> None:
    state = replace(NEAREST, mip=MipFilter.NONE, linear_min=True)
    texels = np.tile(np.arange(32, dtype=np.float32), (16, 1))
    image = mips(SURFACE, texels)
    assert filtered(image, state, at(0.5), np.array([2.0]))[0, 0] == 3.5
    assert filtered(image, state, at(0.5), np.array([-1.0]))[0, 0] == 4


@pytest.mark.parametrize(
    ("rounds", "texel", "expected"),
    [(True, 2.4999999, 2.0), (True, 2.502, 2 + 1 / 256), (False, 2.502, 2.0), (False, 2.4999999, 2 - 1 / 256)],
)
@pytest.mark.parametrize("magnified", [True, False])
def test_coordinates_have_eight_bits_behind_the_point(
    rounds: bool, texel: float, expected: float, magnified: bool
) -> None:
    state = replace(NEAREST, linear=True, linear_min=True, mip=MipFilter.NONE)
    state = replace(state, rounds=(rounds,) * 3) if magnified else replace(state, rounds_min=(rounds,) * 3)
    surface = mips(replace(SURFACE, levels=1), np.tile(np.arange(32, dtype=np.float32), (16, 1)))
    lod = np.array([0.0 if magnified else 1.0])
    assert filtered(surface, state, at(texel / 8), lod)[0, 0] == expected


def test_a_texel_that_is_reached_by_rounding_alone_has_all_the_weight() -> None:
    # Coordinates that were to be a texel's centre, as float arithmetic has them: its neighbour is not to be seen.
    state = replace(NEAREST, linear=True, linear_min=True, rounds=(True,) * 3, rounds_min=(True,) * 3)
    texels = np.full((16, 32), 1e30, dtype=np.float32)
    texels[2, 2] = 0.25
    near = float(np.float32(2.5 / 8)) * (1 - 1e-7)
    assert filtered(mips(replace(SURFACE, levels=1), texels), state, at(near, near), np.zeros(1))[0, 0] == 0.25


def test_gather_takes_texels_by_the_same_coordinates() -> None:
    texels = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)
    state, places = replace(NEAREST, rounds=(True,) * 3), at(3.4999999 / 8, 3.4999999 / 8)
    surface = mips(SURFACE, texels)
    assert gather(surface, state, places, 0, np.zeros(1), None)[0, 3] == 3 * 32 + 3
    assert gather(surface, NEAREST, places, 0, np.zeros(1), None)[0, 3] == 2 * 32 + 2


def test_a_quads_level_of_detail_is_from_the_differences_of_its_lanes() -> None:
    step = 4 / 8  # four texels a pixel
    places = Places(np.array([0, step, 0, step]), np.zeros(4), np.zeros(4), np.zeros(4))
    assert level_of_detail(chain(), NEAREST, places).tolist() == [2.0] * 4


def test_the_level_on_a_cube_is_that_of_the_lanes_own_face() -> None:
    # Two pixels a face; the quad reaches beyond its corner, where its first lane is on another face.
    image = mips(replace(SURFACE, type=SurfaceType.CUBE, levels=1), np.zeros((96, 32), dtype=np.float32))
    steps = np.array([1.5, 1.5, 0.5, 0.5]), np.array([1.5, 0.5, 1.5, 0.5])
    for face in range(6):
        axes: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = [*steps]
        axes.insert(face // 2, np.full(4, -1.0 if face % 2 else 1.0))
        places = Places(*axes, np.zeros(4))
        assert level_of_detail(image, NEAREST, places)[3] == 2.0


def test_anisotropy_takes_the_level_of_the_shorter_axis_up_to_its_ratio() -> None:
    right, down = np.array([64.0**2]), np.array([4.0**2])
    assert detail(right, down, 1).tolist() == [6]
    assert detail(right, down, 4).tolist() == [4]
    assert detail(right, down, 16).tolist() == [2]


@pytest.mark.parametrize(("reference", "expected"), [(0.2, 1), (0.3, 1), (0.4, 0)])
def test_a_comparison_gives_one_where_the_function_does_not_hold(reference: float, expected: float) -> None:
    # 2 is "less": 0 if texel < reference.
    image = mips(replace(SURFACE, levels=1), np.full((16, 32), np.float32(0.3), dtype=np.float32))
    found = filtered(image, NEAREST, at(0.5), np.zeros(1), np.array([float(np.float32(reference))]))
    assert found[0].tolist() == [expected] * 4


def test_gather_returns_four_texels_in_its_order() -> None:
    texels = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)
    found = gather(mips(SURFACE, texels), NEAREST, at(3 / 8, 3 / 8), 0, np.zeros(1), None)
    # Left bottom, right bottom, right top, left top.
    assert found[0].tolist() == [3 * 32 + 2, 3 * 32 + 3, 2 * 32 + 3, 2 * 32 + 2]


@pytest.mark.parametrize(("reduction", "texel"), [(Reduction.MINIMUM, 0), (Reduction.MAXIMUM, 33)])
def test_a_minimum_or_maximum_is_that_of_the_texels_that_a_linear_filter_takes(
    reduction: Reduction, texel: int
) -> None:
    texels = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)
    state = replace(NEAREST, linear=True, reduction=reduction)
    surface = mips(replace(SURFACE, levels=1), texels)
    assert filtered(surface, state, at(1.25 / 8, 1.25 / 8), np.zeros(1))[0, 0] == texel
    # What has no weight is not looked at.
    assert filtered(surface, state, at(1.5 / 8, 1.5 / 8), np.zeros(1))[0, 0] == 33


@pytest.mark.parametrize(("reduction", "level"), [(Reduction.MINIMUM, 1), (Reduction.MAXIMUM, 2)])
def test_a_minimum_or_maximum_is_that_of_both_levels(reduction: Reduction, level: int) -> None:
    state = replace(NEAREST, mip=MipFilter.LINEAR, reduction=reduction)
    assert filtered(chain(), state, at(0.5, 0.5), np.array([1.5]))[0, 0] == level
    assert filtered(chain(), state, at(0.5, 0.5), np.array([1.0]))[0, 0] == 1


@pytest.mark.parametrize(
    ("word", "reduction"),
    [
        (2 << 22, Reduction.STANDARD),
        (2 << 22 | 1 << 9, Reduction.MINIMUM),
        (3 << 22 | 1 << 9, Reduction.MAXIMUM),
        (1 << 22 | 1 << 9, Reduction.STANDARD),
    ],
)
def test_reductions_are_those_of_the_state_where_they_are_enabled(word: int, reduction: Reduction) -> None:
    memory = create_autospec(UnitMemory, instance=True)
    memory.read.side_effect = lambda where, size: (
        np.array([0, 0, 0x40, word], dtype=np.uint32).tobytes() if where == 0x1000 else bytes(size)
    )
    assert SamplerState.of(memory, 0x1000, 0).reduction is reduction


@pytest.mark.parametrize(
    ("bit", "axis", "magnified"),
    [(13, 2, False), (14, 2, True), (15, 1, False), (16, 1, True), (17, 0, False), (18, 0, True)],
)
def test_each_bit_rounds_one_axis_of_one_filter(bit: int, axis: int, magnified: bool) -> None:
    data = np.array([0, 0, 0, 1 << bit], dtype=np.uint32).tobytes()
    state = SamplerState.parsed(data, bytes(16))
    wanted = tuple(number == axis for number in range(3))
    assert (state.rounds, state.rounds_min) == ((wanted, (False,) * 3) if magnified else ((False,) * 3, wanted))


def cube() -> Mips:
    """Each face has its number everywhere."""
    texels = np.repeat(np.arange(6, dtype=np.float32), 16)[:, None] * np.ones(32, dtype=np.float32)
    return mips(replace(SURFACE, type=SurfaceType.CUBE, levels=1), texels)


@pytest.mark.parametrize(
    ("direction", "face"),
    [((1, 0, 0), 0), ((-2, 1, 0), 1), ((0, 3, 1), 2), ((0, -1, 0), 3), ((0.5, 0, 2), 4), ((0, 0, -1), 5)],
)
def test_a_direction_finds_its_face(direction: tuple[float, float, float], face: int) -> None:
    assert filtered(cube(), NEAREST, at(*direction), np.zeros(1))[0, 0] == face


def test_filtering_at_an_edge_of_a_cube_mixes_both_faces() -> None:
    state = replace(NEAREST, linear=True)
    assert filtered(cube(), state, at(1.0, 0.0, 0.999999), np.zeros(1))[0, 0] == pytest.approx(2, abs=0.01)


def test_at_an_edge_of_a_cube_that_is_not_seamless_each_face_is_addressed_alone() -> None:
    state = replace(NEAREST, linear=True, seamless=False)
    assert filtered(cube(), state, at(1.0, 0.0, 0.999999), np.zeros(1))[0, 0] == 0
    bordered = replace(state, modes=(AddressMode.BORDER,) * 3, border=(4.0, 0, 0, 0))
    assert filtered(cube(), bordered, at(1.0, 0.0, 0.999999), np.zeros(1))[0, 0] == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    ("controls", "modes", "seamless"), [(1, 0o222, True), (0, 0o222, False), (0, 0o333, True), (0, 0o000, False)]
)
def test_a_cube_is_seamless_by_the_control_mode_or_by_its_address_modes(
    controls: int, modes: int, seamless: bool
) -> None:
    memory = create_autospec(UnitMemory, instance=True)
    memory.read.side_effect = lambda where, size: (
        np.array([0, controls, 0x40, modes], dtype=np.uint32).tobytes() if where == 0x1000 else bytes(size)
    )
    assert SamplerState.of(memory, 0x1000, 0).seamless is seamless


@given(st.integers(-40, 40))
def test_repeated_coordinates_are_those_of_one_turn(step: int) -> None:
    texels = np.tile(np.arange(32, dtype=np.float32), (16, 1))
    image, state = mips(SURFACE, texels), replace(NEAREST, modes=(AddressMode.WRAP,) * 3)
    assert filtered(image, state, at(step / 8 + 1 / 16), np.zeros(1))[0, 0] == step % 8


def test_levels_of_a_block_compressed_format_lie_as_blocks() -> None:
    # BC4 with ends that are alike: a block of level n holds n + 1 in all texels. Rows of 128 bytes hold blocks of four rows.
    memory = np.zeros((16, 128), dtype=np.uint8)
    for row, column, value in ((0, 0, 1), (0, 8, 1), (1, 0, 1), (1, 8, 1), (4, 0, 2), (4, 16, 3)):
        memory[row, column : column + 2] = value
    surface = replace(SURFACE, format=0x189)
    found = filtered(mips_of(surface, memory), NEAREST, at(0.9, 0.9, lanes=3), np.array([0.0, 1.0, 2.0]))
    assert np.allclose(found[:, 0] * 255, [1, 2, 3])


def mips_of(surface: SurfaceState, raw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Mips:
    return mips(surface, raw.reshape(-1).view(np.float32))


@pytest.mark.parametrize(("level", "column", "row"), [(0, 64, 0), (1, 0, 64), (4, 16, 0), (11, 0, 0), (12, 0, 4)])
def test_small_levels_of_tile64_share_a_tile(level: int, column: int, row: int) -> None:
    surface = replace(SURFACE, tiling=1, tail=0, levels=15, pitch=512)
    plain = Image(create_autospec(UnitMemory, instance=True), replace(surface, tail=15, width=128, height=128))
    tail = Image(create_autospec(UnitMemory, instance=True), surface, level)
    x = y = layer = np.zeros(1, dtype=np.int64)
    assert tail.addresses(x, y, layer) == plain.addresses(x + column, y + row, layer)


def test_the_mip_tail_lies_behind_the_levels_before_it() -> None:
    surface = replace(SURFACE, tiling=1, tail=1, levels=3, width=128, height=128, pitch=512)
    image = Image(create_autospec(UnitMemory, instance=True), surface, 2)
    x = y = layer = np.zeros(1, dtype=np.int64)
    plain = Image(create_autospec(UnitMemory, instance=True), replace(surface, tail=15, height=256))
    assert image.addresses(x, y, layer) == plain.addresses(x, y + 128 + 64, layer)


def test_a_stretched_footprint_is_sampled_along_its_longer_axis() -> None:
    ramp = np.zeros((16, 32), dtype=np.float32)
    ramp[:8, :8] = np.arange(8)
    levels = mips(replace(SURFACE, levels=1), ramp)
    lanes = np.ones(1)
    image = levels.image(0)
    stretch = Stretch.of(image, 4, (lanes * 0.5, lanes * 0), (lanes * 0, lanes / 8))
    assert stretch.count.tolist() == [4]
    # Around texel 4 (its centre is at 4.5 of 8), four texels wide.
    found = stretched(levels, NEAREST, at(4.51 / 8), np.zeros(1), stretch)
    assert found[0, 0] == (3 + 4 + 5 + 6) / 4
    assert Stretch.of(image, 2, (lanes * 0.5, lanes * 0), (lanes * 0, lanes / 8)).count.tolist() == [2]
    assert Stretch.of(image, 16, (lanes / 8, lanes * 0), (lanes * 0, lanes / 8)).count.tolist() == [1]


def test_half_of_the_border_is_mixed_in_by_linear_filters_only() -> None:
    ones = np.ones((16, 32), dtype=np.float32)
    state = replace(NEAREST, modes=(AddressMode.HALF_BORDER,) * 3, border=(0.5, 0, 0, 0))
    levels = mips(replace(SURFACE, levels=1), ones)
    assert filtered(levels, state, at(-3.0), np.zeros(1))[0, 0] == 1
    linear = replace(state, linear=True, linear_min=True)
    assert filtered(levels, linear, at(-3.0), np.zeros(1))[0, 0] == 0.75


def test_a_border_has_the_channels_of_the_format_only() -> None:
    state = replace(NEAREST, modes=(AddressMode.BORDER,) * 3, border=(2.0, 0.5, 0.5, 0.5))
    found = filtered(mips(replace(SURFACE, levels=1), np.zeros((16, 32))), state, at(-1.0), np.zeros(1))
    assert found[0].tolist() == [2, 0, 0, 1]
    unorm = replace(SURFACE, levels=1, format=0x140)
    assert filtered(mips_of(unorm, np.zeros((16, 128), dtype=np.uint8)), state, at(-1.0), np.zeros(1))[0].tolist() == [
        1,
        0,
        0,
        1,
    ]


@pytest.mark.parametrize(("lod", "expected"), [(-1.0, 0), (0.6, 1), (1.4, 1), (7.0, 2)])
def test_gather_takes_the_nearest_level(lod: float, expected: float) -> None:
    assert gather(chain(), NEAREST, at(0.4), 0, np.array([lod]), None).tolist() == [[expected] * 4]
