"""The program that plays exporter and importer in a guest (`client/*.c`), on this machine: what it makes of what it is told."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.wait import eventually
from tests.support.xe.guest_c import compiled_here
from vfio_user_xe.device_models.xe.scenarios.guest_program import SOURCES

OF_THE_CARD = ("engines.c", "gpu.c", "iommufd.c", "kernel.c", "svm.c", "vfio.c")
"""Those that call drivers, whose headers need not be here: they are not called and not linked."""
SET_CLOSE_ON_EXEC = "0x5451"
"""FIOCLEX (asm-generic/ioctls.h), which every file knows."""
BYTES = 4096


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = [path for path in sorted(SOURCES.glob("*.c")) if path.name not in OF_THE_CARD]
    return compiled_here(tmp_path_factory, "xe-dmabuf", files, "-static", "-Wl,--unresolved-symbols=ignore-all")


@dataclass
class Rig:
    """The program with a file `d` of 4 KiB that a peer, the test, has sent it over a stream `s`."""

    program: Path
    folder: Path
    file: int
    peer: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def start(self, *commands: str) -> subprocess.Popen[str]:
        """The program with these commands behind those that bring the file."""
        self.close()
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        brought = ["listen l s", "accept l s 60000", "receive s 60000 d"]
        started = subprocess.Popen(
            [self.program, *brought, *commands],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: self._connected() or started.poll() is not None)
        socket.send_fds(self.peer, [b"create"], [self.file])
        return started

    def _connected(self) -> bool:
        here = Path.cwd()
        # The path of a socket has at most 107 bytes.
        os.chdir(self.folder)
        try:
            self.peer.connect("s")
        except OSError:
            return False
        finally:
            os.chdir(here)
        return True

    def close(self) -> None:
        self.peer.close()
        (self.folder / "s").unlink(missing_ok=True)

    def errors(self, *commands: str, code: int = 0) -> list[str]:
        """How each command ended, however it did: an errno value's name, or "0"; `code` is the program's exit code."""
        with self.start(*(f"try {command}" for command in commands)) as started:
            said, _ = started.communicate(timeout=60)
        assert started.returncode == code, said
        return re.findall(r"^# errno=(\w+)", said, re.MULTILINE)[3:]


@pytest.fixture
def rig(program: Path, tmp_path: Path) -> Iterator[Rig]:
    file = os.memfd_create("of-a-peer")
    os.truncate(file, BYTES)
    made = Rig(program, tmp_path, file)
    yield made
    made.close()
    os.close(file)


@pytest.mark.parametrize(
    "words",
    [
        f"x {SET_CLOSE_ON_EXEC} z1",
        f"3x {SET_CLOSE_ON_EXEC} z1",
        f"-1 {SET_CLOSE_ON_EXEC} z1",
        f"64 {SET_CLOSE_ON_EXEC} z1",
        f"3 {SET_CLOSE_ON_EXEC} s64",
        f"3 {SET_CLOSE_ON_EXEC} sx",
        f"3 {SET_CLOSE_ON_EXEC} z4294967296",
        f"3 {SET_CLOSE_ON_EXEC} 100000000",
        f"3 {SET_CLOSE_ON_EXEC} -1",
        f"3 {SET_CLOSE_ON_EXEC} z1 x 0",
        f"3 {SET_CLOSE_ON_EXEC} z1 4 x",
        f"3 {SET_CLOSE_ON_EXEC} z1 4 509",
        f"3 {SET_CLOSE_ON_EXEC} z1 4 4294967294",
    ],
)
def test_a_slot_or_a_byte_that_there_is_not_is_refused(words: str, rig: Rig) -> None:
    assert rig.errors("raw-take 3 d", f"raw-ioctl {words}") == ["0", "EINVAL"]


def test_calls_are_made_with_what_is_in_slots_and_keep_what_came_back(rig: Rig) -> None:
    with rig.start(
        "raw-take 3 d", f"raw-ioctl 3 {SET_CLOSE_ON_EXEC} z126.a1.s3 5 504", f"raw-ioctl 3 {SET_CLOSE_ON_EXEC} z1 6 508"
    ) as started:
        said, _ = started.communicate(timeout=60)
    assert re.findall(r"kept=(\w+)", said) == ["0xa1", "0"]


def test_an_empty_slot_is_no_descriptor(rig: Rig) -> None:
    """Descriptor 0 is the program's own input."""
    call = f"{SET_CLOSE_ON_EXEC} z1"
    assert rig.errors(f"raw-ioctl 5 {call}", "raw-close 5") == ["EBADF", "EBADF"]
    closed = rig.errors("raw-take 5 d", f"raw-ioctl 5 {call}", "raw-close 5", f"raw-ioctl 5 {call}")
    assert closed == ["0", "0", "0", "EBADF"]


