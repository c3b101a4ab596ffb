"""Depth and stencil tests: 3DSTATE_WM_DEPTH_STENCIL on the buffers of 3DSTATE_DEPTH_BUFFER and 3DSTATE_STENCIL_BUFFER."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Image
from vfio_user_xe.device_models.xe.render.fields import Words, address, bits, flag, real
from vfio_user_xe.device_models.xe.render.state import Op, kept, remembered

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


class DepthFormat(IntEnum):
    """3DSTATE_DEPTH_BUFFER dword 1, 26:24."""

    D32_FLOAT = 1
    D24_UNORM_X8 = 3
    D16_UNORM = 5


_TEXELS = {DepthFormat.D32_FLOAT: 0x0D8, DepthFormat.D24_UNORM_X8: 0x0D7, DepthFormat.D16_UNORM: 0x10D}
"""The surface formats that texels are moved in."""
_BYTES = {DepthFormat.D32_FLOAT: 4, DepthFormat.D24_UNORM_X8: 4, DepthFormat.D16_UNORM: 2}
_R8_UINT = 0x143
_ALIGNMENTS = {DepthFormat.D32_FLOAT: (1, 1), DepthFormat.D24_UNORM_X8: (1, 1), DepthFormat.D16_UNORM: (0, 2)}
"""Codes of RENDER_SURFACE_STATE: 8 texels by 4, of D16 by 8 (isl_gfx12.c:isl_gfx125_choose_image_alignment_el)."""
_STENCIL_ALIGNMENT = (0, 2)
_SWIZZLE = (4, 5, 6, 7)


@dataclass(frozen=True, slots=True)
class Face:
    """Stencil state of one face."""

    function: int
    fail: int
    depth_fail: int
    both_pass: int
    test_mask: int
    write_mask: int
    reference: int


@dataclass(frozen=True, slots=True)
class DepthStencilState:
    """3DSTATE_WM_DEPTH_STENCIL and 3DSTATE_DEPTH_BOUNDS."""

    depth_test: bool
    depth_write: bool
    depth_function: int
    stencil_test: bool
    stencil_write: bool
    front: Face
    back: Face
    bounds: tuple[float, float] | None

    @classmethod
    @remembered(Op.WM_DEPTH_STENCIL, Op.DEPTH_BOUNDS, Op.DEPTH_BUFFER)
    def of(cls, lrc: Lrc) -> DepthStencilState:
        """The context's state now."""
        words, limits = kept(lrc, Op.WM_DEPTH_STENCIL), kept(lrc, Op.DEPTH_BOUNDS)
        front = Face(
            function=bits(words, 1, 10, 8),
            fail=bits(words, 1, 31, 29),
            depth_fail=bits(words, 1, 28, 26),
            both_pass=bits(words, 1, 25, 23),
            test_mask=bits(words, 2, 31, 24),
            write_mask=bits(words, 2, 23, 16),
            reference=bits(words, 3, 15, 8),
        )
        back = Face(
            function=bits(words, 1, 22, 20),
            fail=bits(words, 1, 19, 17),
            depth_fail=bits(words, 1, 16, 14),
            both_pass=bits(words, 1, 13, 11),
            test_mask=bits(words, 2, 15, 8),
            write_mask=bits(words, 2, 7, 0),
            reference=bits(words, 3, 7, 0),
        )
        return cls(
            depth_test=flag(words, 1, 1),
            depth_write=flag(words, 1, 0) and flag(kept(lrc, Op.DEPTH_BUFFER), 1, 28),
            depth_function=bits(words, 1, 7, 5),
            stencil_test=flag(words, 1, 3),
            stencil_write=flag(words, 1, 2),
            front=front,
            back=back if flag(words, 1, 4) else front,
            bounds=(real(limits, 2), real(limits, 3)) if flag(limits, 1, 0) else None,
        )


