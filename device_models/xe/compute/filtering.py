"""Texels filtered: levels of detail, addressing, cubes, comparison; many lanes at once.

Arrays are by lane, flat. Coordinates are texels of the level that is looked at, or -1 to 1 of a cube's direction before its face is found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.cubes import QUAD, Floats, face_of, finite, over_the_edge, squares_of_slopes
from vfio_user_xe.device_models.xe.compute.formats import Kind
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.sampler_state import AddressMode, MipFilter, Reduction, SamplerState
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Coordinates, Image

_GATHER = ((0, 1), (1, 1), (1, 0), (0, 0))
"""Columns and rows of the texels that gather returns, in its order."""


class Mips:
    """The levels of a surface's view."""

    def __init__(self, memory: UnitMemory, surface: SurfaceState) -> None:
        self.surface = surface
        self._memory = memory
        self._images: dict[int, Image] = {}

    @property
    def levels(self) -> int:
        """How many there are."""
        return self.surface.levels

    def image(self, level: int) -> Image:
        """The level, counted from the view's first.

        Raises:
            UnknownImage: the surface's format or layout is not emulated.
        """
        found = self._images.get(level)
        if found is None:
            found = self._images[level] = Image(self._memory, self.surface, self.surface.level + level, sampled=True)
        return found


@dataclass(frozen=True)
class Places:
    """Where lanes look: normalised coordinates, or texels where the sampler says so."""

    u: Floats
    v: Floats
    r: Floats
    layer: Floats
    """Array element, or of cubes the cube."""
    offsets: tuple[int | Floats, int | Floats, int | Floats] = (0, 0, 0)
    """Texels that are added, to all or by lane."""

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Places:
        """Some lanes."""
        u, v, r = (offset if isinstance(offset, int) else offset[chosen] for offset in self.offsets)
        return Places(self.u[chosen], self.v[chosen], self.r[chosen], self.layer[chosen], (u, v, r))


