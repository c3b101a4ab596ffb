"""Messages by shared function: typed fields, the sizes of payload and response, and how lanes lie in them.

    message = decode(sfid, descriptor, extended, width=16, extended_in_a0=False)    # `messages/decode.py`

`length0` and `response_length` are in general registers (64 bytes). `surface` says how an address or a coordinate finds
its surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class SurfaceKind(Enum):
    """How a message names its surface (LSC descriptor bits 30:29)."""

    FLAT = 0
    """None: addresses are virtual addresses (or offsets in SLM)."""
    BSS = 1
    """A surface state at bindless surface state base + value."""
    SS = 2
    """A surface state at surface state base + value."""
    BTI = 3
    """An index in the binding table; 255 with A32 is stateless: addresses are from general state base."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a message goes.

    `value` is the index (BTI) or the byte offset of the surface state (SS and BSS, low six bits clear); None says that it
    is in a0 at `Send.extended_pointer`: for BTI in bits 31:24, for SS and BSS in bits 31:6.
    """

    kind: SurfaceKind
    value: int | None = None


FLAT = Surface(SurfaceKind.FLAT)


class LscOp(IntEnum):
    """Operation of an untyped or typed load/store message (descriptor 5:0; iga MessageDecoderLSC.cpp)."""

    LOAD = 0x00
    LOAD_STRIDED = 0x01
    LOAD_QUAD = 0x02
    LOAD_BLOCK2D = 0x03
    STORE = 0x04
    STORE_STRIDED = 0x05
    STORE_QUAD = 0x06
    STORE_BLOCK2D = 0x07
    ATOMIC_INC = 0x08
    ATOMIC_DEC = 0x09
    ATOMIC_LOAD = 0x0A
    ATOMIC_STORE = 0x0B
    ATOMIC_ADD = 0x0C
    ATOMIC_SUB = 0x0D
    ATOMIC_SMIN = 0x0E
    ATOMIC_SMAX = 0x0F
    ATOMIC_UMIN = 0x10
    ATOMIC_UMAX = 0x11
    ATOMIC_CAS = 0x12
    ATOMIC_FADD = 0x13
    ATOMIC_FSUB = 0x14
    ATOMIC_FMIN = 0x15
    ATOMIC_FMAX = 0x16
    ATOMIC_FCAS = 0x17
    ATOMIC_AND = 0x18
    ATOMIC_OR = 0x19
    ATOMIC_XOR = 0x1A
    LOAD_STATUS = 0x1B
    STORE_UNCOMPRESSED = 0x1C
    CCS_UPDATE = 0x1D
    READ_STATE = 0x1E
    FENCE = 0x1F
    STORE_UNCOMPRESSED_QUAD = 0x20
    ATOMIC_APPEND_ADD = 0x28
    ATOMIC_APPEND_SUB = 0x29
    ATOMIC_APPEND_STORE = 0x2A

    @property
    def is_atomic(self) -> bool:
        return LscOp.ATOMIC_INC <= self <= LscOp.ATOMIC_XOR or self >= LscOp.ATOMIC_APPEND_ADD

    @property
    def is_quad(self) -> bool:
        """Has a component mask instead of a vector length."""
        return self in (LscOp.LOAD_QUAD, LscOp.STORE_QUAD, LscOp.STORE_UNCOMPRESSED_QUAD)

    @property
    def is_block2d(self) -> bool:
        return self in (LscOp.LOAD_BLOCK2D, LscOp.STORE_BLOCK2D)

    @property
    def is_store(self) -> bool:
        """Data goes out and nothing comes back."""
        return self in _STORES


_STORES = frozenset(
    {
        LscOp.STORE,
        LscOp.STORE_STRIDED,
        LscOp.STORE_QUAD,
        LscOp.STORE_BLOCK2D,
        LscOp.STORE_UNCOMPRESSED,
        LscOp.STORE_UNCOMPRESSED_QUAD,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LscMessage:
    """ugm, ugml, slm, tgm and urb: load, store, atomic.

    Payload: addresses first, `address_bytes` a lane; then data, one component of all lanes after the other, each
    component in `component_registers` registers. A message with `transpose` has one address and `components` elements
    of `data_bytes` in consecutive bytes. What is stored or loaded of an element's register space (`register_bytes`) is its
    low `data_bytes` (its high half for d16u32h); a load clears the rest.
    """

    op: LscOp
    width: int
    """Lanes."""
    address_bytes: int
    """2, 4 or 8."""
    data_bytes: int
    """1, 2, 4 or 8: what an element has in memory."""
    register_bytes: int
    """What it has in a register: data_bytes, or 4 for d8u32 and d16u32."""
    high_half: bool = False
    """d16u32h: in the upper half of the register's dword."""
    components: tuple[int, ...] = (0,)
    """Which components of an element are there, by rising index: 0 to n - 1 for vectors, those of a quad's mask."""
    transpose: bool = False
    vnni: bool = False
    """Of block2d loads: descriptor bit 7."""
    offset: int = 0
    """Signed bytes added to every address."""
    x_offset: int = 0
    """Of block2d: elements added to X and Y."""
    y_offset: int = 0
    surface: Surface = FLAT
    caching: int = 0
    length0: int = 1
    response_length: int = 0
    typed: bool = False
    """tgm: addresses are coordinates."""

    @property
    def component_registers(self) -> int:
        """General registers of a component of all lanes; of a response as many as it has room for (IGC: 16 lanes' for fewer)."""
        there = self.response_length // len(self.components) if self.components and not self.typed else 0
        return max(1, -(-self.width * self.register_bytes // 64), there if self.width < 16 else 0)

    @property
    def address_registers(self) -> int:
        return max(1, -(-self.width * self.address_bytes // 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceMessage:
    """LSC fence of the shared function it is sent to."""

    scope: int = 0
    """Descriptor 11:9: 0 group, 1 local, 2 tile, 3 GPU, 4 all GPUs, 5 system release, 6 system acquire."""
    flush: int = 0
    """Descriptor 14:12: 0 none, 1 evict, 2 invalidate, 3 discard, 4 clean, 5 flush L3."""
    length0: int = 1
    response_length: int = 0
    surface: Surface = FLAT


class GatewayOp(IntEnum):
    """Descriptor 3:0 (iga MessageDecoderOther.cpp)."""

    END_OF_THREAD = 0
    SIGNAL_EVENT = 1
    MONITOR_EVENT = 2
    MONITOR_NO_EVENT = 3
    BARRIER = 4
    WAIT_FOR_EVENT = 6
    SAVE_BARRIER = 8
    RESTORE_BARRIER = 9
    END_OF_RESTORE = 10
    RESTORE_STACK = 11
    SYSTEM_ROUTINE_BARRIER = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayMessage:
    """gtwy. Of a barrier, payload dword 2 has the id in 7:0, type 15:14, producers 23:16, consumers 31:24."""

    op: GatewayOp
    active_threads_only: bool = False
    length0: int = 1
    response_length: int = 0
    surface: Surface = FLAT


class SamplerOp(IntEnum):
    """Message type of the sampler (descriptor 16:12, bit 5 in descriptor 31)."""

    SAMPLE = 0x00
    SAMPLE_B = 0x01
    SAMPLE_L = 0x02
    SAMPLE_C = 0x03
    SAMPLE_D = 0x04
    SAMPLE_B_C = 0x05
    SAMPLE_L_C = 0x06
    LD = 0x07
    GATHER4 = 0x08
    LOD = 0x09
    RESINFO = 0x0A
    SAMPLEINFO = 0x0B
    KILLPIX = 0x0C
    GATHER4_L = 0x0D
    GATHER4_B = 0x0E
    GATHER4_I = 0x0F
    GATHER4_C = 0x10
    SAMPLE_D_C_MLOD = 0x11
    SAMPLE_MLOD = 0x12
    SAMPLE_C_MLOD = 0x13
    SAMPLE_D_C = 0x14
    GATHER4_I_C = 0x15
    GATHER4_L_C = 0x17
    SAMPLE_LZ = 0x18
    SAMPLE_C_LZ = 0x19
    LD_LZ = 0x1A
    LD_L = 0x1B
    LD2DMS_W = 0x1C
    LD_MCS = 0x1D
    FLUSH = 0x1F
    SAMPLE_PO = 0x20
    SAMPLE_PO_B = 0x21
    SAMPLE_PO_L = 0x22
    SAMPLE_PO_C = 0x23
    SAMPLE_PO_D = 0x24
    SAMPLE_PO_B_C = 0x25
    SAMPLE_PO_L_C = 0x26
    GATHER4_PO = 0x28
    GATHER4_PO_L = 0x2D
    GATHER4_PO_B = 0x2E
    GATHER4_PO_I = 0x2F
    GATHER4_PO_C = 0x30
    SAMPLE_PO_D_C = 0x34
    GATHER4_PO_I_C = 0x35
    GATHER4_PO_L_C = 0x37
    SAMPLE_PO_LZ = 0x38
    SAMPLE_PO_C_LZ = 0x39


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerMessage:
    """smpl. Parameters come one after the other, `parameter_registers` each, behind the header if there is one.

    Missing parameters are zero. The response has R, G, B, A in that order, each `parameter_registers` registers, without
    the channels that the header's dword 2 (15:12) masks.
    """

    op: SamplerOp
    width: int
    """16 or 32 lanes."""
    header: bool = False
    half: bool = False
    """The response's channels have 16 bits."""
    half_parameters: bool = False
    integer_return: bool = False
    sampler: int = 0
    """Index of the sampler state; with a header from its dword 3 on, else from the stage's pointer."""
    surface: Surface = FLAT
    length0: int = 1
    response_length: int = 0

    @property
    def parameter_registers(self) -> int:
        return max(1, self.width * (2 if self.half_parameters else 4) // 64)

    @property
    def channel_registers(self) -> int:
        """General registers of a channel of the response."""
        return max(1, self.width * (2 if self.half else 4) // 64)


class RenderCacheOp(IntEnum):
    """Descriptor 17:14 of the render cache."""

    WRITE = 0xC
    READ = 0xD


class RenderTargetSubtype(IntEnum):
    """Descriptor 10:8 of a render target write or read (Mesa `brw_eu_defines.h`, _DATAPORT_RENDER_TARGET_WRITE_).

    How many lanes there are is the instruction's width; `LOW_LANES` is how IGT's `rendercopy_gen9.c` writes 16.
    """

    SIMD16 = 0
    SIMD32 = 1
    DUAL_SOURCE = 2
    DUAL_SOURCE_HIGH = 3
    LOW_LANES = 4

    @property
    def is_dual(self) -> bool:
        """A second colour follows, for dual source blending."""
        return self in (RenderTargetSubtype.DUAL_SOURCE, RenderTargetSubtype.DUAL_SOURCE_HIGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderTargetMessage:
    """rc: pixels to or from a render target."""

    op: RenderCacheOp
    subtype: RenderTargetSubtype
    width: int
    last: bool = False
    """Last render target of the pixel shader."""
    slot_group: int = 0
    half: bool = False
    per_sample: bool = False
    per_coarse_pixel: bool = False
    null_target: bool = False
    target: int = 0
    """Index of the target (extended descriptor 23:21)."""
    source0_alpha: bool = False
    output_mask: bool = False
    depth: bool = False
    stencil: bool = False
    header: bool = False
    surface: Surface = FLAT
    length0: int = 1
    response_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherMessage:
    """A shared function whose messages are not decoded: ray tracing, bindless dispatch, pixel interpolator, old data ports."""

    descriptor: int
    extended: int = 0
    surface: Surface = FLAT
    length0: int = 1
    response_length: int = 0


Message = LscMessage | FenceMessage | GatewayMessage | SamplerMessage | RenderTargetMessage | OtherMessage
