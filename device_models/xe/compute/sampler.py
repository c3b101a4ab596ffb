"""The sampler's messages: which parameters they carry, and what they are answered with.

Parameters come in the order of Mesa's `brw_lower_logical_sends.cpp:lower_sampler_logical_send`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.anisotropy import Stretch, stretched
from vfio_user_xe.device_models.xe.compute.cubes import Floats
from vfio_user_xe.device_models.xe.compute.filtering import Mips, detail, filtered, gather, level_of_detail
from vfio_user_xe.device_models.xe.compute.sampler_parameters import Parameters, parameter
from vfio_user_xe.device_models.xe.compute.sampler_state import STATE_BYTES, Reduction, SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image
from vfio_user_xe.device_models.xe.eu.messages.message import SamplerMessage, SamplerOp
from vfio_user_xe.device_models.xe.eu.messages.sampler_forms import FORMS, Form

_REGISTER = 64


_FETCHES = {SamplerOp.LD: (0, 1, 3), SamplerOp.LD_LZ: (0, 1, 2)}
"""Which parameters are u, v and r; of LD, level is the third."""
_LEVEL = 2
_SAMPLE_PLACE, _SAMPLE_PLACE_HALVES = 3, 5
"""Parameters of ld2dms_w before u: the sample, and control words: two dwords, or four halves."""


class UnknownSample(ValueError):
    """A sampler message that is not emulated; the text says which."""


def needs_state(message: SamplerMessage) -> bool:
    """Whether a sampler state says how to do it."""
    return message.op in FORMS


def addresses(
    message: SamplerMessage, data: NDArray[np.uint8], stage: int, bindless: int, dynamic: int
) -> NDArray[np.int64]:
    """[threads]: where their sampler states are: by the header's pointer, or that of the `stage`."""
    offset = STATE_BYTES * message.sampler
    if not message.header:
        return np.full(len(data), dynamic + stage + offset, dtype=np.int64)
    pointers = np.ascontiguousarray(data[:, 12:16]).view(np.uint32)[:, 0].astype(np.int64)
    return np.asarray(np.where(pointers & 1, bindless, dynamic) + (pointers & ~0x1F) + offset)


