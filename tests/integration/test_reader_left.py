"""Commands whose output is read no further, as by head(1): they end quietly, and as other tools do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import runs

PROGRAM = (sys.executable, "-c", "from vfio_user_xe.emulator.cli.main import main; main()")
SIGPIPE_ENDED_IT = 128 + 13


def unread(
    *command: str, messages: bool = False, interrupts: signal.Handlers = signal.SIG_DFL, **variables: str
) -> tuple[int, str]:
    """Exit code of a command whose output has no reader any more, and its messages; with `messages` the other way round.

    `interrupts` is what the command finds set for SIGINT: a shell script's background job ignores it.
    """
    reading, writing = os.pipe()
    os.close(reading)
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE if messages else writing,
            stderr=writing if messages else subprocess.PIPE,
            env=os.environ | variables,
            text=True,
        ) as process:
            signal.signal(signal.SIGINT, before)
            try:
                output, errors = process.communicate(timeout=300)
            finally:
                process.kill()
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(writing)
    return process.returncode, output if messages else errors


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
    assert unread(*PROGRAM, "kernel", "check", "/nonexistent/image", messages=True) == (2, "")
    tells = "print('lost', file=sys.stderr, flush=True); print('read')"
    code = f"import sys\nfrom vfio_user_xe.emulator.cli.main import app, main\n@app.command('tell')\ndef tell(): {tells}\nmain()"
    assert unread(sys.executable, "-c", code, "tell", messages=True) == (0, "read\n")


@pytest.mark.parametrize("command", ["--version", "plugins list"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_needs_no_standard_stream(command: str, closed: str) -> None:
    done = subprocess.run(
        ("sh", "-c", f'"$@" {closed}', "sh", *PROGRAM, *command.split()),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["at the end", "at once"])
@pytest.mark.parametrize("command", ["--version", "scenario list"])
def test_output_that_cannot_be_written_is_told_once(command: str, variables: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (*PROGRAM, *command.split()),
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | variables,
            text=True,
            timeout=300,
            check=False,
        )
    message = "vfio-user-xe: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.parametrize(("option", "at_once"), [("-u", True), ("-B", False)])
def test_output_is_kept_back_as_the_interpreter_does(option: str, at_once: bool) -> None:
    code = (
        "import os; from vfio_user_xe.emulator.cli.standard_streams import ending_with_the_reader\n"
        "with ending_with_the_reader(): print('first', end=' '); os.write(1, b'second ')"
    )
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        (sys.executable, option, "-c", code), capture_output=True, env=variables, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == (["first", "second"] if at_once else ["second", "first"])


def test_a_card_whose_ready_line_has_no_reader_is_not_served_on(tmp_path: Path) -> None:
    command = (*PROGRAM, "serve", "--model", "edu", "--socket-dir", str(tmp_path / "card"))
    assert unread(*command) == (SIGPIPE_ENDED_IT, "")


HOLDS = """
import sys, threading, time, trio
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
        elif way == "own thread":
            threading.Thread(target=tell).start()
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


@pytest.mark.parametrize("interrupts", [signal.SIG_DFL, signal.SIG_IGN], ids=["foreground", "background"])
@pytest.mark.parametrize("way", ["plain", "trio", "thread", "own thread"])
def test_a_command_at_work_leaves_nothing_behind_when_its_reader_leaves(
    way: str, interrupts: signal.Handlers, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    command = (sys.executable, "-c", HOLDS, "hold", str(file), way)
    assert unread(*command, interrupts=interrupts) == (SIGPIPE_ENDED_IT, "")
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
