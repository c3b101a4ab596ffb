"""xe-vgpu on this machine, with a UNIX socket for its port: what a renderer says and what the VMM hears."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.support.xe.guest_c import FAKE_VFIO, compiled_here
from vfio_user_xe.device_models.xe.scenarios.guest_program import SOURCES as CLIENT

PATIENCE = 60


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = [CLIENT / name for name in ("stream.c", "pages.c", "words.c")]
    return compiled_here(tmp_path_factory, "xe-vgpu", [CLIENT.parent / "vgpu" / "main.c", *shared, FAKE_VFIO])


@dataclass
class Rig:
    """The program between a renderer and a VMM, both of which are the test."""

    renderer: socket.socket
    vmm: socket.socket
    log: IO[str]

    def say(self, line: str, fd: int | None = None) -> None:
        socket.send_fds(self.renderer, [line.encode()], [] if fd is None else [fd])

    def answer(self) -> str:
        return self.renderer.recv(1 << 16).decode()

    def heard(self) -> str:
        """The next line for the VMM."""
        line = b""
        while not line.endswith(b"\n"):
            data = self.vmm.recv(1)
            assert data, "the program has gone"
            line += data
        return line.decode().rstrip("\n")


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Iterator[Rig]:
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as port, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as renderer:
        for one in (port, renderer):
            one.settimeout(PATIENCE)
        # The path of a socket has at most 107 bytes.
        os.chdir(tmp_path)
        try:
            port.bind("vm1.port")
            port.listen()
            command = [program, "vm1", "0000:00:01.0", "renderer"]
            with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                renderer.connect("renderer")
                vmm, _ = port.accept()
                with vmm:
                    vmm.settimeout(PATIENCE)
                    yield Rig(renderer, vmm, process.stdout)
                    process.kill()
        finally:
            os.chdir(here)


def test_resource_0_makes_the_window_dark(rig: Rig) -> None:
    rig.say("scanout resource=0 width=0")
    assert rig.heard() == "scanout resource=0 width=0"


@pytest.mark.parametrize(
    "words", ["width=64", "resource= width=64", "resource=x", "resource=7", "resource=4294967296", "resource=-1"]
)
def test_no_other_scan_out_without_a_resource_does(words: str, rig: Rig) -> None:
    rig.say(f"scanout {words}")
    assert rig.answer() == "error verb=message reason=no such resource"
    rig.say("scanout resource=0")
    assert rig.heard() == "scanout resource=0"


def test_numbers_that_differ_only_above_32_bits_are_two_resources(rig: Rig) -> None:
    file = os.memfd_create("buffer")
    for number in (1, 1 + (1 << 32), 1 << 32):
        rig.say(f"create resource={number} size=0x1000 kind=dma-buf", file)
    rig.say(f"create resource={1 + (1 << 32)} size=0x1000 kind=dma-buf", file)
    os.close(file)
    assert rig.answer().startswith("error verb=create reason=the resource has no number, or one that is taken")
    rig.say(f"unref resource={1 << 33}")
    assert rig.answer() == "error verb=message reason=no such resource"


def test_news_of_a_frame_are_passed_on_and_logged_with_their_time(rig: Rig) -> None:
    rig.say("flush resource=7 frame=1")
    assert rig.answer() == rig.log.readline().rstrip("\n")  # refused: the renderer is connected now
    rig.vmm.sendall(b"done resource=1 frame=4 composed=4\n")
    assert rig.answer() == "done resource=1 frame=4 composed=4"
    assert re.fullmatch(r"\d+\.\d{6} done resource=1 frame=4 composed=4\n", rig.log.readline())
