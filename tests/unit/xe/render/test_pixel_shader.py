"""Quads in threads, and what threads find in their registers."""

from __future__ import annotations

from typing import cast
from unittest.mock import NonCallableMock

import numpy as np

from tests.unit.xe.render.test_rasterizer import setup
from vfio_user_xe.device_models.xe.render.pixel_shader import Packed, pack
from vfio_user_xe.device_models.xe.render.pixel_state import Kernel, PixelState
from vfio_user_xe.device_models.xe.render.rasterizer import Quads
from vfio_user_xe.device_models.xe.render.sample_pattern import sample_places
from vfio_user_xe.device_models.xe.render.setup_backend import SetupBackend, setup_data
from vfio_user_xe.device_models.xe.render.stage import Stage

STATE = PixelState(
    kernels=(), valid=True, fast_clear=False, scratch=0, whole_quads=True, modes=(0,), source_depth=True, source_w=True,
    input_coverage=False, position_offsets=0, sample_offsets=False, perspective_planes=False, screen_planes=False,
    depth_planes=False, kills=False, computes_depth=0, computes_stencil=False, output_mask=False, per_sample=False,
    has_uav=False, early=0,
)  # fmt: skip
TRIANGLE = setup((-1, -1, 0, 1), (3, -1, 0, 1), (-1, 3, 0, 1))
TWO = setup(*((-1, -1, 0, 1), (3, -1, 0, 1), (-1, 3, 0, 1)) * 2)
CONSTANTS = np.arange(64, dtype=np.uint8)


def stage() -> Stage:
    made = NonCallableMock(spec=Stage, constants=CONSTANTS)
    made.header = lambda threads: np.zeros((threads, 16), dtype=np.uint32)
    return cast("Stage", made)


def quads(*primitives: int, coverage: int = 1) -> Quads:
    count = len(primitives)
    return Quads(
        np.array(primitives), 2 * np.arange(count), np.full(count, 4), np.full((count, 4), coverage, dtype=np.uint16)
    )


def packed(kernel: Kernel, some: Quads, data: int = 1) -> Packed:
    found = TWO if some.primitive.max() else TRIANGLE
    return pack(STATE, stage(), kernel, found, np.zeros((len(found), data, 15), np.float32), some, sample_places(0))


def test_a_thread_has_quads_of_one_primitive() -> None:
    found = packed(Kernel(0, 16, 1, 5), quads(0, 0, 0, 0, 0, 1))
    assert found.threads == 3
    assert found.place.tolist() == [0, 1, 2, 3, 4, 8]
    assert found.lanes == [0xFFFF, 0x000F, 0x000F]


def test_a_kernel_for_two_primitives_takes_half_of_its_lanes_for_each() -> None:
    found = packed(Kernel(0, 32, 2, 10), quads(0, 0, 1))
    assert found.threads == 1
    assert found.place.tolist() == [0, 1, 4]
    assert found.lanes == [0x000F_00FF]


def test_the_header_has_places_facing_and_live_pixels() -> None:
    some = quads(0, 0)
    some.coverage[1] = [1, 0, 0, 1]
    words = packed(Kernel(0, 16, 1, 5), some).payload[0].view(np.uint16)
    assert words[20:24].tolist() == [0, 4, 2, 4]
    assert words[18] == 0  # front-facing, layer 0
    assert words[30] == 0b1001_1111


def test_barycentrics_depth_and_w_come_before_constants_and_setup_data() -> None:
    payload = packed(Kernel(0, 16, 1, 5), quads(0)).payload[0].reshape(-1, 64)
    first, second, depth, w = (payload[number].view(np.float32)[0] for number in (1, 2, 3, 4))
    # The pixel at 0.5, 4.5 of 32: shares of vertices 1 and 2 are a quarter of the way each is on the screen.
    assert np.isclose(1 - first - second, (4.5 / 16) / 4)
    assert np.isclose(second, (0.5 / 16) / 4)
    assert (depth, w) == (0.5, 1)
    assert payload[5].tolist() == CONSTANTS.tolist()
    assert len(payload) == 7


def test_setup_data_is_the_third_vertex_and_what_the_others_differ() -> None:
    vertices = np.zeros((3, 12), dtype=np.uint32)
    vertices[:, 8] = np.array([1, 5, 2], dtype=np.float32).view(np.uint32)
    backend = SetupBackend(2, 8, 0b10, (0, 0), ((0, 0), (0, 0)), (0, 0), (0, 0), 0)
    data = setup_data(backend, TRIANGLE, vertices)
    assert data.shape == (1, 2, 16)
    assert data[0, 0, :3].tolist() == [2, -1, 3]
    # The second attribute is flat: the provoking vertex's, the first.
    assert data[0, 0, 12:].tolist() == [1, 0, 0, 0]
