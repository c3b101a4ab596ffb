"""A client of Wayland's wire, as far as tests of a display need one, and the compositor's end of surface messages."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_WAIT = 60.0
"""Seconds, for a display that has nothing to do but answer."""


def text(value: str) -> bytes:
    """A string as an argument of a request."""
    data = value.encode() + b"\0"
    return struct.pack("<I", len(data)) + data.ljust((len(data) + 3) & ~3, b"\0")


@dataclass
class Event:
    """What the display told an object."""

    object: int
    opcode: int
    body: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its body as words."""
        return struct.unpack(f"<{len(self.body) // 4}I", self.body)


class WaylandClient:
    """A connection, with an id for each new object. From one thread."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_WAIT)
        self._socket.connect(str(path))
        self._last = 1
        self._data, self._fds = b"", list[int]()
        self.globals: dict[str, int] = {}

    def new(self) -> int:
        """An id that no object has had."""
        self._last += 1
        return self._last

    def raw(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send bytes that may be no request; nobody takes them where the display has dropped this client."""
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [data], list(fds))

    def request(self, target: int, opcode: int, *arguments: int | bytes, fds: tuple[int, ...] = ()) -> None:
        """Send a request: numbers, and strings made by `text`."""
        body = b"".join(one if isinstance(one, bytes) else struct.pack("<I", one & 0xFFFFFFFF) for one in arguments)
        self.raw(struct.pack("<II", target, (8 + len(body)) << 16 | opcode) + body, fds)

    def event(self) -> Event:
        """The next event.

        Raises:
            EOFError: the display has closed the connection.
        """
        while len(self._data) < 8 or len(self._data) < self._size():
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, 65536, 28)
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                raise EOFError("the display has closed the connection")
            self._data += data
            self._fds += fds
        size = self._size()
        target, words = struct.unpack_from("<II", self._data)
        found = Event(target, words & 0xFFFF, self._data[8:size], self._fds)
        self._data, self._fds = self._data[size:], []
        return found

    def until(self, target: int, opcode: int) -> Event:
        """The next event of this kind; others before are passed over."""
        while (found := self.event()).object != target or found.opcode != opcode:
            pass
        return found

    def events(self) -> list[Event]:
        """What the display has told until it has taken all requests so far."""
        callback, found = self.new(), list[Event]()
        self.request(1, 0, callback)
        while (one := self.event()).object != callback:
            found.append(one)
        self.until(1, 1)  # the callback is deleted
        return found

    def bind_all(self) -> dict[str, int]:
        """An object of each global, by its interface; what they say of themselves is passed over."""
        registry = self.new()
        self.request(1, 1, registry)
        offered = {}
        for one in self.events():
            name, length = struct.unpack_from("<II", one.body)
            interface = one.body[8 : 8 + length - 1].decode()
            offered[interface] = (name, one.numbers[-1])
        made = {}
        for interface, (name, version) in offered.items():
            made[interface] = self.new()
            self.request(registry, 0, name, text(interface), version, made[interface])
        self.globals = made
        self.events()
        return made

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _size(self) -> int:
        return int.from_bytes(self._data[6:8], "little")


class Compositor:
    """The end to which a source's surface messages come. From one thread."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(_WAIT)
        self._source: socket.socket | None = None

    def take(self) -> tuple[str, dict[str, str], int | None]:
        """The next message: its verb, its words, its descriptor, which is closed here but counted: how many bytes it has."""
        if self._source is None:
            self._source, _ = self._listener.accept()
            self._source.settimeout(_WAIT)
        data, fds, _, _ = socket.recv_fds(self._source, 65536, 1)
        verb, *words = data.decode().split()
        size = os.lseek(fds[0], 0, os.SEEK_END) if fds else None
        for fd in fds:
            os.close(fd)
        return verb, dict(word.split("=", 1) for word in words), size

    def done(self, resource: str, frame: str) -> None:
        """A frame is composed."""
        assert self._source is not None
        self._source.send(f"done resource={resource} frame={frame} composed=1".encode())

    def close(self) -> None:
        """Go away."""
        for one in (self._source, self._listener):
            if one is not None:
                one.close()


@contextmanager
def memory(size: int) -> Iterator[int]:
    """A descriptor of so many bytes."""
    fd = os.memfd_create("test")
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)
