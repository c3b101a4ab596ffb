"""Which shared libraries a program needs (ELF-64 little-endian; generic System V ABI, chapter 5)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 1, 5, 10


@dataclass(frozen=True)
class Dynamic:
    """A program's interpreter (its dynamic loader; "" for none) and the names of libraries it needs."""

    interpreter: str = ""
    needed: tuple[str, ...] = ()


def is_elf(data: bytes) -> bool:
    """Whether `data` is an ELF file that this module understands."""
    return data[:6] == b"\x7fELF\x02\x01"


def dynamic(data: bytes) -> Dynamic:
    """Read the dynamic section; a static program gives an empty result.  Raises `ValueError` when damaged."""
    if not is_elf(data):
        raise ValueError("not a 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", data, 0x20)
        size, count = struct.unpack_from("<HH", data, 0x36)
        interpreter, segments, tags = "", [], []
        for index in range(count):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
            if kind == _PT_INTERP:
                interpreter = data[offset : offset + length].rstrip(b"\0").decode()
            elif kind == _PT_LOAD:
                segments.append((address, offset, length))
            elif kind == _PT_DYNAMIC:
                tags = [struct.unpack_from("<qQ", data, at) for at in range(offset, offset + length, 16)]
        values = dict(tags)
        if _DT_STRTAB not in values:
            return Dynamic(interpreter)
        start = next(offset + values[_DT_STRTAB] - address for address, offset, length in segments
                     if address <= values[_DT_STRTAB] < address + length)  # fmt: skip
        strings = data[start : start + values[_DT_STRSZ]]
        needed = [strings[value : strings.index(b"\0", value)].decode() for tag, value in tags if tag == _DT_NEEDED]
    except (struct.error, StopIteration, KeyError, ValueError) as error:
        raise ValueError("damaged ELF file") from error
    return Dynamic(interpreter, tuple(needed))


def libraries(data: bytes, find: Callable[[str], Path | None]) -> tuple[str, dict[str, Path]]:
    """The interpreter of a program and all libraries it needs, directly or through others, by name.

    `find` gives the file of a library name, or None; raises `ValueError` naming the one that is not found.
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
