"""A server that answers as the protocol asks, in the few messages that the conformance suite begins with."""

from __future__ import annotations

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Message, encode


def right_answer(message: Message) -> bytes:
    """A device with nothing but configuration space, served correctly as far as the cases below look."""
    body = b""
    if message.command == wire.VERSION:
        body = wire.VERSION_BODY.pack(0, 0)
    elif message.command == wire.DEVICE_GET_INFO and len(message.body) == 16:
        body = wire.DEVICE_INFO.pack(16, 3, 9, 5)
    elif message.command == wire.DEVICE_GET_REGION_INFO:
        index = wire.REGION_INFO.unpack(message.body)[2]
        body = wire.REGION_INFO.pack(32, 3, index, 0, 256 if index == wire.CONFIG else 0, 0)
    elif message.command == wire.REGION_READ:
        body = message.body + bytes(wire.REGION_ACCESS.unpack(message.body)[2])
    else:
        return encode(message.command, message_id=message.id, flags=wire.TYPE_REPLY | wire.FLAG_ERROR, error=22)
    return encode(message.command, body, message_id=message.id, flags=wire.TYPE_REPLY)
