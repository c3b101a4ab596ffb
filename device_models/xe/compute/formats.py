"""Surface formats: texels between bytes in memory and numbers by channel (codes as in Mesa `isl.h`, ISL_FORMAT_*)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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
    SRGB = "srgb"


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


FORMATS: dict[int, Format] = {
    0x000: _even("rgba", 32, Kind.FLOAT), 0x001: _even("rgba", 32, Kind.SINT), 0x002: _even("rgba", 32, Kind.UINT),
    0x040: _even("rgb", 32, Kind.FLOAT), 0x041: _even("rgb", 32, Kind.SINT), 0x042: _even("rgb", 32, Kind.UINT),
    0x080: _even("rgba", 16, Kind.UNORM), 0x081: _even("rgba", 16, Kind.SNORM), 0x082: _even("rgba", 16, Kind.SINT),
    0x083: _even("rgba", 16, Kind.UINT), 0x084: _even("rgba", 16, Kind.FLOAT),
    0x085: _even("rg", 32, Kind.FLOAT), 0x086: _even("rg", 32, Kind.SINT), 0x087: _even("rg", 32, Kind.UINT),
    0x0C0: _even("bgra", 8, Kind.UNORM), 0x0C1: _even("bgra", 8, Kind.SRGB),
    0x0C2: _ten("rgb", Kind.UNORM), 0x0C4: _ten("rgb", Kind.UINT),
    0x0C7: _even("rgba", 8, Kind.UNORM), 0x0C8: _even("rgba", 8, Kind.SRGB), 0x0C9: _even("rgba", 8, Kind.SNORM),
    0x0CA: _even("rgba", 8, Kind.SINT), 0x0CB: _even("rgba", 8, Kind.UINT),
    0x0CC: _even("rg", 16, Kind.UNORM), 0x0CD: _even("rg", 16, Kind.SNORM), 0x0CE: _even("rg", 16, Kind.SINT),
    0x0CF: _even("rg", 16, Kind.UINT), 0x0D0: _even("rg", 16, Kind.FLOAT), 0x0D1: _ten("bgr", Kind.UNORM),
    0x0D6: _even("r", 32, Kind.SINT), 0x0D7: _even("r", 32, Kind.UINT), 0x0D8: _even("r", 32, Kind.FLOAT),
    0x0E9: _even("bgrx", 8, Kind.UNORM), 0x0EA: _even("bgrx", 8, Kind.SRGB),
    0x106: _even("rg", 8, Kind.UNORM), 0x107: _even("rg", 8, Kind.SNORM), 0x108: _even("rg", 8, Kind.SINT),
    0x109: _even("rg", 8, Kind.UINT), 0x10A: _even("r", 16, Kind.UNORM), 0x10B: _even("r", 16, Kind.SNORM),
    0x10C: _even("r", 16, Kind.SINT), 0x10D: _even("r", 16, Kind.UINT), 0x10E: _even("r", 16, Kind.FLOAT),
    0x140: _even("r", 8, Kind.UNORM), 0x141: _even("r", 8, Kind.SNORM), 0x142: _even("r", 8, Kind.SINT),
    0x143: _even("r", 8, Kind.UINT), 0x144: _even("a", 8, Kind.UNORM),
}  # fmt: skip

_FLOATS: dict[int, type[np.floating]] = {16: np.float16, 32: np.float32}


def decode(form: Format, texels: Bytes) -> Channels:
    """[texels, bytes] as numbers; integers too are exact in a double."""
    result = np.zeros((len(texels), 4))
    result[:, 3] = 1
    for channel, first, width in form.fields:
        result[:, channel] = _value(form.kind, channel, _bits(texels, first, width), width)
    return result


def encode(form: Format, values: Channels) -> Bytes:
    """Numbers as [texels, bytes]; what a channel cannot hold becomes the nearest that it can."""
    texels = np.zeros((len(values), form.bytes), dtype=np.uint8)
    for channel, first, width in form.fields:
        _place(texels, first, width, _pattern(form.kind, channel, values[:, channel], width))
    return texels


def _bits(texels: Bytes, first: int, width: int) -> NDArray[np.uint64]:
    value = np.zeros(len(texels), dtype=np.uint64)
    begin, end = first // 8, (first + width + 7) // 8
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
        unsigned = np.uint16 if width == 16 else np.uint32
        return np.asarray(bits.astype(unsigned).view(_FLOATS[width]).astype(np.float64))
    number = bits.astype(np.float64)
    if kind in (Kind.SINT, Kind.SNORM):
        number = np.where(number >= 2.0 ** (width - 1), number - 2.0**width, number)
    if kind is Kind.SNORM:
        return np.maximum(number / (2.0 ** (width - 1) - 1), -1)
    if kind is Kind.UNORM or (kind is Kind.SRGB and channel == 3):
        return np.asarray(number / (2.0**width - 1))
    if kind is Kind.SRGB:
        unit = number / (2.0**width - 1)
        return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return number


def _pattern(kind: Kind, channel: int, values: NDArray[np.float64], width: int) -> NDArray[np.uint64]:
    if kind is Kind.FLOAT:
        unsigned = np.uint16 if width == 16 else np.uint32
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values.astype(_FLOATS[width]).view(unsigned).astype(np.uint64))
    values = np.nan_to_num(values, nan=0.0)
    if kind is Kind.SRGB and channel != 3:
        unit = np.clip(values, 0, 1)
        values = np.where(unit <= 0.0031308, unit * 12.92, 1.055 * unit ** (1 / 2.4) - 0.055)
    if kind in (Kind.UNORM, Kind.SRGB):
        number = np.rint(np.clip(values, 0, 1) * (2.0**width - 1))
    elif kind is Kind.SNORM:
        number = np.rint(np.clip(values, -1, 1) * (2.0 ** (width - 1) - 1))
    elif kind is Kind.SINT:
        number = np.clip(values, -(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1)
    else:
        number = np.clip(values, 0, 2.0**width - 1)
    return number.astype(np.int64).astype(np.uint64) & np.uint64((1 << width) - 1)
