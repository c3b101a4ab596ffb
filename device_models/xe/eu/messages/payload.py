"""Load/store payloads and responses between bytes of registers and numbers by lane (execution.md 2.2).

Payloads are [threads, bytes]; numbers are unsigned 64-bit arrays of [threads, lanes] or [threads, components, lanes]. A block
(`transpose`) has one lane, and its components are consecutive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.messages.layout import REGISTER
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.uint64]

_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


_BARE = frozenset({LscOp.LOAD, LscOp.LOAD_QUAD, LscOp.ATOMIC_INC, LscOp.ATOMIC_DEC, LscOp.ATOMIC_LOAD})
"""Operations whose payload is addresses or coordinates alone."""


class PayloadError(ValueError):
    """A payload too short for what its descriptor says."""


def addresses(message: LscMessage, payload: Bytes) -> Numbers:
    """Each lane's address (typed: its U coordinate) with the immediate offset added, modulo the address size."""
    raw = _columns(payload, 0, message.address_bytes, message.width)
    mask = np.uint64((1 << 8 * message.address_bytes) - 1)
    return (raw + np.uint64(message.offset & 0xFFFF_FFFF_FFFF_FFFF)) & mask


def coordinates(message: LscMessage, payload: Bytes, count: int) -> Numbers:
    """`count` of U, V, R and LOD of a typed message: [threads, count, lanes]. Those that are not there are zero.

    A message without data may have them in both parts of its payload (brw_opt.cpp:brw_opt_split_sends).
    """
    step = message.address_registers * REGISTER
    registers = payload.shape[1] // REGISTER if message.op in _BARE else message.length0
    there = min(count, registers // message.address_registers)
    found = [_columns(payload, index * step, message.address_bytes, message.width) for index in range(there)]
    missing = [np.zeros((len(payload), message.width), dtype=np.uint64)] * (count - there)
    return np.stack(found + missing, axis=1)


def data(message: LscMessage, payload: Bytes, operand: int = 0) -> Numbers:
    """What a store carries, or an atomic's `operand` (0, of compare-and-swap also 1): [threads, components, lanes].

    Behind the addresses, wherever payload was divided into two parts; of coordinates, at the payload's end.
    """
    count = len(message.components)
    if message.transpose:
        first = message.address_registers * REGISTER
        block = _columns(payload, first, message.register_bytes, count)
        return _low_part(message, block)[:, :, None]
    step = message.component_registers * REGISTER
    # Payload in two parts: addresses may take more registers than the lanes need. IGC lays messages of one lane out for 16.
    split = payload.shape[1] > message.length0 * REGISTER
    first = message.length0 * REGISTER if message.typed or split else message.address_registers * REGISTER
    if message.typed and payload.shape[1] == first:
        first -= count * step
    first += operand * count * step
    columns = [_columns(payload, first + index * step, message.register_bytes, message.width) for index in range(count)]
    return _low_part(message, np.stack(columns, axis=1))


def response(message: LscMessage, values: Numbers) -> Bytes:
    """The response that brings `values` ([threads, components, lanes]) to their lanes."""
    length = message.response_length * REGISTER
    result = np.zeros((len(values), length), dtype=np.uint8)
    kind = _UNSIGNED[message.register_bytes]
    placed = (values << np.uint64(16) if message.high_half else values).astype(kind)
    if message.transpose:
        block = np.ascontiguousarray(placed[:, :, 0]).view(np.uint8)[:, :length]
        result[:, : block.shape[1]] = block
        return result
    step = message.component_registers * REGISTER
    for index in range(placed.shape[1]):
        column = np.ascontiguousarray(placed[:, index]).view(np.uint8)[:, : max(0, length - index * step)]
        result[:, index * step : index * step + column.shape[1]] = column
    return result


def _columns(payload: Bytes, first: int, size: int, count: int) -> Numbers:
    """`count` elements of `size` bytes from byte `first` on."""
    end = first + size * count
    if end > payload.shape[1]:
        raise PayloadError(f"a payload of {payload.shape[1]} bytes has no {count} elements of {size} bytes at {first}")
    return np.ascontiguousarray(payload[:, first:end]).view(_UNSIGNED[size]).astype(np.uint64)


def _low_part(message: LscMessage, values: Numbers) -> Numbers:
    if message.high_half:
        values = values >> np.uint64(16)
    return values & np.uint64((1 << 8 * message.data_bytes) - 1)


@dataclass(frozen=True, slots=True)
class BarrierSignal:
    """The payload of a gateway barrier message (dword 2 of its register)."""

    number: int
    """0 is the plain barrier of the group, others are named."""
    kind: int
    """0 producer and consumer, 1 producer, 2 consumer."""
    producers: int
    consumers: int


def barrier_signal(payload: NDArray[np.uint8]) -> BarrierSignal:
    """What one thread's barrier message says; `payload` is its register's 64 bytes."""
    word = int.from_bytes(payload[8:12].tobytes(), "little")
    return BarrierSignal(
        number=word & 0xFF, kind=word >> 14 & 3, producers=word >> 16 & 0xFF, consumers=word >> 24 & 0xFF
    )
