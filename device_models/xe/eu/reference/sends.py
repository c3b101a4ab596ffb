"""Sends: payloads out of the registers of many threads, responses into them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.decode import decode
from vfio_user_xe.device_models.xe.eu.messages.layout import response_bytes
from vfio_user_xe.device_models.xe.eu.messages.lsc import surface_from_a0
from vfio_user_xe.device_models.xe.eu.messages.message import Message, SurfaceKind
from vfio_user_xe.device_models.xe.eu.port import Request
from vfio_user_xe.device_models.xe.eu.reference.operands import Rows, Storage
from vfio_user_xe.device_models.xe.eu.registers import A0, ARF_BASE, GRF_BYTES


@dataclass(frozen=True)
class Descriptors:
    """A send's descriptors as they are at run time."""

    message: Message
    surface: int | None
    length1: int


def descriptors(send: Send, storage: Storage, rows: Rows) -> list[tuple[Descriptors, NDArray[np.int64]]]:
    """The descriptors that threads have, each with the positions in `rows` of those that share it."""
    if send.descriptor is not None and send.extended_pointer is None:
        assert send.message is not None
        found = Descriptors(send.message, send.message.surface.value, send.length1)
        return [(found, np.arange(len(rows)))]
    columns = storage[rows, A0 : A0 + 32].view(np.uint32)
    words = np.zeros((len(rows), 2), dtype=np.uint32)
    if send.descriptor is None:
        words[:, 0] = columns[:, 0]
    if send.extended_pointer is not None:
        words[:, 1] = columns[:, send.extended_pointer]
    unique, inverse = np.unique(words, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [
        (_resolve(send, int(pair[0]), int(pair[1])), np.nonzero(inverse == index)[0])
        for index, pair in enumerate(unique)
    ]


def _resolve(send: Send, descriptor: int, extended: int) -> Descriptors:
    message = send.message
    in_a0 = send.extended_pointer is not None
    if message is None:
        value = send.descriptor if send.descriptor is not None else descriptor
        message = decode(send.sfid, value, send.extended, send.width, in_a0)
    surface = message.surface.value
    if surface is None and message.surface.kind is not SurfaceKind.FLAT:
        surface = surface_from_a0(message.surface.kind, extended, send.extended_bso, send.sfid)
    length1 = extended >> 6 & 0x1F if send.length1_in_extended else send.length1
    return Descriptors(message, surface, length1)


def fits(send: Send, found: Descriptors) -> bool:
    """Payload and response lie inside the register file, or there is none: architecture registers besides null hold neither."""
    parts = [(send.source0, found.message.length0), (send.source1, found.length1)]
    parts.append((send.destination, found.message.response_length))
    return all(
        register.is_null or (not register.arf and register.number + count <= ARF_BASE // GRF_BYTES)
        for register, count in parts
    )


def request(send: Send, found: Descriptors, storage: Storage, rows: Rows, lanes: NDArray[np.bool_]) -> Request:
    """The message of `rows`."""
    parts = []
    for register, count in ((send.source0, found.message.length0), (send.source1, found.length1)):
        if register.is_null:
            parts.append(np.zeros((len(rows), count * GRF_BYTES), dtype=np.uint8))
        else:
            parts.append(storage[rows, register.offset : register.offset + count * GRF_BYTES])
    return Request(
        send=send,
        message=found.message,
        surface=found.surface,
        threads=rows,
        lanes=lanes,
        payload=np.concatenate(parts, axis=1),
        length0=found.message.length0,
    )


def write_response(
    send: Send,
    message: Message,
    storage: Storage,
    rows: Rows,
    lanes: NDArray[np.bool_],
    data: NDArray[np.uint8],
) -> None:
    """Puts responses into the destination, for the lanes that take part.

    Raises:
        ValueError: `data` is not as long as the descriptor says.
    """
    length = message.response_length * GRF_BYTES
    if send.destination.is_null or not length:
        return
    if data.shape != (len(rows), length):
        raise ValueError(f"a response of {data.shape} bytes, where the descriptor says {(len(rows), length)}")
    first = send.destination.offset
    mask = response_bytes(message, lanes)
    old = storage[rows, first : first + length]
    storage[rows, first : first + length] = np.where(mask, data, old)
