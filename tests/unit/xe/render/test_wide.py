"""Points and lines: which pixels they cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.unit.xe.render.test_rasterizer import CLIP, NO_CULLING, VIEWPORTS, covered
from vfio_user_xe.device_models.xe.render.clip import clip
from vfio_user_xe.device_models.xe.render.setup import SetupState, facing, set_up
from vfio_user_xe.device_models.xe.render.topology import Topology, assemble
from vfio_user_xe.device_models.xe.render.wide import Widened, lines, points


def pixel(x: float, y: float) -> tuple[float, float, float, float]:
    """A place on the screen as a position."""
    return x / 16 - 1, y / 16 - 1, 0.0, 1.0


def drawn(found: Widened) -> NDArray[np.int64]:
    open_clip = replace(CLIP, enabled=False)
    clipped = clip(open_clip, found.vertices, found.positions, found.primitives.vertices)
    return covered(
        set_up(found.state, open_clip, VIEWPORTS, found.vertices, found.positions, found.primitives, clipped)
    )


def line(*ends: tuple[float, float, float, float], state: SetupState = NO_CULLING) -> NDArray[np.int64]:
    data = np.zeros((len(ends), 8), dtype=np.uint32)
    return drawn(lines(state, CLIP, VIEWPORTS, data, np.array(ends), assemble(Topology.LINELIST, len(ends))))


def test_a_flat_line_covers_one_pixel_a_column_and_not_its_last() -> None:
    counts = line(pixel(4.5, 8.5), pixel(12.5, 8.5))
    assert counts[8, 4:12].tolist() == [1] * 8
    assert counts.sum() == 8


def test_a_steep_line_covers_one_pixel_a_row() -> None:
    counts = line(pixel(4.5, 2.5), pixel(8.5, 20.5))
    assert (counts[2:20].sum(axis=1) == 1).all()
    assert counts.sum() == 18


def test_a_wide_line_is_as_wide_as_it_says() -> None:
    counts = line(pixel(4.5, 8.5), pixel(12.5, 8.5), state=replace(NO_CULLING, line_width=3))
    assert counts[7:10, 4:12].all()
    assert counts.sum() == 24


def test_a_line_to_behind_the_eye_ends_at_the_near_plane() -> None:
    x, y, _, _ = pixel(16.5, 8.5)
    assert line((x, y, 0, 1), (0.0, 2.0, 0.0, -1.0)).any()


def test_a_point_covers_a_square_around_its_place() -> None:
    data = np.zeros((1, 8), dtype=np.uint32)
    data[0, 3] = np.float32(4).view(np.uint32)
    state = replace(NO_CULLING, point_width_from_state=False)
    positions = np.array([pixel(10, 10)])
    found = points(state, VIEWPORTS, data, positions, assemble(Topology.POINTLIST, 1), (0.125, 255))
    counts = drawn(found)
    assert counts[8:12, 8:12].all()
    assert counts.sum() == 16


def test_lines_and_points_have_the_numbers_of_their_primitives() -> None:
    ends = [
        pixel(4.5, 8.5),
        pixel(12.5, 8.5),
        (0.0, 0.0, 0.0, -1.0),
        (0.5, 0.0, 0.0, -1.0),
        pixel(4.5, 2.5),
        pixel(8.5, 2.5),
    ]
    data = np.zeros((6, 8), dtype=np.uint32)
    found = lines(NO_CULLING, CLIP, VIEWPORTS, data, np.array(ends), assemble(Topology.LINELIST, 6))
    # The second one is behind the eye.
    assert found.primitives.numbers().tolist() == [0, 0, 2, 2]
    points_found = points(NO_CULLING, VIEWPORTS, data, np.array(ends), assemble(Topology.POINTLIST, 6), (1, 1))
    assert points_found.primitives.numbers().tolist() == [0, 1, 4, 5]


def test_a_triangle_faces_as_it_winds_on_the_screen() -> None:
    corners = np.array([pixel(2, 2), pixel(20, 2), pixel(2, 20), pixel(2, 2), pixel(2, 20), pixel(20, 2)])
    data = np.zeros((6, 8), dtype=np.uint32)
    pair = assemble(Topology.TRILIST, 6)
    clockwise = facing(NO_CULLING, VIEWPORTS, data, corners, pair)
    assert clockwise.tolist() == [True, False]
    turned = replace(NO_CULLING, counter_clockwise=True)
    assert facing(turned, VIEWPORTS, data, corners, pair).tolist() == [False, True]
    plain = clip(replace(CLIP, enabled=False), data, corners, pair.vertices)
    found = set_up(NO_CULLING, replace(CLIP, enabled=False), VIEWPORTS, data, corners, pair, plain)
    assert found.front.tolist() == clockwise.tolist()