def filtered(mips: Mips, state: SamplerState, places: Places, lod: Floats, reference: Floats | None = None) -> Floats:
    """[lanes, 4]: colours at these levels of detail (biased and clamped), or of comparisons with `reference` in all channels.

    Raises:
        UnknownImage: the surface's format or layout is not emulated.
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    extreme = _EXTREMES.get(state.reduction)
    total = np.zeros((len(lod), 4)) if extreme is None else np.full((len(lod), 4), np.nan)
    magnified = lod <= 0
    for level, magnifies, chosen, weight in _parts(mips, state, lod, magnified):
        image = mips.image(level)
        some = places.of(chosen)
        compared = None if reference is None else reference[chosen]
        colours = _at_level(image, state, some, magnifies, compared)
        if extreme is not None:
            total[chosen] = extreme(total[chosen], colours)
        else:
            total[chosen] += colours if weight is None else colours * weight[:, None]
    return total if extreme is None else np.where(np.isnan(total), 0, total)


_EXTREMES: dict[Reduction, np.ufunc] = {Reduction.MINIMUM: np.fmin, Reduction.MAXIMUM: np.fmax}
"""Of texels whose weight is not zero."""


def _parts(
    mips: Mips, state: SamplerState, lod: Floats, magnified: NDArray[np.bool_]
) -> list[tuple[int, bool, NDArray[np.int64], Floats | None]]:
    """(level, whether it is magnified, lanes, their weights) that make up the result."""
    last = mips.levels - 1
    parts: list[tuple[int, bool, NDArray[np.int64], Floats | None]] = []
    if state.mip is MipFilter.NONE or not last:
        for which, magnifies in ((magnified, True), (~magnified, False)):
            if which.any():
                parts.append((0, magnifies, np.nonzero(which)[0], None))
        return parts
    clamped = np.clip(lod, 0, last)
    if state.mip is MipFilter.NEAREST:
        low, fraction = np.ceil(clamped - 0.5).astype(np.int64), np.zeros(len(lod))
    else:
        low = np.floor(clamped).astype(np.int64)
        fraction = np.floor((clamped - low) * 256) / 256
    for offset, weights in ((0, 1 - fraction), (1, fraction)):
        level = low + offset
        for number in np.unique(level[weights > 0]).tolist():
            for which, magnifies in ((magnified, True), (~magnified, False)):
                chosen = np.nonzero((level == number) & (weights > 0) & which)[0]
                if len(chosen):
                    parts.append((min(number, last), magnifies, chosen, weights[chosen]))
    return parts


def _at_level(image: Image, state: SamplerState, places: Places, magnifies: bool, reference: Floats | None) -> Floats:
    axes, layer, face = _texel_places(image, state, places)
    axes = _fixed(axes, state, np.array(magnifies))
    if face is None or not state.seamless:
        axes = [
            np.clip(axis, 0, size) if mode == AddressMode.HALF_BORDER else axis
            for axis, size, mode in zip(axes, (image.width, image.height, image.depth), state.modes, strict=False)
        ]
    if not (state.linear if magnifies else state.linear_min):
        corner = [np.floor(axis).astype(np.int64) for axis in axes]
        if AddressMode.HALF_BORDER in state.modes:
            # Half of a texel beyond the edge is looked at by linear filters only.
            u, v, r = (AddressMode.CLAMP if mode == AddressMode.HALF_BORDER else mode for mode in state.modes)
            state = replace(state, modes=(u, v, r))
        return _compared(state, _texels(image, state, corner, layer, face), reference)
    bases = [np.floor(axis - 0.5) for axis in axes]
    fractions = [axis - 0.5 - base for axis, base in zip(axes, bases, strict=True)]
    whole = [base.astype(np.int64) for base in bases]
    count, lanes = 1 << len(axes), len(layer)
    corners = [
        np.concatenate([base + (number >> axis & 1) for number in range(count)]) for axis, base in enumerate(whole)
    ]
    faces = None if face is None else np.tile(face, count)
    colours = _texels(image, state, corners, np.tile(layer, count), faces)
    colours = _compared(state, colours, None if reference is None else np.tile(reference, count))
    weights = np.ones((count, lanes))
    for number in range(count):
        for axis, fraction in enumerate(fractions):
            weights[number] *= fraction if number >> axis & 1 else 1 - fraction
    texels = colours.reshape(count, lanes, 4)
    if (extreme := _EXTREMES.get(state.reduction)) is not None:
        return np.asarray(extreme.reduce(np.where(weights[:, :, None] > 0, texels, np.nan), axis=0))
    return np.asarray((texels * weights[:, :, None]).sum(axis=0))


def gather(
    mips: Mips, state: SamplerState, places: Places, channel: int, lod: Floats, reference: Floats | None
) -> Floats:
    """[lanes, 4]: one channel of the four texels that a linear filter would take, of the level that is nearest.

    Raises:
        UnknownImage: the surface's format or layout is not emulated.
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.
    """
    level = np.clip(np.ceil(lod - 0.5), 0, mips.levels - 1).astype(np.int64)
    found = np.zeros((len(lod), 4))
    for number in np.unique(level).tolist():
        image = mips.image(number)
        chosen = np.nonzero(level == number)[0]
        axes, layer, face = _texel_places(image, state, places.of(chosen))
        bases = [np.floor(axis - 0.5).astype(np.int64) for axis in _fixed(axes[:2], state, lod[chosen] <= 0)]
        compared = None if reference is None else reference[chosen]
        for place, (column, row) in enumerate(_GATHER):
            colours = _texels(image, state, [bases[0] + column, bases[1] + row], layer, face)
            found[chosen, place] = _compared(state, colours, compared)[:, channel]
    return found


def level_of_detail(mips: Mips, state: SamplerState, places: Places) -> Floats:
    """[lanes]: from the differences between the lanes of each quad; lanes of one have the same, but on cubes.

    The lanes are all of their threads, four by four.
    """
    image = mips.image(0)
    if mips.surface.type is SurfaceType.CUBE:
        squares = squares_of_slopes(image.width, (places.u, places.v, places.r))
        return detail(squares[0], squares[1], state.anisotropy)
    scale = (1, 1, 1) if state.texel_coordinates else (image.width, image.height, image.depth)
    axes = [places.u * scale[0]]
    if mips.surface.type is not SurfaceType.D1:
        axes.append(places.v * scale[1])
    if mips.surface.type is SurfaceType.D3:
        axes.append(places.r * scale[2])
    quads = [np.nan_to_num(axis).reshape(-1, QUAD) for axis in axes]
    right = sum((quad[:, 1] - quad[:, 0]) ** 2 for quad in quads)
    down = sum((quad[:, 2] - quad[:, 0]) ** 2 for quad in quads)
    return np.repeat(detail(np.asarray(right), np.asarray(down), state.anisotropy), QUAD)


def detail(right: Floats, down: Floats, anisotropy: int) -> Floats:
    """Level of detail of footprints with these squares of lengths, in texels, from pixel to pixel."""
    longer, shorter = np.maximum(right, down), np.minimum(right, down)
    with np.errstate(divide="ignore", invalid="ignore"):
        if anisotropy > 1:
            ratio = np.clip(np.ceil(np.sqrt(longer / np.maximum(shorter, 1e-30))), 1, anisotropy)
            longer = longer / (ratio * ratio)
    return np.asarray(0.5 * log2(longer))


_ROOT_OF_HALF = 0.7071067811865476
_TWO_BY_LOG_2 = 2.8853900817779268


def log2(values: Floats) -> Floats:
    """Logarithms of what is not negative, by operations that are rounded alike everywhere: `runtime/image.h` has the same."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < _ROOT_OF_HALF
    mantissa, exponent = np.where(small, mantissa * 2, mantissa), exponent - small
    with np.errstate(invalid="ignore"):
        s = (mantissa - 1) / (mantissa + 1)
        z = s * s
        total = np.full(z.shape, 1 / 21.0)
        for number in range(19, 0, -2):
            total = total * z + 1 / number
        found = exponent.astype(np.float64) + total * s * _TWO_BY_LOG_2
    return np.where(values <= 0, -np.inf, np.where(np.isposinf(values), np.inf, found))


