"""MEM_COPY, MEM_SET and XY_CTRL_SURF_COPY_BLT, against what plain bytes would be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.xe.blits import LAYOUTS, SIZE, fill_random, run, with_surfaces
from tests.support.xe.commands import END, SOURCE_VA, TARGET_VA, address, mem_copy
from tests.support.xe.engine_lab import DATA_VA, Lab
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.memory.formats import ppgtt


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


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


@pytest.mark.parametrize("kind", ["hole", "null", "read-only", "another memory"])
def test_a_copy_of_scattered_pages_goes_through_one_that_is_another_matter(lab: Lab, kind: str) -> None:
    job = with_surfaces(lab, source="scattered", target="scattered")
    data = fill_random(job, SOURCE_VA, SIZE)
    at = 0x5_3000
    if kind == "null":
        job.tables.entry(TARGET_VA + at, 0, 3 | ppgtt.NULL)
    elif kind == "another memory":
        job.tables.map(TARGET_VA + at, 0x7000, system=True)
    else:
        job.tables.entry(TARGET_VA + at, 0, 0x7000 | 1 if kind == "read-only" else 0)
    job.batch(*mem_copy(0x1000, flags=1 << 19), END)
    job.ring(*job.start())
    job.submit()
    lab.run()
    found = job.tables.space()
    assert found.read(TARGET_VA, at) == data[:at]
    if kind in ("hole", "read-only"):
        assert len(lab.listener.faults) == 1
        assert found.read(TARGET_VA + at + 0x1000, 0x1000) == bytes(0x1000)
        return
    assert not lab.listener.faults
    assert found.read(TARGET_VA + at, 0x1000) == (bytes(0x1000) if kind == "null" else data[at : at + 0x1000])
    assert found.read(TARGET_VA + at + 0x1000, 0x1000) == data[at + 0x1000 : at + 0x2000]


def test_copies_of_scattered_pages_are_counted_once_per_byte(lab: Lab) -> None:
    job = with_surfaces(lab, source="scattered", target="scattered")
    lab.fabric.ledger.clear()
    run(lab, job, *mem_copy(0x1000, flags=1 << 19))
    (entry,) = (entry for entry in lab.fabric.ledger if entry.kind == "vram")
    assert entry.bytes_written == 0x10_0000
    assert 0x10_0000 <= entry.bytes_read < 0x10_1000, "and the batch itself"
