"""Strips of vertices that geometry shaders write."""

from __future__ import annotations

import numpy as np

from vfio_user_xe.device_models.xe.render.geometry_shader import GeometryState, strips
from vfio_user_xe.device_models.xe.render.topology import Shape, Topology

VERTEX = 8


def state(topology: Topology, count: int | None = None, header: int = 8) -> GeometryState:
    return GeometryState(0, 8, True, False, topology, VERTEX, header, count, False, 1, 8 + 8 + 6 * VERTEX)


def entries(*counts: int, cuts: tuple[int, ...] = ()) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Of each primitive: how many vertices, and which of them end a strip."""
    found = np.zeros((len(counts), 8 + 8 + 6 * VERTEX), dtype=np.uint32)
    found[:, 0] = counts
    found[:, 8] = sum(1 << cut for cut in cuts)
    return found


def test_triangles_of_a_strip_wind_the_same_way() -> None:
    _, primitives = strips(state(Topology.TRISTRIP), entries(4, 3))
    # Six vertices of room for each primitive.
    assert primitives.vertices.tolist() == [[0, 1, 2], [1, 3, 2], [6, 7, 8]]
    assert primitives.shape is Shape.TRIANGLE


def test_a_cut_ends_a_strip() -> None:
    _, primitives = strips(state(Topology.TRISTRIP), entries(6, cuts=(2,)))
    assert primitives.vertices.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_lines_and_points() -> None:
    assert strips(state(Topology.LINESTRIP), entries(3, cuts=(1,)))[1].vertices.tolist() == [[0, 1]]
    assert strips(state(Topology.POINTLIST), entries(2, 0, 1))[1].vertices.tolist() == [[0], [1], [12]]


def test_a_static_count_needs_no_dword_in_the_entry() -> None:
    made = state(Topology.TRISTRIP, count=3, header=0)
    found = np.zeros((1, 6 * VERTEX), dtype=np.uint32)
    found[0, VERTEX] = 7
    vertices, primitives = strips(made, found)
    assert primitives.vertices.tolist() == [[0, 1, 2]]
    assert vertices[1, 0] == 7


def test_more_vertices_than_the_entry_holds_are_not_there() -> None:
    assert len(strips(state(Topology.POINTLIST), entries(0xFFFFFFFF))[1].vertices) == 6
