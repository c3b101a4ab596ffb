"""Surfaces of messages: binding tables and RENDER_SURFACE_STATE (Mesa `gen200.xml`), as far as untyped messages look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from vfio_user_xe.device_models.xe.compute.memory import UnitMemory
from vfio_user_xe.device_models.xe.compute.state import ComputeState
from vfio_user_xe.device_models.xe.eu.messages.message import SurfaceKind
from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK

STATELESS = 255
"""Binding table index of messages whose addresses are from general state base."""
RAW = 0x1FF
"""Surface format of buffers whose entries are bytes."""
STATE_BYTES = 64


class SurfaceType(IntEnum):
    """Dword 0 31:29."""

    D1 = 0
    D2 = 1
    D3 = 2
    CUBE = 3
    BUFFER = 4
    STRUCTURED = 5
    SCRATCH = 6
    NULL = 7


@dataclass(frozen=True, slots=True)
class SurfaceState:
    """A RENDER_SURFACE_STATE; sizes in elements, bytes and rows, counts not "minus one"."""

    type: SurfaceType
    format: int
    tiling: int
    """0 linear, 1 Tile64, 2 TileX, 3 Tile4."""
    base: int
    width: int
    height: int
    depth: int
    pitch: int
    entries: int
    """Of a buffer, or slots of scratch."""
    q_pitch: int
    """Rows between slices."""
    first_element: int
    """Lowest array element of the view."""
    array: bool
    level: int
    """Lowest mip level of the view."""
    levels: int
    """Mip levels of the view; what is written to is the last of them (`target_level`)."""
    swizzle: tuple[int, int, int, int]
    """Of red, green, blue, alpha: 0 zero, 1 one, 4 to 7 red to alpha."""
    alignment: tuple[int, int]
    """Horizontal and vertical, codes as in dword 0."""
    samples: int = 1
    depth_samples: bool = False
    """Samples lie as in depth and stencil buffers, not one slice behind the other."""
    tail: int = 15
    """First mip level of Tile64's mip tail."""
    extent: int = 1
    """Layers of the view that are written to."""

    @classmethod
    def of(cls, words: Sequence[int]) -> SurfaceState:
        """Its sixteen dwords."""
        width, height, depth = words[2] & 0x3FFF, words[2] >> 16 & 0x3FFF, words[3] >> 21
        return cls(
            type=SurfaceType(words[0] >> 29),
            format=words[0] >> 18 & 0x1FF,
            tiling=words[0] >> 12 & 3,
            base=(words[8] | words[9] << 32) & VA_MASK,
            width=width + 1,
            height=height + 1,
            depth=depth + 1,
            pitch=(words[3] & 0x3FFFF) + 1,
            entries=(width & 0x7F | height << 7 | depth << 21) + 1,
            q_pitch=(words[1] & 0x7FFF) << 2,
            first_element=words[4] >> 18 & 0x7FF,
            array=bool(words[0] >> 28 & 1),
            level=words[5] >> 4 & 0xF,
            levels=(words[5] & 0xF) + 1,
            swizzle=(words[7] >> 25 & 7, words[7] >> 22 & 7, words[7] >> 19 & 7, words[7] >> 16 & 7),
            alignment=(words[0] >> 14 & 3, words[0] >> 16 & 3),
            samples=1 << (words[4] >> 3 & 7),
            depth_samples=bool(words[4] >> 6 & 1),
            tail=words[5] >> 8 & 0xF,
            extent=(words[4] >> 7 & 0x7FF) + 1,
        )

    @property
    def target_level(self) -> int:
        """The mip level that render targets reach: dword 5, 3:0 is its number then."""
        return self.levels - 1

    @property
    def typed_level(self) -> int:
        """The mip level that typed messages reach: the view's lowest (isl_surface_state.c, of usages but render targets)."""
        return self.level

    @property
    def bytes(self) -> int:
        """What untyped messages reach of it, from `base` on."""
        if self.type is SurfaceType.NULL:
            return 0
        if self.type in (SurfaceType.BUFFER, SurfaceType.STRUCTURED):
            return self.entries if self.format == RAW else self.entries * self.pitch
        if self.type is SurfaceType.SCRATCH:
            return self.pitch
        return self.pitch * self.height


@lru_cache(maxsize=1024)
def _state(data: bytes) -> SurfaceState:
    """Of `STATE_BYTES`; most draws and walkers name the surfaces of those before."""
    return SurfaceState.of(memoryview(data).cast("I"))


class Surfaces:
    """The surfaces of one walker: looked up once, and kept."""

    def __init__(self, memory: UnitMemory, state: ComputeState, binding_table: int) -> None:
        """`binding_table` is the interface descriptor's pointer."""
        self._memory = memory
        self._state = state
        table = state.binding_tables if state.binding_tables is not None else state.surface
        self._table = table + binding_table
        self._found: dict[tuple[SurfaceKind, int], SurfaceState] = {}

    def find(self, kind: SurfaceKind, value: int) -> SurfaceState:
        """The surface that a message names by `kind` and index or byte offset.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        found = self._found.get((kind, value))
        if found is None:
            found = _state(self._memory.read(self._place(kind, value), STATE_BYTES))
            self._found[kind, value] = found
        return found

    def _place(self, kind: SurfaceKind, value: int) -> int:
        match kind:
            case SurfaceKind.BTI:
                entry = self._memory.read(self._table + 4 * value, 4)
                return self._state.surface + (int.from_bytes(entry, "little") & ~0x3F)
            case SurfaceKind.BSS:
                return self._state.bindless_surface + (value & ~0x3F)
            case SurfaceKind.SS:
                return self._state.surface + (value & ~0x3F)
            case SurfaceKind.FLAT:
                raise ValueError("a flat message has no surface")
