from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from vfio_user_xe.emulator.guest import console as console_module
from vfio_user_xe.emulator.guest.console import Console


def with_console(body: Callable[[Console], Awaitable[None]], log: Path | None = None) -> None:
    async def main() -> None:
        console = Console(log)
        try:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(console.serve)
                    await body(console)
                    nursery.cancel_scope.cancel()
        finally:
            console.close()

    trio.run(main)


def write(console: Console, text: bytes) -> None:
    os.write(console.far.fileno(), text)


def test_lines_are_kept_and_logged(tmp_path: Path) -> None:
    async def body(console: Console) -> None:
        write(console, b"one\r\ntwo\r\nthree\r\n")
        await console.wait_for("three")
        assert console.tail(2) == "two\nthree"

    with_console(body, tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"one\r\ntwo\r\nthree\r\n"


def test_a_pattern_is_found_when_it_comes_in_pieces() -> None:
    async def body(console: Console) -> None:
        async with trio.open_nursery() as nursery:
            found: list[str] = []

            async def wait() -> None:
                found.append((await console.wait_for(r"^xe .*: probe (\w+)$"))[1])

            nursery.start_soon(wait)
            for piece in (b"xe 0000:01:00.0: pro", b"be do", b"ne\r\n"):
                await wait_all_tasks_blocked()
                write(console, piece)
        assert found == ["done"]

    with_console(body)


def test_what_came_before_a_position_is_not_searched() -> None:
    async def body(console: Console) -> None:
        write(console, b"booted\n")
        await console.wait_for("booted")
        since = console.position
        with trio.move_on_after(0.1) as scope:
            await console.wait_for("booted", since)
        assert scope.cancelled_caught
        assert console.tail(since=since) == ""

    with_console(body)


def test_a_panic_is_reported_with_its_first_line_when_its_report_is_complete() -> None:
    async def body(console: Console) -> None:
        async with trio.open_nursery() as nursery:
            found: list[str] = []

            async def wait() -> None:
                found.append(await console.panic())

            nursery.start_soon(wait)
            for piece in (
                b"[1.0] Kernel panic - not sy",
                b"ncing: VFS: no root\r\n trace\r\n",
                b"---[ end Kernel panic ",
            ):
                await wait_all_tasks_blocked()
                write(console, piece)
            await wait_all_tasks_blocked()
            assert not found
            write(console, b"- not syncing: VFS: no root ]---\r\n")
        assert found == ["Kernel panic - not syncing: VFS: no root"]

    with_console(body)


def test_a_panic_whose_report_breaks_off_is_reported_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "_PANIC_GRACE", 0.1)

    async def body(console: Console) -> None:
        write(console, b"Kernel panic - not syncing: stuck\n")
        assert await console.panic() == "Kernel panic - not syncing: stuck"

    with_console(body)


def test_an_endless_console_keeps_its_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "_HISTORY", 1000)

    async def body(console: Console) -> None:
        for number in range(1000):
            write(console, b"line %d\n" % number)
        await console.wait_for("line 999$")
        since = console.position
        assert len(console.tail(10000)) <= 2000
        write(console, b"Kernel panic - not syncing: late\n---[ end Kernel panic - not syncing: late\n")
        assert await console.panic(since) == "Kernel panic - not syncing: late"

    with_console(body)


def test_the_end_of_the_console_is_noticed() -> None:
    async def body(console: Console) -> None:
        console.far.close()
        await console.closed.wait()

    with_console(body)
