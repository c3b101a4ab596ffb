"""Points and primitives of patches, for all domains and partitionings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.render.tessellator import Domain, Output, Partitioning, tessellate

FACTOR = st.one_of(st.floats(0.1, 8), st.integers(1, 8).map(float))


def areas(
    domain: Domain, partitioning: Partitioning, output: Output, factors: tuple[float, ...]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Signed areas of triangles in u and v."""
    found = tessellate(domain, partitioning, output, factors)
    corners = found.places[:, :2].astype(np.float64)[found.primitives]
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.asarray(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2


@pytest.mark.parametrize(("domain", "whole"), [(Domain.TRIANGLE, 0.5), (Domain.QUAD, 1.0)])
@settings(max_examples=30)
@given(partitioning=st.sampled_from(Partitioning), factors=st.tuples(*[FACTOR] * 6))
def test_triangles_cover_the_domain_once_and_all_wind_one_way(
    domain: Domain, whole: float, partitioning: Partitioning, factors: tuple[float, ...]
) -> None:
    clockwise = areas(domain, partitioning, Output.CLOCKWISE, factors)
    assert clockwise.sum() == pytest.approx(areas(domain, Partitioning.INTEGER, Output.CLOCKWISE, (1.0,) * 6).sum())
    assert abs(clockwise.sum()) == pytest.approx(whole)
    assert (np.sign(clockwise.sum()) * clockwise > -1e-6).all()
    assert np.allclose(areas(domain, partitioning, Output.COUNTER_CLOCKWISE, factors), -clockwise)


@settings(max_examples=30)
@given(partitioning=st.sampled_from(Partitioning), factor=FACTOR, others=st.tuples(*[FACTOR] * 4))
def test_points_of_a_side_do_not_depend_on_the_other_factors(
    partitioning: Partitioning, factor: float, others: tuple[float, ...]
) -> None:
    """Patches that share a side do not come apart."""
    quad = tessellate(Domain.QUAD, partitioning, Output.POINT, (factor, *others, 5.0)).places
    triangle = tessellate(Domain.TRIANGLE, partitioning, Output.POINT, (factor, *others)).places
    # The side comes first, from v = 1 to 0.
    sides = [sorted(places[: int(np.argmax(places[:, 0] > 0)), 1].tolist()) for places in (quad, triangle)]
    assert sides[0] == sides[1]
    assert sides[0] == pytest.approx([1 - place for place in reversed(sides[0])])


def on_line(partitioning: Partitioning, factor: float) -> list[float]:
    """Places along an isoline."""
    return sorted(tessellate(Domain.ISOLINE, partitioning, Output.LINE, (1.0, factor)).places[:, 0].tolist())


@pytest.mark.parametrize(
    ("partitioning", "factor", "expected"),
    [
        (Partitioning.INTEGER, 2.1, [0, 1 / 3, 2 / 3, 1]),
        (Partitioning.POWER_OF_2, 2.1, [0, 0.25, 0.5, 0.75, 1]),
        (Partitioning.EVEN_FRACTIONAL, 1.0, [0, 0.5, 1]),
        (Partitioning.EVEN_FRACTIONAL, 3.0, [0, 3 / 8, 0.5, 5 / 8, 1]),
        (Partitioning.ODD_FRACTIONAL, 1.0, [0, 1]),
        (Partitioning.ODD_FRACTIONAL, 3.0, [0, 1 / 3, 2 / 3, 1]),
    ],
)  # fmt: skip
def test_segments_of_an_edge(partitioning: Partitioning, factor: float, expected: list[float]) -> None:
    found = on_line(partitioning, factor)
    assert len(found) == len(expected)
    assert found[0] == 0
    assert found[-1] == 1
    if partitioning is not Partitioning.EVEN_FRACTIONAL or factor == 1:
        assert found == pytest.approx(expected, abs=1e-4)


def test_isolines_leave_the_end_of_v_out() -> None:
    found = tessellate(Domain.ISOLINE, Partitioning.INTEGER, Output.LINE, (4.0, 2.0))
    assert sorted(set(found.places[:, 1].tolist())) == [0, 0.25, 0.5, 0.75]
    assert len(found.primitives) == 8


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_patch_with_a_side_of_no_segments_is_not_drawn(factor: float) -> None:
    found = tessellate(Domain.TRIANGLE, Partitioning.INTEGER, Output.CLOCKWISE, (1.0, factor, 1.0, 1.0))
    assert len(found.primitives) == len(found.places) == 0


def test_a_factor_of_one_inside_leaves_a_point_there_where_a_side_is_cut() -> None:
    found = tessellate(Domain.TRIANGLE, Partitioning.INTEGER, Output.CLOCKWISE, (2.0, 1.0, 1.0, 1.0))
    assert found.places[-1].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-4)
    assert len(found.primitives) == 4


def test_points_come_each_once() -> None:
    found = tessellate(Domain.QUAD, Partitioning.INTEGER, Output.POINT, (3.0, 3.0, 3.0, 3.0, 3.0, 3.0))
    assert len(found.primitives) == len({tuple(place) for place in found.places.tolist()}) == 16


def test_the_middle_of_a_triangle_is_a_third_that_is_cut_off_to_16_bits() -> None:
    found = tessellate(Domain.TRIANGLE, Partitioning.INTEGER, Output.CLOCKWISE, (8.0, 8.0, 8.0, 8.0))
    assert found.places[-1].tolist() == [0x5555 / 65536, 0x5555 / 65536, 0x5556 / 65536]
    assert 3 * found.places[-1].min() < 1
