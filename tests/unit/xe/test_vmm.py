"""xe-vmm on this machine, over a device that is made of files: what it believes, refuses, passes on and takes back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.wait import eventually
from tests.support.xe.guest_c import FAKE_VFIO, compiled_here
from vfio_user_xe.device_models.xe.scenarios.guest_program import SOURCES as CLIENT

VMM = CLIENT.parent / "vmm"
CREATE = "create resource=1 size=0x3000 ranges=0x200000+0x2000,0x100000+0x1000"
PATIENCE = 60


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_here(tmp_path_factory, "xe-vmm", [*sorted(VMM.glob("*.c")), FAKE_VFIO, CLIENT / "words.c"])


@dataclass
class Rig:
    """The VMM between a machine and a compositor, both of which are the test."""

    process: subprocess.Popen[str]
    log: Path
    machine: socket.socket
    listener: socket.socket
    heard: bytes = b""
    compositors: list[socket.socket] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        self.machine.sendall("".join(f"{line}\n" for line in lines).encode())

    def hear(self) -> str:
        while b"\n" not in self.heard:
            data = self.machine.recv(4096)
            assert data, "the VMM has gone"
            self.heard += data
        line, _, self.heard = self.heard.partition(b"\n")
        return line.decode()

    def connected(self) -> socket.socket:
        made, _ = self.listener.accept()
        made.settimeout(PATIENCE)
        self.compositors.append(made)
        assert receive(made) == ("hello version=1 name=vm1", None)
        return made

    def logged(self, text: str) -> None:
        eventually(lambda: text in self.log.read_text(), lambda: f"{text!r} in {self.log.read_text()}")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


def receive(compositor: socket.socket) -> tuple[str, str | None]:
    """A message, and what is in the file that came with it."""
    data, fds, _, _ = socket.recv_fds(compositor, 1 << 16, 1)
    content = None
    for fd in fds:
        content = os.pread(fd, 1 << 16, 0).decode()
        os.close(fd)
    return data.decode(), content


@pytest.fixture
def rig(program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Parameter: the VMM's last words, of which the first is how many milliseconds the compositor has to let go."""
    more = getattr(request, "param", "60000").split()
    # Short names: the path of a socket has at most 107 bytes.
    folder = Path(os.path.relpath(tmp_path))
    port, listener = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = Path.cwd()
    os.chdir(folder)
    try:
        port.bind("vm1.port")
        listener.bind("compositor")
    finally:
        os.chdir(here)
    for one in (port, listener):
        one.listen(4)
        one.settimeout(PATIENCE)
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "vm1", "0000:01:00.1", "compositor", *more], cwd=tmp_path, stdout=output, text=True
        )
    machine, _ = port.accept()
    machine.settimeout(PATIENCE)
    made = Rig(process, log, machine, listener)
    yield made
    process.kill()
    process.wait()
    for one in (machine, port, listener, *made.compositors):
        one.close()


def test_an_opened_vf_has_memory_and_dma(rig: Rig) -> None:
    rig.logged("open bar2=0x10000000")
    rig.logged("config 0x4 0x6")


@pytest.mark.parametrize("rig", ["60000 iommufd"], indirect=True)
def test_a_vf_can_be_opened_by_its_character_device(rig: Rig) -> None:
    rig.logged("opened by its character device")
    rig.logged("config 0x4 0x6")


def test_ranges_become_a_dma_buf_in_the_order_in_which_they_are_named(rig: Rig) -> None:
    compositor = rig.connected()
    rig.say(CREATE, "scanout resource=1 width=64 height=48 format=XR24 modifier=0x0 stride=256 offset=0")
    assert receive(compositor) == (
        "create resource=1 size=0x3000 kind=dma-buf",
        "0x200000+0x2000,0x100000+0x1000",
    )
    assert receive(compositor)[0].startswith("scanout resource=1 width=64")
    rig.say("flush resource=1 frame=1")
    assert receive(compositor) == ("flush resource=1 frame=1", None)


