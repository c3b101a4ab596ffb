"""Surfaces in memory, linear or tiled, as rows of bytes.

Rows are taken some at a time, with one call into numpy for all of their bytes; it lets the interpreter's lock go.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vfio_user_xe.device_models.xe.engines.tiling import Tiling
from vfio_user_xe.device_models.xe.memory.address_space import AccessFault, AddressSpace, TranslationFault
from vfio_user_xe.emulator.fabric.span import Revoked, Window

Rows = NDArray[np.uint8]
"""Bytes by row and place in it."""
Places = NDArray[np.intp]

_STEP = 512 << 10
"""Bytes that are taken at once, about: they and their places stay in the processor's second cache."""


class Surface:
    """Rows of `pitch` bytes from `address` of `space` on, `rows` of them at most.

    `read` and `write` raise `TranslationFault` or `AccessFault`, with nothing or only a part of the rows done.
    """

    def __init__(
        self, space: AddressSpace, address: int, pitch: int, rows: int, tiling: Tiling | None, *, writable: bool
    ) -> None:
        """The surface at `address`; `pitch` is in bytes.

        Raises:
            ValueError: tiles do not fit the pitch.
        """
        if tiling is not None and (not pitch or pitch % tiling.width):
            raise ValueError(
                f"a pitch of {pitch:#x} bytes is not a multiple of a {tiling.name} tile's {tiling.width:#x}"
            )
        self.space = space
        self.address = address
        self.pitch = pitch
        self.tiling = tiling
        self._row_of_tiles = pitch // tiling.width * tiling.size if tiling else pitch
        self.size = -(-rows // tiling.height) * self._row_of_tiles if tiling else rows * pitch
        """Bytes that it takes, up to its last row or tile."""
        self._writable = writable
        self._window: Window | None = None
        self._window_at = 0

    def rows(self, y: int, x: int, count: int) -> int:
        """How many rows from `y` on, of `count` bytes from byte `x` on, `read` and `write` take at once.

        Those of a row of tiles, and of several where all of their tiles are asked for; about `_STEP` bytes.
        """
        most = max(4, _STEP // count & -4)
        if self.tiling is None:
            return most
        height = self.tiling.height
        left = height - y % height
        if x < self.tiling.width and x + count > self.pitch - self.tiling.width:
            left += max(0, most - left) // height * height
        return min(most, left)

    def read(self, y: int, x: int, rows: int, count: int) -> Rows:
        """`rows` times `count` bytes of the rows from `y` on, from byte `x` on; to be used at once."""
        if self.tiling is None:
            found = self._linear(y, x, rows, count)
            if found is not None:
                return found
            start, length = self.address + y * self.pitch + x, (rows - 1) * self.pitch + count
            if length <= 2 * rows * count:
                # What is between the rows is read with them, where it is there.
                with suppress(TranslationFault, AccessFault):
                    return np.ndarray((rows, count), np.uint8, self.space.read(start, length), strides=(self.pitch, 1))
            data = b"".join(self.space.read(start + row * self.pitch, count) for row in range(rows))
            return np.frombuffer(data, np.uint8).reshape(rows, count)
        tiles, first, _ = self._tiles(self.tiling, y, x, rows, count)
        return _gather(self._units(self.tiling, y), tiles, x - first, rows, count)

    def write(self, y: int, x: int, data: Rows) -> None:
        """Store `data` in the rows from `y` on, from byte `x` on."""
        rows, count = data.shape
        if self.tiling is None:
            found = self._linear(y, x, rows, count)
            if found is not None:
                found[:] = data
                return
            if count == self.pitch:
                self.space.write(self.address + y * self.pitch, data.tobytes())
                return
            for row in range(rows):
                self.space.write(self.address + (y + row) * self.pitch + x, data[row].tobytes())
            return
        tiles, first, staged = self._tiles(self.tiling, y, x, rows, count)
        _scatter(self._units(self.tiling, y), tiles, x - first, data)
        if staged:
            self.space.write(self.address + self._tile(self.tiling, y, first), tiles)

    def _linear(self, y: int, x: int, rows: int, count: int) -> Rows | None:
        """The rows in place, if they are contiguous."""
        view = self._view(y * self.pitch + x, (rows - 1) * self.pitch + count, rows * count)
        return None if view is None else np.ndarray((rows, count), np.uint8, view, strides=(self.pitch, 1))

    def _units(self, tiling: Tiling, y: int) -> Units:
        return Units(tiling, self._row_of_tiles, y % tiling.height)

    def _tiles(self, tiling: Tiling, y: int, x: int, rows: int, count: int) -> tuple[memoryview, int, bool]:
        """The tiles that hold bytes `[x, x + count)` of the rows, the byte of a row where they begin, and whether they
        are a copy: where tiles are scattered in memory, whole tiles are read, changed and written back."""
        first = x // tiling.width * tiling.width
        below = (y + rows - 1) // tiling.height - y // tiling.height
        length = below * self._row_of_tiles + -(-(x + count - first) // tiling.width) * tiling.size
        offset = self._tile(tiling, y, first)
        view = self._view(offset, length, rows * count)
        if view is not None:
            return view, first, False
        copy = self.space.read(self.address + offset, length)
        return memoryview(bytearray(copy) if self._writable else copy), first, True

    def _tile(self, tiling: Tiling, y: int, first: int) -> int:
        return y // tiling.height * self._row_of_tiles + first // tiling.width * tiling.size

    def _view(self, offset: int, length: int, count: int | None = None) -> memoryview | None:
        """`length` bytes from `offset` of the surface on without a copy, if they are contiguous.

        They count as one access of `count` bytes, of all without it.
        """
        window = self._window
        if window is None or not window.valid or not self._holds(offset, length):
            window = self.space.window(self.address + offset, max(self.size - offset, length), self._writable)
            self._window, self._window_at = window, offset
            if window.length < length:
                return None
        try:
            return window.lend(offset - self._window_at, length, write=self._writable, count=count)
        except Revoked:
            return self._view(offset, length, count)

    def _holds(self, offset: int, length: int) -> bool:
        window = self._window
        return window is not None and self._window_at <= offset and offset + length <= self._window_at + window.length


class StagedSurface(Surface):
    """A surface whose bytes are in a buffer for the time of a blit."""

    def __init__(self, surface: Surface, data: bytearray) -> None:
        """`data` are the bytes of `surface`, from its beginning on."""
        self.__dict__.update(surface.__dict__)
        self.data = memoryview(data)

    def _view(self, offset: int, length: int, count: int | None = None) -> memoryview | None:
        return self.data[offset : offset + length]


class Units(NamedTuple):
    """How the rows of a surface from row `y` of a row of tiles on lie in units that no tiling takes apart."""

    tiling: Tiling
    row_of_tiles: int
    """Bytes."""
    y: int


@lru_cache(maxsize=64)
def _places(units: Units, start: int, end: int, rows: int) -> Places:
    """Units' numbers in memory, by row, of units `[start, end)` of each row."""
    tiling = units.tiling
    y = units.y + np.arange(rows)
    tile, column = np.divmod(np.arange(start, end), tiling.width // tiling.run)
    offsets = np.add.outer(
        y // tiling.height * units.row_of_tiles + np.array(tiling.rows())[y % tiling.height],
        tile * tiling.size + np.array(tiling.columns())[column],
    )
    places: Places = (offsets // tiling.run).astype(np.intp)
    return places


@lru_cache(maxsize=64)
def _sources(units: Units, start: int, end: int, rows: int) -> Places:
    """The other way: where in the rows, one behind the other, each unit in memory is; for whole tiles."""
    return np.argsort(_places(units, start, end, rows), axis=None)


def _gather(units: Units, tiles: memoryview, x: int, rows: int, count: int) -> Rows:
    """`rows` times `count` bytes from byte `x` of a row of tiles on."""
    run = units.tiling.run
    start, end = x // run, -(-(x + count) // run)
    found = np.frombuffer(tiles, f"V{run}")[_places(units, start, end, rows)]
    return found.view(np.uint8)[:, x - start * run : x - start * run + count]


def _scatter(units: Units, tiles: memoryview, x: int, data: Rows) -> None:
    """Store `data` from byte `x` of a row of tiles on."""
    run = units.tiling.run
    rows, count = data.shape
    # Whole units in the middle; at the ends units of which only a part is written.
    first, last = -(-x // run), (x + count) // run
    if first > last:
        _store_part(units, tiles, last, x - last * run, data)
        return
    head, tail = first * run - x, x + count - last * run
    if head:
        _store_part(units, tiles, first - 1, run - head, data[:, :head])
    if tail:
        _store_part(units, tiles, last, 0, data[:, count - tail :])
    if first < last:
        middle = np.ascontiguousarray(data[:, head : count - tail]).view(f"V{run}")
        stored = np.frombuffer(tiles, f"V{run}")
        if middle.size == stored.size:
            # Whole tiles: to collect what comes next in memory is faster than to distribute what comes next in a row.
            np.take(middle, _sources(units, first, last, rows), out=stored, mode="clip")
        else:
            stored[_places(units, first, last, rows)] = middle


def _store_part(units: Units, tiles: memoryview, unit: int, at: int, data: Rows) -> None:
    """Store `data` in one unit of each row, from its byte `at` on."""
    rows, count = data.shape
    starts = _places(units, unit, unit + 1, rows) * units.tiling.run + at
    np.frombuffer(tiles, np.uint8)[starts + np.arange(count)] = data
