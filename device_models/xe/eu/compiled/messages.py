"""Sends for the handlers of `runtime/message.c`, `atomic.c` and the gateway; other messages are interpreted."""

from __future__ import annotations

from dataclasses import dataclass

from vfio_user_xe.device_models.xe.eu.compiled.layout import MESSAGE
from vfio_user_xe.device_models.xe.eu.compiled.pixel_messages import render_write, sampler_send
from vfio_user_xe.device_models.xe.eu.compiled.typed_messages import typed_send
from vfio_user_xe.device_models.xe.eu.ir import Register, Send
from vfio_user_xe.device_models.xe.eu.messages.message import (
    FenceMessage,
    GatewayMessage,
    GatewayOp,
    LscMessage,
    LscOp,
    RenderTargetMessage,
    SamplerMessage,
    Surface,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid
from vfio_user_xe.device_models.xe.eu.registers import A0, GRF_BYTES, GRF_COUNT

STATELESS_INDEX = 255
"""Binding table index for A32 addresses from general state base (execution.md 2.2)."""

_FLAT, _STATELESS, _BOUND, _SHARED = range(4)  # enum space of memory.h
_BEFORE_RESPONSE = 14  # values of `MESSAGE` before the response's bytes
_APART_BYTES = 64  # load_lanes: an element that is put together

# What of the dword in a0 names the surface: bits 31:6 of a surface state's offset, 31:24 of a binding table index.
_SHIFT = {SurfaceKind.SS: 6, SurfaceKind.BSS: 6, SurfaceKind.BTI: 24}

_INTEGER_ATOMICS = frozenset(LscOp(number) for number in (*range(0x08, 0x13), 0x18, 0x19, 0x1A))
_FLOAT_ATOMICS = frozenset(LscOp(number) for number in range(0x13, 0x18))


@dataclass(frozen=True, slots=True)
class PlainSend:
    """A handler's name, and its `struct message` (empty if it needs none)."""

    handler: str
    payload: Register
    message: bytes = b""


def surface_key(surface: Surface, dword: int | None = None) -> int:
    """The key of a surface in the table of surfaces: kind, and value; `dword` is that of a0 if the value is in there."""
    value = surface.value
    if value is None:
        value = (dword or 0) >> _SHIFT[surface.kind] << _SHIFT[surface.kind]
        if surface.kind is SurfaceKind.BTI:
            value >>= 24
    elif surface.kind is not SurfaceKind.BTI:
        value &= ~0x3F
    return 1 << 63 | surface.kind.value << 32 | value


def plain_send(send: Send) -> PlainSend | None:
    """How a handler serves the message; None if the message has to be interpreted."""
    message = send.message
    if send.source0.arf and not send.source0.is_null:
        return None
    if isinstance(message, RenderTargetMessage):
        packed = render_write(send, message) if not send.length1_in_extended and _fits(send) else None
        return PlainSend("render_write", send.source0, packed) if packed else None
    if send.sfid is Sfid.URB and isinstance(message, LscMessage):
        return _urb(send, message) if not send.length1_in_extended and _fits(send) else None
    if send.end_of_thread:
        ends = isinstance(message, GatewayMessage) and message.op is GatewayOp.END_OF_THREAD
        return PlainSend("gateway_end", send.source0) if ends and send.predicate is None else None
    if send.length1_in_extended or not _fits(send):
        return None
    match message:
        case GatewayMessage(op=GatewayOp.BARRIER) if not message.active_threads_only and send.predicate is None:
            return PlainSend("gateway_barrier", send.source0)
        case FenceMessage() if message.response_length == 0 or send.destination.is_null:
            return PlainSend(_fence(send, message), send.source0)
        case FenceMessage() if not send.destination.arf:
            answer = MESSAGE.pack(*[0] * _BEFORE_RESPONSE, message.response_length * GRF_BYTES, 0, 0)
            return PlainSend(f"{_fence(send, message)}_answered", send.source0, answer)
        case SamplerMessage():
            return _sampler(send, message)
        case LscMessage(typed=True):
            return _typed(send, message)
        case LscMessage():
            return _lsc(send, message)
    return None


def _fence(send: Send, message: FenceMessage) -> str:
    """A group runs on one host thread: among its threads accesses are in order without a fence of the host."""
    return "message_fence_of_group" if send.sfid is Sfid.SLM or message.scope == 0 else "message_fence"


def _sampler(send: Send, message: SamplerMessage) -> PlainSend | None:
    surface = message.surface
    if surface.value is None and surface.kind is SurfaceKind.BTI:
        return None
    key = surface_key(surface) if surface.value is not None else 1 << 63 | surface.kind.value << 32
    found = sampler_send(send, message, key, _SHIFT.get(surface.kind, 0))
    return PlainSend(found[0], send.source0, found[1]) if found else None


def _typed(send: Send, message: LscMessage) -> PlainSend | None:
    surface = message.surface
    if surface.kind is SurfaceKind.FLAT or message.op.is_block2d or send.source0.is_null:
        return None
    key = surface_key(surface) if surface.value is not None else 1 << 63 | surface.kind.value << 32
    atomic = _data_registers(message) if _is_atomic(message) and len(message.components) == 1 else None
    found = typed_send(send, message, key, _SHIFT[surface.kind], atomic)
    return PlainSend(found[0], send.source0, found[1]) if found else None


def _urb(send: Send, message: LscMessage) -> PlainSend | None:
    is_store = message.op in (LscOp.STORE, LscOp.STORE_QUAD)
    if not is_store and message.op not in (LscOp.LOAD, LscOp.LOAD_QUAD):
        return None
    if message.transpose or message.vnni or message.address_bytes != 4 or message.width != send.width:
        return None
    if (message.data_bytes, message.register_bytes) != (4, 4) or send.source0.is_null:
        return None
    if message.components != tuple(range(len(message.components))):
        return None
    if send.end_of_thread and (not is_store or send.predicate is not None):
        return None
    data = _data(send, message) if message.components else 0
    if data is None or (is_store and message.components and not data and send.source1.is_null):
        return None
    if not is_store and (send.destination.is_null or not _is_answered_whole(message)):
        return None
    packed = MESSAGE.pack(
        message.address_bytes,
        message.data_bytes,
        message.register_bytes,
        len(message.components),
        _FLAT,
        send.end_of_thread,
        not is_store,
        0,
        0,
        0,
        message.component_registers * GRF_BYTES,
        data,
        A0,
        0,
        message.response_length * GRF_BYTES,
        message.offset,
        0,
    )
    return PlainSend("urb_store" if is_store else "urb_load", send.source0, packed)


def _block2d(send: Send, message: LscMessage) -> PlainSend | None:
    if send.width != 1 or send.sfid not in (Sfid.UGM, Sfid.UGML) or message.surface.kind is not SurfaceKind.FLAT:
        return None
    if message.typed or send.source0.is_null or message.length0 < 1 or (send.length1 and send.source1.arf):
        return None
    is_store = message.op is LscOp.STORE_BLOCK2D
    # What is stored is behind the first register of the payload; all of it must lie together.
    if message.length0 > 1 and send.length1:
        return None
    data = send.source0.offset + GRF_BYTES if message.length0 > 1 else send.source1.offset if send.length1 else 0
    given = message.length0 - 1 + send.length1 if is_store else message.response_length
    packed = MESSAGE.pack(
        message.address_bytes,
        message.data_bytes,
        message.register_bytes,
        1,
        _FLAT,
        int(message.transpose) | int(message.vnni and not message.transpose) << 1,
        int(message.response_length > 0 and not send.destination.is_null),
        0,
        0,
        0,
        0,
        data,
        A0,
        0,
        given * GRF_BYTES,
        message.y_offset << 32 | message.x_offset & 0xFFFF_FFFF,
        0,
    )
    return PlainSend(f"message_{'store' if is_store else 'load'}_block2d", send.source0, packed)


def _lsc(send: Send, message: LscMessage) -> PlainSend | None:
    if message.op.is_block2d:
        return _block2d(send, message)
    handler = _handler(message)
    space = _space(send, message)
    data = _data(send, message)
    if handler is None or space is None or data is None or send.source0.is_null:
        return None
    if message.address_bytes not in (4, 8) or message.width != send.width:
        return None
    if not message.transpose and len(message.components) * message.data_bytes > _APART_BYTES:
        return None
    if not _is_answered_whole(message):
        return None
    if message.components != tuple(range(len(message.components))) and not _is_atomic(message):
        return None
    surface, pointer = 0, 0
    if space == _BOUND:
        pointer = 0 if message.surface.value is not None else 1 + (send.extended_pointer or 0)
        surface = 1 << 63 | message.surface.kind.value << 32 if pointer else surface_key(message.surface)
    packed = MESSAGE.pack(
        message.address_bytes,
        message.data_bytes,
        message.register_bytes,
        len(message.components),
        space,
        int(message.op),
        int(message.response_length > 0 and not send.destination.is_null),
        pointer,
        int(message.high_half),
        int(_is_plain(message)),
        message.component_registers * GRF_BYTES,
        data,
        A0,
        _SHIFT.get(message.surface.kind, 0),
        message.response_length * GRF_BYTES,
        message.offset,
        surface,
    )
    return PlainSend(handler, send.source0, packed)


def _fits(send: Send) -> bool:
    """Payload and response lie inside the register file, as `reference/sends.py:fits` has it."""
    message = send.message
    if message is None:
        return False
    parts = ((send.source0, message.length0), (send.source1, send.length1), (send.destination, message.response_length))
    return all(
        register.is_null or (not register.arf and register.number + count <= GRF_COUNT) for register, count in parts
    )


def _is_answered_whole(message: LscMessage) -> bool:
    """The response has room for all that is loaded, or there is none."""
    if message.response_length == 0 or message.op.is_store:
        return True
    size = len(message.components) * (
        message.data_bytes if message.transpose else message.component_registers * GRF_BYTES
    )
    return size <= message.response_length * GRF_BYTES


def _is_atomic(message: LscMessage) -> bool:
    return message.op in _INTEGER_ATOMICS or message.op in _FLOAT_ATOMICS


def _is_plain(message: LscMessage) -> bool:
    return (
        message.components == (0,)
        and not message.transpose
        and not message.high_half
        and message.data_bytes == message.register_bytes
        and message.width >= 16
    )


def _handler(message: LscMessage) -> str | None:
    if message.vnni or message.op.is_block2d:
        return None
    block = "_block" if message.transpose else ""
    if block and (message.high_half or message.data_bytes != message.register_bytes):
        return None
    if message.op is LscOp.LOAD or (message.op is LscOp.LOAD_QUAD and not block):
        return f"message_load{block}"
    if message.op in (LscOp.STORE, LscOp.STORE_UNCOMPRESSED) or (message.op is LscOp.STORE_QUAD and not block):
        return f"message_store{block}"
    if message.transpose or message.high_half or len(message.components) != 1:
        return None
    if message.op in _INTEGER_ATOMICS and message.data_bytes in (2, 4, 8):
        return "message_atomic"
    if message.op in _FLOAT_ATOMICS and message.data_bytes in (4, 8):
        return "message_atomic"
    return None


def _space(send: Send, message: LscMessage) -> int | None:
    if send.sfid is Sfid.SLM:
        return _SHARED if message.surface.kind is SurfaceKind.FLAT else None
    if send.sfid not in (Sfid.UGM, Sfid.UGML):
        return None
    kind, value = message.surface.kind, message.surface.value
    if kind is SurfaceKind.FLAT:
        return _FLAT
    if kind is SurfaceKind.BTI and value == STATELESS_INDEX:
        return _STATELESS
    return _BOUND


def _data(send: Send, message: LscMessage) -> int | None:
    """Where a store's or an atomic's data begins: behind the addresses in source 0, or at source 1.

    None: it is in no place that handlers read, or the payload is too short for it.
    """
    addresses = 1 if message.transpose else message.address_registers
    if message.length0 < addresses:
        return None
    if message.op in (LscOp.LOAD, LscOp.LOAD_QUAD):
        return 0
    needed = _data_registers(message)
    if message.length0 == addresses or (send.length1 and not message.transpose):
        if send.length1 == 0:
            return None if needed else 0
        return send.source1.offset if not send.source1.arf and needed <= send.length1 else None
    if send.length1 == 0 and needed <= message.length0 - addresses:
        return send.source0.offset + addresses * GRF_BYTES
    return None


def _data_registers(message: LscMessage) -> int:
    """Registers of data that a store or an atomic takes."""
    if message.op in (LscOp.ATOMIC_INC, LscOp.ATOMIC_DEC, LscOp.ATOMIC_LOAD):
        return 0
    if message.transpose:
        return -(-len(message.components) * message.register_bytes // GRF_BYTES)
    operands = 2 if message.op in (LscOp.ATOMIC_CAS, LscOp.ATOMIC_FCAS) else 1
    return operands * len(message.components) * message.component_registers
