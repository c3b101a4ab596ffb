"""Blits, linear and tiled, against a byte-by-byte model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.support.xe.commands import END, SOURCE_VA, TARGET_VA, address, mem_copy
from tests.support.xe.engine_lab import DATA_VA, Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines.surface_layout import NO_TAIL
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64, tile_64_3d
from vfio_user_xe.device_models.xe.memory.formats import ppgtt

SOURCE, TARGET = 32 * MIB, 40 * MIB
SIZE = 2 * MIB


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def with_surfaces(lab: Lab, *, source: str = "large", target: str = "large") -> Job:
    """A context with 2 MiB at `SOURCE_VA` and `TARGET_VA`, mapped by a 2 MiB page, 4 KiB pages in a row, or scattered."""
    job = lab.job()
    rng = random.Random(1)
    for va, memory, how in ((SOURCE_VA, SOURCE, source), (TARGET_VA, TARGET, target)):
        if how == "large":
            job.tables.entry(va, 1, memory | 3 | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
        elif how == "system":
            job.tables.map(va, 0, SIZE, system=True)
        else:
            pages = list(range(SIZE // 4096))
            if how == "scattered":
                rng.shuffle(pages)
            for n, page in enumerate(pages):
                job.tables.map(va + n * 4096, memory + page * 4096)
    return job


def fill_random(job: Job, va: int, length: int, seed: int = 7) -> bytes:
    data = random.Random(seed).randbytes(length)
    job.tables.space().write(va, data)
    return data


def run(lab: Lab, job: Job, *commands: int) -> None:
    job.batch(*commands, END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    assert not lab.listener.faults
    assert not lab.engine("bcs0").reports


LAYOUTS = ["large", "pages", "scattered"]


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("target", [*LAYOUTS, "system"])
def test_mem_copy_in_pages_of_256_bytes(lab: Lab, source: str, target: str) -> None:
    job = with_surfaces(lab, source=source, target=target)
    data = fill_random(job, SOURCE_VA, SIZE)
    run(lab, job, *mem_copy(0x1F00, flags=1 << 19))
    assert job.tables.space().read(TARGET_VA, SIZE) == data[:0x1F_0000] + bytes(SIZE - 0x1F_0000)


@pytest.mark.parametrize("length", [1, 3, 4095, 4097, 0x8FFFE & 0x3FFFF, 0x40000])
def test_mem_copy_of_bytes(lab: Lab, length: int) -> None:
    job = with_surfaces(lab, target="scattered")
    data = fill_random(job, SOURCE_VA, 0x50000)
    run(lab, job, *mem_copy(length, source=SOURCE_VA + 5, target=TARGET_VA + 9))
    space = job.tables.space()
    assert space.read(TARGET_VA + 9, length) == data[5 : 5 + length]
    assert space.read(TARGET_VA, 9) == bytes(9)
    assert space.read(TARGET_VA + 9 + length, 16) == bytes(16)


@pytest.mark.parametrize("target", ["large", "scattered"])
def test_mem_copy_of_a_matrix(lab: Lab, target: str) -> None:
    job = with_surfaces(lab, target=target)
    data = fill_random(job, SOURCE_VA, 0x20000)
    run(lab, job, *mem_copy(100, 50, (300, 1000), flags=1 << 17))
    space = job.tables.space()
    for row in range(50):
        assert space.read(TARGET_VA + row * 1000, 100) == data[row * 300 : row * 300 + 100]
        assert space.read(TARGET_VA + row * 1000 + 100, 900) == bytes(900)


def test_mem_copy_of_a_matrix_without_gaps(lab: Lab) -> None:
    job = with_surfaces(lab)
    data = fill_random(job, SOURCE_VA, 128 * 64)
    run(lab, job, *mem_copy(128, 64, (128, 128), flags=1 << 17))
    assert job.tables.space().read(TARGET_VA, 128 * 64) == data


def test_mem_copy_from_a_null_page_reads_zeros(lab: Lab) -> None:
    job = with_surfaces(lab)
    job.tables.entry(SOURCE_VA, 1, 3 | ppgtt.LARGE | ppgtt.NULL)
    fill_random(job, TARGET_VA, 0x10000)
    run(lab, job, *mem_copy(0x100, flags=1 << 19))
    assert job.tables.space().read(TARGET_VA, 0x10000) == bytes(0x10000)


def test_mem_copy_by_messages(lab: Lab) -> None:
    job = with_surfaces(lab, target="system")
    data = fill_random(job, SOURCE_VA, 0x10000)
    lab.ram.messages = True
    run(lab, job, *mem_copy(0x100, flags=1 << 19))
    assert bytes(lab.ram.of("pf")[:0x10000]) == data


def test_copies_are_counted_once_per_byte(lab: Lab) -> None:
    job = with_surfaces(lab, target="system")
    lab.fabric.ledger.clear()
    run(lab, job, *mem_copy(0x1000, flags=1 << 19))
    counts = {entry.kind: (entry.bytes_read, entry.bytes_written) for entry in lab.fabric.ledger}
    assert counts["system"] == (0, 0x10_0000)
    assert 0x10_0000 <= counts["vram"][0] < 0x10_1000, "and the batch itself"


def mem_set(width: int, height: int, pitch: int, byte: int, flags: int = 0, target: int = TARGET_VA) -> tuple[int, ...]:
    return 0x56C0_0005 | flags, width - 1, height - 1, pitch - 1, *address(target), byte << 24 | 0x18


def test_the_drivers_clear(lab: Lab) -> None:
    # xe_migrate.c:emit_clear_link_copy: a matrix without gaps.
    job = with_surfaces(lab)
    fill_random(job, TARGET_VA, SIZE)
    run(lab, job, *mem_set(4096, 256, 4096, 0, flags=1 << 17))
    data = job.tables.space().read(TARGET_VA, SIZE)
    assert data[:MIB] == bytes(MIB)
    assert data[MIB:].count(0) < MIB // 100


@pytest.mark.parametrize("byte", [0, 0xAB])
@pytest.mark.parametrize("target", ["large", "scattered", "system"])
def test_mem_set_of_bytes(lab: Lab, byte: int, target: str) -> None:
    job = with_surfaces(lab, target=target)
    data = fill_random(job, TARGET_VA, 0x20000)
    run(lab, job, *mem_set(0x12345, 1, 1, byte, target=TARGET_VA + 0x77))
    expected = data[:0x77] + bytes([byte]) * 0x12345 + data[0x77 + 0x12345 :]
    assert job.tables.space().read(TARGET_VA, 0x20000) == expected


def test_mem_set_of_a_matrix(lab: Lab) -> None:
    job = with_surfaces(lab)
    data = bytearray(fill_random(job, TARGET_VA, 0x4000))
    run(lab, job, *mem_set(33, 20, 100, 0x5A, flags=1 << 17))
    for row in range(20):
        data[row * 100 : row * 100 + 33] = b"\x5a" * 33
    assert job.tables.space().read(TARGET_VA, 0x4000) == bytes(data)


def test_clearing_untouched_memory_touches_nothing(lab: Lab) -> None:
    job = with_surfaces(lab)
    before = lab.vram.memory.resident()
    run(lab, job, *mem_set(4096, 512, 4096, 0, flags=1 << 17))
    assert lab.vram.memory.resident() - before < 0x4000, "the batch, not the 2 MiB"


def test_evict_mode_writes_nothing(lab: Lab) -> None:
    job = with_surfaces(lab)
    data = fill_random(job, TARGET_VA, 0x1000)
    run(lab, job, *mem_set(0x1000, 1, 1, 0, flags=1 << 19))
    assert job.tables.space().read(TARGET_VA, 0x1000) == data


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


def test_a_fault_in_a_copy_names_the_first_missing_page(lab: Lab) -> None:
    job = with_surfaces(lab)
    job.batch(*mem_copy(0x4000, flags=1 << 19), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    (fault,) = lab.listener.faults
    assert getattr(fault, "address", None) == SOURCE_VA + SIZE
    assert getattr(fault, "write", None) is False


# Compression metadata.


def ctrl_surf_copy(source: int, target: int, pages: int, source_direct: int, target_direct: int) -> tuple[int, ...]:
    header = 0x5200_0003 | source_direct << 21 | target_direct << 20 | (pages - 1) << 9
    return header, *address(source), *address(target)


def test_metadata_is_copied_between_a_surface_and_memory(lab: Lab) -> None:
    lab.vram.flat_ccs = 60 * MIB
    job = with_surfaces(lab, target="scattered")
    job.set_bytes(0, bytes(range(64)))
    run(
        lab, job, *ctrl_surf_copy(DATA_VA, TARGET_VA + 0x1000, 8, 1, 0),
        *ctrl_surf_copy(TARGET_VA + 0x1000, DATA_VA + 0x100, 8, 0, 1),
    )  # fmt: skip
    assert job.bytes(0x100, 64) == bytes(range(64))
    dpa = job.tables.space().extent(TARGET_VA + 0x1000, 1, False).address
    place = 60 * MIB + dpa // 512
    assert bytes(lab.vram.memory.view[place : place + 8]) == bytes(range(8))


@pytest.mark.parametrize("flat_ccs", [None, 60 * MIB])
def test_metadata_of_memory_that_has_none_is_zero(lab: Lab, flat_ccs: int | None) -> None:
    lab.vram.flat_ccs = flat_ccs
    job = with_surfaces(lab, target="system" if flat_ccs else "large")
    job.set_bytes(0, b"\xff" * 128)
    run(
        lab, job, *ctrl_surf_copy(DATA_VA, TARGET_VA, 8, 1, 0), *ctrl_surf_copy(TARGET_VA, DATA_VA + 64, 8, 0, 1)
    )  # fmt: skip
    assert job.bytes(64, 64) == bytes(64)
