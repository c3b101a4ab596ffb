"""Stippled lines and polygons: which pixels are left."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from tests.unit.xe.render.test_rasterizer import NO_CULLING, SIDE, covered, setup
from tests.unit.xe.render.test_wide import pixel, set_up_whole, stroked
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.render.rasterizer import PIXEL_X, PIXEL_Y, rasterize
from vfio_user_xe.device_models.xe.render.sample_pattern import sample_places
from vfio_user_xe.device_models.xe.render.state import Op
from vfio_user_xe.device_models.xe.render.stipple import LineStipple, polygon_stipple
from vfio_user_xe.device_models.xe.render.topology import Topology

DASHES = LineStipple(0b0011_0011_0011_0011, 1)
Ends = tuple[float, float, float, float]


def dashed(stipple: LineStipple, *ends: Ends, topology: Topology = Topology.LINELIST, width: float = 1) -> np.ndarray:  # type: ignore[type-arg]
    widened, strokes = stroked(*ends, topology=topology, state=replace(NO_CULLING, line_width=width))
    return covered(stipple.cut(set_up_whole(widened), strokes))


def test_a_line_has_the_pixels_whose_bits_are_set() -> None:
    row = dashed(DASHES, pixel(4.5, 8.5), pixel(14.5, 8.5))[8]
    assert row[4:14].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert row.sum() == 6


def test_the_pattern_begins_where_the_line_does() -> None:
    row = dashed(LineStipple(0b111, 1), pixel(14.5, 8.5), pixel(4.5, 8.5))[8]
    assert np.nonzero(row)[0].tolist() == [12, 13, 14]
    column = dashed(LineStipple(0b111, 1), pixel(8.5, 4.5), pixel(10.5, 14.5)).sum(axis=1)
    assert np.nonzero(column)[0].tolist() == [4, 5, 6]


def test_each_bit_counts_for_as_many_pixels_as_it_is_repeated() -> None:
    row = dashed(LineStipple(0b101, 3), pixel(2.5, 8.5), pixel(14.5, 8.5), width=3)[8]
    assert np.nonzero(row)[0].tolist() == [2, 3, 4, 8, 9, 10]


def test_a_strip_goes_on_with_the_pattern_and_a_list_begins_it_anew() -> None:
    strip = dashed(DASHES, pixel(4.5, 8.5), pixel(7.5, 8.5), pixel(12.5, 8.5), topology=Topology.LINESTRIP)[8]
    assert np.nonzero(strip)[0].tolist() == [4, 5, 8, 9]
    ends = pixel(4.5, 8.5), pixel(7.5, 8.5), pixel(7.5, 8.5), pixel(12.5, 8.5)
    assert np.nonzero(dashed(DASHES, *ends)[8])[0].tolist() == [4, 5, 7, 8, 11]


def test_a_line_without_pixels_leaves_those_of_others() -> None:
    ends = pixel(4.6, 8.5), pixel(4.9, 8.5), pixel(4.5, 8.5), pixel(8.5, 8.5)
    assert np.nonzero(dashed(DASHES, *ends)[8])[0].tolist() == [4, 5]


def state(wm: int, **kept: tuple[int, ...]) -> Lrc:
    words = {Op[name]: value for name, value in kept.items()}
    lrc: Lrc = mock.create_autospec(Lrc, instance=True, state={Op.WM: (0, wm), **words})
    return lrc


def test_line_stipple_is_read_where_it_is_enabled() -> None:
    words = (0x79080001, 0xF0F0, 5 | 0x3333 << 15)
    assert LineStipple.of(state(1 << 3, LINE_STIPPLE=words)) == LineStipple(0xF0F0, 5)
    assert LineStipple.of(state(0, LINE_STIPPLE=words)) is None


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, 0), (0, 5), (31, 31)])
def test_a_polygon_has_the_pixels_of_the_pattern(right: int, down: int) -> None:
    random = np.random.default_rng(3)
    bits = random.integers(2, size=(32, 32))
    rows = tuple(int("".join(map(str, row)), 2) for row in bits.tolist())
    pattern = polygon_stipple(
        state(1 << 4, POLY_STIPPLE_PATTERN=(0, *rows), POLY_STIPPLE_OFFSET=(0, right << 8 | down))
    )
    assert pattern is not None
    found = np.zeros((SIDE, SIDE), dtype=np.int64)
    for quads in rasterize(setup((-1, -1, 0, 1), (3, -1, 0, 1), (-1, 3, 0, 1)), sample_places(0), pattern):
        found[quads.y[:, None] + PIXEL_Y, quads.x[:, None] + PIXEL_X] = quads.coverage
    assert found.tolist() == np.roll(bits, (-down, -right), (0, 1)).tolist()


def test_there_is_no_polygon_stipple_where_it_is_not_enabled() -> None:
    assert polygon_stipple(state(0, POLY_STIPPLE_PATTERN=(0,) * 33)) is None
