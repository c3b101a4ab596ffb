"""A translated program as bytes that can be kept: without pointers, and with addresses from its entry on."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.eu.compiled.emit import pack
from vfio_user_xe.device_models.xe.eu.compiled.layout import OP
from vfio_user_xe.device_models.xe.eu.compiled.translator import Translation
from vfio_user_xe.device_models.xe.eu.ir import Program

OP_ARRAY = np.dtype(
    {
        "names": ["handler", "address", "extra"],
        "formats": [np.uint64, np.uint32, np.uint64],
        "offsets": [0, 28, 56],
        "itemsize": OP.size,
    }
)
"""Of `struct op` what depends on where things are."""

NOTHING, MESSAGE_AT, OP_AT = 0, 1, 2
"""Low two bits of `extra` in an image: what the rest (bytes in the messages, or an op) points to."""

_HEADER = struct.Struct("<I")


@dataclass
class Image:
    """Ops with numbers of `handlers` in place of their addresses; see `OP_ARRAY`."""

    handlers: list[str]
    ops: NDArray[np.uint8]
    op_at: NDArray[np.int32]
    """Op of an address: by (address - first) / 8."""
    first: int
    """First address, and the one behind the last; from the entry on, like all addresses here."""
    last: int
    messages: bytes
    constants: bytes
    interpreted: list[int]
    """Addresses of instructions without handlers."""

    def to_bytes(self) -> bytes:
        parts = [self.ops.tobytes(), self.op_at.tobytes(), self.messages, self.constants]
        header = json.dumps(
            {
                "handlers": self.handlers,
                "first": self.first,
                "last": self.last,
                "interpreted": self.interpreted,
                "sizes": [len(part) for part in parts],
            }
        ).encode()
        return b"".join([_HEADER.pack(len(header)), header, *parts])

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """What `to_bytes` made; the caller knows that these are all of its bytes, unchanged."""
        (size,) = _HEADER.unpack_from(data)
        start = _HEADER.size + size
        header = json.loads(data[_HEADER.size : start])
        parts = []
        for length in header["sizes"]:
            parts.append(data[start : start + length])
            start += length
        return cls(
            handlers=header["handlers"],
            ops=np.frombuffer(parts[0], dtype=np.uint8),
            op_at=np.frombuffer(parts[1], dtype=np.int32),
            first=header["first"],
            last=header["last"],
            messages=parts[2],
            constants=parts[3],
            interpreted=header["interpreted"],
        )


def image_of(program: Program, translation: Translation) -> Image:
    """The image of a program, from its first entry on."""
    entry = program.entries[0]
    first, last = program.instructions[0].address, program.instructions[-1].next
    op_at = np.full((last - first) // 8, -1, dtype=np.int32)
    index_of: dict[int, int] = {}
    for index, (_, address, begins) in enumerate(translation.ops):
        if begins and address not in index_of:
            index_of[address] = index
            if address < last:
                op_at[(address - first) // 8] = index
    for address, index in translation.skipped.items():
        op_at[(address - first) // 8] = index
    numbers: dict[str, int] = {}
    packed = []
    for op, address, begins in translation.ops:
        extra = NOTHING
        if op.message is not None:
            extra = op.message << 2 | MESSAGE_AT
        elif op.target is not None:
            extra = index_of[op.target] << 2 | OP_AT
        number = numbers.setdefault(op.handler, len(numbers))
        packed.append(pack(op, number, address - entry & 0xFFFF_FFFF, begins, extra))
    return Image(
        handlers=list(numbers),
        ops=np.frombuffer(b"".join(packed), dtype=np.uint8),
        op_at=op_at,
        first=first - entry,
        last=last - entry,
        messages=bytes(translation.messages),
        constants=bytes(translation.constants.data),
        interpreted=[instruction.address - entry for instruction in translation.interpreted],
    )
