"""Where samples are: standard places, a context's own pattern, multisampling that is off."""

from __future__ import annotations

from unittest import mock

import pytest

from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.render.sample_pattern import sample_places, samples_of
from vfio_user_xe.device_models.xe.render.state import Op

PATTERN = (0x791C0007, 0x73625140, 0xB7A69584, 0xFBEAD9C8, 0x3F2E1D0C, 0x2C3D4E5F, 0xF8E7D6C5, 0x44332211, 0x008844CC)
"""Samples 0 to 15 of sixteen are (4, 0), (5, 1), ... (15, 11), (0, 12), ... (3, 15)."""


@pytest.mark.parametrize(
    ("exponent", "places"),
    [
        (0, [(8, 8)]),
        (1, [(12, 12), (4, 4)]),
        (2, [(1, 1), (2, 2), (3, 3), (4, 4)]),
        (3, [(12, 5), (13, 6), (14, 7), (15, 8), (5, 15), (4, 14), (3, 13), (2, 12)]),
        (4, [((4 + n) % 16, n) for n in range(16)]),
    ],
)
def test_a_patterns_samples_are_in_its_bytes(exponent: int, places: list[tuple[int, int]]) -> None:
    assert sample_places(exponent, PATTERN).tolist() == [[16 * x, 16 * y] for x, y in places]


def state(exponent: int, raster: int, pattern: tuple[int, ...] = ()) -> Lrc:
    kept = {Op.MULTISAMPLE: (0, exponent << 1), Op.RASTER: (0, raster, 0, 0, 0), Op.SAMPLE_PATTERN: pattern}
    lrc: Lrc = mock.create_autospec(Lrc, instance=True, state=kept)
    return lrc


def test_a_context_without_a_pattern_has_the_standard_places() -> None:
    assert samples_of(state(1, 1 << 12)).tolist() == [[64, 64], [192, 192]]
    assert samples_of(state(1, 1 << 12, PATTERN)).tolist() == [[192, 192], [64, 64]]


def test_samples_are_at_the_centre_without_multisampling_unless_the_api_is_direct3d_10_1() -> None:
    assert samples_of(state(2, 0, PATTERN)).tolist() == [[128, 128]] * 4
    assert samples_of(state(1, 2 << 22)).tolist() == [[64, 64], [192, 192]]
