"""A message in a few words, for the disassembler's comments and for error reports."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.messages.message import (
    FenceMessage,
    GatewayMessage,
    LscMessage,
    Message,
    RenderTargetMessage,
    SamplerMessage,
    Surface,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid

_COMPONENTS = "xyzw"


def describe(sfid: Sfid, message: Message | None) -> str:
    """What a message asks for: `load.ugm.d32x4.a64`."""
    name = sfid.name.lower()
    match message:
        case None:
            return f"{name}: descriptor in a0"
        case LscMessage():
            return _lsc(name, message)
        case FenceMessage():
            return f"fence.{name} scope {message.scope} flush {message.flush}"
        case GatewayMessage():
            return message.op.name.lower()
        case SamplerMessage():
            half = "h" if message.half_parameters else ""
            return f"{message.op.name.lower()}.simd{message.width}{half}{_surface(message.surface)} s{message.sampler}"
        case RenderTargetMessage():
            last = " last" if message.last else ""
            return f"render target {message.op.name.lower()} {message.subtype.name.lower()} {message.target}{last}"
    return f"{name}: 0x{message.descriptor:08x}"


def _lsc(name: str, message: LscMessage) -> str:
    size = f"d{message.data_bytes * 8}"
    if message.register_bytes != message.data_bytes:
        size += f"u{message.register_bytes * 8}" + "h" * message.high_half
    count = len(message.components)
    if message.op.is_quad:
        size += "." + "".join(_COMPONENTS[component] for component in message.components)
    elif count > 1 or message.transpose:
        size += f"x{count}" + "t" * message.transpose
    offset = f" {message.offset:+#x}" if message.offset else ""
    operation = message.op.name.lower()
    return f"{operation}.{name}.{size}.a{message.address_bytes * 8}{_surface(message.surface)}{offset}"


def _surface(surface: Surface) -> str:
    if surface.kind is SurfaceKind.FLAT:
        return ""
    value = "a0" if surface.value is None else f"{surface.value:#x}"
    return f".{surface.kind.name.lower()}[{value}]"
