"""Typed load/store messages (tgm): texels by coordinate, and 2-D blocks of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.atomics import OPERANDS, OPERATIONS
from vfio_user_xe.device_models.xe.compute.memory import Flags, Numbers, UnitMemory
from vfio_user_xe.device_models.xe.compute.surfaces import SurfaceState, SurfaceType
from vfio_user_xe.device_models.xe.compute.texels import Coordinates, Image
from vfio_user_xe.device_models.xe.eu.messages import payload
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage, LscOp

LOADS = frozenset({LscOp.LOAD_QUAD, LscOp.LOAD})
STORES = frozenset({LscOp.STORE_QUAD, LscOp.STORE, LscOp.STORE_UNCOMPRESSED, LscOp.STORE_UNCOMPRESSED_QUAD})


class TexelAccess:
    """One typed message of several threads: first where its texels are, then the access itself."""

    def __init__(
        self,
        memory: UnitMemory,
        surface: SurfaceState,
        message: LscMessage,
        data: NDArray[np.uint8],
        lanes: Flags,
    ) -> None:
        """The access of `message` by the threads whose payloads are `data`.

        Raises:
            UnknownImage: the surface's format or layout is not emulated.
        """
        self.image = Image(memory, surface, surface.typed_level)
        self._memory = memory
        self._message = message
        self._data = data
        x, y, layer = _coordinates(message, data, surface)
        self.active = lanes & self.image.inside(x, y, layer)
        """[threads, lanes]: those whose texel is in the surface."""
        self.addresses = self.image.addresses(x, y, layer)
        self.is_write = message.op not in LOADS

    def run(self, chosen: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Do it for the threads in `chosen`; the response of these.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        message, active = self._message, self.active[chosen]
        places = self.addresses[chosen][active]
        if message.op in OPERATIONS:
            return self._atomic(chosen, active, places)
        if self.is_write:
            bits = payload.data(message, self._data[chosen]).transpose(0, 2, 1)[active]
            values = np.zeros((len(places), 4))
            values[:, 3] = 1
            for index, component in enumerate(message.components):
                values[:, component] = self.image.from_bits(np.ascontiguousarray(bits[:, index]))
            self.image.store(places, values)
            return None
        if not message.response_length:
            return None
        found = np.zeros((len(chosen), len(message.components), active.shape[1]), dtype=np.uint64)
        texels = self.image.to_bits(self.image.load(places))
        for index, component in enumerate(message.components):
            found[:, index][active] = texels[:, component]
        return payload.response(message, found)

    def _atomic(self, chosen: NDArray[np.int64], active: Flags, places: Numbers) -> NDArray[np.uint8] | None:
        """Read-modify-write of texels that are one element of the message's size."""
        message = self._message
        count = OPERANDS.get(message.op, 1)
        operands = [
            payload.data(message, self._data[chosen], index)[:, 0][active].tolist()
            if index < count
            else [0] * len(places)
            for index in range(2)
        ]
        old = self._memory.atomic(OPERATIONS[message.op], places, operands, message.data_bytes)
        if not message.response_length:
            return None
        found = np.zeros((len(chosen), 1, active.shape[1]), dtype=np.uint64)
        found[:, 0][active] = np.array(old, dtype=np.uint64)
        return payload.response(message, found)


def _coordinates(
    message: LscMessage, data: NDArray[np.uint8], surface: SurfaceState
) -> tuple[Coordinates, Coordinates, Coordinates]:
    found = payload.coordinates(message, data, 3).astype(np.uint32).view(np.int32).astype(np.int64)
    x, y, layer = found[:, 0], found[:, 1], found[:, 2]
    nothing = np.zeros_like(x)
    if surface.type in (SurfaceType.BUFFER, SurfaceType.STRUCTURED):
        return x, nothing, nothing
    if surface.type is SurfaceType.D1:
        # An array's element is the second coordinate of a one-dimensional surface.
        return x, nothing, y if surface.array else nothing
    return x, y, layer if surface.array or surface.type in (SurfaceType.D3, SurfaceType.CUBE) else nothing


class Block:
    """A 2-D block of bytes of a surface: header in the first register (IGT's gpgpu_shader)."""

    def __init__(self, memory: UnitMemory, surface: SurfaceState, data: NDArray[np.uint8]) -> None:
        """`data` is one thread's payload.

        Raises:
            UnknownImage: the surface's format or layout is not emulated.
        """
        header = data[:64].view(np.uint32)
        x0, y0 = int(header[5].view(np.int32)), int(header[6].view(np.int32))
        self.width, self.height = int(header[7] & 0x3F) + 1, int(header[7] >> 8 & 0x3F) + 1
        image = Image(memory, surface, surface.typed_level)
        self._memory = memory
        self._data = data
        rows, columns = np.meshgrid(np.arange(self.height), np.arange(self.width), indexing="ij")
        y, byte = (rows + y0).reshape(-1).astype(np.int64), (columns + x0).reshape(-1).astype(np.int64)
        texel, part = byte // image.format.bytes, byte % image.format.bytes
        layer = np.zeros_like(y)
        self.active = image.inside(texel, y, layer)
        self.addresses: Numbers = image.addresses(texel, y, layer) + part.astype(np.uint64)

    @property
    def pitch(self) -> int:
        """Bytes of a row in registers: the next power of two, at least a dword."""
        return max(4, 1 << (self.width - 1).bit_length())

    def load(self, length: int) -> NDArray[np.uint8]:
        """`length` bytes of response.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        block = np.zeros((self.height, self.pitch), dtype=np.uint8)
        inside = np.zeros(self.height * self.width, dtype=np.uint8)
        inside[self.active] = self._memory.load(self.addresses[self.active], 1)
        block[:, : self.width] = inside.reshape(self.height, self.width)
        result = np.zeros(length, dtype=np.uint8)
        flat = block.reshape(-1)[:length]
        result[: len(flat)] = flat
        return result

    def store(self) -> None:
        """Store the payload behind the header.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        flat = np.zeros(self.height * self.pitch, dtype=np.uint8)
        rest = self._data[64 : 64 + len(flat)]
        flat[: len(rest)] = rest
        values = flat.reshape(self.height, self.pitch)[:, : self.width].reshape(-1).astype(np.uint64)
        self._memory.store(self.addresses[self.active], values[self.active], 1)