def sample(
    message: SamplerMessage,
    mips: Mips,
    state: SamplerState | None,
    data: NDArray[np.uint8],
    lanes: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The responses of threads that share surface and sampler: [threads, response bytes].

    Raises:
        UnknownSample: the message is not emulated.
        UnknownImage: the surface's format or layout is not emulated.
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    form = FORMS.get(message.op)
    if message.op is SamplerOp.LD_MCS:
        return _response(message, data, _control(mips.surface, lanes))
    if message.op is SamplerOp.LD2DMS_W:
        colours = _fetched_samples(message, mips, data, lanes)
    elif message.op is SamplerOp.SAMPLEINFO:
        counts = np.zeros((*lanes.shape, 4), dtype=np.uint64)
        counts[..., 0] = mips.surface.samples
        return _response(message, data, counts)
    elif message.op in _FETCHES:
        colours = _fetched(message, mips, data, lanes)
    elif form is not None and state is not None:
        parameters = Parameters(message, form, mips.surface, data)
        if message.op is SamplerOp.LOD:
            return _response(message, data, _details(mips, state, parameters))
        colours = np.zeros((*lanes.shape, 4))
        colours[lanes] = _sampled(form, mips, state, parameters, lanes.reshape(-1))
        if form.gathers:
            return _response(message, data, _bits(message, mips.image(0), colours))
    elif message.op is SamplerOp.RESINFO:
        return _response(message, data, _sizes(message, mips, data))
    else:
        raise UnknownSample(f"sampler message {message.op.name}")
    colours = _swizzled(mips.surface, colours)
    return _response(message, data, _bits(message, mips.image(0), colours))


def _sampled(form: Form, mips: Mips, state: SamplerState, parameters: Parameters, lanes: NDArray[np.bool_]) -> Floats:
    """[lanes that are on, 4]"""
    places = parameters.places
    reference = None if parameters.reference is None else parameters.reference[lanes]
    lod = _level(form, mips, state, parameters)[lanes]
    if form.gathers:
        channel = mips.surface.swizzle[parameters.channel]
        if channel < 4:
            return np.full((len(lod), 4), float(channel == 1))
        return gather(mips, state, places.of(lanes), channel - 4, lod, reference)
    if state.anisotropy > 1 and state.reduction is Reduction.STANDARD and mips.surface.type is SurfaceType.D2:
        stretch = _stretch(mips, state, form, parameters)
        if stretch is not None:
            return stretched(mips, state, places.of(lanes), lod, stretch.of_lanes(lanes), reference)
    return filtered(mips, state, places.of(lanes), lod, reference)


def _level(form: Form, mips: Mips, state: SamplerState, parameters: Parameters) -> Floats:
    """Level of detail of all lanes, biased and clamped."""
    places = parameters.places
    if form.is_first_level:
        return np.zeros(len(places.u))
    if form.takes_level and parameters.detail is not None:
        lod = parameters.detail
    elif parameters.slopes:
        lod = _from_slopes(mips, state, parameters.slopes)
    elif mips.levels == 1 and state.linear == state.linear_min:
        lod = np.zeros(len(places.u))  # nothing depends on it
    else:
        lod = level_of_detail(mips, state, places)
        if parameters.detail is not None:
            lod = lod + parameters.detail
    lod = np.nan_to_num(lod + state.bias, nan=0.0, neginf=-1e3, posinf=1e3)
    lod = np.clip(lod, state.least, max(state.least, state.most))
    return lod if parameters.least is None else np.fmax(lod, parameters.least)


def _stretch(mips: Mips, state: SamplerState, form: Form, parameters: Parameters) -> Stretch | None:
    """Footprints, of messages that have any."""
    if form.zero or form.takes_level:
        return None
    if parameters.slopes:
        (du, dv), (to_u, to_v) = zip(*parameters.slopes, strict=True)
        return Stretch.of(mips.image(0), state.anisotropy, (du, dv), (to_u, to_v))
    return Stretch.of_quads(mips.image(0), state.anisotropy, parameters.places)


def _from_slopes(mips: Mips, state: SamplerState, slopes: list[tuple[Floats, Floats]]) -> Floats:
    image = mips.image(0)
    right = np.zeros(len(slopes[0][0]))
    down = np.zeros(len(right))
    sizes: tuple[float, ...] = (image.width, image.height, image.depth)
    if mips.surface.type is SurfaceType.CUBE:
        sizes = (image.width / 2,) * 3
    for (dx, dy), size in zip(slopes, sizes, strict=False):
        right += (dx * size) ** 2
        down += (dy * size) ** 2
    return detail(right, down, state.anisotropy)


def _details(mips: Mips, state: SamplerState, parameters: Parameters) -> NDArray[np.uint64]:
    """Of LOD: the level that would be looked at, and what was computed."""
    computed = np.nan_to_num(level_of_detail(mips, state, parameters.places) + state.bias, neginf=-1e3, posinf=1e3)
    clamped = np.clip(np.clip(computed, state.least, state.most), 0, mips.levels - 1)
    values = np.stack([clamped, computed, np.zeros_like(computed), np.zeros_like(computed)], axis=1)
    if parameters.message.half:
        bits = np.ascontiguousarray(values.astype(np.float16)).view(np.uint16).astype(np.uint64)
    else:
        bits = np.ascontiguousarray(values.astype(np.float32)).view(np.uint32).astype(np.uint64)
    return bits.reshape(-1, parameters.message.width, 4)


def _fetched(
    message: SamplerMessage, mips: Mips, data: NDArray[np.uint8], lanes: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[threads, lanes, 4]: texels; zero outside."""
    x, y, layer = (parameter(message, data, index, integer=True).astype(np.int64) for index in _FETCHES[message.op])
    level = np.zeros_like(x)
    if message.op is SamplerOp.LD:
        level = parameter(message, data, _LEVEL, integer=True).astype(np.int64)
    if message.header:
        word = int(data[0, 8:12].view(np.uint32)[0])
        x = x + (word >> 8 & 0xF) - (word >> 8 & 8) * 2
        y = y + (word >> 4 & 0xF) - (word >> 4 & 8) * 2
    surface = mips.surface
    if surface.type in (SurfaceType.BUFFER, SurfaceType.STRUCTURED):
        y = layer = np.zeros_like(x)
        level = np.zeros_like(x)
    elif surface.type is SurfaceType.D1:
        y, layer = np.zeros_like(x), y if surface.array else np.zeros_like(x)
    elif not surface.array and surface.type not in (SurfaceType.D3, SurfaceType.CUBE):
        layer = np.zeros_like(x)
    colours = np.zeros((*x.shape, 4))
    for number in np.unique(level[lanes]).tolist():
        if not 0 <= number < mips.levels:
            continue
        image = mips.image(number)
        there = lanes & (level == number) & image.inside(x, y, layer)
        colours[there] = image.texels(x[there], y[there], layer[there])
    return colours


def _control(surface: SurfaceState, lanes: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Multisample control: every sample is in its own plane, since nothing is compressed."""
    width = {2: 1, 4: 2, 8: 4, 16: 4}.get(surface.samples, 0)
    word = sum(sample << width * sample for sample in range(surface.samples)) if width else 0
    words = np.zeros((*lanes.shape, 4), dtype=np.uint64)
    words[..., 0], words[..., 1] = word & 0xFFFF_FFFF, word >> 32
    return words


def _fetched_samples(
    message: SamplerMessage, mips: Mips, data: NDArray[np.uint8], lanes: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[threads, lanes, 4]: samples of texels: parameters are the sample, control words, u, v, r."""
    first = _SAMPLE_PLACE_HALVES if message.half_parameters else _SAMPLE_PLACE
    sample, x, y, layer = (
        parameter(message, data, index, integer=True).astype(np.int64) for index in (0, first, first + 1, first + 2)
    )
    surface, image = mips.surface, mips.image(0)
    if not surface.array:
        layer = np.zeros_like(x)
    colours = np.zeros((*x.shape, 4))
    there = lanes & image.inside(x, y, layer) & (sample >= 0) & (sample < surface.samples)
    colours[there] = image.load(image.sample_addresses(x[there], y[there], layer[there], sample[there]))
    return colours


def _sizes(message: SamplerMessage, mips: Mips, data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Width, height and depth of levels, and how many there are."""
    level = parameter(message, data, 0, integer=True).astype(np.int64)
    result = np.zeros((*level.shape, 4), dtype=np.uint64)
    surface = mips.surface
    for number in np.unique(level).tolist():
        if 0 <= number < mips.levels and surface.type is not SurfaceType.NULL:
            image = mips.image(number)
            depth = image.depth if surface.type is SurfaceType.D3 else surface.depth
            flat = surface.type is SurfaceType.D1
            sizes = image.width, depth if flat else image.height, 0 if flat else depth
            result[level == number, :3] = sizes
    result[..., 3] = mips.levels
    return result


def _swizzled(surface: SurfaceState, colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Channels as the surface state selects them."""
    if surface.swizzle == (4, 5, 6, 7):
        return colours
    columns = []
    for select in surface.swizzle:
        if select >= 4:
            columns.append(colours[..., select - 4])
        else:
            columns.append(np.full(colours.shape[:-1], float(select == 1)))
    return np.stack(columns, axis=-1)


def _bits(message: SamplerMessage, image: Image, colours: NDArray[np.float64]) -> NDArray[np.uint64]:
    if message.half:
        return _halves(image, colours)
    return image.to_bits(colours.reshape(-1, 4)).reshape(colours.shape)


def _halves(image: Image, colours: NDArray[np.float64]) -> NDArray[np.uint64]:
    if image.format.is_integer:
        return colours.astype(np.int64).astype(np.uint64) & np.uint64(0xFFFF)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(colours.astype(np.float16)).view(np.uint16).astype(np.uint64)


def _response(message: SamplerMessage, data: NDArray[np.uint8], bits: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Channels one after the other, without those that the header masks."""
    length = message.response_length * _REGISTER
    result = np.zeros((len(bits), length), dtype=np.uint8)
    masked = int(data[0, 8:12].view(np.uint32)[0]) >> 12 & 0xF if message.header else 0
    step = message.channel_registers * _REGISTER
    at = 0
    for channel in range(4):
        if masked >> channel & 1:
            continue
        column = np.ascontiguousarray(bits[..., channel].astype(np.uint16 if message.half else np.uint32)).view(
            np.uint8
        )
        part = result[:, at : at + column.shape[1]]
        part[:] = column[:, : part.shape[1]]
        at += step
    return result
