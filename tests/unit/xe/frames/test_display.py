"""`frame-display` shows Wayland clients to a compositor: frames, releases, callbacks, and what a wrong client gets."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wayland import Compositor, WaylandClient, memory
from vfio_user_xe.device_models.xe.frames.programs import DISPLAY, PARTS, SOURCES

WIDTH, HEIGHT = 64, 32
BYTES = 4 * WIDTH * HEIGHT
TILE4 = (1 << 56 | 9).to_bytes(8, "little")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler is here")
    made = tmp_path_factory.mktemp("display") / "frame-display"
    sources = [SOURCES / f"{name}.c" for name in PARTS[DISPLAY]]
    subprocess.run(
        [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wno-sign-compare", "-Werror", "-o", made, *sources],
        check=True,
    )
    return made


@pytest.fixture
def compositor(tmp_path: Path) -> Iterator[Compositor]:
    made = Compositor(tmp_path / "compositor")
    yield made
    made.close()


@pytest.fixture
def display(program: Path, tmp_path: Path, compositor: Compositor) -> Iterator[Path]:
    """A display of 64x32 that has said hello; /dev/null stands for the render node whose number clients are told."""
    path = tmp_path / "display"
    command = [
        program,
        "--display",
        path,
        "--socket",
        tmp_path / "compositor",
        "--width",
        str(WIDTH),
        "--height",
        str(HEIGHT),
    ]
    with subprocess.Popen(command, env={**os.environ, "GL_DEVICE": "/dev/null"}, stdout=subprocess.PIPE) as process:
        assert compositor.take()[:2] == ("hello", {"version": "1", "name": "vm1"})
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield path
        assert process.poll() is None, "the display has ended"
        process.kill()


@pytest.fixture
def client(display: Path) -> Iterator[WaylandClient]:
    made = WaylandClient(display)
    made.bind_all()
    yield made
    made.close()


class Window:
    """A toplevel that has been configured."""

    def __init__(self, client: WaylandClient) -> None:
        self.client = client
        self.surface, self.shell, self.toplevel = client.new(), client.new(), client.new()
        client.request(client.globals["wl_compositor"], 0, self.surface)
        client.request(client.globals["xdg_wm_base"], 2, self.shell, self.surface)
        client.request(self.shell, 1, self.toplevel)
        client.request(self.surface, 6)
        self.size = client.until(self.toplevel, 0).numbers[:2]
        client.until(self.shell, 0)

    def buffer(self, offset: int = 0) -> int:
        """A buffer in memory of the client's."""
        pool, made = self.client.new(), self.client.new()
        with memory(offset + BYTES) as fd:
            self.client.request(self.client.globals["wl_shm"], 0, pool, offset + BYTES, fds=(fd,))
        self.client.request(pool, 0, made, offset, WIDTH, HEIGHT, 4 * WIDTH, 1)
        return made

    def show(self, buffer: int) -> int:
        """Commit the buffer; the id of the frame's callback."""
        callback = self.client.new()
        self.client.request(self.surface, 3, callback)
        self.client.request(self.surface, 1, buffer, 0, 0)
        self.client.request(self.surface, 6)
        return callback


def dmabuf(client: WaylandClient, fd: int, *, height: int = HEIGHT, plane: int = 0) -> int:
    """A buffer made of a descriptor, whatever that is: the compositor imports it."""
    params, made = client.new(), client.new()
    client.request(client.globals["zwp_linux_dmabuf_v1"], 1, params)
    low, high = struct.unpack("<II", TILE4)
    client.request(params, 1, plane, 0, 4 * WIDTH, high, low, fds=(fd,))
    client.request(params, 3, made, WIDTH, height, int.from_bytes(b"XR24", "little"), 0)
    return made


def frame(compositor: Compositor) -> tuple[str, str]:
    """The resource and the number of the frame that is flushed next."""
    while True:
        verb, words, _ = compositor.take()
        if verb == "flush":
            return words["resource"], words["frame"]


def test_clients_are_offered_what_a_display_without_input_has(client: WaylandClient) -> None:
    assert set(client.globals) == {"wl_compositor", "wl_shm", "wl_output", "xdg_wm_base", "zwp_linux_dmabuf_v1"}


