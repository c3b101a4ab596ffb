"""Render targets: colours of pixel shaders converted, blended and written; fast clears of whole blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute import formats
from vfio_user_xe.device_models.xe.compute.formats import Kind
from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image
from vfio_user_xe.device_models.xe.render.blend import BlendState, Colours, TargetBlend, blend, logic

Places = NDArray[np.int64]
Raw = NDArray[np.uint32]
CLEAR_BLOCK_BYTES, CLEAR_BLOCK_ROWS = 64, 4
"""What a pixel of a fast clear's rectangle stands for (blorp_clear.c:get_fast_clear_rect)."""
CLEAR_BLOCK_PIXELS = {2: 64, 4: 64, 8: 16, 16: 8}
"""The same, by samples: columns."""
_UNIT_RANGE, _SIGNED_RANGE = 0, 1
_BAND = 64
"""Rows that are cleared at once."""


class RenderTarget:
    """A surface that pixel shaders write to."""

    def __init__(self, memory: UnitMemory, surface: SurfaceState) -> None:
        """The target that `surface` describes.

        Raises:
            UnknownImage: the surface's format or layout is not emulated.
        """
        self.image = Image(memory, surface, surface.target_level)
        self.surface = surface
        self._memory = memory

    @property
    def is_null(self) -> bool:
        """Nothing is written."""
        return self.surface.type is SurfaceType.NULL

    def inside(self, x: Places, y: Places, layer: Places) -> NDArray[np.bool_]:
        """Which pixels the view has."""
        return self.image.inside(x, y, layer) & (layer < self.surface.extent)

    def write(
        self,
        x: Places,
        y: Places,
        layer: Places,
        sample: int,
        colours: Raw,
        second: Raw | None,
        state: BlendState,
        number: int,
    ) -> None:
        """Colours [pixels, 4] for pixels inside, no two of which are at the same place.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        target = state.targets[number]
        where = self.image.sample_addresses(x, y, layer, sample)
        if self.image.format.is_integer:
            self._write_integers(where, colours, target)
            return
        source = colours.view(np.float32).astype(np.float64)
        if state.alpha_to_one:
            source[:, 3] = 1
        source = self._clamped(source, target.pre_clamp, target.clamp_range)
        if target.is_copy:
            self.image.store(where, source)
            return
        old = self.image.load_bytes(where)
        if target.enabled:
            constant = np.broadcast_to(np.array(state.constant), source.shape)
            other = source if second is None else second.view(np.float32).astype(np.float64)
            if target.pre_clamp:
                constant = self._clamped(constant, True, target.clamp_range)
                other = self._clamped(other, True, target.clamp_range)
            there = formats.decode(self.image.format, old)
            source = self._clamped(blend(target, constant, source, other, there), target.post_clamp, target.clamp_range)
        self._store(where, formats.encode(self.image.format, source), old, target)

    def read(self, x: Places, y: Places, layer: Places, sample: int) -> Raw:
        """What is there, as registers have it: [pixels, 4].

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        where = self.image.sample_addresses(x, y, layer, sample)
        return self.image.to_bits(self.image.load(where)).astype(np.uint32)

    def fast_clear(self, bounds: tuple[int, int, int, int], layer: int, colour: Raw) -> Iterator[None]:
        """Write `colour` [4] to all of the blocks of a rectangle given in blocks, some rows a step.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        wide = CLEAR_BLOCK_PIXELS.get(self.surface.samples, CLEAR_BLOCK_BYTES // self.image.format.bytes)
        left, top, right, bottom = bounds
        columns = left * wide, min(right * wide, self.image.width)
        rows = np.arange(top * CLEAR_BLOCK_ROWS, min(bottom * CLEAR_BLOCK_ROWS, self.image.height), dtype=np.int64)
        if self.image.format.is_integer:
            values = self.image.from_bits(colour.astype(np.uint64))
        else:
            values = colour.view(np.float32).astype(np.float64)
        texel = formats.encode(self.image.format, values.reshape(1, 4)).tobytes()
        for band in range(0, len(rows), _BAND):
            for sample in range(self.surface.samples):
                self.image.fill(columns, rows[band : band + _BAND], layer, sample, texel)
            yield

    def clamp(self, how: int) -> int:
        """What clamping to a range of BLEND_STATE means: 0 nothing, 1 to 0..1, 2 to -1..1."""
        kind = self.image.format.kind
        if how == _UNIT_RANGE or (how != _SIGNED_RANGE and kind in (Kind.UNORM, Kind.SRGB)):
            return 1
        return 2 if how == _SIGNED_RANGE or kind is Kind.SNORM else 0

    def clamped(self, colours: Colours, target: TargetBlend) -> Colours:
        """Colours as blending takes them."""
        return self._clamped(colours, target.pre_clamp, target.clamp_range)

    def _clamped(self, colours: Colours, wanted: bool, how: int) -> Colours:
        clamp = self.clamp(how) if wanted else 0
        return np.clip(np.nan_to_num(colours), 1 - clamp, 1) if clamp else colours

    def _write_integers(self, where: NDArray[np.uint64], colours: Raw, target: TargetBlend) -> None:
        values = self.image.from_bits(colours.astype(np.uint64).reshape(-1)).reshape(colours.shape)
        if all(target.write) and target.logic_op is None:
            self.image.store(where, values)
            return
        self._store(where, formats.encode(self.image.format, values), self.image.load_bytes(where), target)

    def _store(
        self, where: NDArray[np.uint64], new: NDArray[np.uint8], old: NDArray[np.uint8], target: TargetBlend
    ) -> None:
        if target.logic_op is not None:
            new = logic(target.logic_op, new, old)
        if not all(target.write):
            mask = self.written(target)
            new = new & mask | old & ~mask
        self.image.store_bytes(where, new)

    def written(self, target: TargetBlend) -> NDArray[np.uint8]:
        """[bytes]: the bits of a texel that belong to channels that are written."""
        number = 0
        for channel, first, width in self.image.format.fields:
            if target.write[channel]:
                number |= (1 << width) - 1 << first
        return np.frombuffer(number.to_bytes(self.image.format.bytes, "little"), dtype=np.uint8)
