"""Primitives of consecutive vertices."""

from __future__ import annotations

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.render.topology import Shape, Topology, UnknownTopology, assemble, joined


@pytest.mark.parametrize(
    ("topology", "count", "expected"),
    [
        (Topology.TRILIST, 7, [[0, 1, 2], [3, 4, 5]]),
        (Topology.TRISTRIP, 5, [[0, 1, 2], [1, 3, 2], [2, 3, 4]]),
        (Topology.TRISTRIP_REVERSE, 4, [[0, 2, 1], [1, 2, 3]]),
        (Topology.TRIFAN, 5, [[0, 1, 2], [0, 2, 3], [0, 3, 4]]),
        (Topology.QUADLIST, 5, [[0, 1, 3], [1, 2, 3]]),
        (Topology.QUADSTRIP, 4, [[0, 1, 3], [2, 0, 3]]),
        (Topology.LINESTRIP, 3, [[0, 1], [1, 2]]),
        (Topology.LINELOOP, 3, [[0, 1], [1, 2], [2, 0]]),
        (Topology.TRILIST_ADJ, 6, [[0, 2, 4]]),
        (Topology.LINELIST_ADJ, 4, [[1, 2]]),
        (Topology.POINTLIST, 2, [[0], [1]]),
        (Topology.RECTLIST, 3, [[0, 1, 2]]),
        (Topology.TRILIST, 2, []),
        (Topology.TRISTRIP, 1, []),
    ],
)
def test_vertices_of_primitives(topology: Topology, count: int, expected: list[list[int]]) -> None:
    assert assemble(topology, count).vertices.tolist() == expected


def test_the_provoking_vertex_of_a_strip_is_the_first_or_last_of_the_api() -> None:
    strip = assemble(Topology.TRISTRIP, 5)
    rows = range(3)
    for select, expected in ((0, [0, 1, 2]), (2, [2, 3, 4])):
        chosen = strip.provoking(select, 0, 0)
        assert [int(strip.vertices[row, chosen[row]]) for row in rows] == expected


def test_the_provoking_vertex_of_a_fan_is_selected_apart() -> None:
    fan = assemble(Topology.TRIFAN, 4)
    assert fan.provoking(0, 0, 1).tolist() == [1, 1]
    assert fan.shape is Shape.TRIANGLE


def test_a_topology_that_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownTopology, match="0x17"):
        assemble(0x17, 3)


def test_patches_have_as_many_vertices_as_their_number_says() -> None:
    patches = assemble(0x20 + 4, 11)
    assert patches.shape is Shape.PATCH
    assert patches.vertices.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (6, [[0, 1, 2, 5, 4, 3]]),
        (8, [[0, 1, 2, 6, 4, 3], [4, 0, 2, 5, 6, 7]]),
        (10, [[0, 1, 2, 6, 4, 3], [4, 0, 2, 5, 6, 8], [4, 2, 6, 9, 8, 7]]),
    ],
)
def test_vertices_beside_a_strip_of_triangles(count: int, expected: list[list[int]]) -> None:
    adjacent = assemble(Topology.TRISTRIP_ADJ, count).adjacent
    assert adjacent is not None
    assert adjacent.tolist() == expected


def test_lines_and_triangles_with_vertices_beside_them() -> None:
    for topology, count, expected in (
        (Topology.LINESTRIP_ADJ, 5, [[0, 1, 2, 3], [1, 2, 3, 4]]),
        (Topology.TRILIST_ADJ, 7, [[0, 1, 2, 3, 4, 5]]),
    ):
        adjacent = assemble(topology, count).adjacent
        assert adjacent is not None
        assert adjacent.tolist() == expected


def test_runs_of_vertices_are_joined() -> None:
    whole = joined(
        [(0, assemble(Topology.TRISTRIP, 3)), (4, assemble(Topology.TRISTRIP, 2)), (7, assemble(Topology.TRISTRIP, 4))]
    )
    assert whole.vertices.tolist() == [[0, 1, 2], [7, 8, 9], [8, 10, 9]]
    assert whole.last.tolist() == [2, 2, 1]
    assert whole.last_behind().tolist() == [[0, 1, 2], [7, 8, 9], [9, 8, 10]]


def test_pieces_are_the_primitives_with_vertices_of_their_own() -> None:
    whole = assemble(Topology.TRISTRIP, 12)
    pieces = list(whole.pieces(4))
    assert [len(piece.vertices) for *_, piece in pieces] == [4, 4, 2]
    assert [(begins, ends) for begins, ends, _ in pieces] == [(0, 6), (4, 10), (8, 12)]
    assert np.concatenate([piece.vertices + begins for begins, _, piece in pieces]).tolist() == whole.vertices.tolist()
    assert [number for *_, piece in pieces for number in (piece.number if piece.number is not None else ())] == list(
        range(10)
    )


def test_instances_have_the_same_numbers_and_vertices_of_their_own() -> None:
    twice = assemble(Topology.TRISTRIP_ADJ, 8).repeated(2, 8)
    one = assemble(Topology.TRISTRIP_ADJ, 8)
    assert twice.numbers().tolist() == [0, 1, 0, 1]
    assert twice.vertices.tolist() == [*one.vertices.tolist(), *(one.vertices + 8).tolist()]
    assert twice.adjacent is not None
    assert one.adjacent is not None
    assert twice.adjacent.tolist() == [*one.adjacent.tolist(), *(one.adjacent + 8).tolist()]
    assert twice.last.tolist() == [*one.last.tolist()] * 2
