"""vfio-user messages by field name, for traces and errors: the layouts of `wire.py`, described with construct.

The server, the client and the conformance cases pack and unpack with the precompiled structs of `wire.py`: a register
access takes 15 µs in all, and one parse with construct 20. A test compares the two descriptions, command by command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from construct import (
    Array,
    Bytes,
    Construct,
    ConstructError,
    CString,
    GreedyRange,
    Int16ul,
    Int32ul,
    Int64ul,
    Padding,
    Struct,
    this,
)

from vfio_user_xe.emulator.model.layout import plain, word
from vfio_user_xe.emulator.vfio_user import wire

SHOWN_DATA = 64
"""Bytes of a message's data that are shown."""

_DMA_FLAGS = word(("readable", 1), ("writable", 1), ("mmap", 1), ("file_io", 1))

VERSION = Struct("major" / Int16ul, "minor" / Int16ul)
DMA_MAP = Struct("argsz" / Int32ul, "flags" / _DMA_FLAGS, "offset" / Int64ul, "address" / Int64ul, "size" / Int64ul)
DMA_UNMAP = Struct(
    "argsz" / Int32ul, "flags" / word(("get_dirty", 1), ("all", 1)), "address" / Int64ul, "size" / Int64ul
)
DEVICE_INFO = Struct("argsz" / Int32ul, "flags" / word(("reset", 1), ("pci", 1)), "regions" / Int32ul, "irqs" / Int32ul)
REGION_INFO = Struct(
    "argsz" / Int32ul,
    "flags" / word(("read", 1), ("write", 1), ("mmap", 1), ("caps", 1)),
    "region" / Int32ul,
    "cap_offset" / Int32ul,
    "size" / Int64ul,
    "offset" / Int64ul,
)
CAPABILITY = Struct("id" / Int16ul, "version" / Int16ul, "next" / Int32ul)
SPARSE_MMAP = Struct("count" / Int32ul, Padding(4))
SPARSE_AREA = Struct("offset" / Int64ul, "size" / Int64ul)
REGION_IO_FDS = Struct("argsz" / Int32ul, "flags" / Int32ul, "region" / Int32ul, "count" / Int32ul)
IO_FD = Struct(
    "offset" / Int64ul,
    "size" / Int64ul,
    "fd_index" / Int32ul,
    "type" / Int32ul,
    "flags" / Int32ul,
    Padding(4),
    "match" / Int64ul,
)
IRQ_INFO = Struct(
    "argsz" / Int32ul,
    "flags" / word(("eventfd", 1), ("maskable", 1), ("automasked", 1), ("noresize", 1)),
    "irq" / Int32ul,
    "count" / Int32ul,
)
IRQ_SET = Struct(
    "argsz" / Int32ul,
    "flags" / word(("none", 1), ("bool", 1), ("eventfd", 1), ("mask", 1), ("unmask", 1), ("trigger", 1)),
    "irq" / Int32ul,
    "start" / Int32ul,
    "count" / Int32ul,
)
REGION_ACCESS = Struct("offset" / Int64ul, "region" / Int32ul, "count" / Int32ul)
WRITE_MULTI = Struct("count" / Int64ul)
WRITE_MULTI_ENTRY = Struct("offset" / Int64ul, "region" / Int32ul, "count" / Int32ul, "data" / Bytes(8))
DMA_ACCESS = Struct("address" / Int64ul, "count" / Int64ul)
DIRTY_PAGES = Struct("argsz" / Int32ul, "flags" / word(("start", 1), ("stop", 1), ("get_bitmap", 1)))
DEVICE_FEATURE = Struct("argsz" / Int32ul, "flags" / word(("feature", 16), ("get", 1), ("set", 1), ("probe", 1)))
MIG_DATA = Struct("argsz" / Int32ul, "size" / Int32ul)

MIG_STATE = Struct("state" / Int32ul, "data_fd" / Int32ul)
DMA_LOGGING_CONTROL = Struct("page_size" / Int64ul, "count" / Int32ul, Padding(4))
DMA_LOGGING_RANGE = Struct("address" / Int64ul, "size" / Int64ul)
DMA_LOGGING_REPORT = Struct("address" / Int64ul, "size" / Int64ul, "page_size" / Int64ul)
DIRTY_BITMAP = Struct("page_size" / Int64ul, "bitmap_size" / Int64ul)

