"""Debian's package files: an archive of ar(1) with the files in a compressed tar archive, see deb(5)."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vfio_user_xe.emulator.guest.errors import FetchFailed
from vfio_user_xe.emulator.guest.tar import WholeMember, extract

_MAGIC = b"!<arch>\n"
_HEADER = 60
_DAMAGE = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError)


def unpack(archive: Path, root: Path) -> None:
    """Unpack a package's files below `root`, by nobody's but this user's rights; no maintainer script runs.

    Raises:
        FetchFailed: the file is no package, is damaged, or has a file that would lie outside `root`.
        OSError: it cannot be read, or what is in it cannot be written.
    """
    try:
        with data(archive) as files:
            for member in files:
                extract(files, member, root, links_inside=False)
    except _DAMAGE as error:
        raise FetchFailed(f"{archive.name} could not be unpacked: {error}") from error


def read_files(archive: Path, folder: str, stem: str, limit: int) -> list[bytes]:
    """The content of the regular files in a package's folder that are called `stem` before their last dot.

    No more than `limit` bytes of what the package has are read: it may be of anybody.

    Raises:
        FetchFailed: the file is no package, is damaged, or has more.
        OSError: it cannot be read.
    """
    found = []
    try:
        with data(archive, limit) as files:
            for member in files:
                path = Path(member.name)
                if member.isfile() and path.stem == stem and path.parent == Path(folder):
                    content = files.extractfile(member)
                    assert content is not None
                    found.append(content.read())
    except _DAMAGE as error:
        raise FetchFailed(f"{archive.name} could not be read: {error}") from error
    return found


@contextlib.contextmanager
def data(archive: Path, limit: int = sys.maxsize) -> Iterator[tarfile.TarFile]:
    """The tar archive with a package's files, to be read once from its begin to its end, at most `limit` bytes of it.

    Raises:
        ValueError: the file is no package, or is compressed in a way that Python lacks.
    """
    with archive.open("rb") as file:
        name, size = _data_member(file)
        part = io.BufferedReader(_Part(file, size), 1 << 20)
        with contextlib.ExitStack() as stack:
            plain: Any = part
            if name == "data.tar.xz":
                plain = stack.enter_context(lzma.open(part))
            elif name == "data.tar.gz":
                plain = stack.enter_context(gzip.open(part))
            elif name != "data.tar":
                raise ValueError(f"{name} is of a form that is not read here (allowed: data.tar, .gz and .xz)")
            some = io.BufferedReader(_Part(plain, limit), 1 << 20)
            yield stack.enter_context(tarfile.open(fileobj=some, mode="r|", tarinfo=WholeMember))


def _data_member(file: IO[bytes]) -> tuple[str, int]:
    """Go to the member data.tar of the archive; returns its whole name and its bytes."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no package of Debian")
    while len(header := file.read(_HEADER)) == _HEADER:
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if size < 0:
            raise ValueError(f"{name} has {size} bytes")
        if name.startswith("data.tar"):
            return name, size
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no data.tar")


class _Part(io.RawIOBase):
    """The next `size` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(min(len(buffer), self._left))
        buffer[: len(content)] = content
        self._left -= len(content)
        return len(content)
