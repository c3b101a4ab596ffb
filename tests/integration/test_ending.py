"""How programs end that are told to: with all that they made."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel_tree import make_tree
from tests.support.processes import runs
from tests.support.wait import eventually

COMMAND = """
import signal, sys, time
if sys.argv.pop(1) == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from vfio_user_xe.emulator.cli.main import app, main
from vfio_user_xe.emulator.guest.served import served_card

@app.command("hold")
def hold():
    with served_card(["--model", "edu"]) as card:
        print(card.pid, flush=True)
        time.sleep(1000)

main()
"""


@contextlib.contextmanager
def not_ignored(number: signal.Signals) -> Iterator[None]:
    """What is started meanwhile does not inherit that the signal is ignored (by nohup)."""
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
    yield
    if before is signal.SIG_IGN:
        signal.signal(number, before)


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vux-") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("number", "ctrl_c"),
    [(signal.SIGTERM, ""), (signal.SIGHUP, ""), (signal.SIGINT, ""), (signal.SIGTERM, "ignored")],
    ids=["SIGTERM", "SIGHUP", "SIGINT", "SIGTERM of a background job"],
)
def test_a_command_that_is_told_to_end_leaves_no_server_and_no_files(
    short: Path, tmp_path: Path, number: signal.Signals, ctrl_c: str
) -> None:
    command = [sys.executable, "-c", COMMAND, ctrl_c, "hold"]
    variables = {**os.environ, "TMPDIR": str(short)}
    pipe = subprocess.PIPE
    with (
        (tmp_path / "errors").open("w") as errors,
        not_ignored(number),
        subprocess.Popen(command, env=variables, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (tmp_path / "errors").read_text()
            assert len(list(short.iterdir())) == 1
            process.send_signal(number)
            assert process.wait() == 130
        finally:
            process.kill()
    server = int(line)
    eventually(lambda: not runs(server))
    assert list(short.iterdir()) == []


def test_a_kernel_build_that_is_told_to_end_leaves_neither_make_nor_its_children(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "linux")
    makefile = (
        (tree / "Makefile")
        .read_text()
        .replace("bzImage:\n", "bzImage:\n\techo $$PPID $$$$ > $(O)/pids; exec sleep 1000\n")
    )
    (tree / "Makefile").write_text(makefile)
    program = "from vfio_user_xe.emulator.cli.main import main; main()"
    command = [sys.executable, "-c", program, "kernel", "build", str(tree), "--output", str(tmp_path / "obj")]
    with (
        not_ignored(signal.SIGINT),
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as build,
    ):
        written = tmp_path / "obj" / "pids"
        eventually(lambda: written.is_file() and written.read_text("ascii").endswith("\n"))
        make, child = map(int, written.read_text("ascii").split())
        assert runs(make)
        assert runs(child)
        build.terminate()
        build.communicate(timeout=60)
        assert not runs(make)
        eventually(lambda: not runs(child))