Layout = tuple[Construct, Construct | None]
"""The fixed part of a body, which command and reply have alike; what may follow, None: data."""

LAYOUTS: Mapping[int, Layout] = {
    wire.VERSION: (VERSION, Struct("json" / CString("utf8"))),
    wire.DMA_MAP: (DMA_MAP, None),
    wire.DMA_UNMAP: (DMA_UNMAP, DIRTY_BITMAP),
    wire.DEVICE_GET_INFO: (DEVICE_INFO, None),
    wire.DEVICE_GET_REGION_INFO: (
        REGION_INFO,
        Struct("capability" / CAPABILITY, "sparse" / SPARSE_MMAP, "areas" / Array(this.sparse.count, SPARSE_AREA)),
    ),
    wire.DEVICE_GET_REGION_IO_FDS: (REGION_IO_FDS, Struct("entries" / GreedyRange(IO_FD))),
    wire.DEVICE_GET_IRQ_INFO: (IRQ_INFO, None),
    wire.DEVICE_SET_IRQS: (IRQ_SET, None),
    wire.REGION_READ: (REGION_ACCESS, None),
    wire.REGION_WRITE: (REGION_ACCESS, None),
    wire.DMA_READ: (DMA_ACCESS, None),
    wire.DMA_WRITE: (DMA_ACCESS, None),
    wire.DEVICE_RESET: (Struct(), None),
    wire.DIRTY_PAGES: (DIRTY_PAGES, None),
    wire.REGION_WRITE_MULTI: (WRITE_MULTI, Struct("writes" / GreedyRange(WRITE_MULTI_ENTRY))),
    wire.DEVICE_FEATURE: (DEVICE_FEATURE, None),
    wire.MIG_DATA_READ: (MIG_DATA, None),
    wire.MIG_DATA_WRITE: (MIG_DATA, None),
}
"""By command. An error reply has no body."""
FEATURES: Mapping[int, Layout] = {
    wire.FEATURE_MIG_DEVICE_STATE: (MIG_STATE, None),
    wire.FEATURE_DMA_LOGGING_START: (DMA_LOGGING_CONTROL, Struct("ranges" / GreedyRange(DMA_LOGGING_RANGE))),
    wire.FEATURE_DMA_LOGGING_REPORT: (DMA_LOGGING_REPORT, None),
}
"""What follows DEVICE_FEATURE, by feature."""


def describe(command: int, body: bytes) -> dict[str, Any]:
    """The fields of a command's or reply's `body` by name; flags as the names of those that are set, data in hexadecimal.

    `body` may be anything, and may be cut off: what cannot be parsed is `data`.
    """
    fixed, rest = LAYOUTS.get(command, (Struct(), None))
    fields, tail = _parsed(fixed, body)
    if command == wire.DEVICE_FEATURE and fields:
        number = DEVICE_FEATURE.parse(body).flags.feature
        following, rest = FEATURES.get(number, (Struct(), None))
        more, tail = _parsed(following, tail)
        fields |= {f"feature_{name}" if name in fields else name: value for name, value in more.items()}
    if tail and rest is not None:
        with contextlib.suppress(ConstructError, UnicodeDecodeError):
            return fields | _flat(rest.parse(tail))
    return fields | ({"data": tail[:SHOWN_DATA].hex()} if tail else {})


def _parsed(layout: Construct, data: bytes) -> tuple[dict[str, Any], bytes]:
    """The fields of `layout`, if all of it is there, and what follows."""
    size = layout.sizeof()
    return (_flat(layout.parse(data)), data[size:]) if len(data) >= size else ({}, data)


def _flat(parsed: Any) -> dict[str, Any]:
    fields: dict[str, Any] = plain(parsed)
    return {
        name: _flags(value) if name == "flags" and isinstance(value, dict) else value for name, value in fields.items()
    }


def _flags(bits: dict[str, int]) -> str:
    """The names of the bits that are set, the lowest first; a field of several bits with its value."""
    return "|".join(name if value == 1 else f"{name}={value}" for name, value in reversed(bits.items()) if value) or "0"
