"""One client's connection: the loop that every access of a guest goes through.

A plain blocking thread runs `Session.run`. Reads and writes of 1 to 8 bytes are answered right in the loop, with
precompiled structs and one call into the region's handler; every other command goes to `requests.py`. Replies and
the executor's own messages share the socket, by `outbox.py`: neither waits for the client to read, so a client that writes
and does not read cannot block this thread. It gets its replies when it reads, or is disconnected when too many wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Sequence
from functools import partial
from struct import Struct

from vfio_user_xe.emulator.guest.serve_options import SLEEPING, Polling
from vfio_user_xe.emulator.mistakes import MISTAKES
from vfio_user_xe.emulator.observe.tap import Tap
from vfio_user_xe.emulator.pci.transport import DmaError, Region, Served
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.dirty_pages import DirtyPages
from vfio_user_xe.emulator.vfio_user.dma_messages import DmaMessages
from vfio_user_xe.emulator.vfio_user.guest_memory import GuestMemory
from vfio_user_xe.emulator.vfio_user.interrupts import Interrupts
from vfio_user_xe.emulator.vfio_user.message_trace import trace_message
from vfio_user_xe.emulator.vfio_user.outbox import Outbox
from vfio_user_xe.emulator.vfio_user.qtest import peer_process
from vfio_user_xe.emulator.vfio_user.receiver import Receiver, close_all
from vfio_user_xe.emulator.vfio_user.region_access import RegionAccess, failure, no_read, no_write
from vfio_user_xe.emulator.vfio_user.request import RequestError
from vfio_user_xe.emulator.vfio_user.requests import handle
from vfio_user_xe.emulator.vfio_user.session_state import SESSION, SessionState

log = logging.getLogger(__name__)

# A data message: header, fixed part, data.
CAPACITY = wire.HEADER_SIZE + wire.REGION_ACCESS.size + wire.DEFAULT_MAX_DATA_XFER

_REPLY_READ = {
    1: Struct("<HHIIIQIIB"),
    2: Struct("<HHIIIQIIH"),
    4: Struct("<HHIIIQIII"),
    8: Struct("<HHIIIQIIQ"),
}
_REPLY_WRITE = Struct("<HHIIIQII")
_DATA = {1: Struct("<B"), 2: Struct("<H"), 4: Struct("<I"), 8: Struct("<Q")}
# Header and fixed part of an access in one.
_ACCESS = Struct("<HHIIIQII")


class Session:
    """A function's `Transport` while a client is connected."""

    def __init__(
        self, function: Served, sock: socket.socket, polling: Polling = SLEEPING, tap: Tap | None = None
    ) -> None:
        """Serve `function` on a connected blocking `sock`, which the session owns; see `Polling`.

        `tap` is told of every message but the accesses that are answered right in the loop.
        """
        self._tap = tap or Tap("client")
        self._trace = partial(trace_message, self._tap, function.name)
        self.function = function
        self.regions: list[Region | None] = list(function.regions)
        self.access = [RegionAccess(region) if region and region.size else None for region in self.regions]
        # By region index, for the access path; a limit of 0 sends every access the long way, where it is refused.
        self._readers = [access.read if access else no_read for access in self.access]
        self._writers = [access.write if access else no_write for access in self.access]
        self._read_limits = [0] * wire.NUM_REGIONS
        self._write_limits = [0] * wire.NUM_REGIONS
        self.memory = GuestMemory()
        self.dirty = DirtyPages()
        self.interrupts = Interrupts(function.interrupts)
        self.messages: DmaMessages | None = None
        self.twin: socket.socket | None = None
        self._twin_outbox: Outbox | None = None
        self.state = SESSION.start(f"{function.name}'s session", SessionState.NEGOTIATING)
        """Only the session's thread changes it."""
        self._socket = sock
        self._process = peer_process(sock)
        self._receiver = Receiver(sock, CAPACITY, polling)
        self._outbox = Outbox(sock, function.name)
        self._stopped = False
        self._broken = False
        """The client's end broke while it was read or written: what was sent last did not arrive."""
        self._thread: threading.Thread | None = None
        self._twin_thread: threading.Thread | None = None

    # Transport, for the function.

    def view(self, address: int, length: int, write: bool) -> memoryview | None:
        if write and self.dirty.active:
            self.dirty.mark(address, length)
        return self.memory.view(address, length, write)

    def mapped(self, address: int, length: int, write: bool) -> bool:
        return self.memory.mapped(address, length, write)

    def read(self, address: int, length: int) -> bytes:
        return self.memory.read(address, length, self._dma().read)

    def write(self, address: int, data: bytes | memoryview) -> None:
        if self.dirty.active:
            self.dirty.mark(address, len(data))
        self.memory.write(address, data, self._dma().write)

    def trigger(self, index: int, vector: int) -> bool:
        return self.interrupts.trigger(index, vector)

    def _dma(self) -> DmaMessages:
        if threading.current_thread() in (self._thread, self._twin_thread):
            raise DmaError(
                "DMA by messages inside an access would wait for itself: queue it to the executor", errno.EDEADLK
            )
        if self.messages is None:
            raise DmaError("no client has negotiated", errno.ENOTCONN)
        return self.messages

    # Life.

    def run(self) -> None:
        """Serve until the client goes. Never raises for what a client does."""
        self._thread = threading.current_thread()
        try:
            self._loop()
        except (BrokenPipeError, ConnectionResetError):
            self._broken = True
        except OSError as exc:
            log.info("%s: connection lost: %s", self.function.name, exc)
        except Exception:
            # Other functions and their clients go on.
            log.exception("%s: a mistake in the server ends this client's session", self.function.name)
        finally:
            self._tell_losses()
            self._end()

    def _tell_losses(self) -> None:
        """Log what a client left undone that went in the middle of something: a QEMU that was killed, or crashed."""
        if self._stopped or self._outbox.gave_up:
            return
        receiver, lost = self._receiver, []
        if unserved := receiver.end - receiver.start:
            lost.append(f"{unserved} bytes of requests that were incomplete or not served")
        elif receiver.skipping:
            lost.append("the rest of a request that was too large")
        if kept := self._outbox.kept:
            lost.append(f"{kept} messages that it had not read")
        elif self._broken:
            lost.append("replies that it had not read")
        if self.messages is not None and (waiting := self.messages.waiting):
            lost.append(f"{waiting} DMA requests of the device without an answer")
        if lost:
            log.warning(
                "%s: the client (process %d) went away in the middle, as if it was killed; lost: %s",
                *(self.function.name, self._process, ", ".join(lost)),
            )

    def stop(self) -> None:
        """End the connection from another thread; `run` returns."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def negotiation_done(self, max_data_xfer_size: int, twin: socket.socket | None) -> None:
        """VERSION was answered: from now on the function has a transport. The size is the client's, in bytes.

        On the session's thread.

        Raises:
            StateError: It was answered before, or the session has ended.
        """
        self.twin = twin
        if twin is not None:
            self._twin_outbox = Outbox(twin, f"{self.function.name} (twin socket)")
        self.messages = DmaMessages(self._send_command, max_data_xfer_size)
        self.state.to(SessionState.RUNNING)
        for index, access in enumerate(self.access):
            if access is not None:
                self._read_limits[index] = access.size if access.region.readable else 0
                self._write_limits[index] = access.size if access.region.writable else 0
        if twin is not None:
            self._twin_thread = threading.Thread(target=self._twin_loop, args=(twin, self.messages), daemon=True)
            self._twin_thread.start()
        self.function.attached(self)

    def _end(self) -> None:
        if self.messages is not None:
            self.messages.close()
        if self.state.to(SessionState.ENDED) is SessionState.RUNNING:
            self.function.detached()
        self.memory.unmap_all()
        self.interrupts.close()
        self._receiver.close()
        self.stop()
        self._outbox.close()
        self._socket.close()
        if self.twin is not None:
            with contextlib.suppress(OSError):
                self.twin.shutdown(socket.SHUT_RDWR)
            if self._twin_outbox is not None:
                self._twin_outbox.close()
            if self._twin_thread is not None:
                self._twin_thread.join()
            self.twin.close()

    # The access path.

    def _loop(self) -> None:
        receiver = self._receiver
        fill, view = receiver.fill, receiver.view
        readers, writers = self._readers, self._writers
        read_limits, write_limits = self._read_limits, self._write_limits
        reply_layouts, data_layouts, write_layout = _REPLY_READ, _DATA, _REPLY_WRITE
        unpack_header, unpack_access, access_size = wire.HEADER.unpack_from, _ACCESS.unpack_from, _ACCESS.size
        read, write, no_reply = wire.REGION_READ, wire.REGION_WRITE, wire.FLAG_NO_REPLY
        reply = bytearray(64)
        # A slice for each size of reply, made once.
        replies = [memoryview(reply)[:size] for size in range(len(reply))]
        write_reply = replies[write_layout.size]
        send = self._outbox.small_sender()
        while fill():
            while (available := receiver.end - (start := receiver.start)) >= access_size:
                message_id, command, size, flags, _, offset, index, count = unpack_access(view, start)
                if command == read and size == access_size and not flags:
                    layout = reply_layouts.get(count)
                    if layout is not None and index < 9 and offset + count <= read_limits[index]:
                        if not offset & (count - 1):
                            receiver.start = start + size
                            try:
                                value = readers[index](offset, count)
                                size += count
                                layout.pack_into(reply, 0, message_id, command, size, 1, 0, offset, index, count, value)
                            except MISTAKES:
                                self._failed(message_id, command, flags, index, offset)
                                continue
                            send(replies[size])
                            continue
                elif command == write and size <= available and not flags & ~no_reply:
                    data = data_layouts.get(count)
                    if data is not None and index < 9 and offset + count <= write_limits[index]:
                        if size == access_size + count and not offset & (count - 1):
                            receiver.start = start + size
                            try:
                                writers[index](offset, count, data.unpack_from(view, start + access_size)[0])
                            except MISTAKES:
                                self._failed(message_id, command, flags, index, offset)
                                continue
                            if not flags:
                                write_layout.pack_into(
                                    reply, 0, message_id, command, access_size, 1, 0, offset, index, count
                                )
                                send(write_reply)
                            continue
                if not self._other(message_id, command, size, flags, available):
                    break
            else:
                # What is left is shorter than an access: part of a message, or a short one.
                while (available := receiver.end - receiver.start) >= wire.HEADER_SIZE:
                    message_id, command, size, flags, _ = unpack_header(view, receiver.start)
                    if not self._other(message_id, command, size, flags, available):
                        break
            if receiver.start == receiver.end:
                receiver.start = receiver.end = 0
                if receiver.untaken:
                    receiver.close()
            else:
                receiver.compact()

    def _other(self, message_id: int, command: int, size: int, flags: int, available: int) -> bool:
        """A message that did not take the short way; False when the rest of it must be received first."""
        if size <= available:
            if flags & wire.TYPE_MASK == wire.TYPE_REPLY:
                self._replied(self._receiver, size, wanted=self.twin is None)
            else:
                self._dispatch(message_id, command, size, flags)
        elif size > self._receiver.capacity:
            self._discard(message_id, command, size, flags)
        else:
            return False
        return True

    def send(self, pieces: Sequence[bytes | memoryview], fds: Sequence[int] = ()) -> None:
        """Send one message; `fds` stay the caller's.

        Raises:
            OSError: as `Outbox.send`.

        From any thread.
        """
        self._outbox.send(pieces, fds)

    def _send_command(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send one command of our own, from any thread."""
        if self._tap.on:
            message = memoryview(b"".join(pieces))
            message_id, command, _, flags, _ = wire.HEADER.unpack_from(message)
            self._trace(message_id, command, flags, message[wire.HEADER_SIZE :], 0)
        (self._twin_outbox or self._outbox).send(pieces)

    def _replied(self, receiver: Receiver, size: int, *, wanted: bool) -> None:
        """The next message is a reply to a command of our own, or is dropped; so are its descriptors."""
        start = receiver.start
        if receiver.untaken:
            close_all(receiver.take_fds())
        message_id, command, _, flags, error = wire.HEADER.unpack_from(receiver.view, start)
        receiver.start = start + max(size, wire.HEADER_SIZE)
        body = receiver.view[start + wire.HEADER_SIZE : receiver.start]
        if self._tap.on:
            self._trace(message_id, command, flags, body, 0, error)
        if wanted and self.messages is not None:
            self.messages.reply(message_id, command, flags, error, body)

    # Everything else.

    def _dispatch(self, message_id: int, command: int, size: int, flags: int) -> None:
        receiver = self._receiver
        fds = receiver.take_fds()
        # A size below the header's is an error to answer; what is skipped is the header.
        body = receiver.view[receiver.start + wire.HEADER_SIZE : receiver.start + size]
        receiver.start += max(size, wire.HEADER_SIZE)
        try:
            if self._tap.on:
                error = wire.HEADER.unpack_from(receiver.view, receiver.start - max(size, wire.HEADER_SIZE))[4]
                self._trace(message_id, command, flags, body, len(fds), error)
            try:
                if size < wire.HEADER_SIZE:
                    raise RequestError(errno.EINVAL, f"message size {size} is smaller than a header")
                if flags & ~(wire.TYPE_MASK | wire.FLAG_NO_REPLY) or flags & wire.TYPE_MASK:
                    raise RequestError(errno.EINVAL, f"flags {flags:#x} are none of a command's")
                answer = handle(self, command, body, fds)
            except RequestError as exc:
                log.info("%s: %s: %s", self.function.name, wire.COMMAND_NAMES.get(command, command), exc)
                self._error(message_id, command, flags, exc.errno)
            except MISTAKES:
                log.exception("%s: %s failed", self.function.name, wire.COMMAND_NAMES.get(command, command))
                self._error(message_id, command, flags, errno.EIO)
            else:
                if not flags & wire.FLAG_NO_REPLY:
                    total = wire.HEADER_SIZE + sum(len(piece) for piece in answer.pieces)
                    header = wire.HEADER.pack(message_id, command, total, wire.TYPE_REPLY, 0)
                    if self._tap.on:
                        body = memoryview(b"".join(answer.pieces))
                        self._trace(message_id, command, wire.TYPE_REPLY, body, len(answer.fds))
                    self.send([header, *answer.pieces], answer.fds)
                if answer.after is not None:
                    answer.after()
        finally:
            close_all(fds)

    def _error(self, message_id: int, command: int, flags: int, number: int) -> None:
        if not flags & wire.FLAG_NO_REPLY:
            reply_flags = wire.TYPE_REPLY | wire.FLAG_ERROR
            if self._tap.on:
                self._trace(message_id, command, reply_flags, memoryview(b""), 0, number)
            self.send([wire.HEADER.pack(message_id, command, wire.HEADER_SIZE, reply_flags, number)])

    def _failed(self, message_id: int, command: int, flags: int, index: int, offset: int) -> None:
        what = failure(self.access[index], index, offset)
        log.exception("%s: %s at %s", self.function.name, wire.COMMAND_NAMES[command], what)
        self._error(message_id, command, flags, errno.EIO)

    def _discard(self, message_id: int, command: int, size: int, flags: int) -> None:
        """Answer a message that is larger than was agreed, and skip it as it comes."""
        receiver = self._receiver
        log.info("%s: a message of %d bytes is larger than %d", self.function.name, size, receiver.capacity)
        close_all(receiver.take_fds())
        receiver.skipping = size
        while True:
            skipped = min(receiver.skipping, receiver.end - receiver.start)
            receiver.start += skipped
            receiver.skipping -= skipped
            if not receiver.skipping:
                break
            receiver.close()
            receiver.start = receiver.end = 0
            if not receiver.fill():
                raise BrokenPipeError
        if flags & wire.TYPE_MASK == wire.TYPE_COMMAND:
            self._error(message_id, command, flags, errno.E2BIG)

    def _twin_loop(self, twin: socket.socket, messages: DmaMessages) -> None:
        """Replies to our own commands, where they come on a socket of their own."""
        receiver = Receiver(twin, CAPACITY)
        with contextlib.suppress(OSError), contextlib.closing(messages), contextlib.closing(receiver):
            while receiver.fill():
                while receiver.end - receiver.start >= wire.HEADER_SIZE:
                    _, _, size, flags, _ = wire.HEADER.unpack_from(receiver.view, receiver.start)
                    if not wire.HEADER_SIZE <= size <= receiver.capacity:
                        raise BrokenPipeError
                    if receiver.end - receiver.start < size:
                        break
                    self._replied(receiver, size, wanted=flags & wire.TYPE_MASK == wire.TYPE_REPLY)
                receiver.compact()
