"""Rows of surfaces: what `read` and `write` take at once is what they would take byte by byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from tests.support.xe.blits import with_surfaces
from tests.support.xe.commands import TARGET_VA
from tests.support.xe.engine_lab import Lab
from vfio_user_xe.device_models.xe.engines import surface as surface_module
from vfio_user_xe.device_models.xe.engines.surface import Surface
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64, tile_64_3d
from vfio_user_xe.device_models.xe.memory.address_space import AddressSpace

PITCH, ROWS = 1024, 160
USED = 512 << 10
"""Bytes from the surface's beginning on that are looked at."""
TILINGS = [None, TILE_X, TILE_4, tile_64(1), tile_64(4), tile_64(16), tile_64_3d(4).slice(3)]
RECTANGLES = [(0, 0, PITCH, 128), (256, 8, 512, 60), (0, 5, PITCH, 35), (3, 1, 7, 20), (13, 30, 837, 9)]
"""Byte of a row, row, bytes, rows."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture(params=["large", "scattered"])
def space(lab: Lab, request: pytest.FixtureRequest) -> AddressSpace:
    return with_surfaces(lab, target=request.param).tables.space()


def surface(space: AddressSpace, tiling: Tiling | None, *, writable: bool) -> Surface:
    rows = ROWS if tiling is None or tiling.depth == 1 else ROWS // tiling.depth
    return Surface(space, TARGET_VA, PITCH, rows, tiling, writable=writable)


def place(tiling: Tiling | None, x: int, y: int) -> int:
    if tiling is None:
        return y * PITCH + x
    tile = y // tiling.height * (PITCH // tiling.width) + x // tiling.width
    return tile * tiling.size + tiling.offset(x % tiling.width, y % tiling.height)


@cache
def places(tiling: Tiling | None, x: int, y: int, count: int, rows: int) -> np.ndarray:
    """Of each byte of a rectangle, by the definition of the tiling; 16 bytes of a row stay together in all of them."""
    first = x & -16
    starts = [[place(tiling, at, row) for at in range(first, x + count, 16)] for row in range(y, y + rows)]
    each = np.array(starts)[:, :, None] + np.arange(16)
    return each.reshape(rows, -1)[:, x - first : x - first + count]


def rectangles(tiling: Tiling | None) -> list[tuple[int, int, int, int]]:
    depth = tiling.depth if tiling is not None else 1
    return [(x, y, count, min(rows, ROWS // depth - y)) for x, y, count, rows in RECTANGLES if y < ROWS // depth]


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: tiling and tiling.name)
def test_rows_are_read_from_where_their_tiling_puts_them(space: AddressSpace, tiling: Tiling | None) -> None:
    memory = random.Random(1).randbytes(USED)
    space.write(TARGET_VA, memory)
    source = surface(space, tiling, writable=False)
    for x, y, count, rows in rectangles(tiling):
        expected = np.frombuffer(memory, np.uint8)[places(tiling, x, y, count, rows)]
        row = 0
        while row < rows:
            some = min(rows - row, source.rows(y + row, x, count))
            assert np.array_equal(source.read(y + row, x, some, count), expected[row : row + some]), (x, y, row)
            row += some


@pytest.mark.parametrize("step", [1 << 13, 1 << 19], ids=["few rows at once", "many rows at once"])
@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: tiling and tiling.name)
def test_rows_are_written_where_their_tiling_puts_them_and_nothing_else_is(
    space: AddressSpace, tiling: Tiling | None, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surface_module, "_STEP", step)
    for x, y, count, rows in rectangles(tiling):
        memory = random.Random(2).randbytes(USED)
        space.write(TARGET_VA, memory)
        data = np.frombuffer(random.Random(x + y).randbytes(count * rows), np.uint8).reshape(rows, count)
        expected = np.frombuffer(memory, np.uint8).copy()
        expected[places(tiling, x, y, count, rows)] = data
        target = surface(space, tiling, writable=True)
        row = 0
        while row < rows:
            some = min(rows - row, target.rows(y + row, x, count))
            target.write(y + row, x, data[row : row + some])
            row += some
        assert space.read(TARGET_VA, USED) == expected.tobytes(), (x, y, count, rows)


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: tiling and tiling.name)
def test_the_rows_that_are_taken_at_once_lie_in_one_row_of_tiles_or_have_all_of_it(
    lab: Lab, tiling: Tiling | None
) -> None:
    # Memory between the tiles of a narrow rectangle may not be mapped.
    space, pitch = with_surfaces(lab).tables.space(), 4096
    found = Surface(space, TARGET_VA, pitch, 512, tiling, writable=False)
    for y in (0, 1, 7):
        assert found.rows(y, 16, pitch - 32) >= 1
        if tiling is not None:
            assert found.rows(y, 1024, pitch - 2048) <= tiling.height - y % tiling.height
