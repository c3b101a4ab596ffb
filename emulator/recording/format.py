"""The file that `serve --record` writes and `replay` reads: a header in JSON, then events of 20 bytes, some with data.

An event is `(kind, function, a, b, x, y)` and what the kind says about them; those with data have its length in `y`. The
events of an access or of a job follow the one that began it. All of it is compressed as one gzip or xz stream.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final, cast

from vfio_user_xe.emulator.model.card import CardConfig, CardError

FORMAT: Final = 1

# What the client does. Of accesses, a: region; b: bytes; x: offset.
READ: Final = 1
"""y: the value that was answered."""
WRITE: Final = 2
"""y: the value."""
READ_BLOCK: Final = 3
"""Data: what was answered. x: offset."""
MEMORY: Final = 4
"""Memory that the client maps is different now. Data; x: offset in the region."""
ATTACH: Final = 5
DETACH: Final = 6
RESET: Final = 7
WIRED: Final = 8
"""a: interrupt index; x: first vector; y: how many."""
UNMAPPED: Final = 9
"""x: address; y: length (2^64 - 1 for all)."""
START: Final = 15
"""The card starts."""
# What the executor does.
JOB: Final = 16
"""It takes the next job."""
EXPIRE: Final = 17
"""It queues the timers that are due now."""
END: Final = 18
"""The job has ended. a: 1 when no other waits."""
# What the device does in an access or in a job.
CLOCK: Final = 32
"""It looks at the clock. x: microseconds since the last look."""
DMA_READ: Final = 33
"""x: address. Data."""
DMA_WRITE: Final = 34
"""x: address. b: 0: data; 1: y is the length, and a digest of 8 bytes follows."""
DMA_FAILED: Final = 35
"""The DMA that was asked for failed. a: 1 for a write; b: errno; x: address; y: length."""
MAPPED: Final = 36
"""It asked whether memory is there. a: 1 for writing; b: the answer; x: address; y: length."""
TRIGGER: Final = 37
"""It raised an interrupt. a: index; b: 1 when it was delivered; x: vector."""
FAILED: Final = 38
"""The access could not be carried out: the device raised an exception."""

NAMES: Final = {
    number: name.lower().replace("_", " ")
    for name, number in dict(globals()).items()
    if name.isupper() and isinstance(number, int) and name != "FORMAT"
}
BEGINNINGS: Final = frozenset(
    {READ, WRITE, READ_BLOCK, MEMORY, ATTACH, DETACH, RESET, WIRED, UNMAPPED, START, JOB, EXPIRE}
)
"""Events that the client or the executor cause; the others belong to the one before."""
WITH_DATA: Final = frozenset({READ_BLOCK, MEMORY, DMA_READ, DMA_WRITE})
MAX_DATA: Final = 1 << 30
"""Bytes of an event at most; a length above it is damage."""
LARGEST_DATA: Final = 4096
"""Bytes of a DMA_WRITE that are kept; of larger ones a digest."""

EVENT: Final = Struct("<BBBBqQ")
"""Precompiled, not construct: an event is packed in every access that is recorded."""
ALL: Final = (1 << 64) - 1
"""The length of everything, which does not fit into `y`."""


class RecordingError(Exception):
    """A file that is no recording, or not one of this version; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; see the kinds for what the fields mean. `number` counts from 1."""

    number: int
    kind: int
    function: int
    a: int
    b: int
    x: int
    y: int
    data: bytes = b""


@dataclass(slots=True)
class Header:
    """What was recorded: the card's description and its functions' names."""

    card: dict[str, Any]
    functions: list[str]
    format: int = FORMAT
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: CardConfig, functions: list[str]) -> Header:
        """For a card of `config`."""
        card = {
            "model": config.model,
            "name": config.name,
            "interconnects": [asdict(item) for item in config.interconnects],
            "options": config.options,
        }
        return cls(card, functions)

    def config(self, source: str) -> CardConfig:
        """The card's description; options that have come since have their defaults.

        Raises:
            CardError: the description is damaged, or names what this version does not have; its place is `source`.
        """
        try:
            interconnects = [{"name": item["name"], **item["options"]} for item in self.card["interconnects"]]
            table = {"model": self.card["model"], "name": self.card["name"], "device": self.card["options"]}
        except (KeyError, TypeError) as exc:
            raise CardError(f"the recording's card is not described as it should be: {exc!r}", source=source) from None
        return CardConfig.of(table | {"interconnects": interconnects}, source)


def signed(address: int) -> int:
    """An address as an event has it: bit 63 is the sign."""
    return address - (1 << 64) if address >> 63 & 1 else address


def unsigned(x: int) -> int:
    """The address that an event has."""
    return x & ALL


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """What is kept of data that is too long to keep."""
    return blake2b(data, digest_size=8).digest()


def create(path: Path) -> BinaryIO:
    """A compressed file to write a recording to: xz for `*.xz`, which is small, else gzip, which is quick."""
    if path.suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "wb", preset=9))
    return cast(BinaryIO, gzip.open(path, "wb", compresslevel=5))


def write_header(file: BinaryIO, header: Header) -> None:
    """Begin a recording."""
    file.write(json.dumps(asdict(header), separators=(",", ":")).encode() + b"\n")


def write_event(file: BinaryIO, event: Event) -> None:
    """Append `event`; its `number` is its place, whatever it says."""
    file.write(EVENT.pack(event.kind, event.function, event.a, event.b, event.x, event.y) + event.data)


class Recording:
    """A recording in a file: its header, and its events one by one."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            RecordingError: the file cannot be read, or is no recording of this format.
        """
        self.path = path
        with self._open() as file:
            self.header = self._header(file)

    def events(self) -> Iterator[Event]:
        """Every event in order.

        Raises:
            RecordingError: the file ends in the middle of one, or is damaged.
        """
        unpack, size = EVENT.unpack, EVENT.size
        with self._open() as file:
            self._header(file)
            number = 0
            try:
                while head := file.read(size):
                    number += 1
                    if len(head) < size:
                        raise EOFError
                    kind, function, a, b, x, y = unpack(head)
                    data = b""
                    if kind in WITH_DATA:
                        length = 8 if kind == DMA_WRITE and b else y
                        if not 0 <= length <= MAX_DATA:
                            raise EOFError
                        data = file.read(length)
                        if len(data) < length:
                            raise EOFError
                    yield Event(number, kind, function, a, b, x, y, data)
            except (EOFError, OSError, lzma.LZMAError, zlib.error) as exc:
                raise RecordingError(f"{self.path}: is cut off or damaged after event {number}") from exc

    def _open(self) -> BinaryIO:
        try:
            with self.path.open("rb") as file:
                magic = file.read(6)
        except OSError as exc:
            raise RecordingError(f"cannot read {self.path}: {exc.strerror}") from None
        if magic == b"\xfd7zXZ\0":
            return cast(BinaryIO, lzma.open(self.path, "rb"))
        if magic.startswith(b"\x1f\x8b"):
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        raise RecordingError(f"{self.path}: is no recording (it is neither a gzip nor an xz file)")

    def _header(self, file: BinaryIO) -> Header:
        try:
            fields = json.loads(file.readline(1 << 20))
            header = Header(**fields)
        except (ValueError, TypeError, EOFError, OSError, lzma.LZMAError, zlib.error):
            raise RecordingError(f"{self.path}: is no recording (its first line does not describe a card)") from None
        if header.format != FORMAT:
            raise RecordingError(f"{self.path}: is a recording of format {header.format}; this version reads {FORMAT}")
        return header
