from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.eu.messages.decode import decode
from vfio_user_xe.device_models.xe.eu.messages.layout import response_bytes
from vfio_user_xe.device_models.xe.eu.messages.lsc import surface_from_a0
from vfio_user_xe.device_models.xe.eu.messages.message import (
    FLAT,
    FenceMessage,
    GatewayMessage,
    GatewayOp,
    LscMessage,
    LscOp,
    OtherMessage,
    RenderCacheOp,
    RenderTargetMessage,
    SamplerMessage,
    SamplerOp,
    Surface,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid


def lsc(descriptor: int, extended: int = 0, sfid: Sfid = Sfid.UGM, width: int = 32, in_a0: bool = False) -> LscMessage:
    message = decode(sfid, descriptor, extended, width, in_a0)
    assert isinstance(message, LscMessage)
    return message


def test_load_d32_a64_flat() -> None:
    message = lsc(0x08200580)
    assert (message.op, message.address_bytes, message.data_bytes) == (LscOp.LOAD, 8, 4)
    assert (message.length0, message.response_length, message.surface) == (4, 2, FLAT)
    assert (message.address_registers, message.component_registers) == (4, 2)


def test_transposed_block_load_of_16_dwords_from_a_surface_state() -> None:
    message = lsc(0x4200D500, width=1, in_a0=True)
    assert message.transpose
    assert len(message.components) == 16
    assert message.surface == Surface(SurfaceKind.SS, None)


def test_typed_block_of_igts_shaders() -> None:
    message = lsc(0x64000007, sfid=Sfid.TGM, width=1)
    assert message.op is LscOp.STORE_BLOCK2D
    assert (message.typed, message.address_bytes, message.length0) == (True, 4, 2)
    assert message.surface == Surface(SurfaceKind.BTI, 0)
    load = lsc(0x62100003, sfid=Sfid.TGM, width=1)
    assert (load.op, load.length0, load.response_length) == (LscOp.LOAD_BLOCK2D, 1, 1)


@pytest.mark.parametrize(
    ("descriptor", "extended", "in_a0", "offset"),
    [
        (0x08200580, 0x12345000, False, 0x12345),
        (0x08200580, 0xFFFFF000, False, -1),
        (0x68200500, 0x05FFF000, False, -1),
        (0x68200500, 0x057FF000, False, 0x7FF),
        (0x4200D500, 0x0008F000, True, 0x1F),
        (0x4200D500, 0xFFF80000, True, -16),
    ],
)
def test_immediate_offsets_by_kind_of_address(descriptor: int, extended: int, in_a0: bool, offset: int) -> None:
    assert lsc(descriptor, extended, in_a0=in_a0).offset == offset


def test_block2d_offsets_are_x_in_21_12_and_y_in_31_22() -> None:
    message = lsc(0x02800403 | 1 << 7, 0x3FF << 12 | 5 << 22, width=1)
    assert (message.x_offset, message.y_offset, message.vnni) == (-1, 5, True)
    assert message.address_bytes == 8


def test_binding_table_index_255_is_kept_for_the_executor() -> None:
    assert lsc(0x6200D500, 0xFF040000, width=1).surface == Surface(SurfaceKind.BTI, 255)
    assert lsc(0x6200D500, 0xFF040000, width=1).offset == 0x40


@pytest.mark.parametrize(
    ("code", "memory", "register", "high"),
    [
        (0, 1, 1, False),
        (1, 2, 2, False),
        (2, 4, 4, False),
        (3, 8, 8, False),
        (4, 1, 4, False),
        (5, 2, 4, False),
        (6, 2, 4, True),
    ],
)
def test_data_sizes(code: int, memory: int, register: int, high: bool) -> None:
    message = lsc(0x08200180 | code << 9)
    assert (message.data_bytes, message.register_bytes, message.high_half) == (memory, register, high)


def test_quad_messages_have_a_component_mask() -> None:
    message = lsc(0x0840_0502 | 0b1010 << 12, sfid=Sfid.TGM, width=16)
    assert message.components == (1, 3)
    assert not message.transpose


@pytest.mark.parametrize("number", [*range(0x08, 0x1B), 0x28, 0x29, 0x2A])
def test_atomics_are_told_from_loads_and_stores(number: int) -> None:
    op = lsc(0x08200580 & ~0x3F | number).op
    assert op.is_atomic
    assert not op.is_store


def test_fence_fields() -> None:
    message = decode(Sfid.UGM, 0x0210_151F | 2 << 12, 0, 1)
    assert isinstance(message, FenceMessage)
    assert (message.scope, message.flush) == (2, 3)


@pytest.mark.parametrize("descriptor", [0x02000010, 0x02000000])
def test_both_compilers_end_of_thread(descriptor: int) -> None:
    message = decode(Sfid.GTWY, descriptor, 0, 1)
    assert isinstance(message, GatewayMessage)
    assert message.op is GatewayOp.END_OF_THREAD


def test_barrier_signal() -> None:
    message = decode(Sfid.GTWY, 0x02000004, 0, 1)
    assert isinstance(message, GatewayMessage)
    assert (message.op, message.length0, message.response_length) == (GatewayOp.BARRIER, 1, 0)


def test_sampler_fields() -> None:
    message = decode(Sfid.SMPL, 1 << 31 | 2 << 17 | 0x18 << 12 | 3 << 8 | 7 | 1 << 19 | 4 << 25 | 8 << 20, 0, 32)
    assert isinstance(message, SamplerMessage)
    assert (message.op, message.width, message.sampler) == (SamplerOp.SAMPLE_PO_LZ, 32, 3)
    assert (message.surface, message.header) == (Surface(SurfaceKind.BTI, 7), True)
    assert (message.length0, message.response_length, message.parameter_registers) == (4, 8, 2)


def test_bindless_sampler_takes_its_surface_from_a0() -> None:
    message = decode(Sfid.SMPL, 1 << 17 | 0x1A << 12 | 0xFC, 0, 16, extended_in_a0=True)
    assert message.surface == Surface(SurfaceKind.BSS, None)


def test_render_target_write() -> None:
    message = decode(Sfid.RC, 0xC << 14 | 1 << 12 | 5 | 2 << 25, 3 << 21 | 1 << 12, 16)
    assert isinstance(message, RenderTargetMessage)
    assert (message.op, message.last, message.target, message.output_mask) == (RenderCacheOp.WRITE, True, 3, True)
    assert message.surface == Surface(SurfaceKind.BTI, 5)


def test_urb_messages_are_loads_and_stores() -> None:
    message = lsc(0x0200_3504 | 1 << 25, 0x00010000, sfid=Sfid.URB, width=16)
    assert (message.op, len(message.components), message.offset) == (LscOp.STORE, 4, 16)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Sfid), st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF_FFFF), st.booleans())
