"""The guest environment, kernels and userlands in one file, for machines without apt or without a network.

    write_bundle(Path("guest.tar.zst"))         on a machine that has fetched them
    read_bundle(Path("guest.tar.zst"))          on another one

A tar archive, compressed as its name says (.tar.zst, .tar.xz, .tar.gz, .tar): `bundle.json`, which says what is in it, then the
folders of the cache. zstd needs the program of this name, the other forms Python alone.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import FetchFailed, NotUsable
from vfio_user_xe.emulator.guest.kernel import zstd_command
from vfio_user_xe.emulator.guest.packaged_kernels import kernels_dir, named_kernel
from vfio_user_xe.emulator.guest.tar import WholeMember, extract
from vfio_user_xe.emulator.guest.userland import locate_userland

FORMAT, VERSION = "vfio-user-xe guest bundle", 1
ABOUT = "bundle.json"
_TOPS = ("environment", "packaged-kernels", "userlands")
_SUFFIXES = {".tar.zst": "zst", ".tar.xz": "xz", ".tar.gz": "gz", ".tar": ""}
_MAGIC = {b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gz"}
_DAMAGE = (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error)
"""What reading a damaged file ends with."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was bundled: folders of the cache, and of the file its bytes and their SHA-256."""

    parts: tuple[str, ...]
    size: int
    sha256: str


