"""Depth offsets: what the constant counts, slopes, clamps."""

from __future__ import annotations

import struct
from unittest import mock

import pytest

from tests.unit.xe.render.test_rasterizer import SIDE, setup
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.render.depth_offset import DepthOffset
from vfio_user_xe.device_models.xe.render.depth_stencil import DepthFormat
from vfio_user_xe.device_models.xe.render.outlines import FillMode
from vfio_user_xe.device_models.xe.render.state import Op

FLAT = setup((-1, -1, 0, 1), (1, -1, 0, 1), (-1, 1, 0, 1))
"""At depth 0.5."""
STEEP = setup((-1, -1, -1, 1), (1, -1, 1, 1), (-1, 1, -1, 1))
"""From depth 0 to 1 across the screen."""


def state(
    form: DepthFormat | None,
    constant: float = 0,
    scale: float = 0,
    clamp: float = 0,
    enables: int = 1 << 9,
    sf: int = 0,
) -> DepthOffset:
    words = [0, enables, *struct.unpack("<3I", struct.pack("<3f", constant, scale, clamp))]
    lrc = mock.create_autospec(Lrc, instance=True, state={Op.RASTER: words, Op.SF: [0, sf, 0, 0]})
    return DepthOffset.of(lrc, form)


@pytest.mark.parametrize(
    ("form", "unit"),
    [
        (DepthFormat.D24_UNORM_X8, 2.0**-24),
        (DepthFormat.D16_UNORM, 2.0**-16),
        (DepthFormat.D32_FLOAT, 2.0**-24),  # 0.5 is 1.0 * 2 ** -1, and a float has 23 bits behind the point
        (None, 2.0**-24),
    ],
)
def test_the_constant_counts_the_smallest_steps_of_the_depth_buffer(form: DepthFormat | None, unit: float) -> None:
    assert state(form, constant=3).offsets(FLAT).tolist() == [3 * unit]


def test_a_legacy_constant_counts_ones() -> None:
    assert state(DepthFormat.D24_UNORM_X8, constant=0.125, sf=1 << 11).offsets(FLAT).tolist() == [0.125]


def test_the_scale_is_of_the_steepest_slope() -> None:
    assert state(DepthFormat.D16_UNORM, scale=2).offsets(STEEP).tolist() == [2 / SIDE]


def test_a_clamp_limits_offsets_on_its_side() -> None:
    assert state(DepthFormat.D16_UNORM, scale=2, clamp=0.01).offsets(STEEP)[0] == pytest.approx(0.01)
    assert state(DepthFormat.D16_UNORM, scale=-2, clamp=-0.01).offsets(STEEP)[0] == pytest.approx(-0.01)
    assert state(DepthFormat.D16_UNORM, scale=-2, clamp=0.01).offsets(STEEP).tolist() == [-2 / SIDE]


def test_each_fill_mode_has_its_enable() -> None:
    assert state(None, enables=1 << 8 | 1 << 7).modes == {FillMode.WIREFRAME, FillMode.POINT}
    assert state(None).modes == {FillMode.SOLID}
