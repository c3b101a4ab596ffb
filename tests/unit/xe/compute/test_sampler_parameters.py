"""What the sampler finds in messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.xe.compute.test_filtering import SURFACE
from vfio_user_xe.device_models.xe.compute.sampler_parameters import Parameters
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.eu.messages.message import SamplerMessage, SamplerOp
from vfio_user_xe.device_models.xe.eu.messages.sampler_forms import FORMS

CUBES = replace(SURFACE, type=SurfaceType.CUBE, array=True)


def found(
    op: SamplerOp, *values: float | int, surface: SurfaceState = SURFACE, header: int | None = None
) -> Parameters:
    """Parameters of a message of 16 lanes that all have these values: floats, or integers as bits."""
    rows: list[NDArray[np.uint32]] = []
    if header is not None:
        rows.append(np.array([0, 0, header, *[0] * 13], dtype=np.uint32))
    for value in values:
        bits = np.uint32(value) if isinstance(value, int) else np.float32(value).view(np.uint32)
        rows.append(np.full(16, bits))
    message = SamplerMessage(op=op, width=16, header=header is not None)
    return Parameters(message, FORMS[op], surface, np.concatenate(rows).view(np.uint8).reshape(1, -1))


def bits_of(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def offsets(parameters: Parameters) -> list[float]:
    return [float(np.broadcast_to(offset, 16)[0]) for offset in parameters.places.offsets]


def test_offsets_of_the_header_are_four_bits_each() -> None:
    assert offsets(found(SamplerOp.SAMPLE, 0.5, 0.25, header=0xF78)) == [-1, 7, -8]


def test_offsets_of_four_bits_are_packed_below_the_level_of_detail() -> None:
    parameters = found(SamplerOp.SAMPLE_PO_L, bits_of(2.5) | 0x8F3, 0.5, 0.25, 0.75)
    assert offsets(parameters) == [3, -1, -8]
    assert parameters.detail is not None
    assert parameters.detail[0] == 2.5
    assert [axis[0] for axis in (parameters.places.u, parameters.places.v, parameters.places.r)] == [0.5, 0.25, 0.75]


def test_offsets_of_six_bits_reach_31_texels() -> None:
    assert offsets(found(SamplerOp.GATHER4_PO, 0.5, 0.25, 0x20 << 6 | 0x1F, 3.0)) == [31, -32, 0]


def test_a_layer_is_packed_below_offsets() -> None:
    parameters = found(SamplerOp.SAMPLE_PO_C, 0.125, 0.5, 0.25, 0xF1 << 12 | 5)
    assert offsets(parameters) == [1, -1, 0]
    assert parameters.places.layer[0] == 5
    assert parameters.reference is not None
    assert parameters.reference[0] == 0.125


@pytest.mark.parametrize("op", [SamplerOp.SAMPLE_L, SamplerOp.SAMPLE_B])
def test_the_index_of_a_cube_is_packed_below_level_or_bias(op: SamplerOp) -> None:
    parameters = found(op, bits_of(1.5) | 37, 0.5, 0.25, 0.75, surface=CUBES)
    assert parameters.places.layer[0] == 37
    assert parameters.detail is not None
    assert parameters.detail[0] == 1.5


def test_a_least_level_that_the_message_does_not_reach_is_none() -> None:
    assert found(SamplerOp.SAMPLE, 0.5, 0.25, 0.0).least is None
    least = found(SamplerOp.SAMPLE, 0.5, 0.25, 0.0, 0.0, 2.0).least
    assert least is not None
    assert least[0] == 2


def test_slopes_follow_their_coordinates() -> None:
    parameters = found(SamplerOp.SAMPLE_D, 0.5, 0.1, 0.2, 0.25, 0.3, 0.4, 6.0)
    assert [float(np.float32(axis[0])) for pair in parameters.slopes for axis in pair] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4]
    )
    assert parameters.places.layer[0] == 6