def write_bundle(output: Path, kernels: Sequence[str] = (), userlands: Sequence[str] = ()) -> Bundle:
    """Write the environment, and kernels of these series and userlands of these names, to a file.

    Raises:
        MissingEnvironment: one of them was not fetched.
        NotUsable: the file's name has another ending, or it cannot be written.
    """
    form = next((form for suffix, form in _SUFFIXES.items() if output.name.endswith(suffix)), None)
    if form is None:
        raise NotUsable(f"{output}: the name must end with {', '.join(_SUFFIXES)}")
    environment = locate()
    base = cache.cache_dir()
    folders = [environment.root.parent]
    folders += [_folder_of(named_kernel(series, None, environment).image) for series in kernels]
    folders += [locate_userland(name).image.parent for name in userlands]
    parts = tuple(str(folder.relative_to(base)) for folder in dict.fromkeys(folders))
    about = json.dumps({"format": FORMAT, "version": VERSION, "parts": parts}).encode()
    zstd = zstd_command(environment) if form == "zst" else ()
    partial = output.with_name(f"{output.name}.partial")
    try:
        with (
            partial.open("wb") as file,
            _compressed(file, form, zstd) as stream,
            tarfile.open(fileobj=stream, mode="w|") as archive,
        ):
            first = tarfile.TarInfo(ABOUT)
            first.size = len(about)
            archive.addfile(first, io.BytesIO(about))
            for part in parts:
                archive.add(base / part, part, filter=_nobodys)
        partial.replace(output)
    except OSError as error:
        raise NotUsable(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Bundle(parts, output.stat().st_size, digest(output))


def read_bundle(file: Path, sha256: str = "") -> tuple[str, ...]:
    """Put what a bundle has into the cache, in place of what is there; returns its parts.

    What is in the file is run by this user: take it from whom you trust, or give the `sha256` that you have from there.

    Raises:
        NotUsable: it cannot be read, or is no bundle, or has another checksum.
        FetchFailed: it ends early or is damaged, or cannot be stored; what was in the cache before is still there.
    """
    try:
        if sha256 and digest(file) != sha256.lower():
            raise NotUsable(f"{file}: has another SHA-256 than the {sha256} that was asked for")
        with file.open("rb") as opened:
            head = opened.read(6)
    except OSError as error:
        raise NotUsable(f"{file}: cannot be read: {error.strerror}") from error
    form = next((form for magic, form in _MAGIC.items() if head.startswith(magic)), "")
    base = cache.cache_dir()
    try:
        with cache.lock(base / "bundle.lock"):
            # What a reader that was killed has left.
            cache.recover(base / "bundle")
            with tempfile.TemporaryDirectory(prefix="bundle.partial-", dir=base, ignore_cleanup_errors=True) as work:
                parts = _unpacked(file, form, Path(work))
                for part in parts:
                    _install(Path(work) / part, base / part)
    except _DAMAGE as error:
        raise FetchFailed(f"{file}: is damaged or cannot be stored: {error}") from error
    locate()
    return parts


def _unpacked(file: Path, form: str, work: Path) -> tuple[str, ...]:
    """Unpack a bundle's parts into a folder."""
    with _plain(file, form) as stream, _archive(file, stream) as archive:
        parts = _about(file, archive)
        while (member := archive.next()) is not None:
            inside = any(member.name == part or member.name.startswith(f"{part}/") for part in parts)
            if not inside or ".." in member.name.split("/"):
                raise NotUsable(f"{file}: has {member.name}, which belongs to none of its parts")
            extract(archive, member, work, links_inside=True)
        # The checksum of what was compressed comes after the archive's end.
        while stream.read(1 << 20):
            pass
    for part in parts:
        if not (work / part).is_dir() or (work / part).is_symlink():
            raise FetchFailed(f"{file}: lacks its part {part}")
    return parts


def digest(file: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _folder_of(image: Path) -> Path:
    """The folder below `packaged-kernels` that an image is in."""
    folder = kernels_dir()
    if not image.is_relative_to(folder):
        raise NotUsable(f"{image} is the environment's own kernel, which is in the bundle anyhow")
    return folder / image.relative_to(folder).parts[0]


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _archive(file: Path, stream: IO[bytes]) -> tarfile.TarFile:
    """The archive in a stream.

    Raises:
        NotUsable: it is none.
    """
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=WholeMember)
    except _DAMAGE as error:
        raise NotUsable(f"{file}: is no bundle: {error}") from error


def _about(file: Path, archive: tarfile.TarFile) -> tuple[str, ...]:
    """The parts that a bundle says it has.

    Raises:
        NotUsable: it is no bundle of this version, or has parts that are no folders of the cache.
    """
    try:
        first = archive.next()
        content = archive.extractfile(first) if first is not None and first.name == ABOUT else None
        said = json.loads(content.read()) if content is not None else {}
    except (*_DAMAGE, ValueError) as error:
        raise NotUsable(f"{file}: is no bundle: {error}") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise NotUsable(f"{file}: is no bundle of `vfio-user-xe guest bundle`")
    if said.get("version") != VERSION:
        raise NotUsable(f"{file}: is a bundle of version {said.get('version')!r} (allowed: {VERSION})")
    parts = tuple(map(str, said.get("parts", ())))
    for part in parts:
        words = part.split("/")
        if words[0] not in _TOPS or len(words) != (1 if words[0] == _TOPS[0] else 2) or words[-1] in ("", ".", ".."):
            raise NotUsable(f"{file}: has a part {part!r} that is no folder of the cache")
    return parts


def _install(made: Path, target: Path) -> None:
    """Let a folder take the place of `target`, under the lock of those who fetch it."""
    lock = target.with_name("environment.lock") if target.name == _TOPS[0] else target.with_name("lock")
    with cache.lock(lock), cache.building(target) as work:
        work.rmdir()
        made.rename(work)


@contextlib.contextmanager
def _compressed(file: IO[bytes], form: str, zstd: Sequence[str]) -> Iterator[IO[bytes]]:
    """A stream whose content is compressed into the file."""
    if form != "zst":
        if form == "xz":
            with lzma.open(file, "wb", preset=3) as packed:
                yield packed
        elif form == "gz":
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as zipped:
                yield cast("IO[bytes]", zipped)
        else:
            yield file
        return
    with subprocess.Popen([*zstd, "-q", "-T0", "-10", "-c"], stdin=subprocess.PIPE, stdout=file) as process:
        assert process.stdin is not None
        yield process.stdin
        process.stdin.close()
    if process.returncode != 0:
        raise OSError(f"zstd ended with exit code {process.returncode}")


@contextlib.contextmanager
def _plain(file: Path, form: str) -> Iterator[IO[bytes]]:
    """A stream of a file's content without its compression.

    Raises:
        NotUsable: the program that it takes is not there.
    """
    if form != "zst":
        if form == "xz":
            with lzma.open(file, "rb") as packed:
                yield packed
        elif form == "gz":
            with gzip.open(file, "rb") as zipped:
                yield cast("IO[bytes]", zipped)
        else:
            with file.open("rb") as plain:
                yield plain
        return
    if shutil.which("zstd") is None:
        raise NotUsable(
            f"{file}: there is no program zstd on PATH; install it, or make the bundle with a name that ends with .tar.xz"
        )
    with subprocess.Popen(["zstd", "-dcq", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield process.stdout
        process.stdout.close()
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise OSError(said or f"zstd ended with exit code {process.returncode}")
