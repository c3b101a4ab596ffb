"""DMA by messages: DMA_READ and DMA_WRITE towards the client, for guest memory that came without a descriptor.

Chunks are at most 64 KiB with few outstanding: QEMU takes a partial send of a large reply for a complete one, so a
reply must fit into a socket buffer (212992 bytes by default). The caller's thread waits; it is never one that
serves accesses, because the client cannot answer while it waits for an access. It sends the first requests and is woken
once, at the end: the thread that receives a reply sends the next request, so none waits for two threads to take turns.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from struct import Struct

from vfio_user_xe.emulator.pci.transport import DmaError
from vfio_user_xe.emulator.vfio_user import wire

MAX_CHUNK = 64 * 1024
MAX_OUTSTANDING = 2
TIMEOUT = 10.0
"""Seconds that a client may take to answer: it may be stopped, but not for ever."""

Send = Callable[[Sequence[bytes | memoryview]], None]


def _refused(_: Sequence[bytes | memoryview]) -> None:
    raise BrokenPipeError(errno.EPIPE, "the session has ended")


# Header and fixed part of a request in one.
_REQUEST = Struct("<HHIIIQQ")


class DmaMessages:
    """Requests to the client and their replies, matched by message id."""

    def __init__(self, send: Send, max_data_xfer_size: int = wire.DEFAULT_MAX_DATA_XFER) -> None:
        """`send` puts the pieces of one message on the wire and waits for nobody. `max_data_xfer_size` is the client's, in bytes."""
        self._send = send
        self._chunk = max(1, min(MAX_CHUNK, max_data_xfer_size))
        self._lock = threading.Lock()
        self._next_id = 0
        self._waiting: dict[int, tuple[_Access, int]] = {}
        """By message id: the access, and the position of the chunk in it."""
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many requests the client has not answered yet. From any thread."""
        return len(self._waiting)

    def read(self, address: int, length: int) -> bytes:
        """See `Transport.read`."""
        access = _Access(wire.DMA_READ, address, length, self._chunk)
        self._run(access)
        return access.parts[0] if len(access.parts) == 1 else b"".join(access.parts)

    def write(self, address: int, data: bytes | memoryview) -> None:
        """See `Transport.write`."""
        view = memoryview(data).cast("B")
        self._run(_Access(wire.DMA_WRITE, address, len(view), self._chunk, view))

    def reply(self, message_id: int, command: int, flags: int, error: int, body: memoryview) -> None:
        """A reply has arrived: sends the access's next request. A reply without a request that waits is dropped."""
        access, position = self._waiting.get(message_id, (None, 0))
        if access is None or access.command != command:
            return
        failure = access.take(position, flags, error, body)
        with self._lock:
            if self._waiting.pop(message_id, None) is None:
                # Given up meanwhile.
                return
            access.outstanding -= 1
            access.heard = time.monotonic()
            if failure is not None:
                self._end(access, failure)
                return
            request = self._next_request(access)
            if request is None and not access.outstanding:
                self._end(access)
                return
        if request is not None:
            self._send_request(access, request)

    def abort(self) -> None:
        """Abort the requests in flight, because the device is being reset: their callers get an error."""
        with self._lock:
            self._end_all("given up, the device was reset", errno.ECANCELED)

    def close(self) -> None:
        """The client has disconnected: callers that wait get an error."""
        with self._lock:
            self._closed = True
            # A session that has ended must not be kept by what belongs to it: it has large buffers.
            self._send = _refused
            self._end_all("the client has disconnected", errno.ENOTCONN)

    def _run(self, access: _Access) -> None:
        """Send the first requests of an access, and wait for its end.

        Raises:
            DmaError: it failed.
        """
        if not access.length:
            return
        try:
            while True:
                with self._lock:
                    request = self._next_request(access)
                if request is None:
                    break
                self._send_request(access, request)
            while not access.done.acquire(timeout=max(0.0, access.heard + TIMEOUT - time.monotonic())):
                with self._lock:
                    if not access.ended and access.heard + TIMEOUT <= time.monotonic():
                        self._end(access, self._failed(access, f"no answer within {TIMEOUT:g} s", errno.ETIMEDOUT))
        finally:
            with self._lock:
                self._end(access)
        if access.failure is not None:
            raise access.failure

    def _send_request(self, access: _Access, request: Sequence[bytes | memoryview]) -> None:
        try:
            self._send(request)
        except OSError as exc:
            with self._lock:
                self._end(access, DmaError(f"the client has disconnected: {exc}", errno.ENOTCONN))

    # With the lock.

    def _next_request(self, access: _Access) -> Sequence[bytes | memoryview] | None:
        """The next request of the access, to be sent now; None if there is none, or enough are outstanding."""
        position = access.position
        if access.ended or position == access.length or access.outstanding == MAX_OUTSTANDING:
            return None
        if self._closed:
            self._end(access, access.failed(position, "the client has disconnected", errno.ENOTCONN))
            return None
        message_id = self._next_id
        while message_id in self._waiting:
            message_id = message_id + 1 & 0xFFFF
        self._next_id = message_id + 1 & 0xFFFF
        self._waiting[message_id] = access, position
        access.outstanding += 1
        return access.request(message_id)

    def _end(self, access: _Access, failure: DmaError | None = None) -> None:
        """Wake the caller; replies that come later are dropped. Only the first end counts."""
        if access.ended:
            return
        access.ended = True
        access.failure = failure
        if access.outstanding:
            for message_id in [at for at, (owner, _) in self._waiting.items() if owner is access]:
                del self._waiting[message_id]
        access.done.release()

    def _end_all(self, why: str, number: int) -> None:
        for access in {access for access, _ in self._waiting.values()}:
            self._end(access, self._failed(access, why, number))

    def _failed(self, access: _Access, why: str, number: int) -> DmaError:
        """An error at the first chunk that is outstanding."""
        return access.failed(min(at for owner, at in self._waiting.values() if owner is access), why, number)


