"""The command channel: against the real agent script, run by this host's shell on a pseudo terminal, and a fake one."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import shutil
import signal
import subprocess
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing

from tests.support.processes import runs
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest import agent, channel
from vfio_user_xe.emulator.guest.channel import Channel, Result
from vfio_user_xe.emulator.guest.errors import ChannelLost, CommandFailed, CommandTimeout

Far: TypeAlias = trio.StapledStream[trio.lowlevel.FdStream, trio.lowlevel.FdStream]


def far_end(link: Channel) -> Far:
    """QEMU's end of a channel."""
    reads, writes = (trio.lowlevel.FdStream(os.dup(end.fileno())) for end in link.far)
    for end in link.far:
        end.close()
    return trio.StapledStream(writes, reads)


class Port:
    """A pseudo terminal that the agent takes for its serial port, relayed to the channel."""

    def __init__(self, link: Channel, folder: Path) -> None:
        self._master, self._slave = pty.openpty()
        # As a fresh serial port: the agent itself has to make it raw, but nothing may be echoed before it does.
        tty.setraw(self._slave)
        self._stream = far_end(link)
        self._folder = folder
        self._script = folder / "agent.sh"
        self._script.write_text(agent.AGENT)
        self.process: subprocess.Popen[bytes] | None = None

    def start_agent(self) -> None:
        self.process = subprocess.Popen(
            ["sh", str(self._script), os.ttyname(self._slave), str(self._folder / "run")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def relay(self, nursery: trio.Nursery) -> None:
        near = trio.lowlevel.FdStream(self._master)

        async def outward() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await near.receive_some():
                    await self._stream.send_all(data)

        async def inward() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while data := await self._stream.receive_some():
                    await near.send_all(data)

        nursery.start_soon(outward)
        nursery.start_soon(inward)

    def kill_agent(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        self.kill_agent()
        os.close(self._slave)


def with_agent(
    folder: Path, body: Callable[[Channel, Port], Awaitable[None]], clock: trio.abc.Clock | None = None
) -> None:
    async def main() -> None:
        link = Channel()
        port = Port(link, folder)
        try:
            async with trio.open_nursery() as nursery:
                await port.relay(nursery)
                port.start_agent()
                await link.wait_ready()
                await body(link, port)
                nursery.cancel_scope.cancel()
        finally:
            port.close()
            link.close()

    trio.run(main, clock=clock)


LONG = 1000.0
"""Seconds that a test makes pass at once: a command gets this far first, however long that takes on this machine."""


async def pass_when_there_is(file: Path, clock: trio.testing.MockClock) -> None:
    await trio.to_thread.run_sync(eventually, file.exists)
    clock.jump(LONG)


def sleeper(folder: Path) -> str:
    """A script that sleeps for long; `slept` is its process, which a test has to see the end of."""
    return f"echo $$ >{folder}/new; mv {folder}/new {folder}/written; exec sleep 1000"


async def slept(folder: Path) -> int:
    await trio.to_thread.run_sync(eventually, (folder / "written").exists)
    return int((folder / "written").read_text())


def test_exit_code_stdout_and_stderr_come_back_apart(tmp_path: Path) -> None:
    async def body(link: Channel, port: Port) -> None:
        result = await link.run("echo out; echo err >&2; exit 7")
        assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")
        assert (await link.run("true")).returncode == 0
        assert (await link.run("kill -9 $$")).returncode == 128 + 9

    with_agent(tmp_path, body)


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 70000])
def test_every_byte_arrives_both_ways(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def body(link: Channel, port: Port) -> None:
        result = await link.run("cat; echo done >&2", stdin=data)
        assert result.stdout_bytes == data
        assert result.stderr == "done\n"

    with_agent(tmp_path, body)


def test_a_long_script_and_large_outputs_on_both_streams(tmp_path: Path) -> None:
    script = "\n".join(f": line {number} {'x' * 50}" for number in range(500))

    async def body(link: Channel, port: Port) -> None:
        result = await link.run(f"{script}\nseq 1 20000; seq 1 5000 >&2")
        assert result.stdout.split() == [str(number) for number in range(1, 20001)]
        assert result.stderr.split() == [str(number) for number in range(1, 5001)]

    with_agent(tmp_path, body)


def test_a_timed_out_command_is_killed_with_its_children_and_the_channel_goes_on(tmp_path: Path) -> None:
    clock = trio.testing.MockClock(rate=1)

    async def body(link: Channel, port: Port) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_when_there_is, tmp_path / "written", clock)
            with pytest.raises(CommandTimeout, match=r"within 1000 s and was killed: sleep 3000 & echo") as caught:
                await link.run(f"sleep 3000 & echo started $!; touch {tmp_path}/written; wait", timeout=LONG)
        started, pid = caught.value.output.decode().split()
        assert started == "started"
        eventually(lambda: not runs(int(pid)))
        assert (await link.run("echo next")).stdout == "next\n"

    with_agent(tmp_path, body, clock)


def test_a_background_process_does_not_hold_a_command(tmp_path: Path) -> None:
    async def body(link: Channel, port: Port) -> None:
        result = await link.run("sleep 1000 & echo $!")
        pid = int(result.stdout)
        assert runs(pid)
        await link.run(f"kill {pid}")
        eventually(lambda: not runs(pid))

    with_agent(tmp_path, body)


@pytest.mark.parametrize("lines", [1, 1000])
def test_what_is_still_written_when_a_command_has_ended_damages_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    # In a process' stead that the command has left running: it writes as soon as the agent has looked how much there is.
    counting = tmp_path / "wc"
    counting.write_text(
        f'#!/bin/sh\n{shutil.which("wc")} "$@"\nfor file; do test ! -f "$file" || echo more >>"$file"; done\n'
    )
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def body(link: Channel, port: Port) -> None:
        result = await link.run(f"seq {lines}; seq {lines} >&2")
        assert result.stdout.split() == result.stderr.split() == [str(number) for number in range(1, lines + 1)]
        assert (await link.run("echo next")).stdout == "next\n"

    with_agent(tmp_path, body)


def test_cancelling_a_command_leaves_the_channel_usable(tmp_path: Path) -> None:
    async def body(link: Channel, port: Port) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, f"echo from the cancelled one; {sleeper(tmp_path)}")
            pid = await slept(tmp_path)
            nursery.cancel_scope.cancel()
        result = await link.run("echo from the next")
        assert result.stdout == "from the next\n"
        eventually(lambda: not runs(pid))

    with_agent(tmp_path, body)


