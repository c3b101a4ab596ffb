"""Sampler messages and render target writes for the handlers of `runtime/sampler.c` and `runtime/target.c`."""

from __future__ import annotations

import struct

from vfio_user_xe.device_models.xe.eu.ir import Register, Send
from vfio_user_xe.device_models.xe.eu.messages.message import (
    RenderCacheOp,
    RenderTargetMessage,
    SamplerMessage,
    SamplerOp,
)
from vfio_user_xe.device_models.xe.eu.registers import A0, GRF_BYTES

SAMPLE = struct.Struct("<Q8I8B8B")
"""surface key, a0, surface shift, bytes of a parameter, of a channel, of the response, of the payload's first part, of all of it, where
its second part lies; pointer, width, header, half, half parameters, sampler, null parts; least, reference, bias, level, zero, derivatives,
fetch."""
SAMPLER_HANDLERS = ("sampler_sample", "sampler_fetch")
"""Handlers whose messages are a `SAMPLE`."""
RENDER_WRITE = struct.Struct("<3I8B4BB7x")
"""bytes of the payload's first part, of all of it, where its second part lies; width, header, half, target, null target, source 0 alpha,
output mask, depth; dual source, null parts, binding table index; end of thread."""

_LEAST, _REFERENCE, _BIAS, _LEVEL, _ZERO, _DERIVATIVES = (1 << n for n in range(6))
_FORMS = {
    SamplerOp.SAMPLE: 0,
    SamplerOp.SAMPLE_B: _BIAS,
    SamplerOp.SAMPLE_L: _LEVEL,
    SamplerOp.SAMPLE_C: _REFERENCE,
    SamplerOp.SAMPLE_D: _DERIVATIVES,
    SamplerOp.SAMPLE_B_C: _REFERENCE | _BIAS,
    SamplerOp.SAMPLE_L_C: _REFERENCE | _LEVEL,
    SamplerOp.SAMPLE_D_C: _REFERENCE | _DERIVATIVES,
    SamplerOp.SAMPLE_LZ: _ZERO,
    SamplerOp.SAMPLE_C_LZ: _REFERENCE | _ZERO,
    SamplerOp.SAMPLE_MLOD: _LEAST,
    SamplerOp.SAMPLE_C_MLOD: _LEAST | _REFERENCE,
}
_BEFORE_LEAST = {SamplerOp.SAMPLE: 4, SamplerOp.SAMPLE_B: 4, SamplerOp.SAMPLE_C: 5, SamplerOp.SAMPLE_D: 7}
"""Parameters before the least level of detail, which such messages may have (Mesa `brw_sampler.c`, MLOD)."""
_FETCHES = {
    SamplerOp.LD: 1,
    SamplerOp.LD_LZ: 2,
    SamplerOp.LD2DMS_W: 3,
    SamplerOp.LD_MCS: 4,
    SamplerOp.RESINFO: 5,
    SamplerOp.SAMPLEINFO: 6,
}
"""Messages without a sampler state: enum fetch of sampler.h."""


def sampler_send(send: Send, message: SamplerMessage, key: int, shift: int) -> tuple[str, bytes] | None:
    """Handler and `struct sample` of a message; `key` and `shift` say how its surface is found. None: it has to be interpreted."""
    fetch, form = _FETCHES.get(message.op, 0), _FORMS.get(message.op)
    if (form is None and not fetch) or message.width != send.width:
        return None
    if send.destination.is_null or not message.response_length:
        return None
    before = message.header * GRF_BYTES + _BEFORE_LEAST.get(message.op, 0) * message.parameter_registers * GRF_BYTES
    if message.op in _BEFORE_LEAST and _parts(send, message.length0)[1] > before:
        return None
    if send.length1 and (message.length0 - message.header) % message.parameter_registers:
        return None  # one parameter would be in both parts of the payload
    pointer = 0 if message.surface.value is not None else 1 + (send.extended_pointer or 0)
    form = form or 0
    packed = SAMPLE.pack(
        key,
        A0,
        shift,
        message.parameter_registers * GRF_BYTES,
        message.channel_registers * GRF_BYTES,
        message.response_length * GRF_BYTES,
        *_parts(send, message.length0),
        pointer,
        message.width,
        message.header,
        message.half,
        message.half_parameters,
        message.sampler,
        send.source0.is_null,
        send.source1.is_null,
        *(bool(form & bit) for bit in (_LEAST, _REFERENCE, _BIAS, _LEVEL, _ZERO, _DERIVATIVES)),
        fetch,
        0,
    )
    return SAMPLER_HANDLERS[bool(fetch)], packed


def render_write(send: Send, message: RenderTargetMessage) -> bytes | None:
    """`struct render_write` of a message; None: it has to be interpreted."""
    surface = message.surface.value if message.surface.value is not None else message.target
    if message.op is not RenderCacheOp.WRITE or message.width != send.width:
        return None
    if message.stencil or surface > 0xFF:
        return None
    return RENDER_WRITE.pack(
        *_parts(send, message.length0),
        message.width,
        message.header,
        message.half,
        message.target,
        message.null_target,
        message.source0_alpha,
        message.output_mask,
        message.depth,
        message.subtype.is_dual,
        send.source0.is_null,
        send.source1.is_null,
        surface,
        send.end_of_thread,
    )


def _parts(send: Send, length0: int) -> tuple[int, int, int]:
    """Bytes of the payload's first part, of all of it, and where its second part lies."""
    return length0 * GRF_BYTES, (length0 + send.length1) * GRF_BYTES, _offset(send.source1)


def _offset(register: Register) -> int:
    return 0 if register.is_null else register.offset
