"""Load/store descriptors (ugm, ugml, slm, tgm, urb) into `LscMessage` and `FenceMessage`."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.eu.messages.message import (
    FLAT,
    FenceMessage,
    LscMessage,
    LscOp,
    Surface,
    SurfaceKind,
)
from vfio_user_xe.device_models.xe.eu.opcodes import Sfid

_ADDRESS_BYTES = {1: 2, 2: 4, 3: 8}
# Data size code: bytes in memory, bytes in a register, upper half.
_DATA_SIZES = {
    0: (1, 1, False),
    1: (2, 2, False),
    2: (4, 4, False),
    3: (8, 8, False),
    4: (1, 4, False),
    5: (2, 4, False),
    6: (2, 4, True),
}
_VECTORS = (1, 2, 3, 4, 8, 16, 32, 64)


def _bits(value: int, high: int, low: int) -> int:
    return value >> low & (1 << high - low + 1) - 1


def _signed(value: int, high: int, low: int) -> int:
    width = high - low + 1
    field = _bits(value, high, low)
    return field - (1 << width) if field >> width - 1 else field


def decode_lsc(
    sfid: Sfid, descriptor: int, extended: int, width: int, extended_in_a0: bool
) -> LscMessage | FenceMessage | None:
    """The message, or None if the descriptor means none."""
    try:
        op = LscOp(_bits(descriptor, 5, 0))
    except ValueError:
        return None
    length0, response = _bits(descriptor, 28, 25), _bits(descriptor, 24, 20)
    if op is LscOp.FENCE:
        return FenceMessage(
            scope=_bits(descriptor, 11, 9),
            flush=_bits(descriptor, 14, 12),
            length0=length0,
            response_length=response,
        )
    address_bytes = _address_bytes(sfid, op, descriptor)
    sizes = _DATA_SIZES.get(_bits(descriptor, 11, 9))
    if address_bytes is None or sizes is None:
        return None
    surface = _surface(descriptor, extended, extended_in_a0)
    x_offset = y_offset = 0
    if op.is_block2d:
        if surface.kind is SurfaceKind.FLAT:
            x_offset, y_offset = _signed(extended, 21, 12), _signed(extended, 31, 22)
        offset = 0
    else:
        offset = _offset(sfid, surface.kind, extended, extended_in_a0)
    return LscMessage(
        op=op,
        width=1 if op.is_block2d or op is LscOp.READ_STATE else width,
        address_bytes=address_bytes,
        data_bytes=sizes[0],
        register_bytes=sizes[1],
        high_half=sizes[2],
        components=_components(op, descriptor),
        transpose=not op.is_quad and bool(_bits(descriptor, 15, 15)),
        vnni=op is LscOp.LOAD_BLOCK2D and sfid is not Sfid.TGM and bool(_bits(descriptor, 7, 7)),
        offset=offset,
        x_offset=x_offset,
        y_offset=y_offset,
        surface=surface,
        caching=_bits(descriptor, 19, 16),
        length0=length0,
        response_length=response,
        typed=sfid is Sfid.TGM,
    )


def _address_bytes(sfid: Sfid, op: LscOp, descriptor: int) -> int | None:
    if op.is_block2d:
        return 4 if sfid is Sfid.TGM else 8
    if op in (LscOp.ATOMIC_APPEND_ADD, LscOp.ATOMIC_APPEND_SUB, LscOp.ATOMIC_APPEND_STORE):
        return 4
    if op is LscOp.READ_STATE:
        return 8
    return _ADDRESS_BYTES.get(_bits(descriptor, 8, 7))


def _components(op: LscOp, descriptor: int) -> tuple[int, ...]:
    if op.is_quad:
        mask = _bits(descriptor, 15, 12)
        return tuple(component for component in range(4) if mask >> component & 1)
    if op.is_block2d:
        return (0,)
    return tuple(range(_VECTORS[_bits(descriptor, 14, 12)]))


def _surface(descriptor: int, extended: int, extended_in_a0: bool) -> Surface:
    kind = SurfaceKind(_bits(descriptor, 30, 29))
    if kind is SurfaceKind.FLAT:
        return FLAT
    if extended_in_a0:
        return Surface(kind, None)
    if kind is SurfaceKind.BTI:
        return Surface(kind, _bits(extended, 31, 24))
    return Surface(kind, extended & 0xFFFF_F800)


def _offset(sfid: Sfid, kind: SurfaceKind, extended: int, extended_in_a0: bool) -> int:
    """The immediate offset in bytes."""
    if kind is SurfaceKind.FLAT:
        return _signed(extended, 31, 12)
    if kind is SurfaceKind.BTI:
        return 0 if extended_in_a0 else _signed(extended, 23, 12)
    if sfid is Sfid.UGM and extended_in_a0:
        packed = _bits(extended, 31, 19) << 4 | _bits(extended, 15, 12)
        return _signed(packed, 16, 0)
    return 0


def surface_from_a0(kind: SurfaceKind, value: int, extended_bso: bool, sfid: Sfid) -> int:
    """What the extended descriptor in a0 says of the surface: an index, or the byte offset of a surface state.

    Without ExBSO, and not for ugm, bits 10:6 are the length of source 1.
    """
    if kind is SurfaceKind.BTI:
        return _bits(value, 31, 24)
    return value & (0xFFFF_FFC0 if extended_bso or sfid is Sfid.UGM else 0xFFFF_F800)