@pytest.mark.parametrize(
    "line",
    [
        "create resource=1 size=0x1000",
        "create resource=0 size=0x1000 ranges=0x0+0x1000",
        "create resource=1 size=0x1000 ranges=",
        "create resource=1 size=0x1000 ranges=0x10000000+0x1000",
        "create resource=1 size=0x2000 ranges=0xffff000+0x2000",
        "create resource=1 size=0x1000 ranges=0xfffffffffffff000+0x1000",
        "create resource=1 size=0x1000 ranges=0x0+0xfffffffffffff000",
        "create resource=1 size=0x800 ranges=0x0+0x800",
        "create resource=1 size=0x1000 ranges=0x10+0x1000",
        "create resource=1 size=0x1000 ranges=0x0+0x1000,0x1000+0x1000",
        "create resource=1 size=0x1000 ranges=0x0",
        "create resource=1 size=0 ranges=0x0+0x0",
        "create resource=1 size=0x401000 ranges=" + ",".join(["0x0+0x1000"] * 1025),
        "create resource=1x size=0x1000 ranges=0x0+0x1000",
        "create resource=-1 size=0x1000 ranges=0x0+0x1000",
        "create resource=18446744073709551616 size=0x1000 ranges=0x0+0x1000",
        "create resource=1 size=all ranges=0x0+0x1000",
        "scanout resource=1 width=64",
        "scanout width=64",
        "scanout resource=x width=64",
        "flush resource=7 frame=1",
        "unref resource=1",
        "hello version=1 name=vm2",
        "revoke reason=reset",
        "done resource=1 frame=1",
        "",
        "x" * 3000,
    ],
)
def test_what_a_machine_must_not_say_is_refused_and_reaches_no_compositor(rig: Rig, line: str) -> None:
    compositor = rig.connected()
    rig.say(line)
    assert rig.hear().startswith("error verb=")
    rig.say(CREATE)
    assert receive(compositor)[0].startswith("create resource=1 size=0x3000")


def test_a_line_without_end_is_dropped_and_the_next_one_is_read(rig: Rig) -> None:
    compositor = rig.connected()
    rig.machine.sendall(b"y" * 200_000)
    rig.say("", CREATE)
    assert receive(compositor)[0].startswith("create resource=1")


def test_a_machine_that_does_not_read_does_not_hold_the_vmm_up(rig: Rig) -> None:
    compositor = rig.connected()
    rig.say(*["bad"] * 20_000)
    rig.logged("lost error verb=bad")
    rig.say(CREATE)
    assert receive(compositor)[0].startswith("create resource=1")


def test_a_frame_is_done_for_the_machine_when_its_fence_is_signalled(rig: Rig) -> None:
    compositor = rig.connected()
    rig.say(CREATE, "flush resource=1 frame=1", "flush resource=1 frame=2")
    for _ in range(3):
        receive(compositor)
    fence, signalled = os.pipe()
    socket.send_fds(compositor, [b"done resource=1 frame=1 composed=1"], [fence])
    os.close(fence)
    # What comes without a fence is done at once, although the other came before it.
    compositor.send(b"done resource=1 frame=2 composed=2")
    assert rig.hear() == "done resource=1 frame=2 composed=2"
    os.write(signalled, b"!")
    assert rig.hear() == "done resource=1 frame=1 composed=1"
    os.close(signalled)


def test_a_reset_takes_everything_back_before_the_device_is_reset(rig: Rig) -> None:
    compositor = rig.connected()
    rig.say(CREATE)
    receive(compositor)
    rig.logged("create resource=1")
    rig.signal(signal.SIGUSR1)
    assert receive(compositor) == ("revoke reason=reset", None)
    assert "device reset" not in rig.log.read_text()
    compositor.send(b"released")
    rig.logged("revoked reason=reset released=1")
    rig.logged("reset result=0")
    assert rig.log.read_text().index("released=1") < rig.log.read_text().index("device reset")
    rig.say(CREATE)
    assert receive(compositor)[0].startswith("create resource=1"), "the number is free again"


@pytest.mark.parametrize("rig", ["200"], indirect=True)
def test_a_compositor_that_does_not_let_go_delays_a_reset_and_does_not_prevent_it(rig: Rig) -> None:
    compositor = rig.connected()
    rig.say(CREATE)
    receive(compositor)
    rig.signal(signal.SIGUSR1)
    rig.logged("revoked reason=reset released=0")
    rig.logged("reset result=0")


def test_a_compositor_that_comes_back_gets_what_there_is(rig: Rig) -> None:
    first = rig.connected()
    scanout = "scanout resource=1 width=64 height=48 format=XR24 modifier=0x0 stride=256 offset=0"
    rig.say(CREATE, scanout)
    receive(first)
    receive(first)
    first.close()
    second = rig.connected()
    assert receive(second) == ("create resource=1 size=0x3000 kind=dma-buf", "0x200000+0x2000,0x100000+0x1000")
    assert receive(second) == (scanout, None)


def test_the_end_of_the_machine_ends_it_after_the_compositor_has_let_go(rig: Rig) -> None:
    compositor = rig.connected()
    rig.signal(signal.SIGTERM)
    assert receive(compositor) == ("revoke reason=shutdown", None)
    compositor.send(b"released")
    assert rig.process.wait(PATIENCE) == 0
    rig.logged("closed")
