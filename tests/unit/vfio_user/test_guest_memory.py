"""The table of ranges that a client announced by DMA_MAP: what is in it, what is refused, and who may do what with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.vfio_user.conftest import PAGE, READ_WRITE
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory, MapError

READ, WRITE = wire.DMA_READABLE, wire.DMA_WRITABLE
BASE = 0x1_0000_0000


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory()


def table(memory: GuestMemory) -> list[tuple[int, int, int]]:
    return [(found.start, found.end, found.flags) for found in memory.ranges()]


def refused(operation: Callable[[], object]) -> str:
    with pytest.raises(MapError) as caught:
        operation()
    return errno.errorcode[caught.value.errno]


def mappings_of(file: Memory) -> int:
    """How often a file is mapped in this process; once is by its `Memory` itself."""
    inode = str(os.fstat(file.fd).st_ino)
    return sum(line.split()[4] == inode for line in Path("/proc/self/maps").read_text().splitlines())


# Views.


def test_a_view_is_the_client_s_memory_itself(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, 4 * PAGE, READ_WRITE, ram.fd, 2 * PAGE)
    view = memory.view(BASE + PAGE + 1, 3, True)
    assert view is not None
    view[:] = b"abc"
    assert bytes(ram.view[3 * PAGE : 3 * PAGE + 4]) == b"\x04abc"


def test_memory_that_can_only_be_read_gives_no_view_for_writing(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, READ, ram.fd, 0)
    assert memory.view(BASE, PAGE, True) is None
    assert not memory.mapped(BASE, 1, True)
    view = memory.view(BASE, PAGE, False)
    assert view is not None
    assert view.readonly
    assert view[0] == 1


def test_memory_that_can_only_be_written_gives_no_view_for_reading(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, WRITE, ram.fd, 0)
    assert memory.view(BASE, PAGE, False) is None
    assert not memory.mapped(BASE, 1, False)
    view = memory.view(BASE, PAGE, True)
    assert view is not None
    view[0] = 0xFF
    assert ram.view[0] == 0xFF


def test_memory_without_permissions_can_be_mapped_and_not_be_accessed(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, 0, ram.fd, 0)
    for write in (False, True):
        assert memory.view(BASE, 1, write) is None
        assert not memory.mapped(BASE, 1, write)


def test_a_view_ends_with_its_range(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, READ_WRITE, ram.fd, 0)
    memory.map(BASE + PAGE, PAGE, READ_WRITE, ram.fd, 8 * PAGE)
    view = memory.view(BASE + PAGE - 8, 64, False)
    assert view is not None
    assert len(view) == 8
    following = memory.view(BASE + PAGE, 64, False)
    assert following is not None
    assert (len(following), following[0]) == (64, 9)


@pytest.mark.parametrize("address", [0, BASE - 1, BASE + PAGE, (1 << 64) - 1])
def test_there_is_no_view_outside_of_all_ranges(memory: GuestMemory, ram: Memory, address: int) -> None:
    memory.map(BASE, PAGE, READ_WRITE, ram.fd, 0)
    assert memory.view(address, 1, False) is None
    assert memory.find(address) is None
    assert not memory.mapped(address, 1, False)


def test_a_range_without_a_descriptor_is_mapped_and_has_no_view(memory: GuestMemory) -> None:
    memory.map(BASE, PAGE, READ_WRITE, None, 0)
    assert memory.view(BASE, PAGE, False) is None
    assert memory.mapped(BASE, PAGE, True)


def test_an_access_may_cross_adjacent_ranges_but_no_gap(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, READ_WRITE, ram.fd, 0)
    memory.map(BASE + PAGE, PAGE, READ, None, 0)
    memory.map(BASE + 3 * PAGE, PAGE, READ_WRITE, ram.fd, 0)
    assert memory.mapped(BASE, 2 * PAGE, False)
    assert not memory.mapped(BASE, 2 * PAGE, True), "the second can only be read"
    assert memory.mapped(BASE, PAGE, True)
    assert not memory.mapped(BASE, 2 * PAGE + 1, False), "the third page is in no range"
    assert not memory.mapped(BASE + PAGE, 3 * PAGE, False)


# Mapping.


def test_ranges_are_told_in_the_order_of_their_addresses(memory: GuestMemory) -> None:
    for page in (5, 1, 3):
        memory.map(page * PAGE, PAGE, READ, None, 0)
    assert table(memory) == [(page * PAGE, (page + 1) * PAGE, READ) for page in (1, 3, 5)]
    assert len(memory) == 3


@pytest.mark.parametrize(("first", "pages"), [(4, 2), (3, 2), (5, 2), (2, 8), (4, 1), (5, 1)])
def test_a_range_that_overlaps_another_is_refused(memory: GuestMemory, ram: Memory, first: int, pages: int) -> None:
    memory.map(4 * PAGE, 2 * PAGE, READ_WRITE, ram.fd, 0)
    assert refused(lambda: memory.map(first * PAGE, pages * PAGE, READ_WRITE, ram.fd, 0)) == "EEXIST"
    assert refused(lambda: memory.add(first * PAGE, pages * PAGE, READ_WRITE, None)) == "EEXIST"
    assert table(memory) == [(4 * PAGE, 6 * PAGE, READ_WRITE)]


def test_ranges_may_touch(memory: GuestMemory) -> None:
    for page in (4, 3, 5):
        memory.map(page * PAGE, PAGE, READ, None, 0)
    assert len(memory) == 3


def test_the_last_page_of_the_address_space_can_be_mapped(memory: GuestMemory, ram: Memory) -> None:
    last = (1 << 64) - PAGE
    memory.map(last, PAGE, READ_WRITE, ram.fd, 15 * PAGE)
    view = memory.view((1 << 64) - 1, 100, False)
    assert view is not None
    assert len(view) == 1
    assert memory.mapped(last, PAGE, True)
    assert not memory.mapped(last, PAGE + 1, True)
    assert memory.unmap(last, PAGE) == PAGE


@pytest.mark.parametrize(
    ("address", "size", "flags", "offset"),
    [
        (BASE, 0, READ, 0),
        ((1 << 64) - PAGE, 2 * PAGE, READ, 0),
        (BASE + 1, PAGE, READ, 0),
        (BASE, PAGE - 1, READ, 0),
        (BASE, PAGE, 0x10, 0),
        (BASE, PAGE, READ | 0x20, 0),
        (BASE, PAGE, READ, 1),
        (BASE, PAGE, READ, 16 * PAGE),
        (BASE, 17 * PAGE, READ, 0),
        (BASE, 2 * PAGE, READ, 15 * PAGE),
    ],
)
def test_a_range_that_cannot_be_is_refused(
    memory: GuestMemory, ram: Memory, address: int, size: int, flags: int, offset: int
) -> None:
    assert refused(lambda: memory.map(address, size, flags, ram.fd, offset)) == "EINVAL"
    assert table(memory) == []
    assert mappings_of(ram) == 1


def test_one_range_too_many_is_refused(ram: Memory) -> None:
    memory = GuestMemory(max_ranges=2)
    memory.map(0, PAGE, READ, ram.fd, 0)
    memory.map(PAGE, PAGE, READ, None, 0)
    assert refused(lambda: memory.map(2 * PAGE, PAGE, READ, ram.fd, 0)) == "ENOSPC"
    memory.unmap(0, PAGE)
    memory.map(2 * PAGE, PAGE, READ, ram.fd, 0)
    assert len(memory) == 2


# Files.


def test_a_file_is_mapped_once_for_all_its_ranges_and_as_long_as_there_are_any(
    memory: GuestMemory, ram: Memory
) -> None:
    for page in range(8):
        memory.map(2 * page * PAGE, PAGE, READ_WRITE, ram.fd, page * PAGE)
    assert mappings_of(ram) == 2
    memory.unmap(0, 14 * PAGE)
    assert mappings_of(ram) == 2
    memory.unmap_all()
    assert mappings_of(ram) == 1


def test_a_view_that_is_still_held_keeps_its_bytes(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, READ, ram.fd, 0)
    view = memory.view(BASE, 1, False)
    memory.unmap_all()
    assert view is not None
    assert view[0] == 1
    del view
    assert mappings_of(ram) == 1


def test_the_descriptor_stays_the_caller_s(memory: GuestMemory, ram: Memory) -> None:
    fd = os.dup(ram.fd)
    memory.map(BASE, PAGE, READ, fd, 0)
    os.close(fd)
    view = memory.view(BASE, 1, False)
    assert view is not None
    assert view[0] == 1


def test_a_file_that_is_only_open_for_reading_can_only_be_mapped_for_reading(memory: GuestMemory, ram: Memory) -> None:
    fd = os.open(f"/proc/self/fd/{ram.fd}", os.O_RDONLY)
    try:
        assert refused(lambda: memory.map(BASE, PAGE, READ_WRITE, fd, 0)) == "EACCES"
        assert table(memory) == []
        memory.map(BASE, PAGE, READ, fd, 0)
    finally:
        os.close(fd)
    memory.map(BASE + PAGE, PAGE, READ_WRITE, ram.fd, PAGE)
    view = memory.view(BASE + PAGE, 2, True)
    assert view is not None, "the mapping for reading is not used for writing"
    view[1] = 7
    assert ram.view[PAGE + 1] == 7


def test_a_device_file_which_tells_no_size_is_mapped_as_far_as_is_asked(memory: GuestMemory) -> None:
    fd = os.open("/dev/zero", os.O_RDWR)
    try:
        memory.map(BASE, 2 * PAGE, READ_WRITE, fd, 0)
    finally:
        os.close(fd)
    view = memory.view(BASE, 2 * PAGE, True)
    assert view is not None
    view[2 * PAGE - 1] = 1
    assert bytes(view[-2:]) == b"\0\1"


def test_a_descriptor_that_cannot_be_mapped_is_refused(memory: GuestMemory) -> None:
    reader, writer = os.pipe()
    try:
        assert refused(lambda: memory.map(BASE, PAGE, READ, reader, 0)) == "ENODEV"
    finally:
        os.close(reader)
        os.close(writer)
    assert table(memory) == []


def test_a_range_whose_view_somebody_else_made_is_as_any_other(memory: GuestMemory) -> None:
    view = memoryview(bytearray(PAGE))
    memory.add(BASE, PAGE, READ_WRITE, view)
    got = memory.view(BASE + 16, 16, True)
    assert got is not None
    got[0] = 5
    assert view[16] == 5
    assert memory.unmap(BASE, PAGE) == PAGE


# Unmapping.


def test_several_ranges_are_unmapped_by_one_that_covers_them(memory: GuestMemory) -> None:
    for page in (1, 2, 4, 6):
        memory.map(page * PAGE, PAGE, READ, None, 0)
    assert memory.unmap(0, 6 * PAGE) == 3 * PAGE
    assert table(memory) == [(6 * PAGE, 7 * PAGE, READ)]


@pytest.mark.parametrize(
    ("first", "pages", "error"),
    [
        (5, 3, "EINVAL"),  # its beginning cuts the first range
        (4, 3, "EINVAL"),  # its end cuts the second
        (5, 1, "EINVAL"),
        (0, 4, "ENOENT"),
        (8, 1, "ENOENT"),
        (4, 0, "EINVAL"),
    ],
)
def test_what_would_cut_a_range_or_finds_none_is_refused_and_changes_nothing(
    memory: GuestMemory, first: int, pages: int, error: str
) -> None:
    memory.map(4 * PAGE, 2 * PAGE, READ, None, 0)
    memory.map(6 * PAGE, 2 * PAGE, WRITE, None, 0)
    before = table(memory)
    assert refused(lambda: memory.unmap(first * PAGE, pages * PAGE)) == error
    assert table(memory) == before


def test_unmapping_past_the_end_of_the_address_space_is_refused(memory: GuestMemory) -> None:
    assert refused(lambda: memory.unmap((1 << 64) - PAGE, 2 * PAGE)) == "EINVAL"


def test_what_was_unmapped_is_found_no_more_and_can_be_mapped_again(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, READ, ram.fd, 0)
    memory.unmap(BASE, PAGE)
    assert memory.find(BASE) is None
    assert memory.view(BASE, 1, False) is None
    memory.map(BASE, PAGE, READ, ram.fd, 5 * PAGE)
    view = memory.view(BASE, 1, False)
    assert view is not None
    assert view[0] == 6


def test_unmapping_all_tells_how_much_that_was(memory: GuestMemory, ram: Memory) -> None:
    memory.map(0, 3 * PAGE, READ, ram.fd, 0)
    memory.map(BASE, PAGE, READ, None, 0)
    assert memory.unmap_all() == 4 * PAGE
    assert (len(memory), memory.unmap_all()) == (0, 0)
