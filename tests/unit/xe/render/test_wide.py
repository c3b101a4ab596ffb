"""Points and lines: which pixels they cover."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.unit.xe.render.test_rasterizer import CLIP, NO_CULLING, VIEWPORTS, covered
from vfio_user_xe.device_models.xe.render.clip import ClipState, clip
from vfio_user_xe.device_models.xe.render.outlines import edges_of
from vfio_user_xe.device_models.xe.render.rasterizer import PIXEL_X, PIXEL_Y, line_coverage, rasterize
from vfio_user_xe.device_models.xe.render.sample_pattern import sample_places
from vfio_user_xe.device_models.xe.render.setup import Setup, SetupState, facing, set_up
from vfio_user_xe.device_models.xe.render.topology import Primitives, Topology, assemble
from vfio_user_xe.device_models.xe.render.wide import Strokes, Widened, lines, points

SMOOTH = np.zeros(12, dtype=np.bool_)
"""No dword of a vertex is flat."""


def pixel(x: float, y: float) -> tuple[float, float, float, float]:
    """A place on the screen as a position."""
    return x / 16 - 1, y / 16 - 1, 0.0, 1.0


def set_up_whole(found: Widened) -> Setup:
    open_clip = replace(CLIP, enabled=False)
    clipped = clip(open_clip, found.vertices, found.positions, found.primitives.vertices)
    return set_up(found.state, open_clip, VIEWPORTS, found.vertices, found.positions, found.primitives, clipped)


def drawn(found: Widened) -> NDArray[np.int64]:
    return covered(set_up_whole(found))


def stroked(
    *ends: tuple[float, float, float, float],
    topology: Topology = Topology.LINELIST,
    state: SetupState = NO_CULLING,
    clipping: ClipState = CLIP,
    outlines: bool = False,
    primitives: Primitives | None = None,
) -> tuple[Widened, Strokes]:
    data, positions = np.zeros((len(ends), 8), dtype=np.uint32), np.array(ends)
    some = primitives or assemble(topology, len(ends))
    planes = clip(clipping, data, positions, some.vertices).planes
    return lines(state, VIEWPORTS, data, positions, some, planes, flat=SMOOTH[:8], outlines=outlines)


def line(*ends: tuple[float, float, float, float], state: SetupState = NO_CULLING) -> NDArray[np.int64]:
    return drawn(stroked(*ends, state=state)[0])


def test_a_flat_line_covers_one_pixel_a_column_and_not_its_last() -> None:
    counts = line(pixel(4.5, 8.5), pixel(12.5, 8.5))
    assert counts[8, 4:12].tolist() == [1] * 8
    assert counts.sum() == 8


def test_a_line_has_its_first_pixel_and_not_its_last_whichever_way_it_goes() -> None:
    assert np.nonzero(line(pixel(12.5, 8.5), pixel(4.5, 8.5))[8])[0].tolist() == list(range(5, 13))
    assert np.nonzero(line(pixel(8.5, 20.5), pixel(6.5, 10.5)).sum(axis=1))[0].tolist() == list(range(11, 21))


def test_a_steep_line_covers_one_pixel_a_row() -> None:
    counts = line(pixel(4.5, 2.5), pixel(8.5, 20.5))
    assert (counts[2:20].sum(axis=1) == 1).all()
    assert counts.sum() == 18


def left_diamonds(*ends: tuple[float, float]) -> set[tuple[int, int]]:
    """The pixels (x, y) whose diamonds a line leaves, by going along it in small steps."""
    begin, end = (np.array(place) for place in ends)
    path = begin + (end - begin) * np.linspace(0, 1, 40001)[:, None]
    whole = np.floor(path)
    inside = np.abs(path - whole - 0.5).sum(axis=1) < 0.5
    last = {tuple(whole[-1].astype(int).tolist())} if inside[-1] else set()
    return {(int(x), int(y)) for x, y in whole[inside]} - last


def test_a_line_covers_the_pixels_whose_diamonds_it_leaves() -> None:
    random = np.random.default_rng(7)
    for _ in range(60):
        # Places that are snapped to themselves, and on no diamond's edge.
        begin, end = (tuple(((random.integers(40, 900, 2) * 8 + [1, 4]) / 256).tolist()) for _ in range(2))
        counts = line(pixel(*begin), pixel(*end))
        assert counts.max() == 1
        assert {(x, y) for y, x in np.argwhere(counts).tolist()} == left_diamonds(begin, end)


def test_a_strip_has_the_pixel_in_which_it_turns_back() -> None:
    """Its first line ends before the pixel's centre, and its second begins behind it, both in its diamond."""
    found, _ = stroked(pixel(4.5, 8.5), pixel(12.4, 8.6), pixel(5.5, 12.5), topology=Topology.LINESTRIP)
    assert drawn(found)[8, 12] == 1
    assert line(pixel(4.5, 8.5), pixel(12.4, 8.6))[8, 12] == 0
    assert line(pixel(4.5, 8.5), pixel(12.6, 8.6))[8, 12] == 0
    assert line(pixel(4.5, 8.5), pixel(12.9, 8.6))[8, 12] == 1


