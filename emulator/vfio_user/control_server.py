"""The card's control socket: `control.sock`, JSON lines, mode 0600. What the lines mean is `vfio_user_xe.emulator.control.dispatch`'s."""

from __future__ import annotations

import logging
import socket
from contextlib import suppress

import trio

from vfio_user_xe.emulator.control.dispatch import Control

log = logging.getLogger(__name__)

MAX_LINE = 64 << 20
"""Longest request, in bytes: a `write` of 16 MiB in hexadecimal fits."""
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
    received = bytearray()
    async with stream:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await stream.receive_some(_CHUNK):
                # Only what is new can hold the end of the line.
                searched = len(received)
                received += data
                while (end := received.find(b"\n", searched)) >= 0:
                    line = bytes(received[:end])
                    del received[: end + 1]
                    searched = 0
                    if line.strip():
                        await stream.send_all(
                            await trio.to_thread.run_sync(control.handle, line, abandon_on_cancel=True)
                        )
                if len(received) > MAX_LINE:
                    log.warning("control: a client sent a line of more than %d bytes", MAX_LINE)
                    return
