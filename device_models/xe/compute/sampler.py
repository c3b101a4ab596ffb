"""The sampler: texels fetched by integers, and filtered by normalised or texel coordinates, at one mip level.

SAMPLER_STATE is that of Mesa's `gen200.xml`; parameters come in the order of `brw_lower_logical_sends.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Coordinates, Image
from vfio_user_xe.device_models.xe.eu.messages.message import SamplerMessage, SamplerOp

STATE_BYTES = 16
_REGISTER = 64
_BEFORE = {
    SamplerOp.SAMPLE: 0,
    SamplerOp.SAMPLE_LZ: 0,
    SamplerOp.SAMPLE_B: 1,
    SamplerOp.SAMPLE_L: 1,
}
"""Parameters in front of the coordinates: bias, or level."""
_FETCHES = {SamplerOp.LD: (0, 1, 3), SamplerOp.LD_LZ: (0, 1, 2)}
"""Which parameters are u, v and r."""


class AddressMode(IntEnum):
    """What coordinates outside of the texture mean."""

    WRAP = 0
    MIRROR = 1
    CLAMP = 2
    CUBE = 3
    BORDER = 4
    MIRROR_ONCE = 5
    HALF_BORDER = 6


@dataclass(frozen=True, slots=True)
class SamplerState:
    """A SAMPLER_STATE, as far as one mip level needs it."""

    linear: bool
    modes: tuple[int, int, int]
    texel_coordinates: bool
    """Not normalised."""
    border: tuple[float, float, float, float]

    @classmethod
    def of(cls, memory: UnitMemory, address: int, dynamic: int) -> SamplerState:
        """The state at `address`; border colours are behind `dynamic` state base.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        words = memoryview(memory.read(address, STATE_BYTES)).cast("I")
        colour = memory.read(dynamic + (words[2] & 0xFFFFC0), STATE_BYTES)
        red, green, blue, alpha = np.frombuffer(colour, dtype=np.float32).tolist()
        return cls(
            linear=words[0] >> 17 & 7 == 1,
            modes=(words[3] >> 6 & 7, words[3] >> 3 & 7, words[3] & 7),
            texel_coordinates=bool(words[3] >> 10 & 1),
            border=(red, green, blue, alpha),
        )


class UnknownSample(ValueError):
    """A sampler message that is not emulated; the text says which."""


def sampler_address(message: SamplerMessage, data: NDArray[np.uint8], stage: int, bindless: int, dynamic: int) -> int:
    """Where the sampler state of one thread's message is: the header's pointer, or that of the `stage`."""
    if not message.header:
        return dynamic + stage + STATE_BYTES * message.sampler
    pointer = int(data[12:16].view(np.uint32)[0])
    return (bindless if pointer & 1 else dynamic) + (pointer & ~0x1F) + STATE_BYTES * message.sampler


def needs_state(message: SamplerMessage) -> bool:
    """Whether a sampler state says how to do it."""
    return message.op in _BEFORE


