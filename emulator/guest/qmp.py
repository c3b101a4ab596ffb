"""QEMU's machine protocol, as much of it as a guest runner needs (docs/interop/qmp-spec in QEMU)."""

from __future__ import annotations

import collections
import json
import socket
from typing import Any

import trio

from vfio_user_xe.emulator.guest.errors import QmpClosed, QmpError


class Qmp:
    """A QMP connection: `serve` reads in a task of the caller's, `execute` sends commands and waits for answers.

    `far` is the other end of its socket, for QEMU; `events` holds the latest events as QEMU sent them.
    """

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self._socket = trio.socket.from_stdlib_socket(near)
        self._answers: dict[int, dict[str, Any] | None] = {}  # None while a command waits for its answer
        self._number = 0
        self._changed = trio.Event()
        self._ready = trio.Event()
        self._closed: str | None = None
        self._sending = trio.Lock()
        self.events: collections.deque[dict[str, Any]] = collections.deque(maxlen=256)

    async def serve(self) -> None:
        """Read what QEMU sends until it closes the connection; never raises but for cancellation."""
        buffer = bytearray()
        try:
            while data := await self._socket.recv(1 << 16):
                buffer += data
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if line.strip():
                        await self._message(json.loads(line))
            self._closed = "QEMU closed it"
        except (OSError, ValueError, QmpError) as error:
            self._closed = str(error)
        finally:
            self._closed = self._closed or "no longer read"
            self._ready.set()
            self._wake()

    async def execute(self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = 20) -> Any:
        """Run a command and return its `return` value.

        Raises:
            QmpError: QEMU refuses it, or does not answer within `timeout` seconds.
            QmpClosed: the connection is gone.
        """
        self._number += 1
        number = self._number
        self._answers[number] = None
        try:
            with trio.move_on_after(timeout):
                await self._ready.wait()
                await self._send({"execute": command, "arguments": arguments or {}, "id": number})
                while (answer := self._answers[number]) is None:
                    if self._closed is not None:
                        raise QmpClosed(f"QMP command {command}: the connection is gone ({self._closed})")
                    await self._changed.wait()
                if "error" in answer:
                    error = answer["error"]
                    raise QmpError(f"QMP command {command} failed: {error.get('desc')} ({error.get('class')})")
                return answer["return"]
            raise QmpError(f"QMP command {command} was not answered within {timeout:g} s")
        finally:
            del self._answers[number]

    def close(self) -> None:
        self._socket.close()
        self.far.close()

    async def _message(self, message: dict[str, Any]) -> None:
        if "QMP" in message:
            await self._send({"execute": "qmp_capabilities", "id": 0})
        elif "event" in message:
            self.events.append(message)
            self._wake()
        elif message.get("id") == 0:
            self._ready.set()
        elif message.get("id") in self._answers:
            self._answers[message["id"]] = message
            self._wake()

    async def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        # Shielded: half a message would spoil the connection, and QEMU always reads.
        with trio.CancelScope(shield=True):
            async with self._sending:
                await self._send_all(data)

    async def _send_all(self, data: bytes) -> None:
        try:
            while data:
                data = data[await self._socket.send(data) :]
        except OSError as error:
            raise QmpClosed(f"the QMP connection is gone ({error.strerror})") from error

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