def test_a_window_is_as_large_as_the_display(client: WaylandClient) -> None:
    assert Window(client).size == (WIDTH, HEIGHT)


def test_a_committed_buffer_is_named_shown_and_flushed(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    window.show(window.buffer(offset=4096))
    assert compositor.take() == ("create", {"resource": "1", "size": str(4096 + BYTES), "kind": "memory"}, 4096 + BYTES)
    verb, words, _ = compositor.take()
    assert (verb, words["width"], words["height"], words["stride"], words["offset"]) == (
        "scanout",
        "64",
        "32",
        "256",
        "4096",
    )
    assert compositor.take()[:2] == ("flush", {"resource": "1", "frame": "1"})


def test_a_dma_buf_is_passed_with_its_modifier(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    with memory(BYTES) as fd:
        window.show(dmabuf(client, fd))
    assert compositor.take()[1]["kind"] == "dma-buf"
    assert int(compositor.take()[1]["modifier"], 0).to_bytes(8, "little") == TILE4


def test_the_next_frame_is_asked_for_when_the_last_is_composed(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    callback = window.show(window.buffer())
    shown = frame(compositor)
    assert callback not in {one.object for one in client.events()}
    compositor.done(*shown)
    client.until(callback, 0)


def test_a_buffer_is_given_back_when_another_is_in_the_window(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    first, second = window.buffer(), window.buffer()
    window.show(first)
    compositor.done(*frame(compositor))
    window.show(second)
    shown = frame(compositor)
    assert first not in {one.object for one in client.events()}
    compositor.done(*shown)
    assert client.until(first, 0).body == b""


def test_of_frames_that_come_too_fast_the_newest_is_shown(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    first, second, third = (window.buffer() for _ in range(3))
    window.show(first)
    shown = frame(compositor)
    window.show(second)
    window.show(third)
    assert client.until(second, 0).body == b""
    compositor.done(*shown)
    assert frame(compositor) == ("2", "2")
    assert third not in {one.object for one in client.events()}


def test_the_window_of_a_client_that_leaves_goes_dark(client: WaylandClient, compositor: Compositor) -> None:
    window = Window(client)
    window.show(window.buffer())
    compositor.done(*frame(compositor))
    client.events()
    client.close()
    assert compositor.take()[:2] == ("unref", {"resource": "1"})


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<II", 1, 4 << 16),
        struct.pack("<II", 1, 10 << 16),
        struct.pack("<II", 1, 8 << 16),
        struct.pack("<III", 99, 12 << 16, 1),
        struct.pack("<III", 1, 12 << 16, 1),
        struct.pack("<II", 1, 0xFFFF << 16),
    ],
    ids=[
        "shorter than its header",
        "no whole words",
        "without its argument",
        "of no object",
        "an id that is taken",
        "too long",
    ],
)
def test_a_malformed_request_ends_its_client_alone(display: Path, client: WaylandClient, data: bytes) -> None:
    wrong = WaylandClient(display)
    wrong.raw(data)
    assert wrong.event().object == 1
    with pytest.raises(EOFError):
        wrong.event()
    wrong.close()
    assert client.events() == []


def test_a_buffer_larger_than_its_memory_is_refused(client: WaylandClient) -> None:
    with memory(BYTES) as fd:
        dmabuf(client, fd, height=HEIGHT + 1)
    assert b"is larger than its dma-buf" in client.until(1, 0).body


def test_a_second_plane_is_refused(client: WaylandClient) -> None:
    with memory(BYTES) as fd:
        dmabuf(client, fd, plane=1)
    assert b"buffers have one plane" in client.until(1, 0).body


def test_a_surface_that_goes_before_its_role_is_survived(client: WaylandClient) -> None:
    window = Window(client)
    client.request(window.surface, 0)
    client.request(window.toplevel, 2, b"\0" * 4)
    client.request(window.toplevel, 0)
    client.request(window.shell, 0)
    assert {one.object for one in client.events()} <= {1}


@pytest.mark.parametrize("words", [["--display"], ["--colour", "red"], ["--modifier", "y"], ["--display", "x"]])
def test_wrong_options_are_refused_with_what_is_allowed(program: Path, words: list[str]) -> None:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "allowed" in done.stderr or "needed" in done.stderr
