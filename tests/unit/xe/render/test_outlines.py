"""Triangles, quads and polygons that are filled as their outlines or corners."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit.xe.render.test_rasterizer import NO_CULLING, setup
from vfio_user_xe.device_models.xe.render.outlines import FillMode, Outlined, corners_of, edges_of, filled
from vfio_user_xe.device_models.xe.render.topology import Shape, Topology, assemble, joined


def test_a_triangles_outline_has_three_lines() -> None:
    assert edges_of(assemble(Topology.TRILIST, 3)).vertices.tolist() == [[0, 1], [1, 2], [2, 0]]


def test_a_quads_outline_has_four_lines_and_its_corners_are_four() -> None:
    quads = assemble(Topology.QUADLIST, 8)
    assert edges_of(quads).vertices.tolist() == [[0, 1], [3, 0], [1, 2], [2, 3], [4, 5], [7, 4], [5, 6], [6, 7]]
    assert sorted(corners_of(quads).vertices.reshape(-1).tolist()) == list(range(8))


def test_the_outlines_of_a_strip_of_quads_are_those_of_each() -> None:
    pairs = [frozenset(pair) for pair in edges_of(assemble(Topology.QUADSTRIP, 6)).vertices.tolist()]
    assert sorted(map(sorted, pairs)) == [[0, 1], [0, 2], [1, 3], [2, 3], [2, 3], [2, 4], [3, 5], [4, 5]]


def test_a_polygons_outline_does_not_cross_it() -> None:
    assert edges_of(assemble(Topology.POLYGON, 5)).vertices.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]


def test_edges_whose_first_vertex_has_no_edge_flag_are_not_drawn() -> None:
    flags = np.array([True, False, True, True, False, True, True, True])
    flagged = assemble(Topology.QUADLIST, 8).flagged(flags)
    assert edges_of(flagged).vertices.tolist() == [[0, 1], [3, 0], [2, 3], [7, 4], [5, 6], [6, 7]]
    # Strips have no such flags (OpenGL 4.6 compatibility, 14.6.4).
    strip = assemble(Topology.TRISTRIP, 3).flagged(np.zeros(3, dtype=np.bool_))
    assert len(edges_of(strip).vertices) == 3


def test_parts_of_primitives_keep_which_edges_are_outer() -> None:
    quads = joined([(0, assemble(Topology.QUADLIST, 4)), (5, assemble(Topology.QUADLIST, 4))])
    assert edges_of(quads.of(np.array([2, 3]))).vertices.tolist() == [[5, 6], [8, 5], [6, 7], [7, 8]]


def test_faces_are_drawn_as_their_fill_modes_say_unless_they_are_culled() -> None:
    pair = assemble(Topology.TRILIST, 6)
    front = np.array([True, False])
    solid_and_points = replace(NO_CULLING, fill_modes=(FillMode.SOLID, FillMode.POINT))
    parts = filled(solid_and_points, pair, front)
    assert [(part.mode, part.primitives.shape, part.primitives.vertices.tolist()) for part in parts] == [
        (FillMode.SOLID, Shape.TRIANGLE, [[0, 1, 2]]),
        (FillMode.POINT, Shape.POINT, [[3], [4], [5]]),
    ]
    lines_in_front = replace(NO_CULLING, fill_modes=(FillMode.WIREFRAME, FillMode.WIREFRAME), cull=3)
    (outline,) = filled(lines_in_front, pair, front)
    assert outline.primitives.vertices.tolist() == [[0, 1], [1, 2], [2, 0]]
    assert filled(replace(lines_in_front, cull=0), pair, front) == []


def test_pieces_have_number_facing_and_offset_of_their_triangle() -> None:
    (part,) = filled(replace(NO_CULLING, fill_modes=(1, 1)), assemble(Topology.TRILIST, 6), np.array([True, True]))
    assert part.primitives.numbers().tolist() == [0, 0, 0, 1, 1, 1]
    pieces = setup((-1, -1, 0, 1), (1, -1, 0, 1), (-1, 1, 0, 1), (1, 1, 0, 1), (1, -1, 0, 1), (-1, 1, 0, 1))
    pieces = replace(pieces, number=np.array([1, 0]))
    of = Outlined(numbers=np.array([7, 9]), front=np.array([True, False]), offsets=np.array([0.25, 0.5]))
    found, offsets = of.into(pieces)
    assert offsets is not None
    assert (found.number.tolist(), found.front.tolist(), offsets.tolist()) == ([9, 7], [False, True], [0.5, 0.25])
