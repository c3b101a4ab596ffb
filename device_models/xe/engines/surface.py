"""Surfaces in memory, linear or tiled, as rows of bytes."""

from __future__ import annotations

from vfio_user_xe.device_models.xe.engines.tiling import OWORD, Tiling
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace
from vfio_user_xe.emulator.fabric.span import Revoked, Window


class Surface:
    """Rows of `pitch` bytes from `address` of `space` on, `rows` of them at most.

    `read` and `write` raise `TranslationFault` or `AccessFault`, with nothing or only a part of the row done.
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

    def read(self, y: int, x: int, count: int) -> memoryview | bytes:
        """`count` bytes of row `y` from byte `x` on."""
        if self.tiling is None:
            view = self._view(y * self.pitch + x, count)
            return view if view is not None else self.space.read(self.address + y * self.pitch + x, count)
        tiles, first, _ = self._tiles(self.tiling, y, x, count)
        return _gather(self.tiling, tiles, y, x - first, count)

    def write(self, y: int, x: int, data: memoryview | bytes) -> None:
        """Store `data` in row `y` from byte `x` on."""
        if self.tiling is None:
            view = self._view(y * self.pitch + x, len(data))
            if view is None:
                self.space.write(self.address + y * self.pitch + x, data)
            else:
                view[:] = data
            return
        tiles, first, staged = self._tiles(self.tiling, y, x, len(data))
        _scatter(self.tiling, tiles, y, x - first, data)
        if staged:
            self.space.write(self.address + self._tile(self.tiling, y, first), tiles)

    def _tiles(self, tiling: Tiling, y: int, x: int, count: int) -> tuple[memoryview, int, bool]:
        """The tiles that hold bytes `[x, x + count)` of row `y`, the byte of a row where they begin, and whether they
        are a copy: where tiles are scattered in memory, whole tiles are read, changed and written back."""
        first = x // tiling.width * tiling.width
        length = -(-(x + count - first) // tiling.width) * tiling.size
        offset = self._tile(tiling, y, first)
        view = self._view(offset, length, count)
        if view is not None:
            return view, first, False
        return memoryview(bytearray(self.space.read(self.address + offset, length))), first, True

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


def _gather(tiling: Tiling, tiles: memoryview, y: int, x: int, count: int) -> memoryview:
    """`count` bytes of row `y` from byte `x` of a row of tiles on."""
    run = tiling.run
    start, end = x // run, -(-(x + count) // run)
    row = memoryview(bytearray((end - start) * run))
    _exchange(tiling, tiles, y, start, end, row, to_tiles=False)
    return row[x - start * run : x - start * run + count]


def _scatter(tiling: Tiling, tiles: memoryview, y: int, x: int, data: memoryview | bytes) -> None:
    """Store `data` in row `y` from byte `x` of a row of tiles on."""
    run = tiling.run
    count = len(data)
    source = memoryview(data)
    # Whole runs in the middle; at the ends runs of which only a part is written.
    first, last = -(-x // run), (x + count) // run
    if first > last:
        place = _place(tiling, y, last) + x - last * run
        tiles[place : place + count] = source
        return
    head, tail = first * run - x, x + count - last * run
    if head:
        place = _place(tiling, y, first - 1) + run - head
        tiles[place : place + head] = source[:head]
    if tail:
        place = _place(tiling, y, last)
        tiles[place : place + tail] = source[count - tail :]
    if first < last:
        middle = source[head : count - tail]
        if middle.readonly or head % 8:
            middle = memoryview(bytearray(middle))
        _exchange(tiling, tiles, y, first, last, middle, to_tiles=True)


def _exchange(
    tiling: Tiling, tiles: memoryview, y: int, start: int, end: int, row: memoryview, *, to_tiles: bool
) -> None:
    """Move runs number `[start, end)` of row `y` between `tiles` and `row`.

    A column of tiles at a time: one strided copy moves the same run of every tile in the row.
    """
    run, per_tile = tiling.run, tiling.width // tiling.run
    if run != OWORD:
        for number in range(start, end):
            place, at = _place(tiling, y, number), (number - start) * run
            if to_tiles:
                tiles[place : place + run] = row[at : at + run]
            else:
                row[at : at + run] = tiles[place : place + run]
        return
    tiled, linear = tiles.cast("Q"), row.cast("Q")
    step, stride = tiling.size // 8, tiling.width // 8
    base, columns = tiling.rows()[y % tiling.height], tiling.columns()
    for column in range(min(per_tile, end - start)):
        number = start + column
        tile, place = divmod(number, per_tile)
        count = -(-(end - number) // per_tile)
        at = (tile * tiling.size + base + columns[place]) // 8
        last = at + (count - 1) * step + 1
        to = 2 * column
        to_last = to + (count - 1) * stride + 1
        if to_tiles:
            tiled[at:last:step] = linear[to:to_last:stride]
            tiled[at + 1 : last + 1 : step] = linear[to + 1 : to_last + 1 : stride]
        else:
            linear[to:to_last:stride] = tiled[at:last:step]
            linear[to + 1 : to_last + 1 : stride] = tiled[at + 1 : last + 1 : step]


def _place(tiling: Tiling, y: int, number: int) -> int:
    """Offset in a row of tiles of run `number` of row `y`."""
    tile, column = divmod(number, tiling.width // tiling.run)
    return tile * tiling.size + tiling.rows()[y % tiling.height] + tiling.columns()[column]
