"""Images and samplers as compiled code takes them (`eu/compiled/runtime/image.h`, `sampler.h`)."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.filtering import Mips
from vfio_user_xe.device_models.xe.compute.formats import Format, Kind
from vfio_user_xe.device_models.xe.compute.sampler_state import SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage, tables
from vfio_user_xe.device_models.xe.eu.compiled.draw_layout import LEVELS, ImageStruct, SamplerStruct, TextureStruct

_KINDS = {
    Kind.UNORM: 0,
    Kind.SNORM: 1,
    Kind.UINT: 2,
    Kind.SINT: 3,
    Kind.FLOAT: 4,
    Kind.SRGB: 5,
    Kind.USCALED: 6,
    Kind.SSCALED: 7,
    Kind.FIXED: 8,
    Kind.SHARED_EXPONENT: 9,
}
"""enum kind of image.h."""
_STORED = frozenset({Kind.UNORM, Kind.SNORM, Kind.FLOAT, Kind.SINT, Kind.UINT, Kind.SSCALED, Kind.USCALED, Kind.SRGB})
_WHOLE_FLOAT = 32
_SMALL = 10
"""Bits of a channel of SRGB at most: its values are in tables."""


_KNOWN: dict[SurfaceState, TextureStruct] = {}
_MOST_KNOWN = 256
"""Surfaces whose levels are kept: a draw names those of the draw before, most often."""


_BLOCKS = {
    0x186: (1, False), 0x18B: (1, True), 0x191: (2, False), 0x180: (2, True),
    0x187: (3, False), 0x18C: (3, True), 0x188: (4, False), 0x18D: (4, True),
    0x189: (5, False), 0x199: (5, False), 0x18A: (6, False), 0x19A: (6, False),
}  # fmt: skip
"""Block-compressed formats that compiled code has: enum block of blocks.h, and whether colours are SRGB."""


def can_store(form: Format) -> bool:
    """Whether compiled code encodes texels of this format."""
    if form.kind not in _STORED or (form.kind is Kind.FLOAT and any(width > _WHOLE_FLOAT for *_, width in form.fields)):
        return False
    taken = 0
    for _, first, width in form.fields:
        mask = (1 << width) - 1 << first
        if taken & mask or first // 64 != (first + width - 1) // 64:
            return False
        taken |= mask
    return True


def image_struct(image: Image, samples: int = 0) -> ImageStruct:
    """One mip level, of so many samples (those of the surface, if not given); what it points to lives as long as the process.

    Raises:
        UnknownImage: compiled code has nothing for it.
    """
    surface, form, tiling = image.surface, image.format, image.tiling
    block = _BLOCKS.get(surface.format)
    if (
        (image.blocks is not None and block is None)
        or image.yuv is not None
        or (form.kind is Kind.SRGB and any(width > _SMALL for channel, _, width in form.fields if channel != 3))
    ):
        raise UnknownImage(f"surface format {surface.format:#x} in compiled code")
    found = ImageStruct(
        base=surface.base,
        width=image.width,
        height=image.height,
        depth=image.depth,
        step=surface.pitch if image.is_buffer else form.bytes,
        place_x=image.place.x,
        place_y=image.place.y,
        place_z=image.place.z,
        q_pitch=0 if image.is_buffer else surface.q_pitch,
        first_element=0 if image.is_buffer else surface.first_element,
        pitch=surface.pitch,
        flat=image.is_buffer or (surface.type is SurfaceType.D1 and surface.pitch == 1),
        bytes=form.bytes,
        kind=_KINDS[form.kind],
        fields=len(form.fields),
        integer=form.is_integer,
        null=surface.type is SurfaceType.NULL,
        even8=form.kind is Kind.UNORM and form.bytes == 4 and sorted(form.fields) == sorted(_bytes_of(form)),
        swizzle=surface.swizzle,
        samples=samples or surface.samples,
    )
    for place, (channel, first, width) in enumerate(form.fields):
        field = found.field[place]
        field.channel, field.first, field.width = channel, first, width
    if tiling is not None:
        columns, rows, planes = tables(tiling)
        found.across = surface.pitch // tiling.width
        found.columns, found.rows, found.planes = (table.ctypes.data for table in (columns, rows, planes))
        found.tile_width, found.tile_height, found.tile_depth, found.tile_bytes = (
            number.bit_length() - 1 for number in (tiling.width, tiling.height, tiling.depth, tiling.size)
        )
    planes_of_samples = image.sample_planes(found.samples)
    if planes_of_samples is not None:
        found.sample_planes = True
        found.sample_across, found.sample_down = planes_of_samples.across, planes_of_samples.down
        found.sample_width, found.sample_height = (
            number.bit_length() - 1 for number in (planes_of_samples.width, planes_of_samples.height)
        )
    if image.blocks is not None and block is not None:
        found.block, found.table = block[0], block_table(srgb=block[1]).ctypes.data
    if form.kind is Kind.SRGB:
        found.table, found.steps = srgb_table().ctypes.data, srgb_steps().ctypes.data
    return found


def texture_struct(key: int, mips: Mips) -> TextureStruct:
    """All levels of a surface's view, under the key by which messages find it.

    Raises:
        UnknownImage: its format or layout is not emulated, or compiled code has nothing for it.
    """
    surface = mips.surface
    known = _KNOWN.get(surface)
    if known is not None:
        again = TextureStruct.from_buffer_copy(known)
        again.key = key
        return again
    if surface.type is SurfaceType.SCRATCH or mips.levels > LEVELS:
        raise UnknownImage("a surface that compiled code does not sample")
    found = TextureStruct(key=key, type=surface.type, levels=mips.levels, array=surface.array, depth=surface.depth)
    for level in range(mips.levels):
        found.level[level] = image_struct(mips.image(level))
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[surface] = found
    return found


def typed_struct(key: int, image: Image) -> TextureStruct:
    """The one level of a surface that typed messages load and store, under the key by which they find it.

    Raises:
        UnknownImage: its format or layout is not emulated, or compiled code has nothing for it.
    """
    surface = image.surface
    if surface.type is SurfaceType.SCRATCH or surface.samples > 1 or not can_store(image.format):
        raise UnknownImage("an image that compiled code does not store to")
    found = TextureStruct(key=key, type=surface.type, levels=1, array=surface.array, depth=surface.depth)
    found.level[0] = image_struct(image)
    return found


def sampler_struct(key: int, state: SamplerState) -> SamplerStruct:
    """A sampler state at the address `key`."""
    found = SamplerStruct.from_buffer_copy(_sampler(state))
    found.key = key
    return found


@lru_cache(maxsize=256)
def _sampler(state: SamplerState) -> SamplerStruct:
    return SamplerStruct(
        bias=state.bias,
        least=state.least,
        most=state.most,
        border=state.border,
        border_bits=tuple(float(number) for number in state.border_bits),
        linear=state.linear,
        linear_min=state.linear_min,
        rounds=state.rounds,
        rounds_min=state.rounds_min,
        mip=int(state.mip),
        shadow=state.shadow,
        modes=state.modes,
        texels=state.texel_coordinates,
        anisotropy=state.anisotropy,
        seamless=state.seamless,
    )


def _bytes_of(form: Format) -> tuple[tuple[int, int, int], ...]:
    """Four channels of a byte each, in whatever order: fields of such a format."""
    return (
        tuple((channel, 8 * place, 8) for place, (channel, *_) in enumerate(form.fields))
        if len(form.fields) == 4
        else ()
    )


@cache
def block_table(*, srgb: bool) -> NDArray[np.float64]:
    """Colours of blocks for each two ends of five bits, then of six: the first, a third of the way to the other, half of it."""
    parts = []
    for width in (5, 6):
        ends = np.arange(1 << width) / ((1 << width) - 1)
        first, last = ends[:, None], ends[None, :]
        mixed = np.stack([first + 0 * last, (2 * first + last) / 3, (first + last) / 2], axis=2)
        parts.append(mixed.reshape(-1))
    found = np.concatenate(parts)
    return formats.linear_of_srgb(found) if srgb else found


@cache
def srgb_table() -> NDArray[np.float64]:
    """What the values of channels of one to ten bits mean, in linear numbers; those of `width` bits begin at `1 << width`."""
    found = np.zeros(2 << _SMALL)
    for width in range(1, _SMALL + 1):
        texels = np.arange(1 << width, dtype=np.uint32).view(np.uint8).reshape(-1, 4)
        found[1 << width : 2 << width] = formats.decode(_one_channel(width), texels)[:, 0]
    return found


@cache
def srgb_steps() -> NDArray[np.float64]:
    """In the same order: the least linear number that each value but 0 is encoded for, as `formats.encode` rounds it."""
    found = np.zeros(2 << _SMALL)
    for width in range(1, _SMALL + 1):
        wanted = np.arange(1, 1 << width)
        # Doubles from 0 to 1 are in the order of their bits.
        low, high = np.zeros(len(wanted), dtype=np.int64), np.full(len(wanted), np.float64(1).view(np.int64))
        while (high - low > 1).any():
            middle = low + high >> 1
            reached = srgb_values(width, middle.view(np.float64)) >= wanted
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        found[(1 << width) + 1 : 2 << width] = high.view(np.float64)
    return found


def srgb_values(width: int, numbers: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The values of a channel of so many bits for linear numbers, as `formats.encode` has them."""
    colours = np.zeros((len(numbers), 4))
    colours[:, 0] = numbers
    return np.ascontiguousarray(formats.encode(_one_channel(width), colours)).view(np.uint32)[:, 0]


def _one_channel(width: int) -> Format:
    return Format(4, Kind.SRGB, ((0, 0, width),))