def test_an_end_that_moves_takes_its_values_along() -> None:
    """The colour of each pixel is what it is on the line between its ends, whether or not its first pixel was added."""
    data, positions = np.zeros((2, 12), dtype=np.uint32), np.array([pixel(4.75, 8.5), pixel(12.75, 8.5)])
    data[:, 8] = np.array([4.75, 12.75], dtype=np.float32).view(np.uint32)
    some = assemble(Topology.LINELIST, 2)
    planes = clip(CLIP, data, positions, some.vertices).planes
    found, _ = lines(NO_CULLING, VIEWPORTS, data, positions, some, planes, flat=SMOOTH)
    assert np.unique(found.vertices[:, 8].view(np.float32)).tolist() == [4.5, 12.5]


def test_a_flat_value_stays_what_it_is_where_an_end_moves() -> None:
    data, positions = np.zeros((2, 12), dtype=np.uint32), np.array([pixel(4.75, 8.5), pixel(12.75, 8.5)])
    data[:, 8], data[:, 9] = [7, 0x7FFFFFFF], np.array([0, 1], dtype=np.float32).view(np.uint32)
    some = assemble(Topology.LINELIST, 2)
    flat = np.arange(12) == 8
    found, _ = lines(
        NO_CULLING, VIEWPORTS, data, positions, some, clip(CLIP, data, positions, some.vertices).planes, flat=flat
    )
    assert found.vertices[:, 8].tolist() == [7, 7, 0x7FFFFFFF, 0x7FFFFFFF]
    assert 0 < found.vertices[3, 9:10].view(np.float32)[0] < 1


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
    behind = [(0.0, 0.0, 0.0, -1.0), (0.5, 0.0, 0.0, -1.0)]
    ends = [pixel(4.5, 8.5), pixel(12.5, 8.5), *behind, pixel(4.5, 2.5), pixel(8.5, 2.5)]
    found, _ = stroked(*ends)
    assert found.primitives.numbers().tolist() == [0, 0, 2, 2]
    data = np.zeros((6, 8), dtype=np.uint32)
    around = points(NO_CULLING, VIEWPORTS, data, np.array(ends), assemble(Topology.POINTLIST, 6), (1, 1))
    assert around.primitives.numbers().tolist() == [0, 1, 4, 5]


def test_a_line_that_is_a_rectangle_ends_across_its_direction() -> None:
    diagonal = pixel(8, 8), pixel(24, 24)
    plain = line(*diagonal, state=replace(NO_CULLING, line_width=6))
    rectangle = line(*diagonal, state=replace(NO_CULLING, line_width=6, rectangles=True))
    # Its ends are cut diagonally, and it is wider across the columns.
    assert plain[:, 16].sum() == 6
    assert rectangle[:, 16].sum() in (8, 9)
    assert not plain[:, :8].any()
    assert rectangle[9, 6:8].all()


def shares_of(*ends: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """[rows, columns]: how much of each pixel a line of two pixels covers."""
    state = replace(NO_CULLING, line_width=2, rectangles=True, regions=(1.0, 0.5))
    widened, strokes = stroked(*ends, state=state)
    setup = strokes.smoothed(set_up_whole(widened))
    shares = np.zeros((32, 32))
    for quads in rasterize(setup, sample_places(0)):
        x, y = quads.x[:, None] + PIXEL_X, quads.y[:, None] + PIXEL_Y
        covering = quads.coverage != 0
        shares[y[covering], x[covering]] = np.maximum(
            shares[y[covering], x[covering]], line_coverage(setup, quads)[covering]
        )
    return shares


def test_an_antialiased_line_covers_less_and_less_at_its_sides_and_ends() -> None:
    assert shares_of(pixel(4, 16), pixel(28, 16))[13:19, 10].tolist() == [0, 0, 1, 1, 0, 0]
    lower = shares_of(pixel(4, 16.25), pixel(28.5, 16.25))
    assert lower[13:19, 10].tolist() == [0, 0, 0.75, 1, 0.25, 0]
    # The last pixel's centre is at its end.
    assert lower[16, 27:30].tolist() == [1, 0.5, 0]


def test_lines_follow_one_another_in_strips_and_outlines() -> None:
    corners = [pixel(4, 4), pixel(20, 4), pixel(20, 20), pixel(4, 20)]
    assert stroked(*corners, topology=Topology.LINESTRIP)[1].follows.tolist() == [False, True, True]
    assert stroked(*corners, topology=Topology.LINELIST)[1].follows.tolist() == [False, False]
    assert stroked(*corners, topology=Topology.LINELOOP)[1].follows.tolist() == [False, True, True, True]
    triangles = edges_of(assemble(Topology.TRISTRIP, 4))
    outlines = stroked(*corners, primitives=triangles, outlines=True)[1]
    assert outlines.follows.tolist() == [False, True, True] * 2


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
