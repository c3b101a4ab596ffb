"""ELF files, as far as guests need them read: 64-bit little-endian ones (generic System V ABI, chapters 4 and 5)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
# Elf64_Ehdr: e_phoff, e_shoff at 0x20; e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx at 0x36.
_TABLES = struct.Struct("<QQ")
_COUNTS = struct.Struct("<HHHHH")
# Elf64_Phdr: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz.
_SEGMENT = struct.Struct("<IIQQQQ")
# Elf64_Shdr: sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size.
_SECTION = struct.Struct("<IIQQQQ")
_NOTE = struct.Struct("<III")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 1, 5, 10


@dataclass(frozen=True)
class Segment:
    """A program header: what of the file is where in memory."""

    kind: int
    offset: int
    address: int
    length: int
    """Bytes in the file."""


@dataclass(frozen=True)
class Dynamic:
    """A program's interpreter (its dynamic loader; "" for none) and the names of libraries it needs."""

    interpreter: str = ""
    needed: tuple[str, ...] = ()


def is_elf(data: bytes) -> bool:
    """Whether `data` is an ELF file that this module understands."""
    return data[: len(_MAGIC)] == _MAGIC


def segments(data: bytes) -> list[Segment]:
    """The program headers.

    Raises:
        ValueError: `data` is not an ELF file, or it is damaged.
    """
    table, _, size, count, *_ = _header(data)
    with_offsets = (_unpack(_SEGMENT, data, table + index * size) for index in range(count))
    return [Segment(kind, offset, address, length) for kind, _, offset, address, _, length in with_offsets]


def section(data: bytes, wanted: str) -> bytes:
    """The contents of the first section called `wanted`, b"" when there is none.

    Raises:
        ValueError: the file is no ELF file of 64 bits, or damaged.
    """
    _, table, _, _, size, count, names_index = _header(data)
    headers = [_unpack(_SECTION, data, table + index * size) for index in range(count)]
    if names_index >= count:
        raise ValueError("damaged ELF file")
    names = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        if _string(data, names + name) == wanted.encode():
            return data[offset : offset + length]
    return b""


def notes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The notes of all note segments: owner's name and type.

    Raises:
        ValueError: the file is no ELF file of 64 bits, or damaged.
    """
    for segment in segments(data):
        offset, end = segment.offset, segment.offset + segment.length
        while segment.kind == _PT_NOTE and offset + _NOTE.size <= end:
            name_size, value_size, kind = _unpack(_NOTE, data, offset)
            offset += _NOTE.size
            yield data[offset : offset + name_size].rstrip(b"\0"), kind
            offset += (name_size + 3) // 4 * 4 + (value_size + 3) // 4 * 4


def dynamic(data: bytes) -> Dynamic:
    """Read the dynamic section; a static program gives an empty result.

    Raises:
        ValueError: the section is damaged.
    """
    interpreter, loaded, tags = "", [], []
    for segment in segments(data):
        content = data[segment.offset : segment.offset + segment.length]
        if segment.kind == _PT_INTERP:
            interpreter = content.rstrip(b"\0").decode()
        elif segment.kind == _PT_LOAD:
            loaded.append(segment)
        elif segment.kind == _PT_DYNAMIC:
            tags = list(struct.iter_unpack("<qQ", content[: len(content) // 16 * 16]))
    values = dict(tags)
    if _DT_STRTAB not in values:
        return Dynamic(interpreter)
    at = values[_DT_STRTAB]
    try:
        start = next(one.offset + at - one.address for one in loaded if one.address <= at < one.address + one.length)
        strings = data[start : start + values[_DT_STRSZ]]
        needed = [strings[value : strings.index(b"\0", value)].decode() for tag, value in tags if tag == _DT_NEEDED]
    except (StopIteration, KeyError, ValueError) as error:
        raise ValueError("damaged ELF file") from error
    return Dynamic(interpreter, tuple(needed))


def libraries(data: bytes, find: Callable[[str], Path | None]) -> tuple[str, dict[str, Path]]:
    """The interpreter of a program and all libraries it needs, directly or through others, by name.

    `find` gives the file of a library name, or None.

    Raises:
        ValueError: `find` does not find one; it is named.
    """
    program = dynamic(data)
    found: dict[str, Path] = {}
    waiting = [(name, "it") for name in program.needed]
    while waiting:
        name, needed_by = waiting.pop()
        if name in found:
            continue
        path = find(name)
        if path is None:
            raise ValueError(f"{needed_by} needs the library {name}, which is not in the guest environment")
        found[name] = path
        waiting += [(needed, name) for needed in dynamic(path.read_bytes()).needed]
    return program.interpreter, found


def _header(data: bytes) -> tuple[int, ...]:
    """e_phoff, e_shoff, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx."""
    if not is_elf(data):
        raise ValueError("not a 64-bit little-endian ELF file")
    return (*_unpack(_TABLES, data, 0x20), *_unpack(_COUNTS, data, 0x36))


def _unpack(layout: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return layout.unpack_from(data, at)
    except struct.error as error:
        raise ValueError("damaged ELF file") from error


def _string(data: bytes, at: int) -> bytes:
    return data[at : data.index(b"\0", at)] if b"\0" in data[at : at + 256] else b""
