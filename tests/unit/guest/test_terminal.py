"""A person's terminal on the guest's third serial port."""

from __future__ import annotations

import io
import os
import pty
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from vfio_user_xe.emulator.guest.channel import Result
from vfio_user_xe.emulator.guest.errors import GuestPanic, NotUsable
from vfio_user_xe.emulator.guest.terminal import Terminal, interact, shell_command


@dataclass
class Person:
    """Both ends of the terminal of this process."""

    keyboard: int
    terminal: int


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    keyboard, terminal = pty.openpty()
    with os.fdopen(terminal, closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield Person(keyboard, terminal)
    os.close(keyboard)
    os.close(terminal)


async def port_of(terminal: Terminal) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(terminal.far.dup()))


def test_what_is_typed_reaches_the_guest_and_ctrl_bracket_ends_the_session(person: Person) -> None:
    before = termios.tcgetattr(person.terminal)

    async def session() -> bytes:
        terminal = Terminal()
        port = await port_of(terminal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.relay)
            while termios.tcgetattr(person.terminal)[3] & termios.ICANON:
                await trio.sleep(0.01)
            os.write(person.keyboard, b"ls\x03\x1dnot this")
        terminal.close()
        return bytes(await port.receive_some(100))

    assert trio.run(session) == b"ls\x03"
    assert termios.tcgetattr(person.terminal) == before, "the terminal is as it was"


class Guest:
    """A guest whose command writes to the port, and ends."""

    def __init__(self, terminal: Terminal, ends: Result | Exception) -> None:
        self.terminal, self.ends = terminal, ends
        self.command = ""

    async def run(self, command: str, *, timeout: float = 60) -> Result:
        self.command = command
        port = await port_of(self.terminal)
        await port.send_all(b"# ")
        await trio.testing.wait_all_tasks_blocked(0.05)
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends


def test_a_session_ends_with_the_guest_s_command(person: Person, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    async def session() -> Result | None:
        terminal = Terminal()
        guest = Guest(terminal, Result(7, b"", "", 0.0))
        ended = await interact(guest, terminal, "top")
        assert guest.command == shell_command("top")
        terminal.close()
        return ended

    ended = trio.run(session)
    assert ended is not None
    assert ended.returncode == 7
    assert capsysbinary.readouterr().out == b"# "


def test_a_guest_that_fails_ends_the_session_with_its_error(person: Person) -> None:
    async def session() -> None:
        terminal = Terminal()
        await interact(Guest(terminal, GuestPanic("the guest's kernel panicked")), terminal)

    with pytest.raises(GuestPanic, match="panicked"):
        trio.run(session)


def test_nobody_can_type_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(NotUsable, match="standard input is none"):
        trio.run(Terminal().relay)
