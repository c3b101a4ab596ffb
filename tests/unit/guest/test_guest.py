"""The life of a guest, with a QEMU that is played by `fake_qemu.py`."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.guest.samples import environment
from tests.support.processes import no_children_left, no_descriptors_left, no_threads_left, runs
from tests.support.wait import eventually
from vfio_user_xe.emulator.guest import vmlinux
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.environment import Qemu
from vfio_user_xe.emulator.guest.errors import (
    BootFailed,
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    ConsoleTimeout,
    GuestError,
    GuestPanic,
    MissingEnvironment,
    QemuFailed,
)
from vfio_user_xe.emulator.guest.guest import Guest, GuestSpec, boot

FAKE = Path(__file__).with_name("fake_qemu.py")
Play = Callable[[str], GuestSpec]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """A spec whose QEMU plays a scene."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = environment(tmp_path)

    def spec(scene: str) -> GuestSpec:
        qemu = Qemu((sys.executable, "-I", str(FAKE), scene), {}, "11.1", "played")
        return GuestSpec(accelerator="tcg", boot_timeout=60, environment=dataclasses.replace(fetched, qemu=qemu))

    return spec


def in_guest(spec: GuestSpec, body: Callable[[Guest], Awaitable[None]]) -> int:
    """Run a body in a booted guest; returns QEMU's process id, which must be gone afterwards."""
    pids = []

    async def main() -> None:
        async with boot(spec) as guest:
            pids.append(guest.pid)
            await body(guest)

    try:
        trio.run(main)
    finally:
        assert all(not runs(pid) for pid in pids)
    return pids[0]


def test_commands_qmp_and_console_work(play: Play) -> None:
    async def body(guest: Guest) -> None:
        assert (await guest.run("hello")).stdout == "hello"
        assert await guest.qmp("query-status") == {"ran": "query-status"}
        assert "Linux version fake" in guest.console_tail()
        assert guest.boot_seconds > 0
        assert guest.accelerator.name == "tcg"

    in_guest(play("works"), body)


def test_the_console_is_logged_to_a_file(play: Play, tmp_path: Path) -> None:
    async def body(guest: Guest) -> None:
        await guest.wait_for_console("init: the guest")

    in_guest(dataclasses.replace(play("works"), console_log=tmp_path / "log"), body)
    assert b"Linux version fake" in (tmp_path / "log").read_bytes()


def test_a_failing_command_is_explained_by_what_the_kernel_said_meanwhile(play: Play) -> None:
    async def body(guest: Guest) -> None:
        assert (await guest.run("fail")).returncode == 1
        with pytest.raises(CommandFailed) as caught:
            await guest.run("fail", check=True)
        assert "exit code 1: oops" in str(caught.value)
        assert "xe: probe failed" in str(caught.value)
        assert "Linux version" not in str(caught.value)

    in_guest(play("works"), body)


def test_a_timeout_leaves_the_guest_usable(play: Play) -> None:
    async def body(guest: Guest) -> None:
        with pytest.raises(CommandTimeout, match="Linux version fake"):
            await guest.run("hang", timeout=0.1)
        assert (await guest.run("next")).stdout == "next"

    in_guest(play("works"), body)


def test_a_pattern_that_does_not_come_is_explained_by_the_console(play: Play) -> None:
    async def body(guest: Guest) -> None:
        with pytest.raises(ConsoleTimeout, match=r"'never' did not appear(.|\n)*Linux version fake"):
            await guest.wait_for_console("never", timeout=0.1)

    in_guest(play("works"), body)


@pytest.mark.parametrize(
    ("direct", "told"), [(True, "boot it with --no-direct-boot"), (False, "the guest rebooted while")]
)
def test_a_directly_booted_guest_that_suspends_says_how_to_boot_it(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direct: bool, told: str
) -> None:
    (tmp_path / "vmlinux").touch()
    monkeypatch.setattr(vmlinux, "unpacked", lambda kernel: tmp_path / "vmlinux" if direct else None)

    async def told_of(guest: Guest, event: str) -> None:
        while event not in [one["event"] for one in guest.qmp_events]:
            await trio.sleep(0.01)

    async def wake(guest: Guest) -> None:
        await told_of(guest, "SUSPEND")
        await guest.qmp("system_wakeup")
        await told_of(guest, "WAKEUP")
        # QEMU writes the kernel that it has loaded into memory again, and that boots.
        await guest.qmp("system_reset")

    async def body(guest: Guest) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wake, guest)
            with pytest.raises(ChannelLost, match=told):
                await guest.run("suspend")
        assert (await guest.run("again")).stdout == "again"

    in_guest(play("works"), body)


