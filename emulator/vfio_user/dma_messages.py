"""DMA by messages: DMA_READ and DMA_WRITE towards the client, for guest memory that came without a descriptor.

Chunks are at most 64 KiB with few outstanding: QEMU takes a partial send of a large reply for a complete one, so a
reply must fit into a socket buffer (212992 bytes by default). The caller's thread waits; it is never one that
serves accesses, because the client cannot answer while it waits for an access.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import wire

MAX_CHUNK = 64 * 1024
MAX_OUTSTANDING = 2
TIMEOUT = 10.0
"""Seconds that a client may take to answer: it may be stopped, but not for ever."""

Send = Callable[[Sequence[bytes | memoryview]], None]


class DmaMessages:
    """Requests to the client and their replies, matched by message id."""

    def __init__(self, send: Send, max_data_xfer_size: int = wire.DEFAULT_MAX_DATA_XFER) -> None:
        """`send` puts the pieces of one message on the wire. `max_data_xfer_size` is the client's, in bytes."""
        self._send = send
        self._chunk = max(1, min(MAX_CHUNK, max_data_xfer_size))
        self._lock = threading.Lock()
        self._next_id = 0
        self._waiting: dict[int, _Access] = {}
        self._closed = False
        self._aborts = 0

    @property
    def waiting(self) -> int:
        """How many requests the client has not answered yet. From any thread."""
        return len(self._waiting)

    def read(self, address: int, length: int) -> bytes:
        """See `Transport.read`."""
        parts: list[bytes] = []
        for position, count, data in self._run(_Access(wire.DMA_READ, address, length)):
            if len(data) != count:
                raise DmaError(
                    f"DMA_READ of {count} bytes at {address + position:#x}: {len(data)} came back", errno.EIO
                )
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """See `Transport.write`."""
        view = memoryview(data).cast("B")
        for _ in self._run(_Access(wire.DMA_WRITE, address, len(view), view)):
            pass

    def reply(self, message_id: int, command: int, flags: int, error: int, body: memoryview) -> None:
        """A reply has arrived. A reply without a request that waits is dropped."""
        with self._lock:
            access = self._waiting.get(message_id)
            if access is None or access.command != command:
                return
            del self._waiting[message_id]
        if flags & wire.FLAG_ERROR:
            access.replies.put((message_id, error or errno.EIO, b""))
        else:
            data = bytes(body[wire.DMA_ACCESS.size :]) if command == wire.DMA_READ else b""
            access.replies.put((message_id, 0, data))

    def abort(self) -> None:
        """Abort the requests in flight, because the device is being reset: their callers get an error."""
        with self._lock:
            self._aborts += 1
            self._wake()

    def close(self) -> None:
        """The client has disconnected: callers that wait get an error."""
        with self._lock:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        """Have every access that waits look at what has changed. With the lock."""
        for access in self._waiting.values():
            access.replies.put(None)

    def _run(self, access: _Access) -> Iterator[tuple[int, int, bytes]]:
        """(position, bytes, data of the reply) of each chunk in order; some are under way at a time."""
        aborts = self._aborts
        outstanding: deque[tuple[int, int, int]] = deque()
        position = 0
        try:
            while position < access.length or outstanding:
                while position < access.length and len(outstanding) < MAX_OUTSTANDING:
                    count = min(self._chunk, access.length - position)
                    outstanding.append((self._start(access, position, count, aborts), position, count))
                    position += count
                message_id, at, count = outstanding[0]
                error, data = self._wait(access, message_id, at, aborts)
                outstanding.popleft()
                if error:
                    text = f"{access.name} of {count} bytes at {access.address + at:#x}: the client answered "
                    raise DmaError(text + os.strerror(error), error)
                yield at, count, data
        finally:
            if outstanding:
                with self._lock:
                    for message_id, _, _ in outstanding:
                        self._waiting.pop(message_id, None)

    def _start(self, access: _Access, position: int, count: int, aborts: int) -> int:
        """Send one request; returns its message id."""
        pieces = access.request(position, count)
        with self._lock:
            self._check(access, position, aborts)
            message_id = self._next_id
            while message_id in self._waiting:
                message_id = message_id + 1 & 0xFFFF
            self._next_id = message_id + 1 & 0xFFFF
            self._waiting[message_id] = access
        size = wire.HEADER_SIZE + sum(len(piece) for piece in pieces)
        try:
            self._send([wire.HEADER.pack(message_id, access.command, size, wire.TYPE_COMMAND, 0), *pieces])
        except OSError as exc:
            with self._lock:
                self._waiting.pop(message_id, None)
            raise DmaError(f"the client has disconnected: {exc}", errno.ENOTCONN) from exc
        return message_id

    def _wait(self, access: _Access, message_id: int, position: int, aborts: int) -> tuple[int, bytes]:
        """The reply to `message_id`; others that come before are kept."""
        deadline = time.monotonic() + TIMEOUT
        while message_id not in access.arrived:
            try:
                reply = access.replies.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                text = f"{access.name} at {access.address + position:#x}: no answer within {TIMEOUT:g} s"
                raise DmaError(text, errno.ETIMEDOUT) from None
            if reply is None:
                self._check(access, position, aborts)
            else:
                access.arrived[reply[0]] = reply[1:]
        return access.arrived.pop(message_id)

    def _check(self, access: _Access, position: int, aborts: int) -> None:
        """Raises what became of the access meanwhile, if anything did."""
        if self._aborts != aborts:
            text = f"{access.name} at {access.address + position:#x}: given up, the device was reset"
            raise DmaError(text, errno.ECANCELED)
        if self._closed:
            raise DmaError(
                f"{access.name} at {access.address + position:#x}: the client has disconnected", errno.ENOTCONN
            )


class _Access:
    """One access: its chunks are requests, whose replies arrive in a queue of its own."""

    __slots__ = ("address", "arrived", "command", "length", "name", "replies", "view")

    def __init__(self, command: int, address: int, length: int, view: memoryview | None = None) -> None:
        """`view` is what a write stores."""
        self.command = command
        self.name = wire.COMMAND_NAMES[command]
        self.address = address
        self.length = length
        self.view = view
        self.replies: queue.SimpleQueue[tuple[int, int, bytes] | None] = queue.SimpleQueue()
        """Message id, error and data; None: something else has happened."""
        self.arrived: dict[int, tuple[int, bytes]] = {}
        """Replies that came before the one that is waited for."""

    def request(self, position: int, count: int) -> list[bytes | memoryview]:
        """The pieces of a chunk's request, without the header."""
        head = wire.DMA_ACCESS.pack(self.address + position, count)
        return [head] if self.view is None else [head, self.view[position : position + count]]
