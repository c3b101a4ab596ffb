"""Parameters of the sampler's messages, as arrays by lane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.cubes import Floats
from vfio_user_xe.device_models.xe.compute.filtering import Places
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.eu.messages.message import SamplerMessage
from vfio_user_xe.device_models.xe.eu.messages.sampler_forms import PACKED_CUBES, Form

_REGISTER = 64
_PACKED_INDEX, _PACKED_OFFSETS = 0x1FF, 0xFFF


class Parameters:
    """The parameters of a message, flat by lane; those that it does not have are zero."""

    def __init__(self, message: SamplerMessage, form: Form, surface: SurfaceState, data: NDArray[np.uint8]) -> None:
        self.message, self._data = message, data
        self._found: dict[str, Floats] = {}
        self._lane_offsets: list[Floats] = []
        packed_cube = surface.type is SurfaceType.CUBE and message.op in PACKED_CUBES
        for index, name in enumerate(form.names):
            if name in ("lod", "bias") and packed_cube and not message.half_parameters:
                words = self._words(index)
                self._found[name] = _as_floats(words & ~_PACKED_INDEX)
                self._found["ai"] = (words & _PACKED_INDEX).astype(np.float64)
            elif "off" in name:
                self._packed(name, self._words(index))
            elif name != "ai" or "ai" not in self._found:
                self._found[name] = parameter(message, data, index, integer=False).reshape(-1)
        self.least = self._found["mlod"] if "mlod" in self._found and self._has(form, "mlod") else None
        self.reference = self._found.get("ref")
        self.detail = self._found.get("lod", self._found.get("bias"))
        self.slopes = [
            (self._found[f"d{axis}dx"], self._found[f"d{axis}dy"]) for axis in "uv" if f"d{axis}dx" in self._found
        ]
        u, v = self._found["u"], self._found["v"]
        r, element = (self._found.get(name, np.zeros(len(u))) for name in ("r", "ai"))
        if surface.type is SurfaceType.CUBE:
            layer = element
        else:
            layer = v if surface.type is SurfaceType.D1 else r
        self.places = Places(u, v, r, layer, self._offsets())

    @property
    def channel(self) -> int:
        """That gather takes: header, dword 2, 17:16."""
        return self._header() >> 16 & 3

    def _header(self) -> int:
        return int(self._data[0, 8:12].view(np.uint32)[0]) if self.message.header else 0

    def _offsets(self) -> tuple[int | Floats, int | Floats, int | Floats]:
        """Of u, v and r: header, dword 2, 11:8, 7:4, 3:0; and those of each lane."""
        word = self._header()
        found: list[int | Floats] = [(word >> shift & 0xF) - (word >> shift & 8) * 2 for shift in (8, 4, 0)]
        for axis, offsets in enumerate(self._lane_offsets):
            found[axis] = found[axis] + offsets
        return found[0], found[1], found[2]

    def _packed(self, name: str, words: NDArray[np.int64]) -> None:
        """Offsets, and what is in the same parameter."""
        before, _, rest = name.partition("off")
        axes, width = rest.partition("_")[0][:-1], int(rest.partition("_")[0][-1])
        if before:
            self._found[before[:-1]] = _as_floats(words & ~_PACKED_OFFSETS)
        if rest.endswith("_r"):
            self._found["r"] = (words & _PACKED_OFFSETS).astype(np.float64)
            words = words >> 12
        for axis in range(len(axes)):
            offsets = words >> axis * width & (1 << width) - 1
            self._lane_offsets.append(
                np.where(offsets >> width - 1, offsets - (1 << width), offsets).astype(np.float64)
            )

    def _words(self, index: int) -> NDArray[np.int64]:
        """A parameter's bits."""
        return parameter(self.message, self._data, index, integer=True).reshape(-1).astype(np.int64) & 0xFFFF_FFFF

    def _has(self, form: Form, name: str) -> bool:
        """Whether the message is long enough to have a parameter."""
        message = self.message
        first = (_REGISTER if message.header else 0) + form.names.index(name) * message.parameter_registers * _REGISTER
        return bool(first < self._data.shape[1])


def _as_floats(words: NDArray[np.int64]) -> Floats:
    return words.astype(np.uint32).view(np.float32).astype(np.float64)


def parameter(message: SamplerMessage, data: NDArray[np.uint8], index: int, *, integer: bool) -> NDArray[np.float64]:
    """[threads, lanes]; zero where the message has no such parameter."""
    size = 2 if message.half_parameters else 4
    first = (_REGISTER if message.header else 0) + index * message.parameter_registers * _REGISTER
    end = first + size * message.width
    if end > data.shape[1]:
        return np.zeros((len(data), message.width))
    raw = np.ascontiguousarray(data[:, first:end])
    if size == 2:
        return raw.view(np.int16 if integer else np.float16).astype(np.float64)
    return raw.view(np.int32 if integer else np.float32).astype(np.float64)
