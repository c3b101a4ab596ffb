"""What mesh shaders write: primitives, their data and vertices; and which groups a launch has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.render.mesh_shader import IndexFormat, MeshState, meshes
from vfio_user_xe.device_models.xe.render.thread_groups import Entries, GroupState, Launch
from vfio_user_xe.device_models.xe.render.topology import Shape

GROUP = GroupState(1, 16, 1, 1, 0, False, True, None, False, 64)
STATE = MeshState(GROUP, most=2, primitive=0, vertex=8, indices=IndexFormat.U888X, shape=Shape.TRIANGLE, header=False)


def entry(*words: int, vertices: int = 4, at: int = 8, size: int = 64) -> Entries:
    """A group's entry with these first dwords, and vertices whose position begins with their number."""
    found = np.zeros((1, size), dtype=np.uint32)
    found[0, : len(words)] = words
    for number in range(vertices):
        found[0, at + 8 * number + 4] = number
    return found


def test_packed_indices_are_a_byte_or_ten_bits_each() -> None:
    made = meshes(STATE, entry(2, 0x020100, 0x010203))
    assert made.primitives.vertices.tolist() == [[0, 1, 2], [3, 2, 1]]
    assert made.count == 2
    wide = replace(STATE, indices=IndexFormat.U101010X)
    assert meshes(wide, entry(1, 2 << 20 | 1 << 10)).primitives.vertices.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("shape", "words"), [(Shape.LINE, (1, 3, 2)), (Shape.POINT, (1, 3))])
def test_whole_indices_are_a_dword_each(shape: Shape, words: tuple[int, ...]) -> None:
    state = replace(STATE, indices=IndexFormat.U32, shape=shape)
    made = meshes(state, entry(*words))
    assert made.primitives.vertices.tolist() == [list(words[1:])]
    assert made.primitives.shape is shape
    assert made.vertices[3, 4] == 3


def test_each_group_has_vertices_of_its_own() -> None:
    both = np.concatenate([entry(1, 0x020100), entry(1, 0x020103)])
    room = (64 - 8) // 8
    assert meshes(STATE, both).primitives.vertices.tolist() == [[0, 1, 2], [room + 3, room + 1, room + 2]]


def test_an_index_behind_the_last_vertex_makes_the_primitive_disappear() -> None:
    made = meshes(STATE, entry(2, 0xFF0100, 0x020100))
    assert made.primitives.vertices.tolist() == [[0, 1, 2]]


def test_more_primitives_than_there_is_room_for_are_not_there() -> None:
    assert meshes(STATE, entry(0xFFFF_FFFF, 0x020100, 0x020100)).count == 2


def test_an_entry_without_room_for_vertices_has_no_primitives() -> None:
    made = meshes(replace(STATE, most=500), entry(1, 0x020100))
    assert (made.count, len(made.primitives.vertices), made.primitives.shape) == (0, 0, Shape.TRIANGLE)


def test_headers_cull_primitives_and_give_their_vertices_layers_and_viewports() -> None:
    state = replace(STATE, primitive=8, header=True)
    # Two headers at dword 8: the second primitive is for layer 5 and viewport 1.
    words = [2, 0x020100, 0x020100, *[0] * 5, *[0] * 8, 0, 5, 1, *[0] * 5]
    found = entry(*words, at=24)
    made = meshes(state, found)
    assert made.vertices[made.primitives.vertices][:, :, 1:3].tolist() == [[[0, 0]] * 3, [[5, 1]] * 3]
    assert made.vertices[made.primitives.vertices][:, :, 4].tolist() == [[0, 1, 2]] * 2
    found[0, 8 + 3] = 1
    culled = meshes(state, found)
    assert culled.own[:, 1].tolist() == [5]
    assert culled.count == 2


def test_what_mesa_leaves_in_a_header_is_no_layer_and_culls_nothing() -> None:
    state = replace(STATE, primitive=8, header=True)
    made = meshes(state, entry(1, 0x020100, *[0] * 6, *[0x3C00_3C00] * 4, at=24))
    assert not made.vertices[made.primitives.vertices][:, :, :3].any()
    assert len(made.primitives.vertices) == 1


def test_without_headers_nothing_of_a_vertex_is_taken_for_its_layer() -> None:
    found = entry(1, 0x020100)
    found[0, 8:11] = 7
    assert not meshes(STATE, found).vertices[0, :3].any()


def test_a_launch_numbers_the_groups_of_each_task() -> None:
    sizes = np.array([[2, 1, 1], [0, 4, 4], [3, 1, 1]], dtype=np.uint32)
    launch = Launch(sizes, np.array([2, 0, 3]), 10, 0)
    pieces = list(launch.pieces(4))
    assert [piece.number.tolist() for piece in pieces] == [[10, 11, 10, 11], [12]]
    assert [piece.task.tolist() for piece in pieces] == [[0, 0, 2, 2], [2]]
    assert pieces[1].dimensions.tolist() == [[3, 1, 1]]


def test_a_launch_of_nothing_has_no_pieces() -> None:
    assert not list(Launch(np.zeros((1, 3), dtype=np.uint32), np.array([0]), 0, 0).pieces(4))
