"""Vertices out of buffers: formats, instancing, generated values, bounds."""

from __future__ import annotations

import struct
from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory, numbers
from vfio_user_xe.device_models.xe.render.draw import Draw
from vfio_user_xe.device_models.xe.render.vertex_fetch import (
    Element,
    Generated,
    VertexBuffer,
    VertexState,
    fetch,
    indices,
)
from vfio_user_xe.emulator.fabric.interconnect import AccessFault, Initiator

SOURCE = (1, 1, 1, 1)
DRAW = Draw(4, False, 3, 0, 1, 0, 0, (70, 80, 90))


def memory(data: bytes) -> UnitMemory:
    held = np.frombuffer(data, dtype=np.uint8)
    found: UnitMemory = create_autospec(UnitMemory, instance=True)
    found.load.side_effect = lambda where, size: numbers(held[where.astype(np.int64)[:, None] + np.arange(size)], size)  # type: ignore[attr-defined]
    found.read.side_effect = lambda where, length: data[where : where + length]  # type: ignore[attr-defined]
    return found


def state(*elements: Element, pitch: int = 4, size: int = 64) -> VertexState:
    return VertexState({0: VertexBuffer(0, size, pitch)}, elements, 4, 0, 2, 64, None)


def floats(found: np.ndarray[tuple[int, ...], np.dtype[np.uint32]]) -> list[list[float]]:
    result: list[list[float]] = found[:, 0].view(np.float32).tolist()
    return result


def test_components_are_source_constants_or_converted() -> None:
    data = bytes([0, 255, 51, 204]) * 16
    unorm = Element(0, 0x0C7, 0, (1, 1, 2, 3), True)
    found = floats(fetch(state(unorm), DRAW, memory(data), np.array([0]), np.zeros(1, np.int64)))
    assert found == [[0, 1, 0, 1]]


def test_integers_stay_integers_and_missing_channels_are_zero_and_one() -> None:
    data = struct.pack("<2h", -3, 7) * 16
    sint = Element(0, 0x0CE, 0, SOURCE, True)
    found = fetch(state(sint), DRAW, memory(data), np.array([1]), np.zeros(1, np.int64))[0, 0].view(np.int32).tolist()
    assert found == [-3, 7, 0, 1]


def test_what_is_behind_the_buffers_end_is_zero() -> None:
    element = Element(0, 0x0D8, 0, SOURCE, True)
    data = struct.pack("<4f", 1, 2, 3, 4)
    found = floats(fetch(state(element, size=8), DRAW, memory(data), np.array([0, 1, 2]), np.zeros(3, np.int64)))
    assert [row[0] for row in found] == [1, 2, 0]


@pytest.mark.parametrize(("step", "expected"), [(1, 12.0), (2, 11.0), (0, 10.0)])
def test_instanced_elements_go_on_by_their_step(step: int, expected: float) -> None:
    element = Element(0, 0x0D8, 0, SOURCE, True, instanced=True, step=step)
    data = struct.pack("<16f", *range(10, 26))
    found = floats(fetch(state(element), DRAW, memory(data), np.array([5, 6]), np.full(2, 2)))
    assert [row[0] for row in found] == [expected] * 2


def test_vertices_of_several_instances_have_each_their_own_instances_data() -> None:
    each = Element(0, 0x0D8, 0, SOURCE, True)
    second = Element(0, 0x0D8, 0, SOURCE, True, instanced=True, step=2)
    numbered = replace(state(each, second), instance_id=Generated(0, 1))
    data = struct.pack("<16f", *range(10, 26))
    found = fetch(numbered, DRAW, memory(data), np.array([5, 6, 5, 6]), np.array([1, 1, 2, 2]))
    assert floats(found)[0][0] == 15
    assert found[:, 1, 0].view(np.float32).tolist() == [10, 10, 11, 11]
    assert found[:, 0, 1].tolist() == [1, 1, 2, 2]


def test_generated_values_replace_components() -> None:
    base = replace(
        state(Element(0, 0, 0, (2, 2, 2, 2), True)),
        vertex_id=Generated(0, 0),
        instance_id=Generated(0, 1),
        parameters=((Generated(0, 2), True), (Generated(0, 3), False), None),
    )
    draw = replace(DRAW, first=100)
    found = fetch(base, draw, memory(bytes(64)), np.array([0, 1]), np.full(2, 9))[:, 0].tolist()
    # VertexID counts from 0; parameter 0 is where the draw begins, parameter 1 the draw's own.
    assert found == [[0, 9, 100, 80], [1, 9, 100, 80]]


def test_indices_are_read_in_their_format_and_zero_behind_their_buffer() -> None:
    data = struct.pack("<4H", 7, 8, 9, 10)
    indexed = replace(DRAW, indexed=True, vertices=4, first=1)
    assert indices(replace(state(), index_size=6), indexed, memory(data)).tolist() == [8, 9, 0, 0]


def test_vertices_far_from_each_other_are_fetched_one_by_one() -> None:
    element = Element(0, 0x0D8, 0, SOURCE, True)
    data = struct.pack("<1024f", *range(1024))
    held = memory(data)
    found = floats(fetch(state(element, size=4096), DRAW, held, np.array([1000, 3]), np.zeros(2, np.int64)))
    assert [row[0] for row in found] == [1000, 3]
    held.read.assert_not_called()  # type: ignore[attr-defined]


def test_a_page_between_the_vertices_that_is_not_there_is_not_missed() -> None:
    element = Element(0, 0x0D8, 0, SOURCE, True)
    held = memory(struct.pack("<16f", *range(16)))
    held.read.side_effect = AccessFault(create_autospec(Initiator, instance=True), "vram", 0x1000, "nothing is there")  # type: ignore[attr-defined]
    found = floats(fetch(state(element), DRAW, held, np.array([0, 1, 2, 3]), np.zeros(4, np.int64)))
    assert [row[0] for row in found] == [0, 1, 2, 3]


def test_of_a_buffer_only_what_lies_among_the_vertices_is_read() -> None:
    element = Element(0, 0x0D8, 0, SOURCE, True)
    held = memory(struct.pack("<1024f", *range(1024)))
    found = floats(fetch(state(element, size=4096), DRAW, held, np.array([1000, 1002]), np.zeros(2, np.int64)))
    assert [row[0] for row in found] == [1000, 1002]
    held.read.assert_called_once_with(4000, 12)  # type: ignore[attr-defined]
