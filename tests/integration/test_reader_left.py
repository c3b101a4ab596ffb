"""Commands whose output is read no further, as by head(1): they end quietly, and as other tools do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import runs

PROGRAM = (sys.executable, "-c", "from vfio_user_xe.emulator.cli.main import main; main()")
SIGPIPE_ENDED_IT = 128 + 13


def unread(*command: str, errors_too: bool = False, **variables: str) -> tuple[int, str]:
    """Exit code and messages of a command whose output has no reader any more, nor have its messages with `errors_too`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command,
            stdout=writing,
            stderr=writing if errors_too else subprocess.PIPE,
            env=os.environ | variables,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "conformance --list",
        "scenario list",
        "plugins list --json",
        "doctor --json",
        "api-reference",
    ],
)
def test_a_command_whose_reader_has_left_ends_quietly(command: str) -> None:
    assert unread(*PROGRAM, *command.split()) == (SIGPIPE_ENDED_IT, "")


def test_so_does_one_that_writes_each_line_at_once() -> None:
    assert unread(*PROGRAM, "scenario", "list", PYTHONUNBUFFERED="1") == (SIGPIPE_ENDED_IT, "")


def test_one_whose_messages_alone_have_no_reader_goes_on_without_them() -> None:
    code, _ = unread(*PROGRAM, "kernel", "check", "/nonexistent/image", errors_too=True)
    assert code == 2


HOLDS = """
import sys, time, trio
from pathlib import Path
from vfio_user_xe.emulator.cli.main import app, main
from vfio_user_xe.emulator.guest.served import served_card

@app.command("hold")
def hold(pid: Path, way: str):
    with served_card(["--model", "edu"]) as card:
        pid.write_text(str(card.pid))
        if way == "trio":
            trio.run(wait_there)
        elif way == "thread":
            trio.run(trio.to_thread.run_sync, tell)
        else:
            tell()
        time.sleep(1000)

def tell():
    print("a line", flush=True)

async def wait_there():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(tell_there)

async def tell_there():
    tell()

main()
"""


@pytest.mark.parametrize("way", ["plain", "trio", "thread"])
def test_a_command_at_work_leaves_nothing_behind_when_its_reader_leaves(way: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert unread(sys.executable, "-c", HOLDS, "hold", str(file), way) == (SIGPIPE_ENDED_IT, "")
    assert not runs(int(file.read_text("ascii")))


FAILS = """
import socket
from vfio_user_xe.emulator.cli.main import app, main

@app.command("fail")
def failing():
    here, there = socket.socketpair()
    there.close()
    here.send(b"to nobody")

main()
"""


def test_another_pipe_that_breaks_is_no_reader_that_left() -> None:
    done = subprocess.run(
        (sys.executable, "-c", FAILS, "fail"), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