class DepthBuffer:
    """Depths in memory, as numbers that compare as they do."""

    def __init__(self, image: Image, form: DepthFormat, memory: UnitMemory) -> None:
        self.image = image
        self.form = form
        self._memory = memory

    def quantized(self, depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Depths as the buffer holds them: floats, or the integers that stand for them."""
        if self.form is DepthFormat.D32_FLOAT:
            return depth.astype(np.float32).astype(np.float64)
        largest = float((1 << (24 if self.form is DepthFormat.D24_UNORM_X8 else 16)) - 1)
        return np.rint(np.clip(depth, 0, 1) * largest)

    def load(self, where: Places) -> NDArray[np.float64]:
        """Quantized depths.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        raw = self._memory.load(where.astype(np.uint64), _BYTES[self.form])
        if self.form is DepthFormat.D32_FLOAT:
            return raw.astype(np.uint32).view(np.float32).astype(np.float64)
        mask = np.uint64(0xFF_FFFF if self.form is DepthFormat.D24_UNORM_X8 else 0xFFFF)
        return (raw & mask).astype(np.float64)

    def store(self, where: Places, depth: NDArray[np.float64]) -> None:
        """Store quantized depths.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        self._memory.store(where.astype(np.uint64), self._raw(depth), _BYTES[self.form])

    def texel(self, depth: float) -> bytes:
        """What a depth is in memory."""
        return int(self._raw(self.quantized(np.array([depth])))[0]).to_bytes(_BYTES[self.form], "little")

    def _raw(self, depth: NDArray[np.float64]) -> NDArray[np.uint64]:
        if self.form is DepthFormat.D32_FLOAT:
            return np.asarray(depth.astype(np.float32).view(np.uint32).astype(np.uint64))
        return np.asarray(depth.astype(np.uint64))


def depth_buffer(lrc: Lrc, memory: UnitMemory) -> DepthBuffer | None:
    """The context's depth buffer; None if there is none."""
    words = kept(lrc, Op.DEPTH_BUFFER)
    kind, form = bits(words, 1, 31, 29), bits(words, 1, 26, 24)
    if not words or kind == SurfaceType.NULL or form not in list(DepthFormat):
        return None
    depth = DepthFormat(form)
    surface = _surface(words, _TEXELS[depth], _ALIGNMENTS[depth], bits(words, 1, 17, 0))
    return DepthBuffer(Image(memory, surface, surface.target_level), depth, memory)


def stencil_buffer(lrc: Lrc, memory: UnitMemory) -> Image | None:
    """The context's stencil buffer; None if there is none."""
    words = kept(lrc, Op.STENCIL_BUFFER)
    if not words or bits(words, 1, 31, 29) == SurfaceType.NULL:
        return None
    surface = _surface(words, _R8_UINT, _STENCIL_ALIGNMENT, bits(words, 1, 16, 0))
    return Image(memory, surface, surface.target_level)


def _surface(words: Words, form: int, alignment: tuple[int, int], pitch: int) -> SurfaceState:
    return SurfaceState(
        type=SurfaceType(bits(words, 1, 31, 29)),
        format=form,
        tiling=bits(words, 6, 31, 30),
        base=address(words, 2),
        width=bits(words, 4, 14, 1) + 1,
        height=bits(words, 4, 30, 17) + 1,
        depth=bits(words, 5, 30, 20) + 1,
        pitch=pitch + 1,
        entries=0,
        q_pitch=bits(words, 7, 14, 0) << 2,
        first_element=bits(words, 5, 18, 8),
        array=True,
        level=0,
        levels=bits(words, 7, 19, 16) + 1,
        swizzle=_SWIZZLE,
        alignment=alignment,
        depth_samples=True,
        tail=bits(words, 6, 29, 26),
        extent=bits(words, 7, 31, 21) + 1,
    )


def compare(function: int, left: NDArray[np.float64], right: NDArray[np.float64]) -> Flags:
    """Compare functions (genxml 3D_Compare_Function)."""
    match function:
        case 1:
            return np.zeros(left.shape, dtype=np.bool_)
        case 2:
            return np.asarray(left < right)
        case 3:
            return np.asarray(left == right)
        case 4:
            return np.asarray(left <= right)
        case 5:
            return np.asarray(left > right)
        case 6:
            return np.asarray(left != right)
        case 7:
            return np.asarray(left >= right)
        case _:
            return np.ones(left.shape, dtype=np.bool_)


def _operate(operation: int, value: NDArray[np.int64], reference: NDArray[np.int64]) -> NDArray[np.int64]:
    """Stencil operations (genxml 3D_Stencil_Operation)."""
    match operation:
        case 1:
            return np.zeros_like(value)
        case 2:
            return reference
        case 3:
            return np.minimum(value + 1, 255)
        case 4:
            return np.maximum(value - 1, 0)
        case 5:
            return value + 1 & 0xFF
        case 6:
            return value - 1 & 0xFF
        case 7:
            return ~value & 0xFF
        case _:
            return value


class DepthStencil:
    """The tests of one draw."""

    def __init__(
        self,
        state: DepthStencilState,
        depth: DepthBuffer | None,
        stencil: Image | None,
        memory: UnitMemory,
        samples: int = 1,
    ) -> None:
        self.state = state
        self.buffer = depth
        self.stencil = stencil
        self._memory = memory
        self._samples = samples
        self.passed = 0
        """Samples that have passed."""

    @property
    def is_idle(self) -> bool:
        """Nothing is tested and nothing written."""
        return not self.uses_depth and not (self.stencil is not None and self.state.stencil_test)

    @property
    def uses_depth(self) -> bool:
        """The depth buffer is read or written."""
        state = self.state
        return self.buffer is not None and (state.depth_test or state.depth_write or state.bounds is not None)

    def test(
        self,
        x: Places,
        y: Places,
        layer: Places,
        sample: int,
        depth: NDArray[np.float64],
        front: Flags,
        references: NDArray[np.int64] | None = None,
    ) -> Flags:
        """Which of these samples pass; no two are at the same place. `references` are those for stencil that a shader computed.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        state, buffer = self.state, self.buffer
        passes = np.ones(len(x), dtype=np.bool_)
        where: Places | None = None
        new = old = depth
        inside = passes
        if buffer is not None and self.uses_depth:
            inside = buffer.image.inside(x, y, layer)
            where = buffer.image.sample_addresses(x, y, layer, sample, self._samples).astype(np.int64)
            old = np.zeros(len(x))
            old[inside] = buffer.load(where[inside])
            new = buffer.quantized(depth)
            if state.bounds is not None:
                low, high = (buffer.quantized(np.array(limit)) for limit in state.bounds)
                passes = (old >= low) & (old <= high)
        depth_passes = compare(state.depth_function, new, old) if where is not None and state.depth_test else passes
        stencil_passes = np.ones(len(x), dtype=np.bool_)
        if self.stencil is not None and state.stencil_test:
            stencil_passes = self._stencil_test(x, y, layer, sample, passes & depth_passes, front, references)
        passes = passes & depth_passes & stencil_passes
        # Without a test everything passes, and is written all the same: BLORP copies depths so.
        if where is not None and buffer is not None and state.depth_write:
            stored = passes & inside
            if stored.any():
                buffer.store(where[stored], new[stored])
        return passes

    def _stencil_test(
        self,
        x: Places,
        y: Places,
        layer: Places,
        sample: int,
        depth_passes: Flags,
        front: Flags,
        given: NDArray[np.int64] | None,
    ) -> Flags:
        image = self.stencil
        assert image is not None  # the caller looked
        inside = image.inside(x, y, layer)
        where = image.sample_addresses(x, y, layer, sample, self._samples)
        value = np.zeros(len(x), dtype=np.int64)
        value[inside] = self._memory.load(where[inside], 1).astype(np.int64)
        passes = np.ones(len(x), dtype=np.bool_)
        after = value.copy()
        for face, chosen in ((self.state.front, front), (self.state.back, ~front)):
            masked = (value[chosen] & face.test_mask).astype(np.float64)
            reference = np.full(masked.shape, face.reference) if given is None else given[chosen]
            result = compare(face.function, (reference & face.test_mask).astype(np.float64), masked)
            passes[chosen] = result
            both = np.where(
                depth_passes[chosen],
                _operate(face.both_pass, value[chosen], reference),
                _operate(face.depth_fail, value[chosen], reference),
            )
            changed = np.where(result, both, _operate(face.fail, value[chosen], reference))
            after[chosen] = changed & face.write_mask | value[chosen] & ~face.write_mask
        different = inside & (after != value)
        if self.state.stencil_write and different.any():
            self._memory.store(where[different], after[different].astype(np.uint64), 1)
        return passes


def rounds(key: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions in `key` in rounds: no two of a round have the same key, and equal keys come in their order."""
    if not len(key):
        return
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if begins.all():
        yield np.arange(len(key))
        return
    starts = np.nonzero(begins)[0]
    rank = np.arange(len(key)) - np.repeat(starts, np.diff(np.append(starts, len(key))))
    for number in range(int(rank.max()) + 1):
        yield np.sort(order[rank == number])