def test_any_descriptor_is_decoded_with_its_lengths(sfid: Sfid, descriptor: int, extended: int, in_a0: bool) -> None:
    message = decode(sfid, descriptor, extended, 16, in_a0)
    assert (message.length0, message.response_length) == (descriptor >> 25 & 15, descriptor >> 20 & 31)


def test_unknown_messages_keep_their_descriptor() -> None:
    assert decode(Sfid.RTA, 0x1234, 0, 16) == OtherMessage(descriptor=0x1234, length0=0)


@pytest.mark.parametrize(
    ("kind", "value", "bso", "sfid", "expected"),
    [
        (SurfaceKind.BTI, 0x12000000, False, Sfid.UGM, 0x12),
        (SurfaceKind.SS, 0x12345FFF, False, Sfid.UGM, 0x12345FC0),
        (SurfaceKind.BSS, 0x12345FFF, True, Sfid.SMPL, 0x12345FC0),
        (SurfaceKind.BSS, 0x12345FFF, False, Sfid.SMPL, 0x12345800),
    ],
)
def test_surfaces_in_a0(kind: SurfaceKind, value: int, bso: bool, sfid: Sfid, expected: int) -> None:
    assert surface_from_a0(kind, value, bso, sfid) == expected


def test_response_of_lanes_leaves_out_those_that_are_off() -> None:
    lanes = np.zeros((1, 16), dtype=np.bool_)
    lanes[0, [0, 5]] = True
    mask = response_bytes(lsc(0x0420_1500, width=16), lanes)
    assert mask.shape == (1, 128)
    per_component = mask[0].reshape(2, 16, 4).all(axis=2)
    assert per_component.tolist() == [lanes[0].tolist()] * 2


def test_response_of_narrow_elements_fills_only_the_lower_part_of_a_register() -> None:
    lanes = np.ones((1, 16), dtype=np.bool_)
    mask: Any = response_bytes(lsc(0x0410_0100, width=16), lanes)
    assert mask[0].tolist() == [True] * 16 + [False] * 48


def test_response_of_a_block_is_whole() -> None:
    lanes = np.ones((2, 1), dtype=np.bool_)
    lanes[1] = False
    mask = response_bytes(lsc(0x0210_D500, width=1), lanes)
    assert mask.all(axis=1).tolist() == [True, False]
