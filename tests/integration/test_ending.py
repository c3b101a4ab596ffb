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
from vfio_user_xe.emulator.guest.kernel_build import Build

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


TASKS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv.pop(1) == "ignored" else signal.default_int_handler)
import trio
from vfio_user_xe.emulator.cli import interrupts
from vfio_user_xe.emulator.cli.main import app, main

def tell(line):
    # Without a buffer: one that a signal interrupts while it is flushed can write its line again.
    os.write(1, line.encode())

async def task(name):
    try:
        tell(f"{name} begins\\n")
        await trio.sleep_forever()
    finally:
        tell(f"{name} ends\\n")

async def tasks():
    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(task, name)

@app.command("hold")
def hold():
    interrupts.run(tasks)

main()
"""


@pytest.mark.parametrize("ctrl_c", ["", "ignored"], ids=["in the foreground", "in the background"])
def test_a_command_s_tasks_end_in_order_when_it_is_told_to(ctrl_c: str) -> None:
    command = [sys.executable, "-W", "error", "-c", TASKS, ctrl_c, "hold"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            begun = sorted(process.stdout.readline() for _ in range(2))
            assert begun == ["a begins\n", "b begins\n"]
            if ctrl_c:
                process.send_signal(signal.SIGINT)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
            process.terminate()
            output, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert sorted(output.splitlines()) == ["a ends", "b ends"]
    assert process.returncode == 130
    assert "Warning" not in messages
    assert "Traceback" not in messages


JOBS = """
import signal, sys, time
if sys.argv.pop(1) == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from vfio_user_xe.emulator.cli import parts
from vfio_user_xe.emulator.cli.main import app, main
number = next((word for word in sys.argv if "/" in word), "")

@app.command("hold")
def hold(job: str = ""):
    if not job:
        parts.run_jobs(2, ("hold",))
    sys.stdout.write(f"{job}\\n")  # at once: two jobs share the pipe
    sys.stdout.flush()
    time.sleep(1000)

real = parts.launch
parts.launch = lambda words, **options: real([sys.executable, "-c", PROGRAM, "", *words[words.index("hold"):]], **options)
main()
"""


@pytest.mark.parametrize("ctrl_c", ["", "ignored"], ids=["in the foreground", "in the background"])
def test_jobs_end_with_the_command_that_started_them(ctrl_c: str) -> None:
    command = [sys.executable, "-c", f"PROGRAM = {JOBS!r}\n{JOBS}", ctrl_c, "hold"]
    pipe = subprocess.PIPE
    with not_ignored(signal.SIGINT), subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            assert sorted(process.stdout.readline() for _ in range(2)) == ["1/2\n", "2/2\n"]
            process.terminate()
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130


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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_step_of_a_build_that_is_interrupted_while_it_starts_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    tree = make_tree(tmp_path / "linux")
    started = list[subprocess.Popen[str]]()

    class Slow(subprocess.Popen[str]):
        """The signal comes when the process does not run yet, or when it runs and nobody has this object yet."""

        def __init__(self, _: object, **options: object) -> None:
            if moment == "before":
                signal.raise_signal(signal.SIGINT)
            super().__init__(["sleep", "1000"], **options)  # type: ignore[call-overload]
            started.append(self)
            if moment == "after":
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        build = Build(tree, tmp_path / "objects", (), (), jobs=1, tell=lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            build._step(["make"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].returncode == -signal.SIGTERM
