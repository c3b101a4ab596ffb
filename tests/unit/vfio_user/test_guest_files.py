"""Files that ranges share: what counts as one file, and how long it is kept."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.vfio_user.conftest import PAGE, READ_WRITE
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.guest_files import FileError, GuestFiles, _same
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory, MapError

BASE = 0x1_0000_0000
FILE_IO = READ_WRITE | wire.DMA_FILE_IO


def descriptors(file: Memory) -> int:
    """How many descriptors of the file are open in this process; others come and go with what else runs here."""
    gc.collect()
    wanted, found = os.fstat(file.fd), 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/self/fd/{name}")
            found += (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
    return found


def never(*_: object) -> bytes:
    raise AssertionError("a message is sent")


def code(refused: Callable[[], object], kind: type[FileError | MapError | DmaError] = FileError) -> str:
    with pytest.raises(kind) as caught:
        refused()
    return errno.errorcode[caught.value.errno]


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 48)
    fd = os.open(tmp_path / "file", os.O_RDWR)
    yield fd
    os.close(fd)


def test_ranges_of_one_file_keep_it_open_once(memory: GuestMemory, ram: Memory) -> None:
    before = descriptors(ram)
    for number in range(8):
        memory.map(BASE + number * PAGE, PAGE, FILE_IO, ram.fd, 0)
    assert descriptors(ram) == before + 1
    memory.unmap(BASE, 7 * PAGE)
    assert descriptors(ram) == before + 1
    memory.unmap_all()
    assert descriptors(ram) == before


def test_a_file_that_is_opened_again_for_less_is_another() -> None:
    files = GuestFiles()
    both = os.memfd_create("x")
    os.ftruncate(both, PAGE)
    read = os.open(f"/proc/self/fd/{both}", os.O_RDONLY)
    try:
        kept = files.opened(both, 0, PAGE, True, True)
        assert files.opened(both, 0, PAGE, True, False) is kept
        assert files.opened(read, 0, PAGE, True, False) is not kept
        assert code(lambda: files.opened(read, 0, PAGE, True, True)) == "EACCES"
    finally:
        os.close(both)
        os.close(read)


def test_files_without_a_size_are_one_only_if_they_are_one_open_file() -> None:
    """Two opens of `/proc/self/mem` may be of different address spaces, though their inode is one."""
    files = GuestFiles()
    one = os.open("/proc/self/mem", os.O_RDONLY)
    other = os.open("/proc/self/mem", os.O_RDONLY)
    same = os.dup(one)
    try:
        kept = files.opened(one, 0, PAGE, True, False)
        assert files.opened(other, 0, PAGE, True, False) is not kept
        if _same(one, same):  # where the kernel says
            assert files.opened(same, 0, PAGE, True, False) is kept
    finally:
        for fd in (one, other, same):
            os.close(fd)


def test_devices_that_have_no_size_do_not_share_a_mapping() -> None:
    files = GuestFiles()
    zero = os.open("/dev/zero", os.O_RDWR)
    try:
        one, other = (files.mapped(zero, 0, PAGE, True) for _ in range(2))
        one.view[0] = 1
        assert one is not other
    finally:
        os.close(zero)


def test_a_descriptor_without_offsets_is_refused() -> None:
    read, write = os.pipe()
    try:
        assert code(lambda: GuestFiles().opened(read, 0, PAGE, True, False)) == "EINVAL"
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("offset", [(1 << 63) - PAGE + 1, (1 << 64) - PAGE])
def test_an_offset_that_no_file_has_is_refused(ram: Memory, offset: int) -> None:
    assert code(lambda: GuestFiles().opened(ram.fd, offset, PAGE, True, True)) == "EINVAL"
    assert code(lambda: GuestFiles().mapped(ram.fd, offset // PAGE * PAGE, PAGE, True)) == "EINVAL"


@pytest.mark.parametrize(
    ("flags", "with_descriptor"),
    [(FILE_IO, False), (READ_WRITE | wire.DMA_MMAP, False), (FILE_IO | wire.DMA_MMAP, True), (0x10, True)],
)
def test_flags_that_say_nothing_sensible_are_refused(
    memory: GuestMemory, ram: Memory, flags: int, with_descriptor: bool
) -> None:
    fd = ram.fd if with_descriptor else None
    assert code(lambda: memory.map(BASE, PAGE, flags, fd, 0), MapError) == "EINVAL"
    assert len(memory) == 0


def test_file_io_is_read_and_written_at_its_offset_and_other_memory_by_messages(memory: GuestMemory, path: int) -> None:
    memory.map(BASE + PAGE, PAGE, FILE_IO, path, 100)
    asked: list[tuple[int, int]] = []

    def message(address: int, count: int) -> bytes:
        asked.append((address, count))
        return b"m" * count

    assert memory.view(BASE + PAGE, PAGE, False) is None
    assert memory.mapped(BASE + PAGE, PAGE, True)
    read = memory.read(BASE + PAGE - 2, PAGE + 4, message)
    assert read == b"mm" + os.pread(path, PAGE, 100) + b"mm"
    assert asked == [(BASE + PAGE - 2, 2), (BASE + 2 * PAGE, 2)]
    memory.write(BASE + PAGE + 5, b"written", never)
    assert os.pread(path, 7, 105) == b"written"


def test_what_may_only_be_read_is_not_written_by_file_io(memory: GuestMemory, ram: Memory) -> None:
    memory.map(BASE, PAGE, wire.DMA_READABLE | wire.DMA_FILE_IO, ram.fd, 0)
    sent: list[int] = []
    memory.write(BASE, b"x", lambda address, data: sent.append(address))
    assert sent == [BASE]  # the client refuses it
    assert ram.view[0] != ord("x")


def test_a_file_that_became_shorter_fails_the_access(memory: GuestMemory, path: int) -> None:
    memory.map(BASE, 2 * PAGE, FILE_IO, path, 0)
    os.ftruncate(path, PAGE)
    assert code(lambda: memory.read(BASE + PAGE - 1, 2, never), DmaError) == "EIO"
    assert len(memory.read(BASE, PAGE, never)) == PAGE


def test_an_access_that_is_under_way_when_its_range_goes_keeps_the_file(memory: GuestMemory, path: int) -> None:
    memory.map(BASE, PAGE, FILE_IO, path, 0)
    kept = memory.ranges()[0].file
    assert kept is not None
    memory.unmap(BASE, PAGE)
    assert kept.read(1, 2) == b"\1\2"