@pytest.mark.parametrize("at", ["0xffd", "0x1000", "0xfffffffffffffffc", "0xffffffffffffffff"])
def test_nothing_is_touched_outside_of_a_mapping(at: str, rig: Rig) -> None:
    commands = [f"touch m {at}", f"verify m {at} 0 4 1", f"paint m {at} 0 4 1", f"holds m {at} 4 0"]
    assert rig.errors("view d m", "touch m 0xffc", *commands) == ["0", "0", *["ERANGE"] * 4]


def test_a_text_ends_where_its_buffer_does(rig: Rig) -> None:
    os.pwrite(rig.file, b"x" * 4, BYTES - 4)
    with rig.start("view d m", "print m 0xffc", "try print m 0x1000") as started:
        said, _ = started.communicate(timeout=60)
    assert re.findall(r"text=(\w*)", said) == ["xxxx"]
    assert "errno=ERANGE" in said


def test_a_view_ends_when_it_is_closed_or_its_name_is_another_s(rig: Rig) -> None:
    with rig.start("view d m", "view d m", "view d n", "close n", "print m 0", "receive s 60000 x") as started:
        assert started.stdout is not None
        told = iter(started.stdout.readline, "")
        assert any("ok 8 - print m 0" in line for line in told)
        maps = Path(f"/proc/{started.pid}/maps").read_text()
        rig.peer.send(b"end")
        started.communicate(timeout=60)
    assert maps.count("/memfd:of-a-peer") == 1
    assert rig.errors("view d m", "close m", "touch m 0") == ["0", "0", "ERANGE"]


def test_a_view_that_cannot_be_made_leaves_no_object(rig: Rig) -> None:
    os.truncate(rig.file, 0)
    assert rig.errors("view d m", "touch m 0") == ["EINVAL", "ENXIO"]


def test_a_command_that_is_too_long_is_refused_and_not_cut(rig: Rig) -> None:
    long = "0" * 1000
    many = " ".join("1" * 16)
    commands = [f"spawn j sleep {long}", "join j 60000", f"sleep {long * 5}", f"tell s {many}", f"spawn k again {many}"]
    assert rig.errors(*commands, code=1) == ["0", "0", "E2BIG", "E2BIG", "E2BIG"]


def test_as_many_words_as_there_is_room_for_arrive(rig: Rig) -> None:
    many = " ".join(str(number) for number in range(12))
    assert rig.errors(f"tell s {many}") == ["0"]
    assert rig.peer.recv(100).decode() == many


def test_a_word_that_is_no_number_is_refused_where_one_is_wanted(rig: Rig) -> None:
    with rig.start("try sleep 1ms", "try sleep x", "sleep 0x1") as started:
        said, _ = started.communicate(timeout=60)
    assert re.findall(r"^# errno=(\w+)", said, re.MULTILINE)[3:] == ["EINVAL", "EINVAL", "0"]
    assert re.findall(r"no_number=(\S+)", said) == ["1ms", "x"]
