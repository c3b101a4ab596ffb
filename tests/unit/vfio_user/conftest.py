"""A session and its client in one process: the client's end of the socket is the test's, byte by byte."""

from __future__ import annotations

import array
import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any
from unittest.mock import NonCallableMagicMock, create_autospec

import pytest

from vfio_user_xe.emulator.model.card import Card, CardConfig
from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.pci.config_space import COMMAND, COMMAND_MASTER
from vfio_user_xe.emulator.pci.transport import AccessHandler, Region, Served
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.session import Session

PAGE = 4096
TIMEOUT = 60.0
"""Seconds after which something that a test waits for is missing."""
READ_WRITE = wire.DMA_READABLE | wire.DMA_WRITABLE
ALL_CAPABILITIES = {
    "max_msg_fds": 8,
    "max_data_xfer_size": 1 << 20,
    "max_dma_maps": 1,
    "pgsizes": 1,
    "write_multiple": 1,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the client receives it, a reply or a command; the descriptors are the receiver's to close."""

    message_id: int
    command: int
    flags: int
    errno: int
    body: bytes
    fds: list[int] = field(default_factory=list)


class Peer:
    """The client's end of a session's socket: it sends and receives what a test says, and nothing of its own."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(TIMEOUT)
        self._next_id = 0x100

    @staticmethod
    def pack(command: int, body: bytes = b"", *, message_id: int = 1, flags: int = 0, size: int | None = None) -> bytes:
        """A message in bytes; `size` is what its header claims."""
        claimed = wire.HEADER_SIZE + len(body) if size is None else size
        return wire.HEADER.pack(message_id, command, claimed, flags, 0) + body

    def send(
        self, command: int, body: bytes = b"", *, fds: Sequence[int] = (), flags: int = 0, size: int | None = None
    ) -> int:
        """Send a command; returns its message id."""
        self._next_id += 1
        data = self.pack(command, body, message_id=self._next_id, flags=flags, size=size)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.sock.sendmsg([data], rights)
        self.sock.sendall(data[sent:])
        return self._next_id

    def receive(self) -> Message:
        """The next message.

        Raises:
            EOFError: the session has closed the connection.
        """
        header, rights, _, _ = self.sock.recvmsg(wire.HEADER_SIZE, socket.CMSG_SPACE(4 * 16))
        header += self._exactly(wire.HEADER_SIZE - len(header)) if header else b""
        if not header:
            raise EOFError
        fds = array.array("i")
        for _, _, data in rights:
            fds.frombytes(data)
        message_id, command, size, flags, number = wire.HEADER.unpack(header)
        return Message(message_id, command, flags, number, self._exactly(size - wire.HEADER_SIZE), list(fds))

    def request(
        self, command: int, body: bytes = b"", *, fds: Sequence[int] = (), flags: int = 0, size: int | None = None
    ) -> Message:
        """Send a command and receive its reply, which may be an error."""
        message_id = self.send(command, body, fds=fds, flags=flags, size=size)
        reply = self.receive()
        assert (reply.message_id, reply.command) == (message_id, command)
        assert reply.flags == (wire.TYPE_REPLY | wire.FLAG_ERROR if reply.errno else wire.TYPE_REPLY)
        return reply

    def refused(self, command: int, body: bytes = b"", *, fds: Sequence[int] = (), flags: int = 0) -> str:
        """The name of the error that a command is answered with; "" when it succeeds."""
        reply = self.request(command, body, fds=fds, flags=flags)
        return errno.errorcode[reply.errno] if reply.errno else ""

    def has_message(self, seconds: float = 0.0) -> bool:
        """Whether something to receive comes within `seconds`."""
        return bool(wait([self.sock], seconds))

    def negotiate(self, capabilities: dict[str, Any] | None = None) -> Message:
        """VERSION, with every capability unless told otherwise."""
        wanted = {"capabilities": ALL_CAPABILITIES if capabilities is None else capabilities}
        return self.request(wire.VERSION, wire.VERSION_BODY.pack(0, 1) + json.dumps(wanted).encode() + b"\0")

    # Bodies of common commands.

    def map(self, address: int, size: int, fd: int | None = None, *, offset: int = 0, flags: int = READ_WRITE) -> str:
        """DMA_MAP; the error's name, or ""."""
        body = wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, flags, offset, address, size)
        return self.refused(wire.DMA_MAP, body, fds=[] if fd is None else [fd])

    def unmap(self, address: int, size: int, flags: int = 0) -> Message:
        """DMA_UNMAP without a bitmap."""
        return self.request(wire.DMA_UNMAP, unmap_body(address, size, flags))

    def read(self, region: int, offset: int, count: int) -> Message:
        """REGION_READ."""
        return self.request(wire.REGION_READ, wire.REGION_ACCESS.pack(offset, region, count))

    def write(self, region: int, offset: int, data: bytes) -> Message:
        """REGION_WRITE."""
        return self.request(wire.REGION_WRITE, wire.REGION_ACCESS.pack(offset, region, len(data)) + data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def unmap_body(address: int, size: int, flags: int = 0) -> bytes:
    return wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, flags, address, size)


