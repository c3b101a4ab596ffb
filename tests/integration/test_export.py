"""`vfio-user-xe export` and the framebuffer viewer, as whole programs beside a served card."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.viewer import VIEWER, pixels
from tests.support.wait import eventually
from tests.support.xe.remote_owner import FLR, PCIE, Owner, serving
from tests.support.xe.rig import MIB
from vfio_user_xe.device_models.xe.engines.tiling import TILE_4, TILE_X, Tiling, tile_64
from vfio_user_xe.emulator.fabric.dma_buf import UDMABUF
from vfio_user_xe.emulator.testing.lab import CONFIG

WIDTH, HEIGHT = 320, 200


@pytest.fixture(scope="module")
def shared() -> Iterator[Owner]:
    with serving() as made:
        yield made


@pytest.fixture
def owner(shared: Owner) -> Owner:
    shared.program()
    return shared


class Export:
    """A running `vfio-user-xe export`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.ready: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
        self.socket = self.ready.get("socket", "")

    def end(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and what it said."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=90)
        return self.process.returncode, errors


@contextmanager
def exporting(owner: Owner, *arguments: str) -> Iterator[Export]:
    command = [
        sys.executable,
        "-m",
        "vfio_user_xe.emulator",
        "export",
        "--socket-dir",
        str(owner.folder),
        "--function",
        "vf1",
    ]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Export(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def connected(path: str) -> tuple[socket.socket, dict[str, Any], int]:
    program = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program.settimeout(60)
    program.connect(path)
    packet, fds, _, _ = socket.recv_fds(program, 65536, 1)
    return program, json.loads(packet), fds[0]


def test_a_program_gets_the_memory_itself_and_is_told_what_it_is(owner: Owner) -> None:
    owner.memory(2 * MIB, 5)[:] = b"hello"
    with exporting(owner, "--offset", "2MiB", "--length", "1MiB") as export:
        assert (export.ready["card"], export.ready["owner"], export.ready["length"]) == ("b", "vf1", MIB)
        program, what, descriptor = connected(export.socket)
        assert what["kind"] == ("dma-buf" if UDMABUF.exists() else "memfd")
        mapped = mmap.mmap(descriptor, what["length"], offset=what["offset"])
        os.close(descriptor)
        assert mapped[:5] == b"hello"
        mapped[5:11] = b" world"
        assert bytes(owner.memory(2 * MIB, 11)) == b"hello world"
        mapped.close()
        assert export.end() == (0, "")
        assert json.loads(program.recv(65536)) == {"event": "revoked", "reason": "the export was ended"}
        assert program.recv(65536) == b""
        program.close()
    assert not Path(export.socket).exists()
    eventually(lambda: owner.card.call("leases") == [])


@pytest.mark.parametrize("how", ["VF disabled", "FLR of the VF", "the card ends"])
def test_programs_are_told_when_the_memory_is_taken_back_and_the_export_ends(how: str) -> None:
    with serving() as owner, exporting(owner) as export:
        assert export.ready["length"] == 64 * MIB, "as far as it goes in one piece"
        program, what, descriptor = connected(export.socket)
        mapped = mmap.mmap(descriptor, what["length"], offset=what["offset"])
        mapped[:6] = b"secret"
        reasons = {
            "VF disabled": (owner.disable, "LMTT gives vf1 nothing there|changed hands"),
            "FLR of the VF": (lambda: owner.vf.write(CONFIG, PCIE + 8, 2, FLR), "vf1 was reset"),
            "the card ends": (lambda: os.kill(owner.card.pid, signal.SIGKILL), "the card b is gone"),
        }
        act, reason = reasons[how]
        act()
        event = json.loads(program.recv(65536))
        assert event["event"] == "revoked"
        assert any(part in event["reason"] for part in reason.split("|"))
        assert program.recv(65536) == b""
        code, errors = export.ended()
        assert code == 1
        assert f"the memory was revoked: {event['reason']}" in errors
        if how == "VF disabled":
            assert mapped[:6] == bytes(6), "the block has moved away from there"
        os.close(descriptor)


def test_a_memfd_can_be_handed_out_for_reading_only(owner: Owner) -> None:
    with exporting(owner, "--read-only", "--length", "4KiB", "--once") as export:
        program, what, descriptor = connected(export.socket)
        assert what["kind"] == "memfd"
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, what["length"], offset=what["offset"])
        mmap.mmap(descriptor, what["length"], prot=mmap.PROT_READ, offset=what["offset"]).close()
        os.close(descriptor)
        program.close()
        assert export.ended() == (0, ""), "--once: it ends with the program"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--length", "1MB"], 2, '--length: "1MB" has the unknown unit "MB"; write MiB'),
        (["--offset", "12"], 2, "--offset 0xc is not a multiple of 0x1000"),
        (["--length", "128MiB"], 1, "only 0x4000000 of 0x8000000 bytes at 0x0 of vf1 are in one piece"),
        (
            ["--offset", "64MiB"],
            1,
            "LMTT gives vf1 nothing there. A VF has device memory from when the guest's PF driver",
        ),
        (["--function", "vf9"], 1, 'there is no function "vf9"'),
        (["--socket-dir", "/nowhere"], 1, "no card is served at /nowhere/memory.sock"),
        (["--to", "/nowhere/at/all"], 1, "cannot listen on /nowhere/at/all"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    owner: Owner, arguments: list[str], code: int, message: str
) -> None:
    with exporting(owner, *arguments) as export:
        found, errors = export.ended()
    assert found == code
    assert message in errors
    assert "Traceback" not in errors


# The viewer.


def draw(owner: Owner, offset: int, stride: int, pixel: Callable[[int, int], int], size: int = 4) -> None:
    """As a guest does: into its BAR2."""
    screen = owner.memory(offset, HEIGHT * stride)
    for y in range(HEIGHT):
        row = b"".join(pixel(x, y).to_bytes(size, "little") for x in range(WIDTH))
        screen[y * stride : y * stride + len(row)] = row


def gradient(x: int, y: int) -> int:
    """Red from left to right, green from top to bottom, blue squares."""
    return (x * 255 // (WIDTH - 1)) << 16 | (y * 255 // (HEIGHT - 1)) << 8 | (0xFF if (x // 20 + y // 20) % 2 else 0)


def view(export: Export, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(VIEWER), export.socket, str(file), "--width", str(WIDTH), "--height", str(HEIGHT)]
    # Of its own: without this project's modules.
    return subprocess.run(
        [*command, *arguments], cwd=file.parent, env={}, capture_output=True, text=True, timeout=90, check=False
    )


def test_the_viewer_writes_what_the_guest_drew(owner: Owner, tmp_path: Path) -> None:
    stride = 4 * WIDTH + 64
    draw(owner, MIB + 0x2000, stride, gradient)
    with exporting(owner, "--offset", "1MiB", "--length", "1MiB") as export:
        result = view(export, tmp_path / "screen.png", "--offset", "0x2000", "--stride", str(stride))
        assert (result.returncode, result.stderr) == (0, "")
        rows = pixels(tmp_path / "screen.png")
        for x, y in ((0, 0), (WIDTH - 1, 0), (0, HEIGHT - 1), (WIDTH - 1, HEIGHT - 1), (21, 0), (160, 100)):
            value = gradient(x, y)
            assert rows[y][x] == (value >> 16, value >> 8 & 0xFF, value & 0xFF)
        owner.memory(MIB + 0x2000, 4)[:] = b"\x11\x22\x33\x00"
        view(export, tmp_path / "screen.png", "--offset", "0x2000", "--stride", str(stride))
        assert pixels(tmp_path / "screen.png")[0][0] == (0x33, 0x22, 0x11), "it is the memory itself, not a copy"


@pytest.mark.parametrize(
    ("format", "size", "pixel", "shown"),
    [
        ("xbgr8888", 4, 0x00112233, (0x33, 0x22, 0x11)),
        ("rgb565", 2, 0xF800, (255, 0, 0)),
        ("rgb565", 2, 0x07E0, (0, 255, 0)),
        ("rgb565", 2, 0x001F, (0, 0, 255)),
    ],
)
def test_the_viewer_knows_pixel_formats(
    owner: Owner, tmp_path: Path, format: str, size: int, pixel: int, shown: tuple[int, int, int]
) -> None:
    draw(owner, 0, size * WIDTH, lambda x, y: pixel, size)
    with exporting(owner, "--length", "1MiB") as export:
        assert view(export, tmp_path / "screen.png", "--format", format).returncode == 0
    rows = pixels(tmp_path / "screen.png")
    assert {colour for row in rows for colour in row} == {shown}


@pytest.mark.parametrize(
    ("name", "tiling", "pitch"), [("x", TILE_X, 1536), ("tile4", TILE_4, 1280), ("tile64", tile_64(4), 1536)]
)
def test_the_viewer_understands_tilings_and_what_the_exporter_says_of_them(
    owner: Owner, tmp_path: Path, name: str, tiling: Tiling, pitch: int
) -> None:
    memory = owner.memory(MIB, MIB)
    for y in range(0, HEIGHT, 3):
        for x in range(0, WIDTH, 5):
            tile = y // tiling.height * (pitch // tiling.width) + 4 * x // tiling.width
            at = tile * tiling.size + tiling.offset(4 * x % tiling.width, y % tiling.height)
            memory[at : at + 4] = gradient(x, y).to_bytes(4, "little")
    surface = ["--width", str(WIDTH), "--height", str(HEIGHT), "--pitch", str(pitch), "--tiling", name]
    with exporting(owner, "--offset", "1MiB", "--length", "1MiB", *surface) as export:
        described = {"width": WIDTH, "height": HEIGHT, "pitch": pitch, "tiling": name}
        assert export.ready["surface"] == described
        command = [sys.executable, str(VIEWER), export.socket, str(tmp_path / "screen.png")]
        done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=90, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        wrong = subprocess.run(
            [*command, "--tiling", "y"], env={}, capture_output=True, text=True, timeout=90, check=False
        )
        assert (wrong.returncode, "allowed are linear, x, tile4, tile64" in wrong.stderr) == (1, True)
    rows = pixels(tmp_path / "screen.png")
    for y in range(0, HEIGHT, 3):
        for x in range(0, WIDTH, 5):
            value = gradient(x, y)
            assert rows[y][x] == (value >> 16, value >> 8 & 0xFF, value & 0xFF)


def test_the_viewer_writes_no_picture_of_memory_that_was_taken_back(owner: Owner, tmp_path: Path) -> None:
    with exporting(owner, "--length", "1MiB") as export:
        first = view(export, tmp_path / "screen.png")
        assert first.returncode == 0
        too_large = view(export, tmp_path / "large.png", "--offset", "0xf0000")
        assert too_large.returncode == 1
        assert "the picture ends at" in too_large.stderr
        command = [sys.executable, str(VIEWER), export.socket, str(tmp_path / "again.png"), "--every", "0.05"]
        running = subprocess.Popen(
            [*command, "--width", str(WIDTH), "--height", str(HEIGHT)], stderr=subprocess.PIPE, text=True
        )
        eventually((tmp_path / "again.png").exists)
        owner.disable()
        _, errors = running.communicate(timeout=90)
        assert running.returncode == 1
        assert "viewer: the memory was taken back: " in errors
    assert not list(tmp_path.glob("*.new"))