def test_a_command_that_outlives_being_killed_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_KILL_GRACE", 0.4)
    clock = trio.testing.MockClock(rate=1)
    # As a process in an uninterruptible sleep: the agent finds none to kill.
    monkeypatch.setattr(agent, "AGENT", agent.AGENT.replace("kill -9 -$pid", ": $pid"))

    async def body(link: Channel, port: Port) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_when_there_is, tmp_path / "written", clock)
            with pytest.raises(CommandTimeout) as caught:
                await link.run(f"echo stuck $$; touch {tmp_path}/written; exec sleep 3000", timeout=LONG)
        stuck, pid = caught.value.output.decode().split()
        assert stuck == "stuck"
        assert runs(int(pid)), "it was not left behind, it ended"
        os.kill(int(pid), signal.SIGKILL)
        assert (await link.run("echo next")).stdout == "next\n"

    with_agent(tmp_path, body, clock)


def test_commands_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    async def body(link: Channel, port: Port) -> None:
        async def one(number: int) -> None:
            assert (await link.run(f"sleep 0.1; echo {number}")).stdout == f"{number}\n"

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(one, number)

    with_agent(tmp_path, body)


def test_a_restarted_agent_ends_the_command_and_serves_the_next(tmp_path: Path) -> None:
    async def body(link: Channel, port: Port) -> None:
        async def restart() -> None:
            await slept(tmp_path)
            port.kill_agent()
            port.start_agent()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart)
            with pytest.raises(ChannelLost, match="agent was ended and started again"):
                await link.run(sleeper(tmp_path))
        os.kill(await slept(tmp_path), signal.SIGKILL)
        assert (await link.run("echo next")).stdout == "next\n"

    with_agent(tmp_path, body)


def test_check_passes_success_and_explains_failure() -> None:
    fine = Result(0, b"x", "", 0.1)
    assert fine.check() is fine
    with pytest.raises(CommandFailed, match="'modprobe xe' ended with exit code 1: not found"):
        Result(1, b"", "not found\n", 0.1).check("'modprobe xe'")


READY = b"READY 01234567-89ab-cdef-0123-456789abcdef 100\n"
REBOOTED = b"READY ffffffff-89ab-cdef-0123-456789abcdef 100\n"


def with_fake(body: Callable[[Channel, Far], Awaitable[None]]) -> None:
    async def main() -> None:
        link = Channel()
        async with far_end(link) as far:
            await body(link, far)
        link.close()

    trio.run(main)


def test_what_firmware_prints_before_the_agent_is_ignored() -> None:
    async def body(link: Channel, far: Far) -> None:
        await far.send_all(b"\x1b[2J firmware\r\nDONE 0 0\r\ngarbage" + READY)
        await link.wait_ready()
        assert link.boot_id == "01234567-89ab-cdef-0123-456789abcdef"

    with_fake(body)


def test_a_reboot_during_a_command_is_told_and_survived() -> None:
    async def body(link: Channel, far: Far) -> None:
        await far.send_all(READY)
        await link.wait_ready()
        await far.send_all(b"DONE 0 0 r 0 r 0\n" + REBOOTED)
        with pytest.raises(ChannelLost, match="the guest rebooted while a command was running"):
            await link.run("reboot -f")
        await far.send_all(b"DONE 2 0 r 3 r 0\nyes")
        assert (await link.run("true")).stdout == "yes"

    with_fake(body)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"DONE 1 x r 0 r 0\n", "is no answer"),
        (b"DONE 1 0 z 4 r 0\n....", "damaged output"),
    ],
)
def test_an_answer_that_is_none_is_an_error(answer: bytes, problem: str) -> None:
    async def body(link: Channel, far: Far) -> None:
        await far.send_all(READY + answer)
        await link.wait_ready()
        with pytest.raises(ChannelLost, match=problem):
            await link.run("true")

    with_fake(body)


def test_a_closed_connection_is_an_error() -> None:
    async def body(link: Channel, far: Far) -> None:
        await far.send_all(READY)
        await link.wait_ready()
        await far.aclose()
        for _ in range(2):
            with pytest.raises(ChannelLost):
                await link.run("true")

    with_fake(body)


def test_an_agent_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_KILL_GRACE", 0.1)
    monkeypatch.setattr(channel, "_DROP_GRACE", 0.1)

    async def body(link: Channel, far: Far) -> None:
        await far.send_all(READY)
        await link.wait_ready()
        with pytest.raises(ChannelLost, match="does not answer any more"):
            await link.run("true", timeout=0.1)

    with_fake(body)
