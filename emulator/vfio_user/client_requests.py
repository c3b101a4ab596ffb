"""Commands and replies of a client, and the commands of the server in between: one thread at a time receives for all."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from errno import errorcode
from typing import Any

from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_connection import Connection, Disconnected, Message, ProtocolError, encode
from vfio_user_xe.emulator.vfio_user.client_resources import Owner


class RequestError(Exception):
    """The server answered a command with an error. `errno` is 0 where it did not say which."""

    def __init__(self, errno: int, command: int) -> None:
        name = errorcode.get(errno, str(errno))
        text = f"{name} ({os.strerror(errno)})" if errno else "an error without a number"
        super().__init__(f"{wire.COMMAND_NAMES.get(command, command)} was refused: {text}")
        self.errno = errno
        self.command = command


class Requests(Owner):
    """The part of `Client` that sends commands and waits for replies. From any thread."""

    connection: Connection
    timeout: float
    dma_handler: Callable[[Message], bytes | None]
    """Called with every command of the server; returns the whole reply message, or None to send none (yet)."""

    def __init__(self, path: str | os.PathLike[str], timeout: float) -> None:
        self.connection = Connection.connect(path, timeout)
        self.connection.on_blocked = self._receive_while_blocked
        self.connection.send_timeout = timeout
        self.timeout = timeout
        self.version = (0, 0)
        self.server_capabilities: dict[str, Any] = {}
        self.unexpected: list[Message] = []
        """Replies that nothing was waiting for."""
        self.twin: Connection | None = None
        """The socket that the commands of the server come over, where twin sockets were negotiated."""
        self._twin_thread: threading.Thread | None = None
        self._thread: threading.Thread | None = None
        self._owned: list[Owner] = []
        self._next_id = 0
        self._waiting: set[int] = set()
        self._replies: dict[int, Message] = {}
        self._turn = threading.Condition()
        self._receiving = False
        self._handled = 0
        self._failure: Exception | None = None

    def close(self) -> None:
        """Disconnect, end the threads, close every descriptor and unmap every region this client gave out."""
        self.connection.close()
        if self.twin is not None:
            self.twin.close()
        for thread in (self._thread, self._twin_thread):
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        with self._turn:
            for message in [*self._replies.values(), *self.unexpected]:
                message.close_fds()
        for owned in self._owned:
            owned.close()
        self._owned.clear()

    # Raw access, for what the methods below would not send.

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are; `fds` go with the first of them."""
        self.connection.send(data, fds)

    def recv_message(self, timeout: float | None = None) -> Message:
        """The next message of the server, whatever it is; nothing is answered. Not while others wait for replies."""
        return self.connection.receive(self.timeout if timeout is None else timeout)

    # Commands and replies.

    def send(self, command: int, body: bytes = b"", fds: Sequence[int] = (), *, flags: int = 0) -> int:
        """Send a command without waiting; returns the id to `wait` for. With `wire.FLAG_NO_REPLY` there is no reply."""
        with self._turn:
            message_id = self._next_id
            while message_id in self._waiting:
                message_id = (message_id + 1) & 0xFFFF
            self._next_id = (message_id + 1) & 0xFFFF
            if not flags & wire.FLAG_NO_REPLY:
                self._waiting.add(message_id)
        try:
            self.connection.send(encode(command, body, message_id=message_id, flags=flags), fds)
        except BaseException:
            self._waiting.discard(message_id)
            raise
        return message_id

    def wait(self, message_id: int, timeout: float | None = None) -> Message:
        """The reply to a command that was sent; replies may be waited for in any order. The caller owns its `fds`.

        Raises:
            RequestError: The reply carries the error flag.
            ProtocolError: What came is no message.
            Disconnected: The server is gone.
            TimeoutError: It did not come within `timeout` seconds.

        From any thread.
        """
        limit = self.timeout if timeout is None else timeout
        self._receive_until(lambda: message_id in self._replies, limit, f"reply {message_id:#x}")
        with self._turn:
            reply = self._replies.pop(message_id)
        if reply.failed:
            reply.close_fds()
            raise RequestError(reply.error, reply.command)
        return reply

    def request(
        self, command: int, body: bytes = b"", fds: Sequence[int] = (), timeout: float | None = None
    ) -> Message:
        """Send a command and wait for its reply.

        Raises:
            RequestError: The server refuses.
            Disconnected: The server is gone.
            TimeoutError: No answer came in time.

        From any thread.
        """
        return self.wait(self.send(command, body, fds), timeout)

    def serve(self, until: Callable[[], bool], timeout: float | None = None, what: str = "what is waited for") -> None:
        """Answer the server's commands until `until()` is true.

        `until` is asked after every command and every few milliseconds, and may use the client itself.

        Raises:
            TimeoutError: It did not become true within `timeout` seconds.
            Disconnected: The server is gone.

        From any thread.
        """
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        pause = 0.0005
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come within {limit} s")
            self.idle(pause)
            pause = min(2 * pause, 0.01)

    def idle(self, seconds: float) -> None:
        """Answer the server's commands: the first that comes, or none after `seconds`."""
        handled = self._handled
        with contextlib.suppress(TimeoutError):
            self._receive_until(lambda: self._handled != handled, seconds, "a command")

    def serve_in_background(self) -> None:
        """From now on until `close`, answer the server's commands from a thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve_for_ever, name="vfio-user-client", daemon=True)
            self._thread.start()

    # Inside.

    def _fixed(self, command: int, body: bytes, fds: Sequence[int] = ()) -> Message:
        """A request whose reply carries no descriptors."""
        reply = self.request(command, body, fds)
        if reply.fds:
            count = len(reply.fds)
            reply.close_fds()
            raise ProtocolError(
                f"{count} descriptors came with the reply to {wire.COMMAND_NAMES.get(command, command)}"
            )
        return reply

    @staticmethod
    def _unpack(reply: Message, layout: Any) -> Any:
        if len(reply.body) < layout.size:
            reply.close_fds()
            name = wire.COMMAND_NAMES.get(reply.command, reply.command)
            raise ProtocolError(f"the {name} reply has {len(reply.body)} bytes, at least {layout.size} are defined")
        return layout.unpack_from(reply.body)

    def _start_twin(self, fd: int) -> None:
        self.twin = Connection(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd))
        self._twin_thread = threading.Thread(target=self._serve_twin, name="vfio-user-twin", daemon=True)
        self._twin_thread.start()

    def _serve_twin(self) -> None:
        assert self.twin is not None
        with contextlib.suppress(Disconnected, ProtocolError):
            while True:
                self._answer(self.twin, self.twin.receive())

    def _serve_for_ever(self) -> None:
        with contextlib.suppress(Disconnected, ProtocolError):
            while True:
                with contextlib.suppress(TimeoutError):
                    self._receive_until(lambda: False, 3600.0, "the end")

    def _answer(self, connection: Connection, message: Message) -> None:
        message.close_fds()
        reply = self.dma_handler(message)
        if reply is not None and not message.flags & wire.FLAG_NO_REPLY:
            connection.post(reply)

    def _receive_until(self, done: Callable[[], bool], timeout: float, what: str) -> None:
        """Receive and dispatch until `done()`. One thread at a time receives; the others wait for what it gets."""
        deadline = time.monotonic() + timeout
        while True:
            with self._turn:
                if done():
                    return
                if self._failure is not None:
                    raise type(self._failure)(*self._failure.args)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what} did not come within {timeout} s")
                if self._receiving:
                    self._turn.wait(left)
                    continue
                self._receiving = True
            self._receive_one(left)

    def _receive_one(self, timeout: float) -> bool:
        """Receive one message and deal with it; whoever calls has set `_receiving`."""
        message = None
        try:
            message = self.connection.receive(timeout)
        except TimeoutError:
            pass
        except (Disconnected, ProtocolError) as exc:
            self._failure = exc
        finally:
            with self._turn:
                self._receiving = False
                if message is not None and message.is_reply:
                    self._keep_reply(message)
                self._turn.notify_all()
        if message is not None and not message.is_reply:
            self._answer(self.connection, message)
            with self._turn:
                self._handled += 1
                self._turn.notify_all()
        return message is not None

    def _keep_reply(self, message: Message) -> None:
        if message.id in self._waiting:
            self._waiting.discard(message.id)
            self._replies[message.id] = message
        else:
            self.unexpected.append(message)

    def _receive_while_blocked(self) -> bool:
        """The server does not read: it may be waiting for us to read. False when another thread is reading already."""
        with self._turn:
            if self._receiving or self._failure is not None:
                return False
            self._receiving = True
        return self._receive_one(0.01)
