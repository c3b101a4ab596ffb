"""One vfio-user socket as a client sees it: whole messages out and in, each descriptor with the message it came with.

Nothing here knows what a message means. `Connection` assembles a message from any fragmentation, survives a timeout in
the middle of one, and can also be used raw, to send what no honest client would.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vfio_user_xe.emulator.vfio_user import wire

# Linux passes at most SCM_MAX_FD (253) descriptors with one sendmsg (include/net/scm.h).
MAX_DESCRIPTORS = 253
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
_TIMEVAL = struct.Struct("@ll")
LARGEST_MESSAGE = (64 << 20) + 4096
"""Bytes: replies that claim more are taken for a broken stream."""


class Disconnected(Exception):
    """The server closed the connection, or it was never there; the text says when that was noticed."""


class ProtocolError(Exception):
    """The server sent something that the specification does not allow."""


@dataclass(slots=True)
class Message:
    """One message as received. The receiver owns `fds`."""

    id: int
    command: int
    flags: int
    error: int
    body: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def is_reply(self) -> bool:
        """Whether this answers a command."""
        return self.flags & wire.TYPE_MASK == wire.TYPE_REPLY

    @property
    def failed(self) -> bool:
        """Whether this reply carries the error flag."""
        return bool(self.flags & wire.FLAG_ERROR)

    def close_fds(self) -> None:
        """Close the descriptors that came with the message and were not taken."""
        close_all(self.fds)


def close_all(fds: list[int]) -> None:
    """Close every descriptor of the list and empty it."""
    while fds:
        os.close(fds.pop())


def encode(
    command: int, body: bytes | memoryview = b"", *, message_id: int = 0, flags: int = 0, error: int = 0
) -> bytes:
    """A message's bytes: header and body, with the size that belongs there."""
    return wire.HEADER.pack(message_id, command, wire.HEADER_SIZE + len(body), flags, error) + body


