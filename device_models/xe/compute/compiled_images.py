"""Images and samplers as compiled code takes them (`eu/compiled/runtime/image.h`, `sampler.h`)."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.filtering import Mips
from vfio_user_xe.device_models.xe.compute.formats import Format, Kind
from vfio_user_xe.device_models.xe.compute.sampler_state import SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceType
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
_STORED = frozenset({Kind.UNORM, Kind.SNORM, Kind.FLOAT, Kind.SINT, Kind.UINT, Kind.SSCALED, Kind.USCALED})
_WHOLE_FLOATS = (16, 32)
_SMALL = 10
"""Bits of a channel of SRGB at most: its values are in a table."""


def can_store(form: Format) -> bool:
    """Whether compiled code encodes texels of this format."""
    if form.kind not in _STORED or (
        form.kind is Kind.FLOAT and any(width not in _WHOLE_FLOATS for *_, width in form.fields)
    ):
        return False
    taken = 0
    for _, first, width in form.fields:
        mask = (1 << width) - 1 << first
        if taken & mask or first // 64 != (first + width - 1) // 64:
            return False
        taken |= mask
    return True


def image_struct(image: Image) -> ImageStruct:
    """One mip level; what it points to lives as long as the process.

    Raises:
        UnknownImage: compiled code has nothing for it.
    """
    surface, form, tiling = image.surface, image.format, image.tiling
    if image.blocks is not None or (
        form.kind is Kind.SRGB and any(width > _SMALL for channel, _, width in form.fields if channel != 3)
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
    if form.kind is Kind.SRGB:
        found.table = _srgb(max(width for channel, _, width in form.fields if channel != 3)).ctypes.data
    return found


def texture_struct(key: int, mips: Mips) -> TextureStruct:
    """All levels of a surface's view, under the key by which messages find it.

    Raises:
        UnknownImage: its format or layout is not emulated, or compiled code has nothing for it.
    """
    surface = mips.surface
    if surface.type is SurfaceType.SCRATCH or mips.levels > LEVELS:
        raise UnknownImage("a surface that compiled code does not sample")
    found = TextureStruct(key=key, type=surface.type, levels=mips.levels, array=surface.array)
    for level in range(mips.levels):
        found.level[level] = image_struct(mips.image(level))
    return found


def sampler_struct(key: int, state: SamplerState) -> SamplerStruct:
    """A sampler state at the address `key`."""
    return SamplerStruct(
        key=key,
        bias=state.bias,
        least=state.least,
        most=state.most,
        border=state.border,
        border_bits=tuple(float(number) for number in state.border_bits),
        linear=state.linear,
        linear_min=state.linear_min,
        mip=int(state.mip),
        shadow=state.shadow,
        modes=state.modes,
        texels=state.texel_coordinates,
    )


def _bytes_of(form: Format) -> tuple[tuple[int, int, int], ...]:
    """Four channels of a byte each, in whatever order: fields of such a format."""
    return (
        tuple((channel, 8 * place, 8) for place, (channel, *_) in enumerate(form.fields))
        if len(form.fields) == 4
        else ()
    )


@cache
def _srgb(width: int) -> NDArray[np.float64]:
    """What the values of a channel mean."""
    texels = np.arange(1 << width, dtype=np.uint32).view(np.uint8).reshape(-1, 4)
    values = formats.decode(Format(4, Kind.SRGB, ((0, 0, width),)), texels)
    return np.ascontiguousarray(values[:, 0])