def sample(
    message: SamplerMessage,
    image: Image,
    state: SamplerState | None,
    data: NDArray[np.uint8],
    lanes: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The responses of threads that share surface and sampler: [threads, response bytes].

    Raises:
        UnknownSample: the message is not emulated.
        TranslationFault, AccessFault: texels are not there.
    """
    if message.op in _FETCHES:
        u, v, r = (_parameter(message, data, index, integer=True) for index in _FETCHES[message.op])
        colours = _fetch(image, u.astype(np.int64), v.astype(np.int64), r.astype(np.int64), lanes)
    elif message.op in _BEFORE and state is not None:
        first = _BEFORE[message.op]
        u, v, r = (_parameter(message, data, first + index, integer=False) for index in range(3))
        colours = _filter(image, state, u, v, r, lanes)
    elif message.op is SamplerOp.RESINFO:
        shape = (*lanes.shape, 4)
        colours = np.broadcast_to(
            np.array([image.width, image.height, image.depth, image.surface.levels], float), shape
        )
        return _response(message, data, colours.astype(np.int64).astype(np.uint64))
    else:
        raise UnknownSample(f"sampler message {message.op.name}")
    colours = _swizzled(image.surface, colours)
    bits = image.to_bits(colours.reshape(-1, 4)).reshape(colours.shape)
    if message.half:
        bits = _halves(image, colours)
    return _response(message, data, bits)


def _parameter(message: SamplerMessage, data: NDArray[np.uint8], index: int, *, integer: bool) -> NDArray[np.float64]:
    """[threads, lanes]; zero where the message has no such parameter."""
    size = 2 if message.half_parameters else 4
    first = (_REGISTER if message.header else 0) + index * message.parameter_registers * _REGISTER
    end = first + size * message.width
    if end > data.shape[1]:
        return np.zeros((len(data), message.width))
    raw = np.ascontiguousarray(data[:, first:end])
    if size == 2:
        return raw.view(np.int16 if integer else np.float16).astype(np.float64)
    return raw.view(np.int32 if integer else np.float32).astype(np.float64)


def _fetch(
    image: Image, x: Coordinates, y: Coordinates, layer: Coordinates, lanes: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[threads, lanes, 4]: texels; zero outside."""
    surface = image.surface
    if image.is_buffer:
        y = layer = np.zeros_like(x)
    elif surface.type is SurfaceType.D1:
        y, layer = np.zeros_like(x), y if surface.array else np.zeros_like(x)
    elif not surface.array and surface.type is not SurfaceType.D3:
        layer = np.zeros_like(x)
    colours = np.zeros((*x.shape, 4))
    there = lanes & image.inside(x, y, layer)
    colours[there] = image.load(image.addresses(x, y, layer)[there])
    return colours


def _filter(
    image: Image,
    state: SamplerState,
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    r: NDArray[np.float64],
    lanes: NDArray[np.bool_],
) -> NDArray[np.float64]:
    surface = image.surface
    flat = surface.type is SurfaceType.D1
    if flat and surface.array:
        v, r = np.zeros_like(v), v
    scale = (1, 1, 1) if state.texel_coordinates else (image.width, image.height, image.depth)
    places = [np.nan_to_num(u * scale[0], posinf=0.0, neginf=0.0), np.nan_to_num(v * scale[1], posinf=0.0, neginf=0.0)]
    sizes = [image.width, image.height]
    if surface.type is SurfaceType.D3:
        places.append(np.nan_to_num(r * scale[2], posinf=0.0, neginf=0.0))
        sizes.append(image.depth)
        layer = None
    else:
        layer = (
            np.clip(np.rint(r), 0, image.depth - 1).astype(np.int64) if surface.array else np.zeros(u.shape, np.int64)
        )
    if flat:
        places[1] = np.full(u.shape, 0.5)
    if not state.linear:
        corner = [np.floor(place).astype(np.int64) for place in places]
        return _texel(image, state, corner, sizes, layer, lanes)
    bases = [np.floor(place - 0.5).astype(np.int64) for place in places]
    weights = [place - 0.5 - base for place, base in zip(places, bases, strict=True)]
    total = np.zeros((*u.shape, 4))
    for number in range(1 << len(bases)):
        corner = [base + (number >> axis & 1) for axis, base in enumerate(bases)]
        weight = np.ones(u.shape)
        for axis, part in enumerate(weights):
            weight = weight * (part if number >> axis & 1 else 1 - part)
        total += weight[..., None] * _texel(image, state, corner, sizes, layer, lanes & (weight != 0))
    return total


def _texel(
    image: Image,
    state: SamplerState,
    corner: list[Coordinates],
    sizes: list[int],
    layer: Coordinates | None,
    lanes: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Texels at integer places, addressed as the sampler says."""
    border = np.zeros(corner[0].shape, dtype=np.bool_)
    places: list[Coordinates] = []
    for place, size, mode in zip(corner, sizes, state.modes, strict=False):
        found, outside = _addressed(place, size, mode)
        places.append(found)
        border |= outside
    if layer is None:
        layer = places[2]
    colours = np.zeros((*border.shape, 4))
    colours[border] = state.border
    there = lanes & ~border & image.inside(places[0], places[1], layer)
    colours[there] = image.load(image.addresses(places[0], places[1], layer)[there])
    return colours


def _addressed(place: Coordinates, size: int, mode: int) -> tuple[Coordinates, NDArray[np.bool_]]:
    """Where a coordinate leads, and whether it is the border colour."""
    nowhere = np.zeros(place.shape, dtype=np.bool_)
    match mode:
        case AddressMode.WRAP:
            return place % size, nowhere
        case AddressMode.MIRROR:
            turned = place % (2 * size)
            return np.where(turned < size, turned, 2 * size - 1 - turned), nowhere
        case AddressMode.MIRROR_ONCE:
            return np.clip(np.where(place < 0, -1 - place, place), 0, size - 1), nowhere
        case AddressMode.BORDER | AddressMode.HALF_BORDER:
            return np.clip(place, 0, size - 1), (place < 0) | (place >= size)
        case _:
            return np.clip(place, 0, size - 1), nowhere


def _swizzled(surface: SurfaceState, colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Channels as the surface state selects them."""
    columns = []
    for select in surface.swizzle:
        if select >= 4:
            columns.append(colours[..., select - 4])
        else:
            columns.append(np.full(colours.shape[:-1], float(select == 1)))
    return np.stack(columns, axis=-1)


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
