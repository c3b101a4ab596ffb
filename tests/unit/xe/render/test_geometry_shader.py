"""Strips of vertices that geometry shaders write."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.render import geometry_shader
from vfio_user_xe.device_models.xe.render.geometry_shader import GeometryState, strips
from vfio_user_xe.device_models.xe.render.stage import Stage
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


CORNERS, DWORDS = 3, 8


def registers(instances: int, primitives: int) -> tuple[list[int], np.ndarray[tuple[int, ...], np.dtype[np.uint32]]]:
    """Lanes of each thread, and [threads, registers, dwords] that it begins with; triangles, and the shader reads their numbers."""
    shader = create_autospec(Stage, instance=True)
    shader.data_register = shader.first_register = 3 + CORNERS
    shader.header.side_effect = lambda rows: np.zeros((rows, 16), dtype=np.uint32)
    shader.constants = np.zeros(0, dtype=np.uint8)
    count = primitives * instances
    items = geometry_shader._dispatched(count, instances)
    made = geometry_shader._payload(
        shader,
        replace(state(Topology.TRISTRIP), instances=instances, primitive_id=True, read_length=0),
        items,
        np.zeros((count, CORNERS, DWORDS), dtype=np.uint32),
        np.repeat(np.arange(primitives), instances),
        np.tile(np.arange(instances), primitives),
    )
    return [int((row >= 0).sum()) for row in items], made.view(np.uint32).reshape(len(items), -1, 16)


def test_a_thread_has_sixteen_primitives_and_a_register_of_handles_for_each_corner() -> None:
    lanes, found = registers(1, 20)
    assert lanes == [16, 4]
    first = int(found[0, 3, 0])
    assert found[0, 3:6, 1].tolist() == [first + 4 * DWORDS * (CORNERS + corner) for corner in range(CORNERS)]
    assert found[1, 2, :5].tolist() == [16, 17, 18, 19, 0]


@pytest.mark.parametrize(("instances", "lanes"), [(3, [3]), (16, [16]), (20, [16, 4])])
def test_a_thread_has_instances_of_one_primitive_and_a_register_with_the_handles_of_its_corners(
    instances: int, lanes: list[int]
) -> None:
    used, found = registers(instances, 2)
    assert used == lanes * 2
    for number, thread in enumerate(found):
        primitive, part = divmod(number, len(lanes))
        assert (thread[0 + 1, : used[number]] >> 27).tolist() == [16 * part + lane for lane in range(used[number])]
        assert set(thread[2, : used[number]].tolist()) <= {primitive}
    ends = 4 * 2 * instances * (8 + 8 + 6 * VERTEX)
    first = found[0, 3, :CORNERS].tolist()
    assert first == [ends + 4 * DWORDS * corner for corner in range(CORNERS)]
    second = found[len(lanes), 3, :CORNERS].tolist()
    assert second == [ends + 4 * DWORDS * (instances * CORNERS + corner) for corner in range(CORNERS)]
