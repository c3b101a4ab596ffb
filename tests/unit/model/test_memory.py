from __future__ import annotations

import mmap
import os

import pytest

from vfio_user_xe.emulator.model.memory import PAGE_SIZE, Memory, OutOfBounds

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, -PAGE_SIZE, 1, PAGE_SIZE + 1])
def test_a_size_that_is_not_a_positive_multiple_of_the_page_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="positive multiple"):
        Memory(size)


def test_what_the_view_stores_another_mapping_of_the_descriptor_reads() -> None:
    memory = Memory(2 * PAGE_SIZE)
    memory.view[PAGE_SIZE : PAGE_SIZE + 4] = b"edu!"
    with mmap.mmap(memory.fd, memory.size) as other:
        assert other[PAGE_SIZE : PAGE_SIZE + 4] == b"edu!"
        other[0:2] = b"ok"
    assert bytes(memory.view[:2]) == b"ok"
    memory.close()


def test_only_touched_pages_cost_host_memory() -> None:
    memory = Memory(64 << 30)
    assert memory.resident() == 0
    memory.view[40 << 30] = 1
    assert 0 < memory.resident() <= 2 * MIB
    memory.close()


def test_discard_zeroes_partial_pages_and_gives_whole_ones_back() -> None:
    memory = Memory(8 * MIB)
    memory.view[:] = b"\xff" * memory.size
    before = memory.resident()
    memory.discard(100, 6 * MIB)
    assert memory.resident() <= before - 5 * MIB
    assert bytes(memory.view[99:101]) == b"\xff\x00"
    assert not any(memory.view[100 : 100 + 6 * MIB])
    assert memory.view[100 + 6 * MIB] == 0xFF
    memory.close()


def test_discard_of_nothing_changes_nothing() -> None:
    memory = Memory(PAGE_SIZE)
    memory.view[0] = 7
    memory.discard(0, 0)
    assert memory.view[0] == 7
    memory.close()


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, PAGE_SIZE + 1), (PAGE_SIZE, 1)])
def test_a_range_outside_is_named(offset: int, length: int) -> None:
    memory = Memory(PAGE_SIZE, "vram")
    with pytest.raises(OutOfBounds, match="vram"):
        memory.check(offset, length)
    with pytest.raises(OutOfBounds, match="vram"):
        memory.discard(offset, length)
    memory.close()


def test_the_holder_of_the_descriptor_cannot_cut_the_memory() -> None:
    memory = Memory(2 * PAGE_SIZE)
    for size in (PAGE_SIZE, 4 * PAGE_SIZE):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)
    memory.close()


def test_close_gives_the_descriptor_back_and_views_stay_usable_until_they_go() -> None:
    memory = Memory(PAGE_SIZE)
    fd, window = memory.fd, memory.view[16:32]
    memory.close()
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    window[0] = 1
    assert window[0] == 1


def test_descriptors_are_not_inherited_by_programs() -> None:
    memory = Memory(PAGE_SIZE)
    assert not os.get_inheritable(memory.fd)
    memory.close()