class _Access:
    """One access: its chunks are requests, which are answered in any order."""

    __slots__ = (
        *("address", "chunk", "command", "done", "ended", "failure", "heard", "length", "name", "outstanding"),
        *("parts", "position", "view"),
    )

    def __init__(self, command: int, address: int, length: int, chunk: int, view: memoryview | None = None) -> None:
        """`chunk` is the size of a request in bytes; `view` is what a write stores."""
        self.command = command
        self.name = wire.COMMAND_NAMES[command]
        self.address = address
        self.length = length
        self.chunk = chunk
        self.view = view
        self.parts = [b""] * (-(-length // chunk) if view is None else 0)
        """What has been read, a chunk each."""
        self.position = 0
        """Bytes that were requested."""
        self.outstanding = 0
        self.heard = time.monotonic()
        """When the client answered last."""
        self.ended = False
        self.failure: DmaError | None = None
        self.done = threading.Lock()
        """Locked until the end."""
        self.done.acquire()

    def request(self, message_id: int) -> Sequence[bytes | memoryview]:
        """The next chunk's request."""
        position = self.position
        count = min(self.chunk, self.length - position)
        self.position += count
        data = count if self.view is not None else 0
        size = _REQUEST.size + data
        head = _REQUEST.pack(message_id, self.command, size, wire.TYPE_COMMAND, 0, self.address + position, count)
        return (head,) if self.view is None else (head, self.view[position : position + count])

    def take(self, position: int, flags: int, error: int, body: memoryview) -> DmaError | None:
        """The reply to the chunk at `position`: keep its data, or say why the access fails."""
        if flags & wire.FLAG_ERROR:
            error = error or errno.EIO
            if error not in errno.errorcode:
                return self._refused(position, f"the client answered errno {error}", errno.EIO)
            return self._refused(position, f"the client answered {os.strerror(error)}", error)
        if self.view is None:
            data = bytes(body[wire.DMA_ACCESS.size :])
            if len(data) != min(self.chunk, self.length - position):
                return self._refused(position, f"{len(data)} came back", errno.EIO)
            self.parts[position // self.chunk] = data
        return None

    def failed(self, position: int, why: str, number: int) -> DmaError:
        """The error of the access at `position`."""
        return DmaError(f"{self.name} at {self.address + position:#x}: {why}", number)

    def _refused(self, position: int, why: str, number: int) -> DmaError:
        count = min(self.chunk, self.length - position)
        return DmaError(f"{self.name} of {count} bytes at {self.address + position:#x}: {why}", number)
