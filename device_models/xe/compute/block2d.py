"""Untyped 2-D block messages (ugm): blocks of rows of a matrix in memory (visa LSC_UNTYPED.md).

Payload: dwords 0 and 1 base address, 2 width - 1 and 4 pitch - 1 in bytes, 3 height - 1, 5 and 6 X and Y (elements, signed), 7 width - 1
of a block 7:0, height - 1 15:8, blocks - 1 19:16. In registers the rows of a block are padded to a power of two of elements, and each block
begins with a register.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.compute.memory import Numbers, UnitMemory, parts
from vfio_user_xe.device_models.xe.eu.messages.message import LscMessage

_REGISTER = 64


class Blocks:
    """The blocks of one thread's message: which elements, and where each lies in the registers."""

    def __init__(self, message: LscMessage, data: NDArray[np.uint8]) -> None:
        """`data` is the thread's payload."""
        words = data[:_REGISTER].view(np.uint32)
        size = message.data_bytes
        width, height, count = int(words[7] & 0xFF) + 1, int(words[7] >> 8 & 0xFF) + 1, int(words[7] >> 16 & 0xF) + 1
        block, row, column = (axis.reshape(-1) for axis in np.indices((count, height, width)))
        x = int(words[5].view(np.int32)) + message.x_offset + block * width + column
        y = int(words[6].view(np.int32)) + message.y_offset + row
        inside = (x >= 0) & ((x + 1) * size <= int(words[2]) + 1) & (y >= 0) & (y <= int(words[3]))
        base = int(words[0]) | int(words[1]) << 32
        offsets = y * (int(words[4]) + 1) + x * size
        self.size = size
        self.addresses: Numbers = (offsets[inside].astype(np.int64) + base).astype(np.uint64)
        places, self._bytes = _layout(message, count, height, width, block, row, column)
        self._places = places[inside]

    def response(self, memory: UnitMemory, length: int) -> NDArray[np.uint8]:
        """What a load brings: `length` bytes, zeros for what is not in the matrix.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        result = np.zeros(max(length, self._bytes), dtype=np.uint8)
        result[self._places[:, None] + np.arange(self.size)] = parts(memory.load(self.addresses, self.size), self.size)
        return result[:length]

    def store(self, memory: UnitMemory, data: NDArray[np.uint8]) -> None:
        """Store what is behind the address in the payload.

        Raises:
            TranslationFault: an address is not mapped.
            AccessFault: an address is refused, or leads nowhere.
        """
        padded = np.zeros(self._bytes, dtype=np.uint8)
        rest = data[_REGISTER : _REGISTER + self._bytes]
        padded[: len(rest)] = rest
        elements = np.zeros((len(self._places), 8), dtype=np.uint8)
        elements[:, : self.size] = padded[self._places[:, None] + np.arange(self.size)]
        memory.store(self.addresses, elements.view(np.uint64).reshape(-1), self.size)


def _layout(
    message: LscMessage,
    count: int,
    height: int,
    width: int,
    block: NDArray[np.int64],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """Bytes from the first register to each element, and bytes of all blocks."""
    size = message.data_bytes
    if message.transpose:
        across, down = height, width
        place = column * _power_of_two(height) + row
    elif message.vnni:
        # Rows that share a dword lie next to each other, column by column.
        packed = max(1, 4 // size)
        across, down = _power_of_two(width) * packed, -(-height // packed)
        place = row // packed * _power_of_two(width) * packed + column * packed + row % packed
    else:
        across, down = width, height
        place = row * _power_of_two(width) + column
    of_block = -(-_power_of_two(across) * down * size // _REGISTER) * _REGISTER
    return block * of_block + place * size, count * of_block


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
