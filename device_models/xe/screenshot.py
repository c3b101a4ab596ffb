"""Commands of the control socket that show what a function has drawn: `render_targets` and `screenshot`.

A picture is read by a look of the card's own, counted in the ledger as accesses of the control socket; nobody's caches
or page tables change by it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.formats import Format, Kind
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image, UnknownImage
from vfio_user_xe.device_models.xe.engines.context import Context
from vfio_user_xe.device_models.xe.engines.lrc import Lrc
from vfio_user_xe.device_models.xe.engines.surface_layout import tiling_of_surface
from vfio_user_xe.device_models.xe.gpu import Gpu
from vfio_user_xe.device_models.xe.info import DEVICE, GGTT, INFO, PPGTT
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace, Extent, GgttSpace, TranslationFault
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK
from vfio_user_xe.device_models.xe.memory.function import XeFunction
from vfio_user_xe.device_models.xe.memory.ppgtt import PpgttSpace
from vfio_user_xe.device_models.xe.render.drawn import Drawn, targets
from vfio_user_xe.emulator.control.errors import CommandError
from vfio_user_xe.emulator.fabric.interconnect import Space, Window
from vfio_user_xe.emulator.fabric.ledger import CONTROL
from vfio_user_xe.emulator.model.card import Card
from vfio_user_xe.emulator.model.options import UnknownName

MOST_PIXELS = 1 << 23
"""Of one picture: it is answered in one piece."""
TILINGS = ("linear", "tile64", "x", "tile4")
"""By their codes in RENDER_SURFACE_STATE."""
FORMATS = {
    "xrgb8888": 0x0E9, "argb8888": 0x0C0, "xbgr8888": 0x0EB, "abgr8888": 0x0C7, "rgb565": 0x100,
    "xbgr2101010": 0x0C2, "xrgb2101010": 0x0EE, "abgr16161616f": 0x084, "r8": 0x140, "gr88": 0x106,
}  # fmt: skip
"""Names of drm_fourcc.h, and the codes of RENDER_SURFACE_STATE."""
_BAND = 1 << 18
"""Pixels that are read at once."""


class DeviceSpace(AddressSpace):
    """A function's device addresses as an address space: DPA of the PF, GDPA of a VF."""

    name = "device addresses"

    def extent(self, address: int, length: int, write: bool) -> Extent:
        return Extent(Space.DEVICE, address, length, CONTROL)

    def leaf(self, address: int, write: bool) -> tuple[int, int]:
        return address & -0x1000, 0x1000


class _Looking(AddressSpace):
    """Accesses count as those of the control socket."""

    def open(self, extent: Extent, write: bool) -> Window:
        return AddressSpace.open(self, extent._replace(kind=CONTROL), write)


class _LookingPpgtt(_Looking, PpgttSpace):
    pass


class _LookingGgtt(_Looking, GgttSpace):
    pass


def register(card: Card, gpu: Gpu) -> None:
    """Add the commands to `card`."""
    screenshots = Screenshots(gpu)
    card.commands["render_targets"] = screenshots.render_targets
    card.commands["screenshot"] = screenshots.screenshot


@dataclass(frozen=True)
class _Target:
    context: Context
    lrc: Lrc
    drawn: Drawn