def _texel_places(
    image: Image, state: SamplerState, places: Places
) -> tuple[list[Floats], Coordinates, Coordinates | None]:
    """Coordinates in texels by axis, slices, and faces of cubes."""
    surface = image.surface
    offsets = places.offsets
    if surface.type is SurfaceType.CUBE:
        face, s, t = face_of(places.u, places.v, places.r)
        layer = np.clip(np.rint(finite(places.layer)), 0, max(0, image.depth // 6 - 1)).astype(np.int64)
        return [s * image.width, t * image.height], layer, face
    scale = (1, 1, 1) if state.texel_coordinates else (image.width, image.height, image.depth)
    axes = [finite(places.u * scale[0]) + offsets[0]]
    axes.append(
        np.full(len(places.u), 0.5) if surface.type is SurfaceType.D1 else finite(places.v * scale[1]) + offsets[1]
    )
    if surface.type is SurfaceType.D3:
        axes.append(finite(places.r * scale[2]) + offsets[2])
        return axes, np.zeros(len(places.u), dtype=np.int64), None
    if not surface.array:
        return axes, np.zeros(len(places.u), dtype=np.int64), None
    return axes, np.clip(np.rint(finite(places.layer)), 0, image.depth - 1).astype(np.int64), None


def _fixed(axes: list[Floats], state: SamplerState, magnified: NDArray[np.bool_]) -> list[Floats]:
    """Coordinates as they are filtered: they have eight bits behind the point (Mesa `anv_physical_device.c`, subTexelPrecisionBits)."""
    halves = (np.where(magnified, *rounds) / 2 for rounds in zip(state.rounds, state.rounds_min, strict=True))
    return [np.floor(axis * 256 + half) / 256 for axis, half in zip(axes, halves, strict=False)]


def _texels(
    image: Image, state: SamplerState, corner: list[Coordinates], layer: Coordinates, face: Coordinates | None
) -> Floats:
    """Texels at integer places, addressed as the sampler says."""
    if face is not None and not state.seamless:
        layer, face = layer * 6 + face, None
    if face is not None:
        x, y, face = over_the_edge(image.width, corner[0], corner[1], face)
        colours = np.zeros((len(x), 4))
        slice_ = layer * 6 + face
        there = image.inside(x, y, slice_)
        colours[there] = image.texels(x[there], y[there], slice_[there])
        return colours
    outside = np.zeros(len(layer), dtype=np.bool_)
    found: list[Coordinates] = []
    for place, size, mode in zip(corner, (image.width, image.height, image.depth), state.modes, strict=False):
        addressed, beyond = _addressed(place, size, mode)
        found.append(addressed)
        outside |= beyond
    if len(found) == 3:
        layer = found[2]
    there = image.inside(found[0], found[1], layer) & ~outside
    if there.all():
        return image.texels(found[0], found[1], layer)
    colours = np.zeros((len(layer), 4))
    colours[outside] = _border(image, state)
    colours[there] = image.texels(found[0][there], found[1][there], layer[there])
    return colours


def _border(image: Image, state: SamplerState) -> tuple[float, ...]:
    """The border colour as a texel of the format would have it: within its range, and without channels that it has not."""
    form = image.format
    colour = [float(value) for value in (state.border_bits if form.is_integer else state.border)]
    if form.kind in (Kind.UNORM, Kind.SRGB, Kind.SNORM):
        least = -1.0 if form.kind is Kind.SNORM else 0.0
        colour = [min(max(value, least), 1.0) for value in colour]
    found = [0.0, 0.0, 0.0, 1.0]
    first: dict[int, int] = {}
    for channel, bit, _ in form.fields:
        found[channel] = colour[first.setdefault(bit, channel)]
    return tuple(found)


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


def _compared(state: SamplerState, colours: Floats, reference: Floats | None) -> Floats:
    """Results of comparisons instead of colours, where there is a reference."""
    if reference is None:
        return colours
    texel = colours[:, 0]
    match state.shadow:
        case 0:
            fails = np.ones(len(texel), dtype=np.bool_)
        case 1:
            fails = np.zeros(len(texel), dtype=np.bool_)
        case 2:
            fails = texel < reference
        case 3:
            fails = texel == reference
        case 4:
            fails = texel <= reference
        case 5:
            fails = texel > reference
        case 6:
            fails = texel != reference
        case _:
            fails = texel >= reference
    return np.repeat((~fails).astype(np.float64)[:, None], 4, axis=1)
