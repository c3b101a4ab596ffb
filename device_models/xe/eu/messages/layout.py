"""How lanes lie in the registers of payloads and responses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.messages.message import (
    LscMessage,
    LscOp,
    Message,
    RenderTargetMessage,
    SamplerMessage,
)

REGISTER = 64


def response_bytes(message: Message, lanes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bytes of a response its lanes receive: [threads, 64 · response_length] for `lanes` [threads, width].

    Lanes that are off keep what their registers hold. Transposed messages write their elements if any lane takes part, and other
    messages without lanes all of the response.
    """
    length = message.response_length * REGISTER
    if isinstance(message, LscMessage) and message.transpose and not message.op.is_block2d:
        # The rest of the register stays: IGC keeps other values there (seen: NEO's half8 in SLM).
        taken = np.arange(length) < len(message.components) * message.register_bytes
        return lanes.any(axis=1, keepdims=True) & taken
    element = _element(message)
    if element is None:
        return np.repeat(lanes.any(axis=1, keepdims=True), length, axis=1)
    size, registers = element
    component = np.repeat(lanes, size, axis=1)[:, : registers * REGISTER]
    padded = np.zeros((len(lanes), registers * REGISTER), dtype=np.bool_)
    padded[:, : component.shape[1]] = component
    count = -(-length // padded.shape[1]) if length else 0
    return np.tile(padded, (1, max(1, count)))[:, :length]


def _element(message: Message) -> tuple[int, int] | None:
    """Bytes of a lane's element and registers of a component; None if the response has no lanes."""
    match message:
        case LscMessage() if message.op.is_block2d or message.op in (LscOp.READ_STATE, LscOp.LOAD_STATUS):
            return None
        case LscMessage():
            return message.register_bytes, message.component_registers
        case SamplerMessage():
            return (2 if message.half else 4), message.channel_registers
        case RenderTargetMessage():
            return (2 if message.half else 4), max(1, message.width * (2 if message.half else 4) // REGISTER)
    return None
