"""Messages out of a stream: any fragmentation is assembled, and descriptors stay with the message they came with.

One buffer, allocated once, holds every message that is being received. A chunk from the kernel may hold several
messages, or a piece of one. The kernel ends a chunk after the send that carried descriptors, so descriptors belong
to a message that starts near the end of the chunk: to the last one of it whose command takes descriptors. Several
messages with descriptors may be pending in pieces, so each set of them is kept with its message's place.
"""

from __future__ import annotations

import array
import os
import select
import socket
from time import perf_counter

from vfio_user_xe.emulator.guest.serve_options import SLEEPING, Polling
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.free_core import FreeCore

# More than a sender may attach, so that too many are seen and answered rather than cut off by the kernel.
_MAX_RECEIVED_FDS = 64
_ANCILLARY_SIZE = socket.CMSG_SPACE(_MAX_RECEIVED_FDS * 4)
# The part of the capacity that is consumed before what is left is moved: large messages come with a piece of the next.
_SLACK = 4
# Polls in vain before polling stops, until messages come close together again.
_POLL_CREDIT = 4
_COMMANDS_WITH_FDS = frozenset({wire.DMA_MAP, wire.DEVICE_SET_IRQS})


def close_all(fds: list[int]) -> None:
    """Close every descriptor of the list and empty it."""
    while fds:
        os.close(fds.pop())


class Receiver:
    """A stream socket's receiving half: `view[start:end]` is what was received and not yet consumed."""

    def __init__(self, sock: socket.socket, capacity: int, polling: Polling = SLEEPING) -> None:
        """`capacity` bytes is the largest message that fits."""
        self.capacity = capacity
        self._slack = capacity // _SLACK
        self.view = memoryview(bytearray(capacity + self._slack))
        self.start = 0
        self.end = 0
        self._socket = sock
        self._whole = [self.view]
        self.skipping = 0
        """Bytes from `start` on that are no messages: the rest of one that is too large."""
        self.untaken: list[tuple[int, list[int]]] = []
        """Descriptors that no message has taken yet, by where theirs starts, in order."""
        self._poll_seconds = polling.seconds
        self._free = FreeCore() if polling.if_free else None
        self._poll_credit = 0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def fill(self) -> bool:
        """Wait for more bytes; False at the end of the stream. There must be room: consume or `compact` first."""
        if self._poll_seconds:
            self._wait_polling()
        buffers = self._whole if self.end == 0 else [self.view[self.end :]]
        count, ancillary, _, _ = self._socket.recvmsg_into(buffers, _ANCILLARY_SIZE)
        if ancillary:
            self._take_fds(ancillary, count)
        self.end += count
        return count != 0

    def compact(self) -> None:
        """Have room for the largest message behind `start`: move what is left to the front, but not for each message."""
        if self.start <= self._slack:
            return
        left = self.end - self.start
        self.view[:left] = self.view[self.start : self.end]
        if self.untaken:
            self._drop_fds_before(self.start)
            self.untaken = [(at - self.start, fds) for at, fds in self.untaken]
        self.start, self.end = 0, left

    def take_fds(self) -> list[int]:
        """The descriptors of the message at `start`: the caller owns them."""
        if not self.untaken:
            return []
        self._drop_fds_before(self.start)
        taken: list[int] = []
        while self.untaken and self.untaken[0][0] == self.start:
            taken += self.untaken.pop(0)[1]
        return taken

    def close(self) -> None:
        """Close descriptors that no message has taken."""
        self._drop_fds_before(len(self.view) + 1)

    def _drop_fds_before(self, place: int) -> None:
        """Close those of messages that take none, and were served."""
        while self.untaken and self.untaken[0][0] < place:
            close_all(self.untaken.pop(0)[1])

    def _wait_polling(self) -> None:
        """Poll as long as that has paid off lately: a wake-up costs more than an access, but so does a lost core."""
        started = perf_counter()
        if self._poll_credit > 0 and (self._free is None or self._free.is_free()):
            poll, deadline = self._poll.poll, started + self._poll_seconds
            while not (came := poll(0)):
                if perf_counter() > deadline:
                    self._poll_credit -= 1
                    break
            if self._free is not None:
                self._free.polled(perf_counter() - started)
            if came:
                return
        self._poll.poll()
        if perf_counter() - started < 2 * self._poll_seconds:
            self._poll_credit = _POLL_CREDIT

    def _take_fds(self, ancillary: list[tuple[int, int, bytes]], count: int) -> None:
        received = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
        end = self.end + count
        at = self.start + self.skipping
        owner = min(at, end)
        first = owner
        while at < end:
            if end - at < wire.HEADER_SIZE:
                owner = at
                break
            _, command, size, _, _ = wire.HEADER.unpack_from(self.view[:end], at)
            last = at + max(size, wire.HEADER_SIZE) >= end
            if command in _COMMANDS_WITH_FDS or (last and owner == first):
                owner = at
            at += max(size, wire.HEADER_SIZE)
        self.untaken.append((owner, list(received)))