class Storage(AccessHandler):
    """A region's handler that keeps what is written and notes every access as (operation, offset, size)."""

    def __init__(self) -> None:
        self.data = bytearray(PAGE)
        self.accesses: list[tuple[str, int, int]] = []
        self.fails = False
        """Whether every access raises."""

    def read(self, offset: int, size: int) -> int:
        self._note("read", offset, size)
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self._note("write", offset, size)
        self.data[offset : offset + size] = value.to_bytes(size, "little")

    def _note(self, operation: str, offset: int, size: int) -> None:
        self.accesses.append((operation, offset, size))
        if self.fails:
            raise RuntimeError("the model fails")


@dataclass
class Connection:
    """A session that runs, and its client. `function` is a mock of what is served, or a function of a card."""

    session: Session
    peer: Peer
    function: Any
    thread: threading.Thread

    def end(self) -> None:
        """The client goes; returns when the session has ended."""
        self.peer.sock.close()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()


def make_function(regions: Sequence[Region | None] = (), interrupts: Sequence[int] = (0, 2, 0, 0, 0)) -> Any:
    """A mock with the spec of `Served`."""
    function: NonCallableMagicMock = create_autospec(Served, instance=True)
    function.name = "fake"
    function.regions = [*regions, *[None] * (wire.NUM_REGIONS - len(regions))]
    function.interrupts = list(interrupts)
    return function


Connect = Callable[..., Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections: `connect(function, negotiate=True, tap=None)`."""
    made: list[Connection] = []

    def make(function: Any = None, *, negotiate: bool = True, tap: Tap | None = None) -> Connection:
        served = make_function() if function is None else function
        ours, theirs = socket.socketpair()
        session = Session(served, ours, tap=tap)
        thread = threading.Thread(target=session.run, daemon=True)
        connection = Connection(session, Peer(theirs), served, thread)
        made.append(connection)
        thread.start()
        if negotiate:
            assert connection.peer.negotiate().errno == 0
            # The function is attached after that reply, and before the next.
            assert connection.peer.refused(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)) == ""
        return connection

    yield make
    for connection in made:
        connection.end()


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def connection(connect: Connect, storage: Storage) -> Connection:
    """A negotiated session. BAR0 is `storage`, BAR1 can only be read, BAR2 only be written."""
    regions = [
        Region(PAGE, handler=storage),
        Region(PAGE, handler=storage, writable=False),
        Region(PAGE, handler=storage, readable=False),
    ]
    return connect(make_function(regions))


@pytest.fixture
def peer(connection: Connection) -> Peer:
    return connection.peer


@pytest.fixture
def ram() -> Iterator[Memory]:
    """Memory of a client: 16 pages, each beginning with its number plus 1."""
    memory = Memory(16 * PAGE, "ram")
    for page in range(16):
        memory.view[page * PAGE] = page + 1
    yield memory
    memory.close()


@pytest.fixture
def card() -> Iterator[Card]:
    """A card of the teaching device, whose only path to memory is `host_dma`."""
    card = Card(CardConfig.default("edu"))
    card.start()
    yield card
    card.stop()


@pytest.fixture
def dma_connection(card: Card, connect: Connect) -> Connection:
    """A session of the device of `card`, which is bus master."""
    (edu,) = card.functions
    connection = connect(edu)
    edu.config.write(COMMAND, 2, COMMAND_MASTER)
    return connection
