"""The context of a case: connections to the server under test, and the checks that many cases need."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import errorcode
from typing import Any, NoReturn

from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.conformance.errnos import MALFORMED, Errnos
from vfio_user_xe.emulator.conformance.outcomes import Failure, Skip
from vfio_user_xe.emulator.conformance.profile import Profile, Scratch
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import (
    Client,
    Disconnected,
    IrqInfo,
    Message,
    ProtocolError,
    RegionInfo,
    default_capabilities,
    encode,
)

CONNECT_TIMEOUT = 10.0
"""Seconds that a server may take to be ready for the next client."""
ANSWER_TIMEOUT = 10.0
"""Seconds that a server may take to answer."""
RELEASE_TIMEOUT = 10.0
"""Seconds that a server may take to close what it must close."""
SILENCE = 0.15
"""Seconds in which an answer that must not come would have come."""


class Context:
    """One case's view of the server. Everything made through it is closed when the case ends."""

    def __init__(self, path: str, profile: Profile, revive: Callable[[], None] | None = None) -> None:
        """`revive` is called when no connection can be made."""
        self.path = path
        self.profile = profile
        self._revive = revive
        self._clients: list[Client] = []
        self._client: Client | None = None
        self._closers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """End every connection; a case that still runs gets `Disconnected`."""
        with self._lock:
            self._closed = True
            clients, self._clients = self._clients, []
        for client in clients:
            client.close()
        while self._closers:
            self._closers.pop()()

    # Connections.

    @property
    def client(self) -> Client:
        """The case's own client, connected and negotiated when it is first asked for."""
        if self._client is None:
            self._client = self.connect()
        return self._client

    def connect(self, *, twin_socket: bool = False, **capabilities: Any) -> Client:
        """A negotiated client. Keywords change single capabilities of the usual proposal; None leaves one out."""
        proposal = {**default_capabilities(twin_socket=twin_socket), **capabilities}
        wanted = {key: value for key, value in proposal.items() if value is not None}

        def make() -> Client:
            return Client(self.path, capabilities=wanted, timeout=ANSWER_TIMEOUT)

        return self._retry(make)

    def raw(self) -> Client:
        """A connected client that has not sent VERSION."""
        return self._retry(lambda: Client(self.path, timeout=ANSWER_TIMEOUT, negotiate=False))

    def drop(self, client: Client) -> None:
        """Close one client now."""
        with self._lock:
            if client in self._clients:
                self._clients.remove(client)
        if client is self._client:
            self._client = None
        client.close()

    def finally_(self, closer: Callable[[], None]) -> None:
        """Call `closer` when the case ends."""
        self._closers.append(closer)

    def _retry(self, make: Callable[[], Client]) -> Client:
        """A server may need a moment to release the previous client, and may refuse meanwhile."""
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while True:
            try:
                client = make()
            except (Disconnected, TimeoutError) as exc:
                if time.monotonic() > deadline or self._closed:
                    raise Failure(f"the server does not serve a new client: {exc}") from exc
                if self._revive is not None:
                    self._revive()
                time.sleep(0.02)
                continue
            with self._lock:
                if not self._closed:
                    self._clients.append(client)
                    return client
            client.close()
            raise Disconnected("the case was ended")

    # Exchanges.

    def exchange(
        self,
        client: Client,
        command: int,
        body: bytes = b"",
        fds: Sequence[int] = (),
        *,
        flags: int = 0,
        message_id: int = 0x1234,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Message:
        """Send one command as it is and return the reply, which keeps the rules that hold for every reply."""
        client.send_raw(encode(command, body, message_id=message_id, flags=flags), fds)
        return self.reply(client, command, message_id, timeout)

    def reply(self, client: Client, command: int, message_id: int = 0x1234, timeout: float = ANSWER_TIMEOUT) -> Message:
        """The next reply, checked; the server's own commands are answered on the way."""
        message = self._next_reply(client, timeout)
        self.finally_(message.close_fds)
        name = wire.COMMAND_NAMES.get(command, str(command))
        if message.id != message_id:
            raise Failure(f"{name}: the reply has message id {message.id:#x}, the command had {message_id:#x}")
        if message.command != command:
            raise Failure(f"{name}: the reply has command {message.command}, want {command}")
        if message.flags & ~(wire.TYPE_MASK | wire.FLAG_ERROR):
            raise Failure(f"{name}: the reply has flags {message.flags:#x}, want 1 (reply) and maybe 0x20 (error)")
        if message.failed and message.body:
            raise Failure(f"{name}: an error reply has {len(message.body)} bytes of payload, want the header only")
        if message.failed and message.fds:
            raise Failure(f"{name}: {len(message.fds)} descriptors came with an error reply")
        return message

    @staticmethod
    def _next_reply(client: Client, timeout: float) -> Message:
        deadline = time.monotonic() + timeout
        while True:
            message = client.recv_message(max(0.001, deadline - time.monotonic()))
            if message.is_reply:
                return message
            message.close_fds()
            answer = client.dma_handler(message)
            if answer is not None:
                client.send_raw(answer)

    def accepted(self, client: Client, command: int, body: bytes = b"", fds: Sequence[int] = ()) -> Message:
        """Send a command that must succeed; returns its reply."""
        message = self.exchange(client, command, body, fds)
        if message.failed:
            raise Failure(f"{_name(command)} was refused with {_errno(message.error)}, but must be accepted")
        return message

    def refused(
        self, client: Client, command: int, body: bytes, errnos: Errnos, fds: Sequence[int] = (), *, flags: int = 0
    ) -> None:
        """Send a command that must get an error reply, after which the session must be usable."""
        message = self.exchange(client, command, body, fds, flags=flags)
        self.is_error(message, errnos)
        self.usable(client)

    def refused_or_closed(
        self,
        client: Client,
        command: int,
        body: bytes,
        errnos: Errnos = MALFORMED,
        fds: Sequence[int] = (),
        *,
        flags: int = 0,
    ) -> None:
        """Send something that gets an error reply, or costs the connection; never an answer of success."""
        try:
            message = self.exchange(client, command, body, fds, flags=flags)
        except Disconnected:
            return
        self.is_error(message, errnos)

    def tolerated(self, client: Client, command: int, body: bytes, fds: Sequence[int] = ()) -> Message:
        """Send something that may succeed or get an error; the session must be usable afterwards."""
        message = self.exchange(client, command, body, fds)
        self.usable(client)
        return message

    def is_error(self, message: Message, errnos: Errnos) -> None:
        """The reply is an error with one of `errnos`, or without a number."""
        if not message.failed:
            raise Failure(f"{_name(message.command)} succeeded, but must be refused with {_errnos(errnos)}")
        if message.error and message.error not in errnos:
            raise Failure(f"{_name(message.command)} was refused with {_errno(message.error)}, want {_errnos(errnos)}")

    def usable(self, client: Client) -> None:
        """A correct request is still answered on this connection."""
        body = wire.DEVICE_INFO.pack(wire.DEVICE_INFO.size, 0, 0, 0)
        try:
            message = self.exchange(client, wire.DEVICE_GET_INFO, body, message_id=0x4321)
        except (Disconnected, ProtocolError, TimeoutError) as exc:
            raise Failure(f"the session cannot be used afterwards: {exc}") from exc
        if message.failed or len(message.body) < wire.DEVICE_INFO.size:
            raise Failure(f"the session cannot be used afterwards: DEVICE_GET_INFO got {_errno(message.error)}")

    def silent(self, client: Client, seconds: float = SILENCE) -> None:
        """Nothing comes from the server for a while."""
        try:
            message = client.recv_message(seconds)
        except TimeoutError:
            return
        message.close_fds()
        kind = "reply" if message.is_reply else "command"
        raise Failure(f"a {kind} came ({_name(message.command)}, id {message.id:#x}) where none must come")

    def serves_next_client(self) -> None:
        """A new client is served; the case's own connections must be closed before."""
        client = self.connect()
        self.usable(client)
        self.drop(client)

    @staticmethod
    def pause(seconds: float) -> None:
        """Give the server time for something that it does behind its replies."""
        time.sleep(seconds)

    # Facts.

    @staticmethod
    def check(condition: object, text: str) -> None:
        """Fail with `text` unless `condition` holds."""
        if not condition:
            raise Failure(text)

    @staticmethod
    def equal(got: object, want: object, what: str) -> None:
        """Fail unless both are the same."""
        if got != want:
            raise Failure(f"{what} is {_shown(got)}, want {_shown(want)}")

    @staticmethod
    def skip(reason: str) -> NoReturn:
        """The case does not apply."""
        raise Skip(reason)

    # The device.

    def device(self, client: Client | None = None) -> Driver:
        """A driver for the conformance device; skips the case where the server offers another device."""
        if not self.profile.conformance_device:
            raise Skip("needs the conformance device")
        return Driver(client or self.client)

    def scratch(self, length: int, *, trapped: bool | None = None) -> Scratch:
        """Memory of at least `length` bytes that may be written; skips the case where the profile has none."""
        for scratch in self.profile.scratch:
            if scratch.length >= length and trapped in (None, scratch.trapped):
                return scratch
        kind = {None: "", True: "trapped ", False: "mapped "}[trapped]
        raise Skip(f"the profile names no {kind}scratch memory of {length} bytes or more")

    def regions(self, client: Client) -> Iterator[RegionInfo]:
        """Every region of the device that is there."""
        _, count, _ = client.device_info()
        for index in range(count):
            info = client.region_info(index)
            if info.size:
                yield info

    def vectors(self, client: Client, wanted: int) -> IrqInfo:
        """An interrupt type with at least `wanted` vectors that take eventfds; skips the case where there is none."""
        _, _, count = client.device_info()
        found = [info for info in (client.irq_info(index) for index in range(count)) if info.count >= wanted]
        for info in sorted(found, key=lambda info: -info.count):
            if info.flags & wire.IRQ_FLAG_EVENTFD:
                return info
        raise Skip(f"the device has no interrupt type with {wanted} vectors")

    @staticmethod
    def record_commands(client: Client) -> list[Message]:
        """A list that every command of the server goes to from now on; they are answered as usual."""
        commands: list[Message] = []
        answer = client.dma_handler

        def record(message: Message) -> bytes | None:
            commands.append(message)
            return answer(message)

        client.dma_handler = record
        return commands

    # Descriptors.

    @contextmanager
    def witness(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """A descriptor to send, and a function that fails unless the server has closed its copy of it."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:

            def closed() -> None:
                nonlocal writer
                if writer >= 0:
                    os.close(writer)
                    writer = -1
                poll = select.poll()
                poll.register(reader, select.POLLIN)
                if not poll.poll(RELEASE_TIMEOUT * 1000):
                    raise Failure("the server kept a descriptor that it had to close")

            yield writer, closed
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def descriptors(self) -> int:
        """How many descriptors the server has open; skips the case where that cannot be seen."""
        count = open_descriptors(self.profile.pid)
        if count is None:
            raise Skip(f"the descriptors of process {self.profile.pid} cannot be seen")
        return count

    def no_more_descriptors_than(self, before: int) -> None:
        """The server gets back to `before` open descriptors."""
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while (now := self.descriptors()) > before:
            if time.monotonic() > deadline:
                raise Failure(f"the server has {now} descriptors open, {before} before")
            time.sleep(0.01)


def open_descriptors(pid: int) -> int | None:
    """How many descriptors a process has open; None where that cannot be seen."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None


def _name(command: int) -> str:
    return wire.COMMAND_NAMES.get(command, f"command {command}")


def _errno(number: int) -> str:
    return errorcode.get(number, str(number)) if number else "no errno"


def _errnos(numbers: Errnos) -> str:
    return " or ".join(sorted(_errno(number) for number in numbers))


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}" if value > 9 else str(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
