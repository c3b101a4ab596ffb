"""The unified return buffer, as far as stages hand vertices on in it: an array of dwords, handles are byte offsets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HANDLE_MASK = 0xFF_FFFF
"""Bits of a handle that are a byte offset (`brw_lower_logical_sends.cpp:lower_urb_write_logical_send_xe2`)."""

ROOM = HANDLE_MASK + 1
"""Bytes that handles reach."""
Offsets = NDArray[np.uint64]


def by_lane(values: NDArray[np.uint32], width: int) -> NDArray[np.uint32]:
    """[threads, columns, lanes] of [items, columns], `width` items a thread; lanes that are left are zero."""
    rows = -(-len(values) // width)
    padded = np.zeros((rows * width, values.shape[1]), dtype=np.uint32)
    padded[: len(values)] = values
    return padded.reshape(rows, width, -1).transpose(0, 2, 1)


class Urb:
    """`count` entries of `entry_bytes` each, zero."""

    def __init__(self, count: int, entry_bytes: int) -> None:
        self.entry_dwords = entry_bytes // 4
        self.dwords = np.zeros(count * self.entry_dwords, dtype=np.uint32)

    @property
    def entries(self) -> NDArray[np.uint32]:
        """[entries, dwords]"""
        return self.dwords.reshape(-1, self.entry_dwords)

    def handles(self, first: int, count: int) -> NDArray[np.uint32]:
        """Of entries `first` and on."""
        return (np.arange(first, first + count, dtype=np.uint32)) * np.uint32(4 * self.entry_dwords)

    def store(
        self, offsets: Offsets, data: NDArray[np.uint64], components: tuple[int, ...], lanes: NDArray[np.bool_]
    ) -> None:
        """Dwords `data` [threads, components, lanes] at byte offsets [threads, lanes]; those outside are dropped."""
        places = self._places(offsets)
        for number, component in enumerate(components):
            at = places + component
            chosen = lanes & (at < len(self.dwords))
            self.dwords[at[chosen]] = data[:, number][chosen].astype(np.uint32)

    def load(self, offsets: Offsets, components: tuple[int, ...], lanes: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """[threads, components, lanes]; zero outside."""
        places = self._places(offsets)
        found = np.zeros((len(places), len(components), places.shape[1]), dtype=np.uint64)
        for number, component in enumerate(components):
            at = places + component
            chosen = lanes & (at < len(self.dwords))
            found[:, number][chosen] = self.dwords[at[chosen]]
        return found

    @staticmethod
    def _places(offsets: Offsets) -> NDArray[np.int64]:
        return np.asarray((offsets & np.uint64(HANDLE_MASK)).astype(np.int64) // 4)
