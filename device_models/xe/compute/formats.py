"""Surface formats: texels between bytes in memory and numbers by channel (codes as in Mesa `isl.h`, ISL_FORMAT_*)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Channels = NDArray[np.float64]
"""[texels, 4]: red, green, blue, alpha."""


class Kind(Enum):
    """How a channel's bits are understood."""

    UNORM = "unorm"
    SNORM = "snorm"
    UINT = "uint"
    SINT = "sint"
    FLOAT = "float"
    """Of 16, 32 or 64 bits; of 10 and 11 bits without a sign."""
    SRGB = "srgb"
    USCALED = "uscaled"
    SSCALED = "sscaled"
    """Integers that become floats as they are."""
    FIXED = "sfixed"
    """Signed, 16 bits behind the point."""
    SHARED_EXPONENT = "sharedexp"
    """Mantissas of 9 bits with one exponent of 5 above them."""


@dataclass(frozen=True, slots=True)
class Format:
    """Channels as (channel, first bit, bits), lowest first; what is not there reads 0, alpha 1."""

    bytes: int
    kind: Kind
    fields: tuple[tuple[int, int, int], ...]

    @property
    def is_integer(self) -> bool:
        """Whether shaders see integers."""
        return self.kind in (Kind.UINT, Kind.SINT)


