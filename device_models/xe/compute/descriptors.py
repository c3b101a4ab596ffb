"""COMPUTE_WALKER and INTERFACE_DESCRIPTOR_DATA, decoded (Mesa `gen200.xml`; NEO `hw_cmds_generated_xe2_hpg_core.inl`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

from vfio_user_xe.device_models.xe.memory.formats.ppgtt import VA_MASK

Triple = tuple[int, int, int]

WALKER_DWORDS = 40
BODY_DWORDS = 39
_SLM_KIB = (0, 1, 2, 4, 8, 16, 32, 64, 24, 48, 96, 128, 192, 256, 384)
_BARRIERS = (0, 1, 2, 4, 8, 16, 24, 32)
_SIMD = {0: 8, 1: 16, 2: 32}
# DispatchWalkOrder (dword 4, 6:5): 0 linear, 1 by y, 2 Morton, which goes linearly here (hw_cmds_generated_xe2_hpg_core.inl).
_Y_ORDER_WALK = 1
# First letter is the fastest dimension.
_ORDERS: tuple[Triple, ...] = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


class BadDescriptor(ValueError):
    """A field has a value that means nothing."""


class PostSync(IntEnum):
    """What is written when the last thread has ended (dword 27, 1:0)."""

    NONE = 0
    IMMEDIATE = 1
    TIMESTAMP = 3


_POST_SYNC = (PostSync.NONE, PostSync.IMMEDIATE, PostSync.NONE, PostSync.TIMESTAMP)
_EMITTED = tuple((code & 1 != 0, code & 2 != 0, code & 4 != 0) for code in range(8))


def _bits(value: int, high: int, low: int) -> int:
    return value >> low & (1 << high - low + 1) - 1


@dataclass(frozen=True, slots=True)
class InterfaceDescriptor:
    """What a kernel is and needs."""

    kernel: int
    """Offset from instruction base."""
    exceptions: int
    """Dword 2: bits 7 (software), 11 (mask stack), 13 (illegal opcode)."""
    denormals: bool
    sampler_state: int
    """Offset from dynamic state base, in place (31:5)."""
    binding_table: int
    """Offset, in place (20:5)."""
    threads: int
    """Of a group."""
    slm_bytes: int
    rounding: int
    """cr0.0 5:4."""
    barriers: int

    @classmethod
    def of(cls, words: Sequence[int]) -> InterfaceDescriptor:
        """Its eight dwords.

        Raises:
            BadDescriptor: the SLM size has no meaning.
        """
        return cls(
            kernel=(words[0] & ~0x3F | words[1] << 32) & VA_MASK,
            exceptions=words[2] & (1 << 7 | 1 << 11 | 1 << 13),
            denormals=bool(words[2] >> 19 & 1),
            sampler_state=words[3] & ~0x1F,
            binding_table=words[4] & 0x1F_FFE0,
            threads=_bits(words[5], 9, 0),
            slm_bytes=slm_bytes(_bits(words[5], 20, 16)),
            rounding=_bits(words[5], 23, 22),
            barriers=_BARRIERS[_bits(words[5], 30, 28)],
        )


def slm_bytes(code: int) -> int:
    """Shared local memory of a group that a field "Shared Local Memory Size" asks for.

    Raises:
        BadDescriptor: the SLM size has no meaning.
    """
    if code >= len(_SLM_KIB):
        raise BadDescriptor(f"shared local memory size code {code}; 0 to {len(_SLM_KIB) - 1} have a meaning")
    return _SLM_KIB[code] << 10


@lru_cache(maxsize=256)
def _interface(words: tuple[int, ...]) -> InterfaceDescriptor:
    """A kernel is dispatched with the same one again and again."""
    return InterfaceDescriptor.of(words)


@dataclass(slots=True)
class Walker:
    """A dispatch: groups `first` to `end` (exclusive) in three dimensions. As `Task`, not to be changed, but not frozen."""

    predicated: bool
    indirect: bool
    """Group counts come from GPGPU_DISPATCHDIM*."""
    indirect_length: int
    indirect_data: int
    """Offset from general state base, in place (31:6)."""
    simd: int
    generate_ids: bool
    emit_ids: tuple[bool, bool, bool]
    emit_inline: bool
    order: Triple
    """Dimensions of generated ids, the fastest first."""
    y_first: bool
    """Dispatch walk order: groups go on in y first, then in x; not in x first."""
    last_mask: int
    """Lanes of a group's last thread."""
    local: Triple
    """Work items of a group."""
    end: Triple
    first: Triple
    interface: InterfaceDescriptor
    post_sync: PostSync
    post_sync_address: int
    immediate: int
    inline: tuple[int, ...]
    form: tuple[int, ...]
    """Dwords that say how threads of its groups begin, but for indirect and inline data."""
    groups: int = field(init=False)
    """How many there are."""

    def __post_init__(self) -> None:
        (x, y, z), (x0, y0, z0) = self.end, self.first
        self.groups = (x - x0) * (y - y0) * (z - z0) if x > x0 and y > y0 and z > z0 else 0

    @classmethod
    def of(cls, header: int, body: Sequence[int]) -> Walker:
        """The walker with first dword `header` and the `BODY_DWORDS` behind it.

        Raises:
            BadDescriptor: a field has no meaning.
        """
        # Indices of the documentation count the header.
        words = [header, *body[:BODY_DWORDS]]
        if len(words) != WALKER_DWORDS:
            raise BadDescriptor(f"a walker of {len(words)} dwords; it has {WALKER_DWORDS}")
        form, size, interface = words[4], words[6], tuple(words[19:27])
        simd, order = _SIMD.get(form >> 30), form >> 22 & 7
        if simd is None:
            raise BadDescriptor(f"SIMD size code {form >> 30}; 0 to 2 have a meaning")
        if order >= len(_ORDERS):
            raise BadDescriptor(f"walk order {order}; 0 to {len(_ORDERS) - 1} have a meaning")
        return cls(
            predicated=header & 1 << 8 != 0,
            indirect=header & 1 << 10 != 0,
            indirect_length=words[2] & 0x1_FFFF,
            indirect_data=words[3] & ~0x3F,
            simd=simd,
            generate_ids=form & 1 << 29 != 0,
            emit_ids=_EMITTED[form >> 26 & 7],
            emit_inline=form & 1 << 25 != 0,
            order=_ORDERS[order],
            y_first=form >> 5 & 3 == _Y_ORDER_WALK,
            last_mask=words[5],
            local=((size & 0x3FF) + 1, (size >> 10 & 0x3FF) + 1, (size >> 20 & 0x3FF) + 1),
            end=(words[7], words[8], words[9]),
            first=(words[10], words[11], words[12]),
            interface=_interface(interface),
            post_sync=_POST_SYNC[words[27] & 3],
            post_sync_address=(words[28] & ~7 | words[29] << 32) & VA_MASK,
            immediate=words[30] | words[31] << 32,
            inline=tuple(words[32:40]),
            form=(form, words[5], size, *interface),
        )


@lru_cache(maxsize=256)
def decoded(command: bytes) -> Walker:
    """A COMPUTE_WALKER from its dwords, header and all; loops submit the same one again and again.

    Raises:
        BadDescriptor: a field has no meaning.
    """
    header, *body = memoryview(command).cast("I").tolist()
    return Walker.of(header, body)