class Connection:
    """A connected stream socket, with message framing.

    `send` and `post` may be called from any thread; `receive` from one thread at a time. `on_blocked` is called
    while a message cannot be sent because the other side does not read; it should receive (and so unblock a server
    that is itself sending), and returns False when it cannot. `send_timeout` is how many seconds the other side may
    leave everything unread.
    """

    def __init__(self, sock: socket.socket, limit: int = LARGEST_MESSAGE) -> None:
        self.socket = sock
        self.limit = limit
        self.on_blocked: Callable[[], bool] | None = None
        self.send_timeout = 5.0
        self._timeout: float | None = None
        self._partial = bytearray()
        self._expected = wire.HEADER_SIZE
        self._header: tuple[int, int, int, int, int] | None = None
        self._fds: list[int] = []
        self._outbox: deque[tuple[bytes, Sequence[int]]] = deque()
        self._send_lock = threading.Lock()

    @classmethod
    def connect(cls, path: str | os.PathLike[str], timeout: float = 5.0) -> Connection:
        """Connect to the server's socket.

        Raises:
            Disconnected: Nobody listens there.

        From any thread.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(timeout)
            sock.connect(os.fspath(path))
            sock.settimeout(None)
        except OSError as exc:
            sock.close()
            raise Disconnected(f"cannot connect to {os.fspath(path)}: {exc.strerror or exc}") from exc
        return cls(sock)

    @property
    def peer_pid(self) -> int:
        """The process that listens at the other end (SO_PEERCRED)."""
        credentials = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[0])

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """End the connection; a thread that waits in `receive` gets `Disconnected`."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        close_all(self._fds)

    # Sending.

    def send(self, data: bytes | memoryview, fds: Sequence[int] = ()) -> None:
        """Send all of `data`, `fds` with its first byte.

        Raises:
            Disconnected: the server closed the connection.
        """
        with self._send_lock:
            self._send_all(data, fds)
            self._drain()
        self._flush()

    def post(self, data: bytes) -> None:
        """Send `data` now, or after the message that is being sent: for answers given while sending is blocked."""
        self._outbox.append((data, ()))
        self._flush()

    def send_in_pieces(self, data: bytes, sizes: Iterable[int], fds: Sequence[int] = (), pause: float = 0.0) -> None:
        """Send `data` by one system call a piece; `fds` go with the first, `pause` seconds lie between."""
        offset = 0
        for size in sizes:
            piece = data[offset : offset + size]
            if not piece:
                break
            self.send(piece, fds)
            fds = ()
            offset += len(piece)
            if pause and offset < len(data):
                time.sleep(pause)
        if offset < len(data):
            self.send(data[offset:], fds)

    def _flush(self) -> None:
        # The holder of the lock may have looked at the outbox before something was posted: look again after it.
        while self._outbox and self._send_lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._send_lock.release()

    def _drain(self) -> None:
        while self._outbox:
            self._send_all(*self._outbox.popleft())

    def _send_all(self, data: bytes | memoryview, fds: Sequence[int]) -> None:
        rest = memoryview(data)
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        while rest or ancillary:
            try:
                sent = self.socket.sendmsg([rest], ancillary, flags) if ancillary else self.socket.send(rest, flags)
            except BlockingIOError:
                self._wait_writable()
                continue
            except OSError as exc:
                if ancillary and not isinstance(exc, ConnectionError):
                    raise
                raise Disconnected(f"while sending: {exc.strerror}") from exc
            ancillary = []
            rest = rest[sent:]

    def _wait_writable(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT | select.POLLIN)
        events = poll.poll(self.send_timeout * 1000)
        if events and events[0][1] == select.POLLIN:
            if self.on_blocked is not None and self.on_blocked():
                return
            poll.modify(self.socket, select.POLLOUT)
            events = poll.poll(self.send_timeout * 1000)
        if not events:
            raise TimeoutError("the server does not read what is sent to it")

    # Receiving.

    def receive(self, timeout: float | None = None) -> Message:
        """The next message.

        After a timeout the connection is as good as before: what came of a message is kept.

        Raises:
            Disconnected: the server closed the connection.
            ProtocolError: what came is no message.
            TimeoutError: no whole message came in time.
        """
        self.set_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            missing = self._expected - len(self._partial)
            while missing:
                missing -= self._receive_some(missing, deadline)
            if self._header is None:
                self._take_header()
                if self._expected:
                    continue
            assert self._header is not None
            message_id, command, _, flags, error = self._header
            body, fds = bytes(self._partial), self._fds
            self._partial, self._fds, self._header = bytearray(), [], None
            self._expected = wire.HEADER_SIZE
            return Message(message_id, command, flags, error, body, fds)

    def closed_by_server(self, timeout: float) -> bool:
        """Whether the server ends the connection within `timeout` seconds; messages that come first are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.receive(max(0.001, deadline - time.monotonic())).close_fds()
            except Disconnected:
                return True
            except TimeoutError:
                return False

    def set_timeout(self, timeout: float | None) -> None:
        """How many seconds the socket waits for bytes; `receive` sets it, so only who reads the socket itself needs to."""
        # A socket timeout of the kernel costs nothing per call; Python's own would add a poll() to every receive.
        if timeout != self._timeout:
            self._timeout = timeout
            seconds = 0.0 if timeout is None else max(timeout, 1e-3)
            packed = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, packed)

    def _receive_some(self, missing: int, deadline: float | None) -> int:
        try:
            data, ancillary, flags, _ = self.socket.recvmsg(min(missing, 1 << 20), _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError(f"no message within {self._timeout} s ({len(self._partial)} bytes came)") from None
        except OSError as exc:
            raise Disconnected(f"while receiving: {exc.strerror}") from exc
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._fds.extend(received)
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("descriptors were lost: too many came, or this process may open no more")
        if not data:
            raise Disconnected("the server closed the connection" + (" in mid-message" if self._partial else ""))
        self._partial += data
        if deadline is not None and len(data) < missing and time.monotonic() > deadline:
            raise TimeoutError(f"only {len(self._partial)} bytes of a message came in time")
        return len(data)

    def _take_header(self) -> None:
        header = wire.HEADER.unpack(self._partial)
        size = header[2]
        if not wire.HEADER_SIZE <= size <= self.limit:
            raise ProtocolError(f"a message of {size} bytes (command {header[1]}, id {header[0]:#x})")
        self._header = header
        self._partial = bytearray()
        self._expected = size - wire.HEADER_SIZE
