"""Descriptors of sends into typed messages, by shared function (iga MessageDecoderLSC.cpp, MessageDecoderOther.cpp)."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.messages.lsc import decode_lsc
from vfio_user_xe.device_models.xe.eu.messages.message import (
    FLAT,
    GatewayMessage,
    GatewayOp,
    Message,
    OtherMessage,
    RenderCacheOp,
    RenderTargetMessage,
    RenderTargetSubtype,
    SamplerMessage,
    SamplerOp,
    Surface,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid

BINDLESS_INDEX = 0xFC
"""Binding table index of the sampler that stands for a surface state at the offset in a0."""

_LSC = frozenset({Sfid.UGM, Sfid.UGML, Sfid.SLM, Sfid.TGM, Sfid.URB})
# Sampler SIMD mode (descriptor 29, 18:17): lanes, half parameters, integer return
_SAMPLER_MODES = {0: (16, False), 1: (16, False), 2: (32, False), 4: (32, False), 5: (16, True), 6: (32, True)}


def bits(value: int, high: int, low: int) -> int:
    """Bits high:low of a descriptor."""
    return value >> low & (1 << high - low + 1) - 1


def lengths(descriptor: int) -> tuple[int, int]:
    """Registers of the payload's first part, and of the response."""
    return bits(descriptor, 28, 25), bits(descriptor, 24, 20)


def decode(sfid: Sfid, descriptor: int, extended: int, width: int, extended_in_a0: bool = False) -> Message:
    """The message of a send of `width` lanes.

    `extended` is the extended descriptor in the instruction; with `extended_in_a0` the instruction has only an immediate
    offset, and the surface stays open (`Surface.value` None). What is not known becomes an `OtherMessage`.
    """
    if sfid in _LSC:
        message: Message | None = decode_lsc(sfid, descriptor, extended, width, extended_in_a0)
    elif sfid is Sfid.GTWY:
        message = _gateway(descriptor)
    elif sfid is Sfid.SMPL:
        message = _sampler(descriptor, extended, extended_in_a0)
    elif sfid is Sfid.RC:
        message = _render_target(descriptor, extended, width)
    else:
        message = None
    if message is not None:
        return message
    length0, response = lengths(descriptor)
    return OtherMessage(descriptor=descriptor, extended=extended, length0=length0, response_length=response)


def _gateway(descriptor: int) -> GatewayMessage | None:
    try:
        op = GatewayOp(bits(descriptor, 3, 0))
    except ValueError:
        return None
    length0, response = lengths(descriptor)
    return GatewayMessage(
        op=op,
        active_threads_only=bool(bits(descriptor, 11, 11)),
        length0=length0,
        response_length=response,
        surface=FLAT,
    )


def _sampler(descriptor: int, extended: int, extended_in_a0: bool) -> SamplerMessage | None:
    mode = bits(descriptor, 18, 17) | bits(descriptor, 29, 29) << 2
    try:
        op = SamplerOp(bits(descriptor, 16, 12) | bits(descriptor, 31, 31) << 5)
        width, half_parameters = _SAMPLER_MODES[mode]
    except (ValueError, KeyError):
        return None
    index = bits(descriptor, 7, 0)
    if index == BINDLESS_INDEX:
        surface = Surface(SurfaceKind.BSS, None if extended_in_a0 else extended & ~0x3F)
    else:
        surface = Surface(SurfaceKind.BTI, index)
    length0, response = lengths(descriptor)
    return SamplerMessage(
        op=op,
        width=width,
        header=bool(bits(descriptor, 19, 19)),
        half=bool(bits(descriptor, 30, 30)),
        half_parameters=half_parameters,
        integer_return=mode in (0, 4),
        sampler=bits(descriptor, 11, 8),
        surface=surface,
        length0=length0,
        response_length=response,
    )


def _render_target(descriptor: int, extended: int, width: int) -> RenderTargetMessage | None:
    try:
        op = RenderCacheOp(bits(descriptor, 17, 14))
        subtype = RenderTargetSubtype(bits(descriptor, 10, 8))
    except ValueError:
        return None
    length0, response = lengths(descriptor)
    return RenderTargetMessage(
        op=op,
        subtype=subtype,
        width=width,
        last=bool(bits(descriptor, 12, 12)),
        slot_group=bits(descriptor, 11, 11),
        half=bool(bits(descriptor, 30, 30)),
        per_sample=bool(bits(descriptor, 13, 13)),
        per_coarse_pixel=bool(bits(descriptor, 18, 18)),
        null_target=bool(bits(extended, 20, 20)),
        target=bits(extended, 23, 21),
        source0_alpha=bool(bits(extended, 15, 15)),
        stencil=bool(bits(extended, 14, 14)),
        depth=bool(bits(extended, 13, 13)),
        output_mask=bool(bits(extended, 12, 12)),
        header=bool(bits(descriptor, 19, 19)),
        surface=Surface(SurfaceKind.BTI, bits(descriptor, 7, 0)),
        length0=length0,
        response_length=response,
    )
