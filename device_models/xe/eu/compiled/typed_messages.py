"""Typed loads and stores for the handlers of `runtime/typed.c`."""

from __future__ import annotations

import struct

from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp
from vfio_user_xe.device_models.xe.eu.registers import A0, GRF_BYTES

TYPED = struct.Struct("<Q5I4B")
"""key of the image, a0, surface shift, bytes of a coordinate, of a component, where the second part of the payload begins; coordinates, mask
of components, pointer, coordinates in the first part."""
TYPED_HANDLERS = ("typed_load", "typed_store")
"""Handlers whose messages are a `TYPED`."""
TYPED_KEY = 1 << 62
"""In the key of an image: its level that typed messages reach, not those of its view."""

_COORDINATES = 3
_STORES = frozenset({LscOp.STORE_QUAD, LscOp.STORE_UNCOMPRESSED_QUAD})


def typed_send(send: Send, message: LscMessage, key: int, shift: int) -> tuple[str, bytes] | None:
    """Handler and `struct typed` of a message; `key` and `shift` say how its surface is found. None: it has to be interpreted."""
    is_store = message.op in _STORES
    if not is_store and message.op is not LscOp.LOAD_QUAD:
        return None
    if (message.address_bytes, message.data_bytes, message.register_bytes) != (4, 4, 4) or message.width != send.width:
        return None
    registers = len(message.components) * message.component_registers
    if is_store:
        if send.source1.arf or send.length1 < registers:
            return None
    elif (
        send.destination.is_null
        or message.response_length < registers
        or (send.length1 and (send.source1.arf or message.length0 % message.address_registers))
    ):
        return None
    first = message.length0 // message.address_registers
    # A load's coordinates may be in both parts; behind those of a store is its data.
    coordinates = first if is_store else (message.length0 + send.length1) // message.address_registers
    packed = TYPED.pack(
        key | TYPED_KEY,
        A0,
        shift,
        message.address_registers * GRF_BYTES,
        message.component_registers * GRF_BYTES,
        send.source1.offset if send.length1 else 0,
        min(_COORDINATES, coordinates),
        sum(1 << component for component in message.components),
        0 if message.surface.value is not None else 1 + (send.extended_pointer or 0),
        min(_COORDINATES, first),
    )
    return TYPED_HANDLERS[is_store], packed