def test_reboot_waits_for_the_new_agent(play: Play) -> None:
    async def body(guest: Guest) -> None:
        await guest.reboot()
        await guest.reboot()
        assert (await guest.run("again")).stdout == "again"
        assert guest.console_tail().count("Linux version") == 3

    in_guest(play("works"), body)


def test_a_panic_ends_every_waiting_call_until_a_reset(play: Play) -> None:
    async def body(guest: Guest) -> None:
        with pytest.raises(GuestPanic, match="Kernel panic - not syncing: sysrq"):
            await guest.run("panic")
        with pytest.raises(GuestPanic):
            await guest.run("anything")
        with pytest.raises(GuestPanic):
            await guest.wait_for_console("never")
        await guest.reset()
        assert (await guest.run("again")).stdout == "again"

    in_guest(play("works"), body)


def test_the_end_of_qemu_is_told_with_its_words(play: Play) -> None:
    async def body(guest: Guest) -> None:
        for attempt in ("crash", "again"):
            with pytest.raises(QemuFailed, match=r"exit code 134\) and said: qemu: fatal: assertion failed"):
                await guest.run(attempt)
        with pytest.raises(QemuFailed):
            await guest.qmp("query-status")

    in_guest(play("works"), body)


def test_a_qemu_that_ends_long_after_its_sockets_is_told_all_the_same(play: Play) -> None:
    async def body(guest: Guest) -> None:
        with pytest.raises(QemuFailed, match="said: qemu: terminating"):
            await guest.run("end slowly")

    in_guest(play("works"), body)


def test_a_killed_qemu_is_noticed(play: Play) -> None:
    async def body(guest: Guest) -> None:
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(QemuFailed, match="killed by SIGKILL"):
            await guest.wait_for_console("never")

    in_guest(play("works"), body)


async def nothing(guest: Guest) -> None:
    raise AssertionError("it did not boot")


@pytest.mark.parametrize(
    ("scene", "error", "words"),
    [
        ("refuses", QemuFailed, "'nonsense' is not a valid device model name"),
        ("panics-at-boot", GuestPanic, "Kernel panic - not syncing: no init"),
    ],
)
def test_a_guest_that_does_not_boot_says_why(play: Play, scene: str, error: type[GuestError], words: str) -> None:
    with pytest.raises(error, match=words):
        in_guest(play(scene), nothing)


def test_a_guest_whose_kernel_says_nothing_is_told(play: Play) -> None:
    with pytest.raises(BootFailed, match="the kernel wrote nothing to the console"):
        in_guest(dataclasses.replace(play("silent"), boot_timeout=0.2), nothing)


def test_a_guest_whose_kernel_hangs_is_told_with_its_last_words(play: Play, tmp_path: Path) -> None:
    """Its time to boot is up when it hangs, however long that takes on this machine."""
    spec = dataclasses.replace(play("hangs-in-kernel"), console_log=tmp_path / "log")
    clock = trio.testing.MockClock(rate=0)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_until_it_hangs)
            async with boot(spec):
                raise AssertionError("it did not boot")

    async def wait_until_it_hangs() -> None:
        log = tmp_path / "log"
        await trio.to_thread.run_sync(eventually, lambda: log.exists() and log.read_bytes().endswith(b"probing\r\n"))
        clock.jump(spec.boot_timeout)

    words = r"the kernel did not reach /init(.|\n)*\[    1.0\] probing"
    with pytest.RaisesGroup(pytest.RaisesExc(BootFailed, match=words)):
        trio.run(main, clock=clock)


def test_a_guest_that_is_gone_refuses_commands(play: Play) -> None:
    async def main() -> None:
        async with boot(play("works")) as guest:
            pass
        with pytest.raises(GuestError, match="closed"):
            await guest.run("late")

    trio.run(main)


