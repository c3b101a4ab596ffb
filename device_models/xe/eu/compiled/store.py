"""Images of kernels in the user's cache folder, found by the code that they were made from.

A file is named by a hash of the first bytes at the entry and of the translator; in it are the stretches of code that the image was
made from, and their hash, which has to be that of what is there now. Code that begins alike has one file, that of the last.
"""

from __future__ import annotations

import hashlib
import json
import struct
from functools import cache
from pathlib import Path

from vfio_user_xe.device_models.xe.eu.compiled.image import Image
from vfio_user_xe.device_models.xe.eu.decode import Reader
from vfio_user_xe.device_models.xe.eu.ir import Program
from vfio_user_xe.emulator.guest import cache as cache_folder

FILES_AT_MOST = 2048
_FIRST_BYTES = 512
_HEADER = struct.Struct("<32sI")


def find(read: Reader, entry: int) -> Image | None:
    """The image of the code at `entry`, if there is one."""
    try:
        data = _path(read, entry).read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEADER.size:
        return None
    digest, size = _HEADER.unpack_from(data)
    if hashlib.sha256(data[32:]).digest() != digest:
        return None
    header = json.loads(data[_HEADER.size : _HEADER.size + size])
    if _code_hash(read, entry, header["code"]) != header["hash"]:
        return None
    return Image.from_bytes(data[_HEADER.size + size :])


def keep(read: Reader, program: Program, image: Image) -> None:
    """Keep an image for `find`.

    Raises:
        OSError: it cannot be written.
    """
    entry = program.entries[0]
    stretches: list[list[int]] = []
    for instruction in program.instructions:
        start = instruction.address - entry
        if stretches and sum(stretches[-1]) == start:
            stretches[-1][1] += instruction.size
        else:
            stretches.append([start, instruction.size])
    header = json.dumps({"code": stretches, "hash": _code_hash(read, entry, stretches)}).encode()
    rest = struct.pack("<I", len(header)) + header + image.to_bytes()
    path = _path(read, entry)
    _make_room(path.parent)
    cache_folder.write_atomically(path, hashlib.sha256(rest).digest() + rest)


def _code_hash(read: Reader, entry: int, stretches: list[list[int]]) -> str:
    digest = hashlib.sha256()
    for start, size in stretches:
        digest.update(struct.pack("<qq", start, size))
        digest.update(read(entry + start, size))
    return digest.hexdigest()


def _path(read: Reader, entry: int) -> Path:
    digest = hashlib.sha256(_translator())
    digest.update(read(entry, _FIRST_BYTES))
    return cache_folder.cache_dir() / "eu" / "kernels" / digest.hexdigest()[:32]


@cache
def _translator() -> bytes:
    """A hash of all that decodes and translates."""
    digest = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted([*folder.glob("*.py"), *folder.glob("messages/*.py"), *folder.glob("compiled/*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    for path in sorted(folder.glob("compiled/runtime/*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


def _make_room(folder: Path) -> None:
    """Remove the older half when there are too many."""
    files = list(folder.glob("*"))
    if len(files) < FILES_AT_MOST:
        return
    for _, path in cache_folder.by_age(files)[len(files) // 2 :]:
        path.unlink(missing_ok=True)
