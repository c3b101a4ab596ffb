"""XY blits, linear and tiled, against a byte-by-byte model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.xe.blits import SIZE, fill_random, run, with_surfaces
from tests.support.xe.commands import SOURCE_VA, TARGET_VA, address
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64, tile_64_3d


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


# XY blits: a model that moves one byte at a time.

Place = Callable[[int, int], int]
FAST_DEPTH = {1: 0, 2: 1, 4: 3, 8: 4, 16: 5}
BLOCK_DEPTH = {1: 0, 2: 1, 4: 2, 8: 3, 12: 4, 16: 5}


def tiling_of(code: int, pixel: int) -> Tiling | None:
    return (None, TILE_X, TILE_4, tile_64(pixel))[code]


def place_in(code: int, pixel: int, pitch: int) -> Place:
    tiling = tiling_of(code, pixel)
    if tiling is None:
        return lambda x, y: y * pitch + x

    columns = [tiling.offset(x, 0) for x in range(tiling.width)]
    rows = [tiling.offset(0, y) for y in range(tiling.height)]

    def place(x: int, y: int) -> int:
        tile = y // tiling.height * (pitch // tiling.width) + x // tiling.width
        return tile * tiling.size + columns[x % tiling.width] + rows[y % tiling.height]

    return place


def check_copied(
    job: Job,
    data: bytes,
    before: bytes,
    source: Place,
    target: Place,
    source_at: tuple[int, int],
    target_at: tuple[int, int],
    width: int,
    height: int,
) -> None:
    expected = bytearray(before)
    for y in range(height):
        for x in range(width):
            expected[target(target_at[0] + x, target_at[1] + y)] = data[source(source_at[0] + x, source_at[1] + y)]
    assert job.tables.space().read(TARGET_VA, len(before)) == bytes(expected)


def corner(x: int, y: int) -> int:
    return x & 0xFFFF | (y & 0xFFFF) << 16


@pytest.mark.parametrize("target_layout", ["large", "scattered"])
@pytest.mark.parametrize("source_tiling", [0, 1, 2, 3])
@pytest.mark.parametrize("target_tiling", [0, 1, 2, 3])
def test_fast_copy_between_all_tilings(lab: Lab, source_tiling: int, target_tiling: int, target_layout: str) -> None:
    pixel, pitch = 4, 2048
    job = with_surfaces(lab, target=target_layout)
    data = fill_random(job, SOURCE_VA, 0x8_0000)
    before = fill_random(job, TARGET_VA, 0x8_0000, seed=8)
    (x1, y1), (x2, y2), (sx, sy) = (3, 5), (260, 60), (30, 37)
    source_pitch, target_pitch = (pitch // 4 if code else pitch for code in (source_tiling, target_tiling))
    run(
        lab, job,
        0x5080_0008 | source_tiling << 20 | target_tiling << 13,
        FAST_DEPTH[pixel] << 24 | 3 << 30 | target_pitch,
        corner(x1, y1), corner(x2, y2), *address(TARGET_VA), corner(sx, sy), source_pitch, *address(SOURCE_VA),
    )  # fmt: skip
    check_copied(
        job, data, before, place_in(source_tiling, pixel, pitch), place_in(target_tiling, pixel, pitch),
        (sx * pixel, sy), (x1 * pixel, y1), (x2 - x1) * pixel, y2 - y1,
    )  # fmt: skip


@pytest.mark.parametrize("pixel", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("tiling", [2, 3])
def test_fast_copy_of_all_depths(lab: Lab, pixel: int, tiling: int) -> None:
    pitch = 2048
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x8_0000)
    before = bytes(0x8_0000)
    x1, x2 = 7, 7 + 600 // pixel
    run(
        lab, job, 0x5080_0008 | tiling << 13, FAST_DEPTH[pixel] << 24 | pitch // 4, corner(x1, 2), corner(x2, 70),
        *address(TARGET_VA), corner(0, 0), pitch, *address(SOURCE_VA),
    )  # fmt: skip
    check_copied(
        job, data, before, place_in(0, pixel, pitch), place_in(tiling, pixel, pitch), (0, 0), (x1 * pixel, 2),
        (x2 - x1) * pixel, 68,
    )  # fmt: skip


def test_the_drivers_fast_copy(lab: Lab) -> None:
    # xe_migrate.c:emit_xy_fast_copy: rows of the whole pitch.
    job = with_surfaces(lab, target="scattered")
    data = fill_random(job, SOURCE_VA, MIB)
    run(
        lab, job, 0x5080_0008, 3 << 24 | 3 << 30 | 4096, 0, corner(1024, 256), *address(TARGET_VA), 0, 4096,
        *address(SOURCE_VA),
    )  # fmt: skip
    assert job.tables.space().read(TARGET_VA, SIZE) == data + bytes(MIB)


def test_a_narrow_copy_inside_of_one_oword(lab: Lab) -> None:
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x2_0000)
    before = fill_random(job, TARGET_VA, 0x2_0000, seed=3)
    run(
        lab, job, 0x5080_0008 | 2 << 13, 512 // 4, corner(18, 1), corner(25, 40), *address(TARGET_VA), corner(5, 0),
        512, *address(SOURCE_VA),
    )  # fmt: skip
    check_copied(job, data, before, place_in(0, 1, 512), place_in(2, 1, 512), (5, 0), (18, 1), 7, 39)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("pixel", [1, 4, 12, 16])
def test_block_copy(lab: Lab, pixel: int, extended: bool) -> None:
    pitch = 4096
    tiling = 0 if pixel == 12 else 2
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x8_0000)
    before = fill_random(job, TARGET_VA, 0x8_0000, seed=5)
    pitch_field = (pitch // 4 if tiling else pitch) - 1
    command = [
        0x5040_0000 | BLOCK_DEPTH[pixel] << 19 | (20 if extended else 10),
        pitch_field | tiling << 30, corner(1, 2), corner(81, 42), *address(TARGET_VA), corner(3, 4),
        corner(5, 6), pitch - 1, *address(SOURCE_VA), corner(7, 8),
    ]  # fmt: skip
    run(lab, job, *command, *[0] * (10 if extended else 0))
    check_copied(
        job, data, before, place_in(0, pixel, pitch), place_in(tiling, pixel, pitch),
        (12 * pixel, 14), (4 * pixel, 6), 80 * pixel, 40,
    )  # fmt: skip


def test_block_copy_of_an_array_slice(lab: Lab) -> None:
    pitch = 1024
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x4_0000)
    extension = [0, 0, 0, 0, 0, (16 // 4) << 4, 2 << 21, 0, (32 // 4) << 4, 3 << 21]
    run(
        lab, job, 0x5040_0000 | 2 << 19 | 20, pitch - 1, corner(0, 0), corner(16, 4), *address(TARGET_VA), 0,
        corner(0, 0), pitch - 1, *address(SOURCE_VA), 0, *extension,
    )  # fmt: skip
    check_copied(
        job, data, bytes(0x4_0000), place_in(0, 4, pitch), place_in(0, 4, pitch), (0, 96), (0, 32), 64, 4
    )  # fmt: skip


VOLUME = 2 << 29


def volume(
    width: int, height: int, depth: int, q_pitch: int, slice_: int, level: int = 0, tail: int = NO_TAIL
) -> list[int]:
    """The dwords of an extension that describe a slice of a three-dimensional surface."""
    return [
        VOLUME | (width - 1) << 14 | (height - 1),
        level | q_pitch // 4 << 4 | (depth - 1) << 21,
        1 << 3 | tail << 8 | slice_ << 21,
    ]


@pytest.mark.parametrize(
    ("pixel", "slice_", "bits"),
    [
        # Bit 15 to bit 0 of the offset in a tile, and slices on either side of a tile's depth.
        (1, 5, "ZZZYYYZZXXYYXXXX"), (2, 33, "ZZZYYYZZXXYYXXXX"), (4, 3, "ZZYXYYZZXXYYXXXX"),
        (4, 18, "ZZYXYYZZXXYYXXXX"), (8, 16, "ZZYXXYZZXXYYXXXX"), (16, 9, "ZZYXXYZZXXYYXXXX"),
    ],
)  # fmt: skip
def test_block_copy_to_a_slice_of_a_volume_in_tile_64(lab: Lab, pixel: int, slice_: int, bits: str) -> None:
    tiling, width, height = tile_64_3d(pixel), 40, 35
    columns, q_pitch = 2 * tiling.width, 2 * tiling.height if tiling.height == 32 else 3 * tiling.height
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x1_0000)
    run(
        lab, job, 0x5040_0000 | BLOCK_DEPTH[pixel] << 19 | 20, columns // 4 * 2 - 1 | 3 << 30, corner(0, 0),
        corner(width, height), *address(TARGET_VA), 0, corner(0, 0), 1023, *address(SOURCE_VA), 0, *[0] * 4,
        *volume(width, height, 64, q_pitch, slice_), *[0] * 3,
    )  # fmt: skip
    pitch = 2 * columns
    places = {axis: [15 - n for n, bit in enumerate(bits) if bit == axis][::-1] for axis in "XYZ"}

    def place(x: int, y: int) -> int:
        y += slice_ // tiling.depth * q_pitch
        tile = y // tiling.height * (pitch // tiling.width) + x // tiling.width
        coordinates = {"X": x % tiling.width, "Y": y % tiling.height, "Z": slice_ % tiling.depth}
        inside = sum((coordinates[axis] >> n & 1) << bit for axis in "XYZ" for n, bit in enumerate(places[axis]))
        return tile * 0x1_0000 + inside

    check_copied(
        job, data, bytes(SIZE), place_in(0, pixel, 1024), place, (0, 0), (0, 0), width * pixel, height
    )  # fmt: skip


def test_block_copy_between_the_slices_of_two_volumes(lab: Lab) -> None:
    # RGBA8, 13 x 9 x 5, as a driver copies the last slice: by hand, texel (4, 1) of slice 4 is at bit 14 (z bit 2), bit 6
    # (x bit 4 in bytes) and bit 4 (y bit 0); of slice 1 at bit 8 instead.
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x1_0000)
    run(
        lab, job, 0x5040_0000 | 2 << 19 | 20, 128 // 4 - 1 | 3 << 30, corner(0, 0), corner(13, 9), *address(TARGET_VA), 0,
        corner(0, 0), 128 // 4 - 1 | 3 << 30, *address(SOURCE_VA), 0, *[0] * 4,
        *volume(13, 9, 5, 8, 1), *volume(13, 9, 5, 8, 4),
    )  # fmt: skip
    target = job.tables.space().read(TARGET_VA, 0x1_0000)
    assert target[0x150:0x154] == data[0x4050:0x4054] != bytes(4)
    assert sum(byte != 0 for byte in target) <= 13 * 9 * 4


@pytest.mark.parametrize(
    ("level", "tail", "at"),
    [
        # RGBA8, 200 x 100: level 1 (100 x 50) is below level 0, a tile's 128 rows; level 2 is beside it, also a tile away.
        (1, NO_TAIL, (0, 128)), (2, NO_TAIL, (128, 128)),
        # With a mip tail from level 2 on (50 x 25 fits a slot of 64 x 128): slots 0, 1 and 4.
        (2, 2, (128 + 64, 128)), (3, 2, (128, 128 + 64)), (6, 2, (128 + 16, 128)),
    ],
)  # fmt: skip
def test_block_copy_to_a_mip_level(lab: Lab, level: int, tail: int, at: tuple[int, int]) -> None:
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 0x8000)
    width, height = 200 >> level, 100 >> level
    extension = [1 << 29 | 199 << 14 | 99, level, 1 << 3 | tail << 8]
    run(
        lab, job, 0x5040_0000 | 2 << 19 | 20, 1024 // 4 - 1 | 3 << 30, corner(0, 0), corner(width, height),
        *address(TARGET_VA), 0, corner(0, 0), 511, *address(SOURCE_VA), 0, *[0] * 4, *extension, *[0] * 3,
    )  # fmt: skip
    x, y = at
    check_copied(
        job, data, bytes(0x4_0000), place_in(0, 4, 512), place_in(3, 4, 1024), (0, 0), (4 * x, y), width * 4, height
    )  # fmt: skip


@pytest.mark.parametrize("tiling", [0, 1, 2, 3])
@pytest.mark.parametrize("pixel", [1, 2, 4, 8, 16])
def test_fast_color(lab: Lab, pixel: int, tiling: int) -> None:
    pitch = 2048
    job = with_surfaces(lab)
    before = fill_random(job, TARGET_VA, 0x4_0000)
    color = bytes(range(0x11, 0x21))
    dwords = [int.from_bytes(color[4 * n : 4 * n + 4], "little") for n in range(4)]
    run(
        lab, job, 0x5100_000E | BLOCK_DEPTH[pixel] << 19, (pitch // 4 if tiling else pitch) - 1 | tiling << 30,
        corner(3, 1), corner(33, 41), *address(TARGET_VA), 0, *dwords, 0, 0, 0, 0, NO_TAIL << 8,
    )  # fmt: skip
    expected = bytearray(before)
    place = place_in(tiling, pixel, pitch)
    for y in range(1, 41):
        for x in range(3 * pixel, 33 * pixel):
            expected[place(x, y)] = color[x % pixel]
    assert job.tables.space().read(TARGET_VA, len(before)) == bytes(expected)


def test_fast_color_of_whole_rows_with_a_pattern_across_pages(lab: Lab) -> None:
    job = with_surfaces(lab, target="scattered")
    run(
        lab, job, 0x5100_000E | 4 << 19, 12 * 100 - 1, 0, corner(100, 100), *address(TARGET_VA), 0, 1, 2, 3, 0,
        0, 0, 0, 0, 0,
    )  # fmt: skip
    pattern = b"".join(n.to_bytes(4, "little") for n in (1, 2, 3))
    assert job.tables.space().read(TARGET_VA, 120_000) == pattern * 10_000


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ((0x5080_0008 | 2 << 13, 3 << 24 | 3, 0, corner(1, 1), 0, 0, 0, 64, 0, 0), "a pitch of 0xc bytes"),
        ((0x5080_0008, 2 << 24 | 64, 0, corner(1, 1), 0, 0, 0, 64, 0, 0), "color depth or rectangle"),
        ((0x5080_0008, 3 << 24 | 64, corner(5, 5), corner(1, 1), 0, 0, 0, 64, 0, 0), "color depth or rectangle"),
        ((0x5080_0008, 3 << 24 | 64, 0, corner(1, 1), 0, 0, corner(-3, 0), 64, 0, 0), "coordinates below 0"),
        (
            (0x5040_0014 | 2 << 19, 1 << 31 | 1 << 30 | 127, 0, corner(1, 1), *[0] * 13, 15, *[0] * 4),
            "slot 15 of a mip tail",
        ),
        ((0x5040_0014 | 4 << 19, 3 << 30 | 255, 0, corner(1, 1), *[0] * 18), "Tile64 of texels of 12 bytes"),
    ],
)
def test_blits_that_make_no_sense_are_reported_and_skipped(lab: Lab, command: tuple[int, ...], what: str) -> None:
    job = lab.execute(*command, 0x1000_0002, DATA_VA, 0, 1)
    assert job.data() == [1]
    assert any(what in report for report in lab.engine("bcs0").reports)


def test_an_empty_rectangle_does_nothing(lab: Lab) -> None:
    job = lab.execute(
        0x5080_0008, 3 << 24 | 64, corner(2, 2), corner(2, 9), 0, 0, 0, 64, 0, 0, 0x1000_0002, DATA_VA, 0, 1
    )
    assert job.data() == [1]
    assert not lab.engine("bcs0").reports
