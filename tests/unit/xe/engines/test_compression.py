"""Flat CCS: what blits store compressed, who can read it, and when it is plain again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.blits import fill_random, run
from tests.support.xe.commands import address
from tests.support.xe.engine_lab import Job, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines import compression
from vfio_user_xe.device_models.xe.memory.formats import ppgtt

PLAIN_VA, PACKED_VA, RAW_VA = 0x10_0000_0000, 0x20_0000_0000, 0x30_0000_0000
PLAIN, PACKED = 32 * MIB, 40 * MIB
CCS = 60 * MIB
COMPRESSING_PAT = 1
SIZE = 2 * MIB


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    lab.vram.flat_ccs, lab.vram.compressing = CCS, lambda index: index == COMPRESSING_PAT
    yield lab
    lab.close()


def surfaces(lab: Lab) -> Job:
    """2 MiB of plain memory, and 2 MiB that is mapped with a compressing entry and (`RAW_VA`) without one."""
    job = lab.job()
    for va, memory, pat in ((PLAIN_VA, PLAIN, 0), (PACKED_VA, PACKED, 1 << 3), (RAW_VA, PACKED, 0)):
        job.tables.entry(va, 1, memory | 3 | pat | ppgtt.LARGE | ppgtt.DEVICE_MEMORY)
    return job


def mem_copy(source: int, target: int, length: int) -> tuple[int, ...]:
    return 0x5680_0008, length - 1, 0, 0, 0, *address(source), *address(target), 0


def mem_set(target: int, length: int, byte: int) -> tuple[int, ...]:
    return 0x56C0_0005, length - 1, 0, 0, *address(target), byte << 24


def block_copy(source: int, target: int, width: int, height: int, *, pitch: int = 1024, flags: int = 0) -> list[int]:
    """32-bit pixels, linear to linear."""
    corner = width | height << 16
    return [
        0x5040_0000 | 2 << 19 | flags | 10, pitch - 1, 0, corner, *address(target), 0, 0, pitch - 1, *address(source), 0,
    ]  # fmt: skip


def stored(lab: Lab, at: int, length: int) -> bytes:
    return bytes(lab.vram.memory.view[PACKED + at : PACKED + at + length])


def metadata(lab: Lab, at: int, length: int) -> bytes:
    place = CCS + (PACKED + at) // 512
    return bytes(lab.vram.memory.view[place : place + length // 512])


def test_what_a_blit_writes_through_a_compressing_page_is_read_back_only_through_one(lab: Lab) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x4000)
    run(
        lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x4000), *mem_copy(PACKED_VA, PLAIN_VA + MIB, 0x4000),
        *mem_copy(RAW_VA, PLAIN_VA + MIB + 0x4000, 0x4000),
    )  # fmt: skip
    space = job.tables.space()
    assert space.read(PLAIN_VA + MIB, 0x4000) == data
    assert space.read(PLAIN_VA + MIB + 0x4000, 0x4000) == stored(lab, 0, 0x4000) != data
    assert all(metadata(lab, 0, 0x4000))
    assert not any(metadata(lab, 0x4000, 0x4000))


def test_a_plain_write_makes_blocks_plain_again(lab: Lab) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x4000)
    run(lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x4000), *mem_set(RAW_VA + 0x1000, 0x1000, 0x33))
    assert not any(metadata(lab, 0x1000, 0x1000))
    assert all(metadata(lab, 0x2000, 0x2000))
    assert stored(lab, 0x1000, 0x1000) == bytes([0x33]) * 0x1000
    assert bytes(compression.plain(lab.vram, job.tables.space(), PACKED_VA, 0x4000)) == (
        data[:0x1000] + bytes([0x33]) * 0x1000 + data[0x2000:]
    )


@pytest.mark.parametrize("start", [0, 100, 256, 300, 511])
@pytest.mark.parametrize("length", [1, 200, 256, 1000, 5000])
def test_parts_of_blocks_keep_their_surroundings(lab: Lab, start: int, length: int) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x2000)
    run(lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x2000), *mem_set(PACKED_VA + start, length, 0x77))
    expected = data[:start] + bytes([0x77]) * length + data[start + length :]
    assert bytes(compression.plain(lab.vram, job.tables.space(), PACKED_VA, 0x2000)) == expected


def test_metadata_that_was_lost_makes_the_memory_useless(lab: Lab) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x2000)
    run(lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x2000))
    kept = metadata(lab, 0, 0x2000)
    place = CCS + PACKED // 512
    lab.vram.memory.view[place : place + len(kept)] = bytes(len(kept))
    run(lab, job, *mem_copy(PACKED_VA, PLAIN_VA + MIB, 0x2000))
    assert job.tables.space().read(PLAIN_VA + MIB, 0x2000) != data
    lab.vram.memory.view[place : place + len(kept)] = kept
    run(lab, job, *mem_copy(PACKED_VA, PLAIN_VA + MIB, 0x2000))
    assert job.tables.space().read(PLAIN_VA + MIB, 0x2000) == data


def test_a_rectangle_of_a_compressed_surface(lab: Lab) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x1_0000)
    run(
        lab, job, *block_copy(PLAIN_VA, PACKED_VA, 100, 40), *block_copy(PACKED_VA, PLAIN_VA + MIB, 100, 40),
    )  # fmt: skip
    space = job.tables.space()
    for row in range(40):
        assert space.read(PLAIN_VA + MIB + 1024 * row, 400) == data[1024 * row : 1024 * row + 400]
    assert stored(lab, 0, 400) != data[:400]


@pytest.mark.parametrize("width", [256, 100])
def test_a_full_resolve_in_place_leaves_a_surface_plain(lab: Lab, width: int) -> None:
    job = surfaces(lab)
    data = fill_random(job, PLAIN_VA, 0x4000)
    run(
        lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x4000),
        *block_copy(PACKED_VA, PACKED_VA, width, 16, flags=1 << 12),
    )  # fmt: skip
    assert stored(lab, 0, 0x4000) == data
    assert not any(metadata(lab, 0, 0x4000))


def test_system_memory_is_never_compressed(lab: Lab) -> None:
    job = surfaces(lab)
    job.tables.entry(PACKED_VA, 1, 0)
    job.tables.map(PACKED_VA, 0, 0x2000, system=True, flags=3 | 1 << 3)
    data = fill_random(job, PLAIN_VA, 0x2000)
    run(lab, job, *mem_copy(PLAIN_VA, PACKED_VA, 0x2000))
    assert job.tables.space().read(PACKED_VA, 0x2000) == data
