"""Depth and stencil tests without a draw."""

from __future__ import annotations

from typing import cast
from unittest.mock import create_autospec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.texels import Image
from vfio_user_xe.device_models.xe.render.depth_stencil import (
    DepthBuffer,
    DepthFormat,
    DepthStencil,
    DepthStencilState,
    Face,
    compare,
    rounds,
)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(0, "111"), (1, "000"), (2, "100"), (3, "010"), (4, "110"), (5, "001"), (6, "101"), (7, "011")],
)
def test_compare_functions(function: int, expected: str) -> None:
    found = compare(function, np.array([1.0, 2.0, 3.0]), np.full(3, 2.0))
    assert "".join(str(int(bit)) for bit in found) == expected


@given(st.lists(st.integers(0, 5), max_size=30))
def test_rounds_have_each_place_once_and_keep_its_order(keys: list[int]) -> None:
    found = [chosen.tolist() for chosen in rounds(np.array(keys, dtype=np.int64))]
    assert sorted(place for chosen in found for place in chosen) == list(range(len(keys)))
    for chosen in found:
        assert len({keys[place] for place in chosen}) == len(chosen)
    order = [place for chosen in found for place in chosen]
    for key in set(keys):
        places = [place for place in order if keys[place] == key]
        assert places == sorted(places)


def test_depths_are_quantized_as_the_buffer_holds_them() -> None:
    depths = np.array([0.0, 0.5, 1.0, 2.0])

    def quantized(form: DepthFormat) -> list[float]:
        buffer = DepthBuffer(cast("Image", None), form, cast("UnitMemory", None))
        found: list[float] = buffer.quantized(depths).tolist()
        return found

    assert quantized(DepthFormat.D16_UNORM) == [0, 32768, 65535, 65535]
    assert quantized(DepthFormat.D24_UNORM_X8) == [0, 8388608, 16777215, 16777215]
    assert quantized(DepthFormat.D32_FLOAT) == [0, 0.5, 1, 2]


def stencil(face: Face, values: list[int]) -> tuple[list[bool], list[int]]:
    """Which pixels pass with these stencil values, and the values afterwards."""
    held = np.array(values, dtype=np.uint64)
    memory = create_autospec(UnitMemory, instance=True)
    memory.load.side_effect = lambda where, size: held[where.astype(np.int64)]

    def store(
        where: np.ndarray[tuple[int], np.dtype[np.uint64]], data: np.ndarray[tuple[int], np.dtype[np.uint64]], size: int
    ) -> None:
        held[where.astype(np.int64)] = data

    memory.store.side_effect = store
    image = create_autospec(Image, instance=True)
    image.inside.side_effect = lambda x, y, layer: np.ones(len(x), dtype=np.bool_)
    image.sample_addresses.side_effect = lambda x, y, layer, sample, samples: x.astype(np.uint64)
    state = DepthStencilState(False, False, 0, True, True, face, face, None)
    x = np.arange(len(values))
    tests = DepthStencil(state, None, image, memory)
    passes = tests.test(x, x * 0, x * 0, 0, np.zeros(len(x)), np.ones(len(x), dtype=np.bool_))
    return passes.tolist(), held.tolist()


def test_stencil_operations_follow_from_the_results_of_the_tests() -> None:
    replace_or_invert = Face(
        function=3, fail=7, depth_fail=0, both_pass=2, test_mask=0xF, write_mask=0xFF, reference=0x35
    )
    assert stencil(replace_or_invert, [0x05, 0x15, 0x04]) == ([True, True, False], [0x35, 0x35, 0xFB])


def test_stencil_counts_saturate_or_wrap_and_masks_hold() -> None:
    saturate = Face(0, 0, 0, 3, 0xFF, 0xFF, 0)
    wrap = Face(0, 0, 0, 5, 0xFF, 0x0F, 0)
    assert stencil(saturate, [7, 255])[1] == [8, 255]
    assert stencil(wrap, [0x2F, 0x20])[1] == [0x20, 0x21]
