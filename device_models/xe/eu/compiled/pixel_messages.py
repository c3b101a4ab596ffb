"""Sampler messages and render target writes for the handlers of `runtime/sampler.c` and `runtime/render_write.c`."""

from __future__ import annotations

import re
import struct

from vfio_user_xe.device_models.xe.eu.ir import Register, Send
from vfio_user_xe.device_models.xe.eu.messages.message import (
    RenderCacheOp,
    RenderTargetMessage,
    SamplerMessage,
    SamplerOp,
)
from vfio_user_xe.device_models.xe.eu.messages.sampler_forms import FORMS, PACKED_CUBES, Form
from vfio_user_xe.device_models.xe.eu.registers import A0, GRF_BYTES

SAMPLE = struct.Struct("<Q8I8B8B4B4x16s")
"""surface key, a0, surface shift, bytes of a parameter, of a channel, of the response, of the payload's first part, of all of it, where
its second part lies; pointer, width, header, half, half parameters, sampler, null parts; least, reference, bias, level, zero, derivatives,
fetch, gathers; query, packed, bits of an offset, axes of offsets; kinds of the parameters."""
SAMPLER_HANDLERS = ("sampler_sample", "sampler_fetch")
"""Handlers whose messages are a `SAMPLE`."""
RENDER_WRITE = struct.Struct("<3I8B4BB7x")
"""bytes of the payload's first part, of all of it, where its second part lies; width, header, half, target, null target, source 0 alpha,
output mask, depth; dual source, null parts, binding table index; end of thread."""

_KINDS = {
    "u": 1,
    "v": 2,
    "r": 3,
    "ai": 4,
    "ref": 5,
    "lod": 6,
    "bias": 6,
    "mlod": 7,
    "dudx": 8,
    "dudy": 9,
    "dvdx": 10,
    "dvdy": 11,
    "off": 12,
    "off_r": 13,
    "lod_off": 14,
    "bias_off": 14,
}
"""enum parameter of sampler.h."""
_PACKED = re.compile(r"(?P<before>lod_|bias_|)off(?P<axes>uvr|uv)(?P<bits>\d)(?P<behind>_r|)")
_FETCHES = {
    SamplerOp.LD: 1,
    SamplerOp.LD_LZ: 2,
    SamplerOp.LD2DMS_W: 3,
    SamplerOp.LD_MCS: 4,
    SamplerOp.RESINFO: 5,
    SamplerOp.SAMPLEINFO: 6,
}
"""Messages without a sampler state: enum fetch of sampler.h."""
_NONE = Form("")


def sampler_send(send: Send, message: SamplerMessage, key: int, shift: int) -> tuple[str, bytes] | None:
    """Handler and `struct sample` of a message; `key` and `shift` say how its surface is found. None: it has to be interpreted."""
    fetch, form = _FETCHES.get(message.op, 0), FORMS.get(message.op, _NONE)
    if (form is _NONE and not fetch) or message.width != send.width:
        return None
    if send.destination.is_null or not message.response_length:
        return None
    if send.length1 and (message.length0 - message.header) % message.parameter_registers:
        return None  # one parameter would be in both parts of the payload
    names = _names(send, message, form)
    packed = next(filter(None, map(_PACKED.fullmatch, names)), None)
    if packed and message.half_parameters:
        return None
    pointer = 0 if message.surface.value is not None else 1 + (send.extended_pointer or 0)
    values = SAMPLE.pack(
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
        "mlod" in names,
        "ref" in names,
        form.takes_bias,
        form.takes_level,
        form.is_first_level,
        "dudx" in names,
        fetch,
        form.gathers,
        message.op is SamplerOp.LOD,
        message.op in PACKED_CUBES,
        int(packed["bits"]) if packed else 0,
        len(packed["axes"]) if packed else 0,
        bytes(_KINDS[_PACKED.sub(r"\g<before>off\g<behind>", name)] for name in names),
    )
    return SAMPLER_HANDLERS[bool(fetch)], values


def _names(send: Send, message: SamplerMessage, form: Form) -> list[str]:
    """The form's parameters; the least level of detail only where the message is long enough (Mesa `brw_sampler.c`, MLOD)."""
    names = form.names
    if "mlod" in names:
        first = (message.header + names.index("mlod") * message.parameter_registers) * GRF_BYTES
        if first >= _parts(send, message.length0)[1]:
            names.remove("mlod")
    return names


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
