"""3DSTATE_PS, 3DSTATE_PS_EXTRA, 3DSTATE_WM: which pixel shaders there are, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vfio_user_xe.device_models.xe.render.fields import Words, bits, flag
from vfio_user_xe.device_models.xe.render.stage import kernel_of
from vfio_user_xe.device_models.xe.render.state import Op, kept, remembered

if TYPE_CHECKING:
    from vfio_user_xe.device_models.xe.engines.lrc import Lrc

_MODES = 6
_ENOUGH_QUADS = 12
"""Quads of a primitive from which a kernel for one primitive a thread is the better one."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One of the two kernels of 3DSTATE_PS."""

    start: int
    width: int
    polygons: int
    """Primitives of a thread, each with as many lanes."""
    first_register: int

    @property
    def quads(self) -> int:
        """Of each primitive in a thread."""
        return self.width // 4 // self.polygons


@dataclass(frozen=True, slots=True)
class PixelState:
    """Fields of 3DSTATE_PS, 3DSTATE_PS_EXTRA, 3DSTATE_WM."""

    kernels: tuple[Kernel, ...]
    valid: bool
    fast_clear: bool
    scratch: int
    whole_quads: bool
    """Lanes of pixels that are not covered run too (vector mask)."""
    modes: tuple[int, ...]
    """Barycentric modes: 0 to 2 perspective at pixel, centroid, sample; 3 to 5 the same in screen space."""
    source_depth: bool
    source_w: bool
    input_coverage: bool
    position_offsets: int
    sample_offsets: bool
    perspective_planes: bool
    screen_planes: bool
    depth_planes: bool
    kills: bool
    computes_depth: int
    computes_stencil: bool
    output_mask: bool
    per_sample: bool
    has_uav: bool
    early: int
    """3DSTATE_WM: 1 tests before the shader whatever it does, 2 only there."""

    @classmethod
    @remembered(Op.PS, Op.PS_EXTRA, Op.WM)
    def of(cls, lrc: Lrc) -> PixelState:
        """The context's state now."""
        ps, extra, wm = kept(lrc, Op.PS), kept(lrc, Op.PS_EXTRA), kept(lrc, Op.WM)
        modes = bits(wm, 1, 16, 11)
        return cls(
            kernels=_kernels(ps),
            valid=flag(extra, 1, 31),
            fast_clear=flag(ps, 6, 8),
            scratch=bits(ps, 4, 31, 10) << 10,
            whole_quads=flag(ps, 3, 30),
            modes=tuple(mode for mode in range(_MODES) if modes >> mode & 1),
            source_depth=flag(extra, 1, 24),
            source_w=flag(extra, 1, 23),
            input_coverage=bits(extra, 1, 1, 0) != 0,
            position_offsets=bits(ps, 6, 4, 3),
            sample_offsets=flag(extra, 1, 18),
            perspective_planes=flag(extra, 1, 20),
            screen_planes=flag(extra, 1, 19),
            depth_planes=flag(extra, 1, 21),
            kills=flag(extra, 1, 28),
            computes_depth=bits(extra, 1, 27, 26),
            computes_stencil=flag(extra, 1, 5),
            output_mask=flag(extra, 1, 29),
            per_sample=flag(extra, 1, 6),
            has_uav=flag(extra, 1, 2),
            early=bits(wm, 1, 22, 21),
        )

    def kernel(self, quads: int, primitives: int) -> Kernel:
        """The one for so many quads of so many primitives."""
        if len(self.kernels) > 1 and quads >= _ENOUGH_QUADS * primitives:
            return max(self.kernels, key=lambda kernel: (kernel.quads, kernel.width))
        return self.kernels[0]


def _kernels(ps: Words) -> tuple[Kernel, ...]:
    found = []
    if flag(ps, 1, 0):
        width, polygons = 32 if flag(ps, 1, 1) else 16, bits(ps, 7, 29, 27) + 1
        if width % (8 * polygons):
            polygons = 1  # there are no such kernels
        found.append(Kernel(kernel_of(ps, 1), width, polygons, bits(ps, 7, 23, 16)))
    if flag(ps, 8, 0):
        found.append(Kernel(kernel_of(ps, 8), 32 if flag(ps, 8, 1) else 16, 1, bits(ps, 7, 15, 8)))
    return tuple(found)
