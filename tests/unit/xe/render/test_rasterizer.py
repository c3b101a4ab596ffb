"""Setup and rasteriser: which samples are covered, and what is interpolated there."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.render import rasterizer
from vfio_user_xe.device_models.xe.render import setup as setups
from vfio_user_xe.device_models.xe.render.clip import ClipState, clip
from vfio_user_xe.device_models.xe.render.pixel_shader import depth_of
from vfio_user_xe.device_models.xe.render.rasterizer import PIXEL_X, PIXEL_Y, edge_values, rasterize
from vfio_user_xe.device_models.xe.render.sample_pattern import sample_places
from vfio_user_xe.device_models.xe.render.setup import Setup, SetupState, Viewports, set_up
from vfio_user_xe.device_models.xe.render.topology import Topology, assemble

SIDE = 32
NO_CULLING = SetupState(
    transform=True,
    cull=1,
    counter_clockwise=False,
    provoking=(0, 0, 0),
    line_width=1,
    point_width=1,
    point_width_from_state=True,
    fill_modes=(0, 0),
)
CLIP = ClipState(
    enabled=True, mode=0, d3d=False, near=True, far=True, clip_distances=0, cull_distances=0, divide=True,
    no_layers=False, most_viewports=0,
)  # fmt: skip
VIEWPORTS = Viewports(
    np.array([[SIDE / 2, SIDE / 2, 0.5, SIDE / 2, SIDE / 2, 0.5]]), np.array([[0, 0, SIDE, SIDE]], dtype=np.int64)
)


def setup(
    *vertices: tuple[float, float, float, float], state: SetupState = NO_CULLING, clipping: ClipState = CLIP
) -> Setup:
    positions = np.array(vertices, dtype=np.float64)
    data = np.zeros((len(vertices), 16), dtype=np.uint32)
    primitives = assemble(Topology.TRILIST, len(vertices))
    clipped = clip(clipping, data, positions, primitives.vertices)
    return set_up(state, clipping, VIEWPORTS, data, positions, primitives, clipped)


def covered(found: Setup, samples: int = 0) -> NDArray[np.int64]:
    """[rows, columns]: how many samples of all primitives are in each pixel."""
    counts = np.zeros((SIDE, SIDE), dtype=np.int64)
    for quads in rasterize(found, sample_places(samples)):
        x, y = quads.x[:, None] + PIXEL_X, quads.y[:, None] + PIXEL_Y
        inside = (x < SIDE) & (y < SIDE)
        np.add.at(counts, (y[inside], x[inside]), np.bitwise_count(quads.coverage)[inside])
    return counts


coordinate = st.integers(-40, 40).map(lambda n: n / 16)


@given(st.lists(coordinate, min_size=2, max_size=2), st.booleans())
def test_triangles_around_a_point_cover_each_pixel_once(middle: list[float], behind: bool) -> None:
    x, y = (min(0.9, max(-0.9, part)) for part in middle)
    around = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if behind:
        around.reverse()
    vertices = []
    for index, corner in enumerate(around):
        following = around[(index + 1) % 4]
        vertices += [(*corner, 0, 1), (*following, 0, 1), (x, y, 0, 1)]
    counts = covered(setup(*vertices))
    assert (counts == 1).all()


def test_left_and_top_edges_belong_to_a_triangle_and_others_do_not() -> None:
    # Corners at pixel centres: the sides from (4.5, 4.5) to (8.5, 4.5) and (4.5, 8.5).
    at = lambda pixel: (pixel - SIDE / 2) / (SIDE / 2)  # noqa: E731
    counts = covered(setup((at(4.5), at(4.5), 0, 1), (at(8.5), at(4.5), 0, 1), (at(4.5), at(8.5), 0, 1)))
    assert counts.sum() == 4 + 3 + 2 + 1
    assert counts[4, 4:9].tolist() == [1, 1, 1, 1, 0]
    assert counts[4:9, 4].tolist() == [1, 1, 1, 1, 0]


def test_culling_goes_by_the_winding_that_is_the_front() -> None:
    clockwise = ((-1, -1, 0, 1), (1, -1, 0, 1), (-1, 1, 0, 1))
    for counter, cull, left in ((False, 3, 1), (False, 2, 0), (True, 3, 0), (True, 2, 1), (False, 0, 0), (True, 1, 1)):
        state = SetupState(True, cull, counter, (0, 0, 0), 1, 1, True, (0, 0))
        assert len(setup(*clockwise, state=state)) == left, (counter, cull)


def test_a_triangle_behind_the_eye_in_part_is_drawn_where_it_is_before_it() -> None:
    # A floor that goes from half way down the screen to behind the eye: it widens to beyond both sides.
    counts = covered(setup((-1, 0.5, 0, 1), (1, 0.5, 0, 1), (0, 0.5, 0, -1)))
    assert (counts[24:] == 1).all()
    assert not counts[:24].any()


corner = st.tuples(*[st.floats(-3, 3, width=16)] * 4)


@given(st.lists(corner, min_size=3, max_size=3), st.booleans())
def test_bounds_of_triangles_behind_the_eye_leave_out_nothing_that_is_covered(
    corners: list[tuple[float, float, float, float]], near: bool
) -> None:
    clipping = replace(CLIP, near=near)
    bounded = setup(*corners, clipping=clipping)
    with mock.patch.object(setups, "crossing_bounds", autospec=True, side_effect=lambda bounds, *_: bounds):
        whole = setup(*corners, clipping=clipping)
    assert (covered(bounded) == covered(whole)).all()


def test_triangles_that_reach_behind_the_eye_are_looked_for_where_they_can_be() -> None:
    # One is at the right of all that is seen, on both sides of the eye; of the other a strip of three pixels is before the near plane.
    beside = setup((4, 0, 0, 1), (5, 1, 0, 1), (9, 0, 0, -1))
    strip = setup((-0.1, -1, -0.5, 1), (0.1, -1, -0.5, 1), (0, 0, -3, -1))
    assert not len(beside)
    assert strip.bounds[0, 2] - strip.bounds[0, 0] < 10


def test_pieces_without_a_covered_quad_make_room_too() -> None:
    found = setup((-1, -1, 0, 1), (1, -1, 0, 1), (-1, -0.999, 0, 1))
    with mock.patch.object(rasterizer, "CHUNK", 4):
        pieces = list(rasterize(replace(found, bounds=VIEWPORTS.bounds), sample_places(0)))
    assert len(pieces) == SIDE * SIDE // 4 // 4
    assert not sum(map(len, pieces))


def test_what_is_nearer_than_the_near_plane_is_cut_away() -> None:
    slope = ((-1, -1, -3, 1), (3, -1, -3, 1), (-1, 3, 1, 1))
    counts = covered(setup(*slope))
    rows = counts.any(axis=1)
    # z = -3 + 4 * share of the third corner: -1, the near plane, at a half of 4, which is y = 1.
    assert not rows.any()
    open_clip = ClipState(True, 0, False, False, True, 0, 0, True, False, 0)
    assert covered(setup(*slope, clipping=open_clip)).any()


@given(st.lists(st.floats(0.25, 4), min_size=3, max_size=3))
def test_weights_give_back_the_place_that_they_are_of(weights: list[float]) -> None:
    corners = ((-0.9, -0.8, 0.1), (0.8, -0.7, 0.5), (0.1, 0.9, 0.9))
    plain = setup(*((x * w, y * w, z * w, w) for (x, y, z), w in zip(corners, weights, strict=True)))
    quad = np.array([0])
    x, y = np.array([[16.5 * 256] * 4]), np.array([[15.5 * 256] * 4])
    values = edge_values(plain, quad, x, y)
    shares = values * plain.perspective[quad][:, None, :]
    shares /= shares.sum(axis=2, keepdims=True)
    w = np.array(weights)
    back = (shares[0, 0][:, None] * (np.array(corners)[:, :2] * w[:, None])).sum(axis=0) / (shares[0, 0] * w).sum()
    assert np.allclose(back * 16 + 16, [16.5, 15.5], atol=0.02)
    assert 0 < depth_of(plain, quad, values)[0, 0] < 1


def test_samples_are_counted_one_by_one() -> None:
    counts = covered(setup((-1, -1, 0, 1), (3, -1, 0, 1), (-1, 3, 0, 1)), samples=2)
    assert (counts == 4).all()
