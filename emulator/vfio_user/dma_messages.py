"""DMA by messages: DMA_READ and DMA_WRITE towards the client, for guest memory that came without a descriptor.

Chunks are at most 64 KiB with few outstanding: QEMU takes a partial send of a large reply for a complete one, so a
reply must fit into a socket buffer (212992 bytes by default). The caller's thread waits; it is never one that
serves accesses, because the client cannot answer while it waits for an access.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence

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
        self._condition = threading.Condition()
        self._next_id = 0
        self._waiting: dict[int, int] = {}
        self._replies: dict[int, tuple[int, bytes]] = {}
        self._closed = False
        self._aborts = 0

    @property
    def waiting(self) -> int:
        """How many requests the client has not answered yet. From any thread."""
        return len(self._waiting)

    def read(self, address: int, length: int) -> bytes:
        """See `Transport.read`."""
        result = bytearray(length)

        def request(position: int, count: int) -> list[bytes | memoryview]:
            return [wire.DMA_ACCESS.pack(address + position, count)]

        def store(position: int, count: int, body: bytes) -> None:
            data = body[wire.DMA_ACCESS.size :]
            if len(data) != count:
                raise DmaError(
                    f"DMA_READ of {count} bytes at {address + position:#x}: {len(data)} came back", errno.EIO
                )
            result[position : position + count] = data

        self._run(wire.DMA_READ, address, length, request, store)
        return bytes(result)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """See `Transport.write`."""
        view = memoryview(data).cast("B")

        def request(position: int, count: int) -> list[bytes | memoryview]:
            return [wire.DMA_ACCESS.pack(address + position, count), view[position : position + count]]

        self._run(wire.DMA_WRITE, address, len(view), request, lambda position, count, body: None)

    def reply(self, message_id: int, command: int, flags: int, error: int, body: memoryview) -> None:
        """A reply has arrived. A reply without a request that waits is dropped."""
        with self._condition:
            if self._waiting.get(message_id) != command:
                return
            del self._waiting[message_id]
            if flags & wire.FLAG_ERROR:
                self._replies[message_id] = (error or errno.EIO, b"")
            else:
                self._replies[message_id] = (0, bytes(body))
            self._condition.notify_all()

    def abort(self) -> None:
        """Abort the requests in flight, because the device is being reset: their callers get an error."""
        with self._condition:
            self._aborts += 1
            self._condition.notify_all()

    def close(self) -> None:
        """The client has disconnected: callers that wait get an error."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _run(
        self,
        command: int,
        address: int,
        length: int,
        request: Callable[[int, int], list[bytes | memoryview]],
        store: Callable[[int, int, bytes], None],
    ) -> None:
        name = wire.COMMAND_NAMES[command]
        aborts = self._aborts
        outstanding: list[tuple[int, int, int]] = []
        position = 0
        try:
            while position < length or outstanding:
                while position < length and len(outstanding) < MAX_OUTSTANDING:
                    count = min(self._chunk, length - position)
                    outstanding.append((self._start(command, request(position, count)), position, count))
                    position += count
                message_id, at, count = outstanding[0]
                error, body = self._wait(message_id, name, address + at, aborts)
                del outstanding[0]
                if error:
                    text = f"{name} of {count} bytes at {address + at:#x}: the client answered {os.strerror(error)}"
                    raise DmaError(text, error)
                store(at, count, body)
        finally:
            with self._condition:
                for message_id, _, _ in outstanding:
                    self._waiting.pop(message_id, None)
                    self._replies.pop(message_id, None)

    def _start(self, command: int, pieces: list[bytes | memoryview]) -> int:
        with self._condition:
            while self._next_id in self._waiting or self._next_id in self._replies:
                self._next_id = (self._next_id + 1) & 0xFFFF
            message_id = self._next_id
            self._next_id = (message_id + 1) & 0xFFFF
            self._waiting[message_id] = command
        size = wire.HEADER_SIZE + sum(len(piece) for piece in pieces)
        try:
            self._send([wire.HEADER.pack(message_id, command, size, wire.TYPE_COMMAND, 0), *pieces])
        except OSError as exc:
            with self._condition:
                self._waiting.pop(message_id, None)
            raise DmaError(f"the client has disconnected: {exc}", errno.ENOTCONN) from exc
        return message_id

    def _wait(self, message_id: int, name: str, address: int, aborts: int) -> tuple[int, bytes]:
        deadline = time.monotonic() + TIMEOUT
        with self._condition:
            while message_id not in self._replies:
                if self._aborts != aborts:
                    raise DmaError(f"{name} at {address:#x}: given up, the device was reset", errno.ECANCELED)
                if self._closed:
                    raise DmaError(f"{name} at {address:#x}: the client has disconnected", errno.ENOTCONN)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DmaError(f"{name} at {address:#x}: no answer within {TIMEOUT:g} s", errno.ETIMEDOUT)
                self._condition.wait(left)
            return self._replies.pop(message_id)
