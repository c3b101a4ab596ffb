from __future__ import annotations

import stat

import pytest

from tests.support.guest.samples import read_cpio
from vfio_user_xe.emulator.guest.cpio import Cpio


def test_files_keep_content_and_mode_whatever_their_length() -> None:
    archive = Cpio()
    for length in range(9):
        archive.file(f"data/file{length}", b"x" * length, 0o640)
    found = read_cpio(archive.to_bytes())
    for length in range(9):
        assert found[f"data/file{length}"] == (stat.S_IFREG | 0o640, b"x" * length)


def test_parents_come_before_their_contents_and_once() -> None:
    archive = Cpio()
    archive.file("/usr/lib/one", b"1")
    archive.file("usr/lib/two", b"2")
    archive.directory("usr")
    assert list(read_cpio(archive.to_bytes())) == ["usr", "usr/lib", "usr/lib/one", "usr/lib/two"]


def test_symlinks_and_devices_have_their_types() -> None:
    archive = Cpio()
    archive.symlink("bin", "usr/bin")
    archive.character_device("dev/console", 5, 1)
    data = archive.to_bytes()
    found = read_cpio(data)
    assert found["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert stat.S_ISCHR(found["dev/console"][0])
    header = data.index(b"dev/console\0") - 110
    assert data[header + 6 + 9 * 8 : header + 6 + 11 * 8] == b"0000000500000001"


def test_same_contents_give_the_same_bytes() -> None:
    def build() -> bytes:
        archive = Cpio()
        archive.file("a", b"1")
        return archive.to_bytes()

    assert build() == build()


@pytest.mark.parametrize("path", ["init", "/init", "./init"])
def test_a_path_that_is_taken_is_refused(path: str) -> None:
    archive = Cpio()
    archive.file("init", b"")
    with pytest.raises(ValueError, match="already"):
        archive.file(path, b"")


def test_a_path_that_leaves_the_archive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\.\."):
        Cpio().file("../etc/passwd", b"")
