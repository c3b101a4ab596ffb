"""Messages on their way out of a socket: no sender waits for the client to read.

A message that the socket takes at once is sent by the caller with one system call. What the socket does not take is kept,
and a thread that exists only while something is kept sends it as the client reads. So the thread that serves a socket goes
on reading while its client only writes, and a client that reads late finds every reply, in order. What is kept has a bound:
behind it the client is disconnected, and the log says so.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence

from vfio_user_xe.emulator.vfio_user.receiver import close_all

log = logging.getLogger(__name__)

MAX_KEPT = 32 << 20
"""Bytes that are kept for one client: 31 replies of the largest size, or some 120,000 short ones."""
MESSAGE_COST = 256
"""Bytes that a kept message counts beside its own: what it costs the interpreter."""
MAX_KEPT_FDS = 64
"""Descriptors that are kept for one client: each is one of those that the server may have open."""
LARGE = 96 << 10
"""Bytes: a message beyond this may be larger than the socket's buffer (212992 bytes by default). No DMA request is: the thread
that sends those reads from the socket, too."""
PATIENCE_MS = 200
"""How long a large message waits for each piece of room, when nothing is kept: a client that reads makes room in
microseconds (on a busy host later), and what is kept costs a copy and a thread. Who does not read is waited for once."""

_AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_TIMEVAL = struct.Struct("@ll")


class Backlog(BrokenPipeError):
    """The client was disconnected, because it reads too little of what is sent to it."""


class Outbox:
    """The sending half of a connected socket (SOCK_STREAM or SOCK_SEQPACKET). Its methods may be called from any thread."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        """`sock` is a blocking socket and stays the caller's; `name` is the client's, for the log."""
        self.name = name
        self._socket = sock
        self._lock = threading.Lock()
        self._kept: deque[tuple[memoryview, list[int]]] = deque()
        self._cost = 0
        self._fds = 0
        self._sender: threading.Thread | None = None
        self._sending = False
        self._closed = False
        self.gave_up = False
        """Whether the client was disconnected because too much waited for it; the log has it then."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, PATIENCE_MS * 1000))

    def small_sender(self) -> Callable[[memoryview], None]:
        """What sends a short message from a buffer that is used again at once: a closure, because every access calls it.

        Raises:
            OSError: as `send`.
        """
        acquire, release = self._lock.acquire, self._lock.release
        kept, send, keep, at_once = self._kept, self._socket.send, self._keep, _AT_ONCE

        def send_small(message: memoryview) -> None:
            sent = 0
            acquire()
            try:
                if not kept:
                    sent = send(message, at_once)
                    if sent == len(message):
                        return
                keep(bytes(message[sent:]), ())
            except BlockingIOError:
                keep(bytes(message), ())
            finally:
                release()

        return send_small

    def send(self, pieces: Sequence[bytes | memoryview], fds: Sequence[int] = ()) -> None:
        """Send one message, or keep what the socket does not take of it; `fds` go with it and stay the caller's.

        Raises:
            Backlog: too many bytes are kept.
            OSError: the connection is broken or closed.
        """
        total = sum(len(piece) for piece in pieces)
        with self._lock:
            sent = 0
            if not self._kept:
                # A large one may wait for PATIENCE_MS (SO_SNDTIMEO).
                flags = socket.MSG_NOSIGNAL if total > LARGE else _AT_ONCE
                try:
                    sent = self._socket.sendmsg(pieces, _rights(fds) if fds else (), flags)
                    if sent == total:
                        return
                except BlockingIOError:
                    pass
            self._keep(b"".join(pieces)[sent:], () if sent else fds)

    @property
    def kept(self) -> int:
        """How many messages wait for the client to read."""
        return len(self._kept)

    def close(self) -> None:
        """Drop what is kept, and end its thread; the socket must have been shut down before, and is closed after."""
        with self._lock:
            self._closed = True
            self._drop()
            sender = self._sender
        if sender is not None:
            sender.join()

    # With the lock held.

    def _keep(self, rest: bytes, fds: Sequence[int]) -> None:
        if self._closed:
            raise BrokenPipeError("the connection was ended")
        if self._cost + len(rest) + MESSAGE_COST > MAX_KEPT or self._fds + len(fds) > MAX_KEPT_FDS:
            log.warning(
                "%s: disconnected, because it does not read what is sent to it: %d messages (%d bytes, %d descriptors)"
                " wait for it; at most %d bytes and %d descriptors may",
                *(self.name, len(self._kept), self._cost, self._fds, MAX_KEPT, MAX_KEPT_FDS),
            )
            self._closed = self.gave_up = True
            self._drop()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            raise Backlog("the client does not read what is sent to it")
        self._kept.append((memoryview(rest), [os.dup(fd) for fd in fds]))
        self._cost += len(rest) + MESSAGE_COST
        self._fds += len(fds)
        if not self._sending:
            self._sending = True
            self._sender = threading.Thread(target=self._send_kept, name=f"{self.name} replies", daemon=True)
            self._sender.start()

    def _drop(self) -> None:
        for _, fds in self._kept:
            close_all(fds)
        self._kept.clear()
        self._cost = self._fds = 0

    def _send_some(self) -> None:
        """Send as much of what waits as the socket takes.

        Raises:
            BlockingIOError: the socket takes no more.
        """
        while self._kept:
            rest, fds = self._kept[0]
            sent = self._socket.sendmsg([rest], _rights(fds), _AT_ONCE)
            self._fds -= len(fds)
            close_all(fds)
            if sent < len(rest):
                self._cost -= sent
                self._kept[0] = (rest[sent:], fds)
            else:
                self._cost -= sent + MESSAGE_COST
                self._kept.popleft()

    def _send_kept(self) -> None:
        """The thread: while something is kept."""
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        while True:
            poller.poll()
            with self._lock:
                try:
                    self._send_some()
                except BlockingIOError:
                    continue
                except OSError:
                    # The thread that reads from this socket finds its end too.
                    self._closed = True
                    self._drop()
                self._sending = False
                return


def _rights(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
