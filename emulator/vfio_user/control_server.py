"""The card's control socket: `control.sock`, JSON lines, mode 0600. What the lines mean is `vfio_user_xe.emulator.control.dispatch`'s."""

from __future__ import annotations

import logging
import math
import socket
from contextlib import suppress

import trio

from vfio_user_xe.emulator.control.dispatch import Control

log = logging.getLogger(__name__)

MAX_LINE = 64 << 20
"""Longest request, in bytes: a `write` of 16 MiB in hexadecimal fits."""
MAX_KEPT = 64 << 20
"""Bytes of answers that are kept for a client that does not read them; behind it the client is disconnected."""
_ANSWER_COST = 256
"""Bytes that a kept answer counts beside its own: what it costs the interpreter."""
_CHUNK = 1 << 16


async def serve_control(control: Control, listener: socket.socket) -> None:
    """Answer clients at `listener` until cancelled; any number at once, each one request after the other."""
    async with trio.open_nursery() as nursery:
        accepting = trio.socket.from_stdlib_socket(listener)
        with accepting:
            while True:
                try:
                    connection, _ = await accepting.accept()
                except OSError as error:
                    log.warning("control: cannot accept a client: %s", error)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(_serve_client, control, trio.SocketStream(connection))


async def _serve_client(control: Control, stream: trio.SocketStream) -> None:
    """Answer one client, its requests in order. Requests are read while answers wait for the client to read them."""
    async with stream:
        answers = _Answers(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answers.send, nursery.cancel_scope)
            try:
                if not await _read_requests(control, stream, answers):
                    nursery.cancel_scope.cancel()
            finally:
                answers.end()


class _Answers:
    """What one client is to read."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        # Bounded by the bytes in it, not by their number.
        self._put, self._take = trio.open_memory_channel[bytes](math.inf)
        self._kept = 0

    def add(self, line: bytes) -> bool:
        """Send `line` when its turn comes; False when too much waits already."""
        if self._kept and self._kept + len(line) + _ANSWER_COST > MAX_KEPT:
            return False
        self._kept += len(line) + _ANSWER_COST
        self._put.send_nowait(line)
        return True

    def end(self) -> None:
        """Nothing more will be added: `send` ends after the last answer."""
        self._put.close()

    async def send(self, scope: trio.CancelScope) -> None:
        """Send what is added, until `end`; cancels `scope` when the client is gone."""
        with self._take, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for line in self._take:
                await self._stream.send_all(line)
                self._kept -= len(line) + _ANSWER_COST
            return
        scope.cancel()


async def _read_requests(control: Control, stream: trio.SocketStream, answers: _Answers) -> bool:
    """Until the client sends no more; False when it is to be disconnected."""
    received = bytearray()
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await stream.receive_some(_CHUNK):
            # Only what is new can hold the end of the line.
            searched = len(received)
            received += data
            while (end := received.find(b"\n", searched)) >= 0:
                line = bytes(received[:end])
                del received[: end + 1]
                searched = 0
                if not line.strip():
                    continue
                answer = await trio.to_thread.run_sync(control.handle, line, abandon_on_cancel=True)
                if not answers.add(answer):
                    log.warning(
                        "control: a client is disconnected, because it does not read its answers: more than %d bytes"
                        " would wait for it",
                        MAX_KEPT,
                    )
                    return False
            if len(received) > MAX_LINE:
                log.warning("control: a client sent a line of more than %d bytes", MAX_LINE)
                return False
        return True
    return False
