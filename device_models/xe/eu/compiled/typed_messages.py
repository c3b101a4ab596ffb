"""Typed loads, stores and atomics for the handlers of `runtime/typed.c`."""

from __future__ import annotations

import struct

from vfio_user_xe.device_models.xe.eu.ir import Send
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp
from vfio_user_xe.device_models.xe.eu.registers import A0, GRF_BYTES

TYPED = struct.Struct("<Q5I6B6x")
"""key of the image, a0, surface shift, bytes of a coordinate, of a component, where the second part of the payload begins; coordinates, mask
of components, pointer, coordinates in the first part, operation of an atomic, whether what was there is returned."""
TYPED_HANDLERS = ("typed_load", "typed_store", "typed_atomic")
"""Handlers whose messages are a `TYPED`."""
TYPED_KEY = 1 << 62
"""In the key of an image: its level that typed messages reach, not those of its view."""

_COORDINATES = 3
_LOAD, _STORE, _ATOMIC = range(3)
"""Places among `TYPED_HANDLERS`."""
_STORES = frozenset({LscOp.STORE_QUAD, LscOp.STORE_UNCOMPRESSED_QUAD})


def typed_send(
    send: Send, message: LscMessage, key: int, shift: int, atomic_registers: int | None
) -> tuple[str, bytes] | None:
    """Handler and `struct typed` of a message; None: it has to be interpreted.

    `key` and `shift` say how its surface is found; `atomic_registers` is how many registers an atomic's operands take, if it is one.
    """
    kind = _STORE if message.op in _STORES else _LOAD if atomic_registers is None else _ATOMIC
    if kind == _LOAD and message.op is not LscOp.LOAD_QUAD:
        return None
    if (message.address_bytes, message.data_bytes, message.register_bytes) != (4, 4, 4) or message.width != send.width:
        return None
    registers = len(message.components) * message.component_registers
    returns = not send.destination.is_null and message.response_length >= registers
    data = registers if kind == _STORE else atomic_registers or 0
    if (kind == _LOAD and not returns) or (kind == _ATOMIC and (message.response_length > 0) != returns):
        return None
    if data:
        if send.source1.arf or send.length1 < data:
            return None
    elif send.length1 and (send.source1.arf or message.length0 % message.address_registers):
        return None
    first = message.length0 // message.address_registers
    # Without data, as loads and increments are, coordinates may be in both parts; with it, it is the second.
    coordinates = first if data else (message.length0 + send.length1) // message.address_registers
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
        message.op if kind == _ATOMIC else 0,
        returns,
    )
    return TYPED_HANDLERS[kind], packed