def test_errors_of_the_body_come_out_as_they_are(play: Play) -> None:
    async def body(guest: Guest) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        in_guest(play("works"), body)


def test_ctrl_c_ends_qemu(play: Play) -> None:
    async def body(guest: Guest) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await guest.run("hang")

    with pytest.raises(KeyboardInterrupt):
        in_guest(play("works"), body)


def test_cancellation_during_boot_ends_qemu(play: Play) -> None:
    async def main() -> None:
        with trio.move_on_after(0.5) as scope:
            async with boot(play("silent")):
                pass
        assert scope.cancelled_caught

    with no_children_left():
        trio.run(main)


def test_two_guests_at_once_are_apart(play: Play) -> None:
    async def main() -> None:
        async with boot(play("works")) as one, boot(play("works")) as two:
            await one.reboot()
            assert two.console_tail().count("Linux version") == 1
            assert one.pid != two.pid
            with pytest.raises(QemuFailed):
                await one.run("crash")
            assert (await two.run("fine")).stdout == "fine"

    trio.run(main)


def test_file_descriptors_are_given_back(play: Play) -> None:
    async def body(guest: Guest) -> None:
        await guest.run("x")

    in_guest(play("works"), body)
    with no_descriptors_left():
        in_guest(play("works"), body)
        with pytest.raises(BootFailed):
            in_guest(dataclasses.replace(play("silent"), boot_timeout=0.2), nothing)


def test_a_missing_environment_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingEnvironment, match="guest fetch"):
        in_guest(GuestSpec(), nothing)
    with pytest.raises(MissingEnvironment), BlockingGuest(GuestSpec()):
        pass


def test_a_blocking_guest_does_what_a_guest_does(play: Play) -> None:
    with BlockingGuest(play("works")) as guest:
        pid = guest.pid
        assert guest.run("hello").stdout == "hello"
        assert guest.qmp("x") == {"ran": "x"}
        guest.reboot()
        with pytest.raises(CommandFailed, match="oops"):
            guest.run("fail", check=True)
        with pytest.raises(ConsoleTimeout):
            guest.wait_for_console("never", timeout=0.1)
    assert not runs(pid)
    with pytest.raises(GuestError, match="inside its `with` block"):
        guest.run("too late")


def test_a_blocking_guest_that_does_not_boot_leaves_no_thread(play: Play) -> None:
    with no_threads_left(), pytest.raises(QemuFailed, match="nonsense"), BlockingGuest(play("refuses")):
        pass


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """Its KeyboardInterrupt comes within the block, or on entering it where this thread gets no further until then."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        yield
    finally:
        # What ends before must not leave the signal to another test.
        timer.cancel()
        timer.join()


def test_ctrl_c_interrupts_a_blocking_call_and_leaves_the_guest_usable(play: Play) -> None:
    with BlockingGuest(play("works")) as guest:
        with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.3):
            guest.run("hang")
        assert guest.run("next").stdout == "next"


def test_ctrl_c_during_a_blocking_boot_ends_it(play: Play) -> None:
    with (
        no_children_left(),
        pytest.raises(KeyboardInterrupt),
        ctrl_c_after(0.5),
        BlockingGuest(play("silent")),
    ):
        pass


RUNNER = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from vfio_user_xe.emulator.guest.blocking import BlockingGuest
from vfio_user_xe.emulator.guest.guest import GuestSpec
from vfio_user_xe.emulator.guest.environment import Qemu
from tests.support.guest.samples import environment
import dataclasses
qemu = Qemu((sys.executable, "-I", sys.argv[1], "works"), {}, "11.1", "played")
fetched = dataclasses.replace(environment(Path(sys.argv[2])), qemu=qemu)
with BlockingGuest(GuestSpec(accelerator="tcg", environment=fetched)) as guest:
    print(guest.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_qemu_is_gone_when_the_runner_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", RUNNER, str(FAKE), str(tmp_path), *sys.path]
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=variables, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as runner:
        assert runner.stdout is not None
        qemu = int(runner.stdout.readline())
        assert runs(qemu)
        runner.send_signal(how)
    eventually(lambda: not runs(qemu))
