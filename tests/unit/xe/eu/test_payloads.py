from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vfio_user_xe.device_models.xe.eu.messages.decode import decode
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage
from vfio_user_xe.device_models.xe.eu.messages.payload import (
    BarrierSignal,
    PayloadError,
    addresses,
    barrier_signal,
    coordinates,
    data,
    response,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid


def lsc(descriptor: int, extended: int = 0, width: int = 16, sfid: Sfid = Sfid.UGM) -> LscMessage:
    message = decode(sfid, descriptor, extended, width)
    assert isinstance(message, LscMessage)
    return message


def payload(*parts: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Parts, each in whole registers, as one thread's payload."""
    padded = []
    for part in parts:
        raw = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
        padded.append(np.pad(raw, (0, -len(raw) % 64)))
    return np.concatenate(padded)[None, :]


def test_addresses_have_the_offset_added_modulo_their_size() -> None:
    near_top = np.full(16, 0xFFFF_FFFC, np.uint32)
    assert addresses(lsc(0x02000500, 0x00008000), payload(near_top))[0].tolist() == [4] * 16
    wide = np.full(16, 0xFFFF_FFFC, np.uint64)
    assert addresses(lsc(0x04000580, 0xFFFF8000), payload(wide))[0].tolist() == [0xFFFF_FFF4] * 16


@pytest.mark.parametrize(("code", "size"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 4), (5, 4), (6, 4)])
@pytest.mark.parametrize("vector", [0, 1, 3])
@settings(max_examples=10, deadline=None)
@given(data_source=st.data())
def test_what_a_response_brings_is_what_a_store_carries(code: int, size: int, vector: int, data_source: Any) -> None:
    count = (1, 2, 3, 4)[vector]
    message = lsc(0x04000184 | code << 9 | vector << 12)
    registers = max(1, 16 * size // 64) * count
    load = lsc(0x04000180 | code << 9 | vector << 12 | registers << 20)
    limit = (1 << 8 * message.data_bytes) - 1
    numbers = data_source.draw(st.lists(st.integers(0, limit), min_size=16 * count, max_size=16 * count))
    values = np.array(numbers, dtype=np.uint64).reshape(1, count, 16)
    stored = payload(np.zeros(16, np.uint64), response(load, values)[0])
    assert np.array_equal(data(message, stored), values)


def test_blocks_are_consecutive_elements() -> None:
    message = lsc(0x0200D504, width=1)
    stored = payload(np.array([0x1000], np.uint32), np.arange(16, dtype=np.uint32))
    assert data(message, stored)[0, :, 0].tolist() == list(range(16))
    load = lsc(0x0210D500, width=1)
    values = np.arange(16, dtype=np.uint64).reshape(1, 16, 1)
    assert response(load, values)[0].view(np.uint32).tolist() == list(range(16))


def test_compare_and_swap_has_two_operands() -> None:
    message = lsc(0x04100592)
    sent = payload(np.zeros(16, np.uint64), np.arange(16, dtype=np.uint32), np.arange(16, dtype=np.uint32) + 100)
    assert data(message, sent)[0, 0].tolist() == list(range(16))
    assert data(message, sent, 1)[0, 0].tolist() == list(range(100, 116))


def test_typed_coordinates_that_are_missing_are_zero_and_data_may_follow_in_the_first_part() -> None:
    u, v, r = (np.full(16, n, np.uint32) for n in (5, 6, 7))
    message = lsc(0x0400_1506, sfid=Sfid.TGM)
    sent = payload(u, v, r)
    assert coordinates(message, sent, 4)[0, :, 0].tolist() == [5, 6, 0, 0]
    assert data(message, sent)[0, 0].tolist() == [7] * 16


def test_coordinates_of_a_message_without_data_go_on_in_the_second_part() -> None:
    u, v, r = (np.full(16, n, np.uint32) for n in (5, 6, 7))
    load, increment = lsc(0x6240_F502, sfid=Sfid.TGM), lsc(0x6200_1508, sfid=Sfid.TGM)
    assert load.length0 == increment.length0 == 1
    for message in (load, increment):
        assert coordinates(message, payload(u, v, r), 3)[0, :, 0].tolist() == [5, 6, 7]


def test_a_short_payload_is_an_error() -> None:
    with pytest.raises(PayloadError, match="a payload of 64 bytes has no 16 elements of 8 bytes at 0"):
        addresses(lsc(0x04000580), payload(np.zeros(16, np.uint32)))


def test_barrier_fields() -> None:
    register = np.zeros(16, np.uint32)
    register[2] = 3 | 1 << 14 | 8 << 16 | 6 << 24
    assert barrier_signal(register.view(np.uint8)) == BarrierSignal(3, 1, 8, 6)
