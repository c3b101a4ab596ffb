"""A serial port of the guest that a person types into: the terminal of this process, in raw mode, on the guest's third port."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Protocol

import trio

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import NotUsable

PORT = "/dev/ttyS2"
ESCAPE = b"\x1d"
"""Ctrl-]: it ends the session, as telnet's does."""
_CHUNK = 4096
_FOR_EVER = 1e9
"""Seconds: a session ends when the person wants."""


class Terminal:
    """The port's two ends: `far` is for QEMU. Use it in trio's thread only."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self._socket = trio.socket.from_stdlib_socket(near)

    async def relay(self) -> None:
        """Carry bytes between this process's terminal and the port until Ctrl-] is typed or the port is closed.

        Raises:
            NotUsable: standard input is no terminal.
        """
        require_terminal()
        with _raw(sys.stdin.fileno()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._typed, nursery.cancel_scope)
                nursery.start_soon(self._shown, nursery.cancel_scope)

    async def _typed(self, scope: trio.CancelScope) -> None:
        source = sys.stdin.fileno()
        while True:
            await trio.lowlevel.wait_readable(source)
            data = os.read(source, _CHUNK)
            typed, escape, _ = data.partition(ESCAPE)
            with contextlib.suppress(OSError):
                while typed:
                    typed = typed[await self._socket.send(typed) :]
            if escape or not data:
                scope.cancel()
                return

    async def _shown(self, scope: trio.CancelScope) -> None:
        with contextlib.suppress(OSError):
            while data := await self._socket.recv(_CHUNK):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        scope.cancel()

    def close(self) -> None:
        """Close both ends."""
        self._socket.close()
        self.far.close()


class Shell(Protocol):
    """What runs commands in a guest: `vfio_user_xe.emulator.guest.guest.Guest` does."""

    async def run(self, command: str, *, timeout: float = 60) -> Result:
        """See `Guest.run`."""
        ...


async def interact(guest: Shell, terminal: Terminal, command: str = "") -> Result | None:
    """Give this process's terminal to a command in the guest, an interactive shell if it is empty; returns how it ended.

    Ctrl-] leaves it running and ends the session; the result is then None.

    Raises:
        NotUsable: standard input is no terminal.
        GuestError: the guest failed.
    """
    result = None
    problem: BaseException | None = None
    async with trio.open_nursery() as nursery:

        async def relay() -> None:
            await terminal.relay()
            nursery.cancel_scope.cancel()

        nursery.start_soon(relay)
        try:
            result = await guest.run(shell_command(command), timeout=_FOR_EVER)
        except Exception as error:  # raised again below, without the nursery's ExceptionGroup
            problem = error
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return result


def require_terminal() -> None:
    """Say so if nobody can type here.

    Raises:
        NotUsable: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise NotUsable("an interactive console needs a terminal, and standard input is none")


def shell_command(command: str) -> str:
    """What the guest runs so that a shell has the port: `command`, or an interactive shell if it is empty."""
    columns, rows = os.get_terminal_size(sys.stdin.fileno()) if sys.stdin.isatty() else (0, 0)
    # `sane` alone lets a port without a carrier hang up at once. A group's leader, as the script is, would not be waited for.
    shell = f"sh -c {shlex.quote(command)}" if command else "sh -i"
    return (
        f"stty sane clocal -hupcl 115200 rows {rows or 24} cols {columns or 80} <{PORT}\n"
        f"(TERM={shlex.quote(os.environ.get('TERM', 'linux'))} setsid -c {shell} <{PORT} >{PORT} 2>&1)\n"
        "exit $?"
    )


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