class Screenshots:
    """Pictures of one card. On the executor."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def render_targets(self, function: str) -> list[dict[str, Any]]:
        """What the contexts of a function drew to, the latest first: their numbers are those that `screenshot` takes."""
        return [
            {
                "target": number,
                "context": found.context.guc_id,
                **_ppgtt(found.lrc),
                **_description(found.drawn.surface),
            }
            for number, found in enumerate(self._targets(self._function(function)))
        ]

    def screenshot(
        self,
        function: str,
        target: int = 0,
        space: str | None = None,
        address: int | None = None,
        width: int | None = None,
        height: int | None = None,
        pitch: int | None = None,
        format: str | None = None,
        tiling: str = "linear",
        asid: int | None = None,
        root: int | None = None,
    ) -> dict[str, Any]:
        """A surface of a function as pixels (base64 of red, green, blue): render target number `target`, or what is at `address`."""
        xe = self._function(function)
        if address is None:
            if any(given is not None for given in (space, width, height, pitch, format, asid, root)):
                raise CommandError("a surface that is described has an address too")
            found = self._target(xe, target)
            memory, surface = _looking(xe, found.lrc.space), found.drawn.surface
        else:
            surface = described(address, width, height, pitch, format, tiling)
            memory = self._space(xe, space or PPGTT, asid, root)
        try:
            pixels = read(memory, surface)
        except TranslationFault as fault:
            raise CommandError(f"the surface is not mapped: {fault}") from fault
        except UnknownImage as unknown:
            raise CommandError(f"{unknown} is not shown") from unknown
        rows, columns = pixels.shape[:2]
        data = base64.b64encode(pixels.tobytes()).decode()
        return {**_description(surface), "width": columns, "height": rows, "pixels": data}

    def _function(self, name: str) -> XeFunction:
        for function in self._gpu.functions:
            if function.name == name:
                return function
        raise UnknownName(name, "function", [function.name for function in self._gpu.functions])

    def _targets(self, xe: XeFunction) -> list[_Target]:
        found = [
            _Target(context, lrc, drawn)
            for gt in self._gpu.gts
            for context in gt.engines.contexts
            if context.function is xe
            for lrc in context.members
            for drawn in targets(lrc)
        ]
        return sorted(found, key=lambda target: -target.drawn.when)

    def _target(self, xe: XeFunction, number: int) -> _Target:
        found = self._targets(xe)
        if not found:
            raise CommandError(f"no context of {xe.name} that is there now has drawn: give the surface's address")
        if not 0 <= number < len(found):
            raise CommandError(f"target {number}: {xe.name} has {len(found)} (allowed: 0 to {len(found) - 1})")
        return found[number]

    def _space(self, xe: XeFunction, name: str, asid: int | None, root: int | None) -> AddressSpace:
        if name == DEVICE:
            return DeviceSpace(xe)
        if name == GGTT:
            return _LookingGgtt(xe)
        if name != PPGTT:
            raise UnknownName(name, "address space", INFO.address_spaces)
        if root is not None:
            return _LookingPpgtt(xe, root, 0)
        known = [space for space in self._gpu.spaces.spaces() if type(space) is PpgttSpace and space.function is xe]
        for space in known:
            if space.asid == asid or (asid is None and len(known) == 1):
                return _looking(xe, space)
        there = ", ".join(f"ASID {space.asid} (root {space.root:#x})" for space in known) or "none"
        raise CommandError(f"say which PPGTT of {xe.name}, by asid or root; contexts use: {there}")


def described(
    address: int, width: int | None, height: int | None, pitch: int | None, format: str | None, tiling: str
) -> SurfaceState:
    """A surface by its numbers: pixels, and bytes a row.

    Raises:
        CommandError: a number is missing, or they do not go together; the text says which, and what is allowed.
    """
    if not 0 <= address <= VA_MASK:
        raise CommandError(f"address {address:#x}: allowed is 0 to {VA_MASK:#x}")
    if width is None or height is None or format is None:
        raise CommandError("a surface at an address has a width, a height and a format")
    for what, number in (("width", width), ("height", height)):
        if not 1 <= number <= 16384:
            raise CommandError(f"{what} {number}: allowed is 1 to 16384")
    if width * height > MOST_PIXELS:
        raise CommandError(f"{width} by {height} pixels: a picture has {MOST_PIXELS} at most")
    if format not in FORMATS:
        raise UnknownName(format, "format", FORMATS)
    if tiling not in TILINGS:
        raise UnknownName(tiling, "tiling", TILINGS)
    code = FORMATS[format]
    size = formats.FORMATS[code].bytes
    tile = tiling_of_surface(TILINGS.index(tiling), size, volume=False)
    unit = tile.width if tile is not None else size
    least = -(-width * size // unit) * unit
    pitch = least if pitch is None else pitch
    if pitch < least or pitch % unit or pitch > 1 << 18:
        raise CommandError(
            f"pitch {pitch}: {width} pixels of {format}, {tiling}, have {least} or more, a multiple of {unit}"
        )
    if tile is not None and address % tile.size:
        raise CommandError(
            f"address {address:#x}: a surface with tiles of {tile.size:#x} bytes begins at a multiple of that"
        )
    return SurfaceState(
        type=SurfaceType.D2, format=code, tiling=TILINGS.index(tiling), base=address, width=width, height=height, depth=1,
        pitch=pitch, entries=0, q_pitch=0, first_element=0, array=False, level=0, levels=1, swizzle=(4, 5, 6, 7),
        alignment=(1, 1),
    )  # fmt: skip


def read(space: AddressSpace, surface: SurfaceState) -> NDArray[np.uint8]:
    """[rows, columns, 3]: the first layer of the surface's level, its first sample, as 8-bit red, green and blue.

    Raises:
        UnknownImage: the surface's format or layout is not emulated.
        TranslationFault: an address is not mapped.
        AccessFault: an address is refused, or leads nowhere.

    On the executor.
    """
    image = Image(UnitMemory(space), surface, surface.target_level)
    if image.width * image.height > MOST_PIXELS:
        raise UnknownImage(f"a surface of {image.width} by {image.height} pixels")
    parts = [_pixels(image, rows) for rows in _bands(image.width, image.height)]
    return np.concatenate(parts).reshape(image.height, image.width, 3)


def _bands(width: int, height: int) -> Iterator[range]:
    step = max(1, _BAND // width)
    for first in range(0, height, step):
        yield range(first, min(height, first + step))


def _pixels(image: Image, rows: range) -> NDArray[np.uint8]:
    """[pixels, 3] of some rows."""
    y, x = (part.reshape(-1) for part in np.meshgrid(np.array(rows), np.arange(image.width), indexing="ij"))
    where = image.sample_addresses(x, y, np.zeros(len(x), dtype=np.int64), 0)
    colours = formats.decode(_as_shown(image.format), image.load_bytes(where))
    if image.format.is_integer:
        width = max(bits for _, _, bits in image.format.fields)
        colours = np.abs(colours) / (2.0**width - 1)
    present = {channel for channel, _, _ in image.format.fields}
    # One channel is grey; what has only alpha is shown by that.
    shown = (0, 1, 2) if present & {1, 2} else (0, 0, 0) if 0 in present else (3, 3, 3)
    return np.rint(np.clip(np.nan_to_num(colours[:, shown]), 0, 1) * 255).astype(np.uint8)


def _as_shown(form: Format) -> Format:
    """A picture's bytes are sRGB: colours that memory has so are not made linear."""
    return replace(form, kind=Kind.UNORM) if form.kind is Kind.SRGB else form


def _looking(xe: XeFunction, space: AddressSpace) -> AddressSpace:
    return _LookingPpgtt(xe, space.root, 0) if isinstance(space, PpgttSpace) else _LookingGgtt(xe)


def _ppgtt(lrc: Lrc) -> dict[str, Any]:
    space = lrc.space
    return {"asid": space.asid, "root": space.root} if isinstance(space, PpgttSpace) else {"asid": None, "root": None}


def _description(surface: SurfaceState) -> dict[str, Any]:
    level = surface.target_level
    return {
        "address": surface.base,
        "width": max(1, surface.width >> level),
        "height": max(1, surface.height >> level),
        "pitch": surface.pitch,
        "format": next((name for name, code in FORMATS.items() if code == surface.format), f"{surface.format:#05x}"),
        "tiling": TILINGS[surface.tiling],
        "level": level,
        "samples": surface.samples,
    }