def _even(order: str, width: int, kind: Kind) -> Format:
    """Channels of `width` bits in `order`; x is padding."""
    fields = tuple(("rgba".index(name), n * width, width) for n, name in enumerate(order) if name != "x")
    return Format(len(order) * width // 8, kind, fields)


def _ten(order: str, kind: Kind) -> Format:
    fields = (*(("rgba".index(name), n * 10, 10) for n, name in enumerate(order)), (3, 30, 2))
    return Format(4, kind, fields)


def _family4(first: int, order: str) -> dict[int, Format]:
    """Ten bits and two: SNORM, USCALED, SSCALED, SINT."""
    return {first + n: _ten(order, kind) for n, kind in enumerate((Kind.SNORM, Kind.USCALED, Kind.SSCALED, Kind.SINT))}


def _packed(fields: str, kind: Kind, size: int = 0) -> Format:
    """Channels with their widths, lowest first: "b5 g6 r5"; x is padding. An alpha of SRGB is UNORM."""
    found, at = [], 0
    for field in fields.split():
        width = int(field[1:])
        if field[0] != "x":
            found.append(("rgba".index(field[0]), at, width))
        at += width
    return Format(size or at // 8, kind, tuple(found))


def _luminance(width: int, kind: Kind, alpha: bool) -> Format:
    """One channel that is red, green and blue, perhaps with alpha behind it."""
    fields = [(channel, 0, width) for channel in range(3)] + ([(3, width, width)] if alpha else [])
    return Format(width * (2 if alpha else 1) // 8, kind, tuple(fields))


def _intensity(width: int, kind: Kind) -> Format:
    return Format(width // 8, kind, tuple((channel, 0, width) for channel in range(4)))


def _family(first: int, order: str, width: int, kinds: Sequence[Kind]) -> dict[int, Format]:
    """Formats whose codes follow one another."""
    return {first + index: _even(order, width, kind) for index, kind in enumerate(kinds)}


_U, _S, _SI, _UI, _F = Kind.UNORM, Kind.SNORM, Kind.SINT, Kind.UINT, Kind.FLOAT
_SS, _US, _SRGB = Kind.SSCALED, Kind.USCALED, Kind.SRGB
_FSU = (_F, _SI, _UI, _U, _S)

FORMATS: dict[int, Format] = {
    **_family(0x000, "rgba", 32, _FSU), 0x006: _even("rgbx", 32, _F), **_family(0x007, "rgba", 32, (_SS, _US)),
    0x005: _even("rg", 64, _F), 0x08D: _even("r", 64, _F), 0x197: _even("rgba", 64, _F), 0x198: _even("rgb", 64, _F),
    0x020: _even("rgba", 32, Kind.FIXED), 0x050: _even("rgb", 32, Kind.FIXED), 0x0A0: _even("rg", 32, Kind.FIXED),
    0x1B2: _even("r", 32, Kind.FIXED),
    **_family(0x040, "rgb", 32, (*_FSU, _SS, _US)),
    **_family(0x080, "rgba", 16, (_U, _S, _SI, _UI, _F)), **_family(0x085, "rg", 32, (_F, _SI, _UI)),
    0x088: _packed("r32 x32", _F), 0x089: _packed("x32 g8 x24", _UI), 0x08A: _luminance(32, _F, True),
    **_family(0x08B, "rg", 32, (_U, _S)), 0x08E: _even("rgbx", 16, _U), 0x08F: _even("rgbx", 16, _F),
    **_family(0x093, "rgba", 16, (_SS, _US)), **_family(0x095, "rg", 32, (_SS, _US)),
    0x0C0: _even("bgra", 8, _U), 0x0C1: _even("bgra", 8, _SRGB),
    0x0C2: _ten("rgb", _U), 0x0C3: _ten("rgb", _SRGB), 0x0C4: _ten("rgb", _UI),
    **_family(0x0C7, "rgba", 8, (_U, _SRGB, _S, _SI, _UI)), **_family(0x0CC, "rg", 16, (_U, _S, _SI, _UI, _F)),
    0x0D1: _ten("bgr", _U), 0x0D2: _ten("bgr", _SRGB), 0x0D3: _packed("r11 g11 b10", _F),
    **_family(0x0D6, "r", 32, (_SI, _UI, _F)), 0x0D9: _packed("r24 x8", _U), 0x0DA: _packed("x24 g8", _UI),
    0x0DF: _luminance(16, _U, True), 0x0E3: _intensity(32, _F), 0x0E4: _luminance(32, _F, False),
    0x0E5: _even("a", 32, _F), 0x0F0: _luminance(16, _F, True),
    0x0E9: _even("bgrx", 8, _U), 0x0EA: _even("bgrx", 8, _SRGB), 0x0EB: _even("rgbx", 8, _U),
    0x0EC: _even("rgbx", 8, _SRGB), 0x0ED: Format(4, Kind.SHARED_EXPONENT, ((0, 0, 9), (1, 9, 9), (2, 18, 9))),
    0x0EE: _packed("b10 g10 r10 x2", _U), **_family(0x0F1, "r", 32, (_U, _S)),
    **_family(0x0F4, "rgba", 8, (_SS, _US)), **_family(0x0F6, "rg", 16, (_SS, _US)), **_family(0x0F8, "r", 32, (_SS, _US)),
    0x100: _packed("b5 g6 r5", _U), 0x101: _packed("b5 g6 r5", _SRGB), 0x102: _packed("b5 g5 r5 a1", _U),
    0x103: _packed("b5 g5 r5 a1", _SRGB), 0x104: _packed("b4 g4 r4 a4", _U), 0x105: _packed("b4 g4 r4 a4", _SRGB),
    **_family(0x106, "rg", 8, (_U, _S, _SI, _UI)), **_family(0x10A, "r", 16, (_U, _S, _SI, _UI, _F)),
    0x111: _intensity(16, _U), 0x112: _luminance(16, _U, False), 0x113: _even("a", 16, _U), 0x114: _luminance(8, _U, True),
    0x115: _intensity(16, _F), 0x116: _luminance(16, _F, False), 0x117: _even("a", 16, _F),
    0x118: _luminance(8, _SRGB, True), 0x11A: _packed("b5 g5 r5 x1", _U), 0x11B: _packed("b5 g5 r5 x1", _SRGB),
    **_family(0x11C, "rg", 8, (_SS, _US)), **_family(0x11E, "r", 16, (_SS, _US)),
    0x124: _packed("a1 b5 g5 r5", _U), 0x125: _packed("a4 b4 g4 r4", _U),
    **_family(0x140, "r", 8, (_U, _S, _SI, _UI)), 0x144: _even("a", 8, _U), 0x145: _intensity(8, _U),
    0x146: _luminance(8, _U, False), **_family(0x149, "r", 8, (_SS, _US)), 0x14C: _luminance(8, _SRGB, False),
    **_family(0x193, "rgb", 8, (_U, _S, _SS, _US)), 0x1A8: _even("rgb", 8, _SRGB), **_family(0x1C8, "rgb", 8, (_UI, _SI)),
    **_family(0x19B, "rgb", 16, (_F, _U, _S, _SS, _US)), **_family(0x1B0, "rgb", 16, (_UI, _SI)),
    **_family4(0x1B3, "rgb"), **_family4(0x1B7, "bgr"), 0x1BA: _ten("bgr", _UI), 0x1BB: _ten("bgr", _SI),
}  # fmt: skip

_FLOATS: dict[int, type[np.floating[Any]]] = {16: np.float16, 32: np.float32, 64: np.float64}
_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_EXPONENT_BITS = 5
"""Of floats without a sign, and of a shared exponent, which is 15 too large."""


def decode(form: Format, texels: Bytes) -> Channels:
    """[texels, bytes] as numbers; integers too are exact in a double."""
    result = np.zeros((len(texels), 4))
    result[:, 3] = 1
    if form.kind is Kind.SHARED_EXPONENT:
        scale = 2.0 ** (_bits(texels, 27, 5).astype(np.float64) - 24)
        for channel, first, width in form.fields:
            result[:, channel] = _bits(texels, first, width) * scale
        return result
    for channel, first, width in form.fields:
        result[:, channel] = _value(form.kind, channel, _bits(texels, first, width), width)
    return result


def encode(form: Format, values: Channels) -> Bytes:
    """Numbers as [texels, bytes]; what a channel cannot hold becomes the nearest that it can."""
    texels = np.zeros((len(values), form.bytes), dtype=np.uint8)
    if form.kind is Kind.SHARED_EXPONENT:
        _place(texels, 0, 32, _shared_exponent(values))
        return texels
    fields = {first: (channel, first, width) for channel, first, width in reversed(form.fields)}
    # Of channels that are the same bits (luminance), the first is taken.
    for channel, first, width in fields.values():
        _place(texels, first, width, _pattern(form.kind, channel, values[:, channel], width))
    return texels


def linear_of_srgb(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers from 0 to 1 of a channel in sRGB."""
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)


def _bits(texels: Bytes, first: int, width: int) -> NDArray[np.uint64]:
    begin, end = first // 8, (first + width + 7) // 8
    if first % 8 == 0 and width in (8, 16, 32, 64):
        piece = np.ascontiguousarray(texels[:, begin:end])
        return piece.view(f"<u{width // 8}").reshape(-1).astype(np.uint64)
    value = np.zeros(len(texels), dtype=np.uint64)
    for byte in range(begin, end):
        value |= texels[:, byte].astype(np.uint64) << np.uint64(8 * (byte - begin))
    return value >> np.uint64(first % 8) & np.uint64((1 << width) - 1)


def _place(texels: Bytes, first: int, width: int, value: NDArray[np.uint64]) -> None:
    begin, end = first // 8, (first + width + 7) // 8
    shifted = value << np.uint64(first % 8)
    for byte in range(begin, end):
        texels[:, byte] |= (shifted >> np.uint64(8 * (byte - begin)) & np.uint64(0xFF)).astype(np.uint8)


def _value(kind: Kind, channel: int, bits: NDArray[np.uint64], width: int) -> NDArray[np.float64]:
    if kind is Kind.FLOAT:
        if width not in _FLOATS:
            # Like a half without its sign and its lowest bits.
            bits, width = bits << np.uint64(15 - width), 16
        with np.errstate(invalid="ignore"):
            return np.asarray(bits.astype(_UNSIGNED[width]).view(_FLOATS[width]).astype(np.float64))
    number = bits.astype(np.float64)
    if kind in (Kind.SINT, Kind.SNORM, Kind.SSCALED, Kind.FIXED):
        number = np.where(number >= 2.0 ** (width - 1), number - 2.0**width, number)
    if kind is Kind.FIXED:
        return np.asarray(number / 65536)
    if kind is Kind.SNORM:
        return np.maximum(number / (2.0 ** (width - 1) - 1), -1)
    if kind is Kind.UNORM or (kind is Kind.SRGB and channel == 3):
        return np.asarray(number / (2.0**width - 1))
    if kind is Kind.SRGB:
        unit = number / (2.0**width - 1)
        return linear_of_srgb(unit)
    return number


def _pattern(kind: Kind, channel: int, values: NDArray[np.float64], width: int) -> NDArray[np.uint64]:
    if kind is Kind.FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            if width not in _FLOATS:
                return _small_float(values, width)
            return np.asarray(values.astype(_FLOATS[width]).view(_UNSIGNED[width]).astype(np.uint64))
    values = np.nan_to_num(values, nan=0.0)
    if kind is Kind.SRGB and channel != 3:
        unit = np.clip(values, 0, 1)
        values = np.where(unit <= 0.0031308, unit * 12.92, 1.055 * unit ** (1 / 2.4) - 0.055)
    if kind in (Kind.UNORM, Kind.SRGB):
        number = np.rint(np.clip(values, 0, 1) * (2.0**width - 1))
    elif kind is Kind.SNORM:
        number = np.rint(np.clip(values, -1, 1) * (2.0 ** (width - 1) - 1))
    elif kind is Kind.FIXED:
        number = np.rint(np.clip(values, -(2.0**15), 2.0**15 - 2.0**-16) * 65536)
    elif kind in (Kind.SINT, Kind.SSCALED):
        number = np.clip(values, -(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1)
    else:
        number = np.clip(values, 0, 2.0**width - 1)
    return number.astype(np.int64).astype(np.uint64) & np.uint64((1 << width) - 1)


def _small_float(values: NDArray[np.float64], width: int) -> NDArray[np.uint64]:
    """Floats of 10 or 11 bits: what is less than zero is zero, what is too large the largest; not a number stays that."""
    mantissa = width - _EXPONENT_BITS
    largest = (2 - 2.0**-mantissa) * 2.0**15
    finite = np.isfinite(values)
    clipped = np.clip(np.where(finite, values, 0), 0, largest)
    bits = clipped.astype(np.float16).view(np.uint16).astype(np.int64)
    # Halves have 10 bits behind the point: round those that are too many to the nearest, and ties to even.
    drop = 10 - mantissa
    rounded = bits + (1 << drop - 1) - 1 + (bits >> drop & 1) >> drop
    top = (1 << _EXPONENT_BITS) - 1 << mantissa
    rounded = np.minimum(rounded, top - 1)
    rounded = np.where(np.isnan(values), top | 1, rounded)
    rounded = np.where(np.isposinf(values), top, rounded)
    return np.asarray(rounded.astype(np.uint64))


def _shared_exponent(values: Channels) -> NDArray[np.uint64]:
    """Red, green and blue with the exponent of the largest (EXT_texture_shared_exponent)."""
    largest = 511 / 512 * 2.0**16
    colours = np.clip(np.nan_to_num(values[:, :3], posinf=largest), 0, largest)
    top = colours.max(axis=1)
    exponent = np.maximum(-16, np.floor(np.log2(np.maximum(top, 2.0**-40)))) + 16
    exponent += np.rint(top / 2.0 ** (exponent - 24)) == 512
    mantissas = np.rint(colours / 2.0 ** (exponent[:, None] - 24)).astype(np.uint64)
    whole = mantissas[:, 0] | mantissas[:, 1] << np.uint64(9) | mantissas[:, 2] << np.uint64(18)
    return np.asarray(whole | exponent.astype(np.uint64) << np.uint64(27))
