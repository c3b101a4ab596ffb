"""The libvfio-user back end: what it refuses, and with the library, that it serves the same devices."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support import libvfio_user
from tests.support.processes import children, descriptors, runs
from tests.support.served import served
from tests.support.wait import eventually
from vfio_user_xe.emulator.cli.main import app
from vfio_user_xe.emulator.conformance import device
from vfio_user_xe.emulator.conformance.driver import Driver
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client import Client, Disconnected
from vfio_user_xe.emulator.vfio_user.libvfio_user import library


def refusal(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["serve", "--model", "edu", "--socket-dir", str(folder / "s"), *arguments])
    assert not (folder / "s").exists()
    return result.exit_code, " ".join(result.output.split())


def stub(folder: Path, body: str, symbols: tuple[str, ...] = library._SYMBOLS) -> Path:
    """A library with these functions, each of which does `body`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler for a library that is not what it should be")
    source = folder / "stub.c"
    source.write_text("#include <stdlib.h>\n" + "".join(f"long {name}() {{ {body} }}\n" for name in symbols))
    subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", str(folder / "stub.so"), str(source)], check=True)
    return folder / "stub.so"


def test_a_library_that_is_not_there_is_refused_by_the_name_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = refusal(tmp_path, "--backend", "libvfio-user", "--libvfio-user", "/nowhere/lib.so")
    assert option == (1, "vfio-user-xe: --libvfio-user /nowhere/lib.so: there is no such file")
    monkeypatch.setenv(library.ENVIRONMENT, "/nowhere/else.so")
    variable = refusal(tmp_path, "--backend", "libvfio-user")
    assert variable == (1, "vfio-user-xe: VFIO_USER_XE_LIBVFIO_USER /nowhere/else.so: there is no such file")


def test_without_a_library_it_is_said_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.ENVIRONMENT, raising=False)
    monkeypatch.setattr(library, "USUAL_NAMES", ("libvfio-user-that-nobody-has.so",))
    code, text = refusal(tmp_path, "--backend", "libvfio-user")
    assert code == 1
    assert "no libvfio-user is installed where the loader finds it" in text
    assert "--libvfio-user PATH" in text


def test_a_file_that_is_no_library_and_a_library_that_is_another_are_refused(tmp_path: Path) -> None:
    text_file = tmp_path / "text.so"
    text_file.write_text("hello")
    code, text = refusal(tmp_path, "--backend", "libvfio-user", "--libvfio-user", str(text_file))
    assert (code, "cannot load libvfio-user" in text) == (1, True)
    other = stub(tmp_path, "return 0;", library._SYMBOLS[:3])
    code, text = refusal(tmp_path, "--backend", "libvfio-user", "--libvfio-user", str(other))
    assert code == 1
    assert f"{other} is no libvfio-user that can be used: it lacks vfu_get_poll_fd, vfu_run_ctx, ..." in text


@pytest.mark.parametrize(
    ("body", "reason"), [("return 0;", "vfu_create_ctx("), ("abort();", "it died by SIGABRT")], ids=["fails", "crashes"]
)
def test_a_library_that_behaves_otherwise_fails_its_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    code, text = refusal(tmp_path, "--backend", "libvfio-user", "--libvfio-user", str(stub(tmp_path, body)))
    assert code == 1
    assert "does not behave as any libvfio-user that is known" in text
    assert "as of 2026-03" in text
    assert "as of 2022-05" in text
    assert reason in text
    assert list(temporary.iterdir()) == []


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "--backend", "spdk")[0] == 2
    assert refusal(tmp_path, "--libvfio-user", "/usr/lib/libvfio-user.so.0")[0] == 2
    code, text = refusal(tmp_path, "--backend", "libvfio-user", "--poll-us", "50")
    assert (code, text) == (2, "vfio-user-xe: --poll-us is for --backend own")


# With the library.


def serving(pid: int) -> int:
    """The process that has the library: a child of the one that was started."""
    (child,) = children(pid)
    return child


def use(client: Client) -> None:
    """The same device, seen through the library."""
    driver = Driver(client)
    driver.set(device.REG_SCRATCH, 0x5EED)
    assert driver.get(device.REG_SCRATCH) == 0x5EED
    client.map_memory(0x10000, 0x1000).at(0x10000, 4)[:] = b"ram1"
    assert driver.read_memory(0x10000, 4) == b"ram1"
    (event,) = client.enable_irqs(wire.IRQ_MSIX, 1)
    assert driver.trigger(wire.IRQ_MSIX, 0)
    assert event.wait(60) == 1
    client.reset()
    assert driver.get(device.REG_SCRATCH) == 0


def test_a_device_is_served_to_one_client_after_the_other_and_nothing_is_left() -> None:
    with served(arguments=libvfio_user.arguments()) as card:
        with Client(card.socket) as client:
            use(client)
        server = serving(card.pid)
        before = len(descriptors(server))
        for _ in range(5):
            with Client(card.socket) as client:
                use(client)
        eventually(lambda: len(descriptors(server)) <= before, "descriptors of clients are left")


def test_every_function_of_a_card_has_its_socket() -> None:
    with served("xe", [*libvfio_user.arguments(), "--vfs", "2"]) as card:
        assert sorted(card.sockets) == ["pf", "vf1", "vf2"]
        vendors = {}
        for name, path in card.sockets.items():
            with Client(path) as client:
                vendors[name] = client.read(wire.CONFIG, 0, 2)
        # VFs have the vendor ID FFFFh (SR-IOV, 9.3.4.1).
        assert vendors == {"pf": 0x8086, "vf1": 0xFFFF, "vf2": 0xFFFF}


def test_a_recording_through_the_library_replays(tmp_path: Path) -> None:
    path = tmp_path / "recording.gz"
    with served(arguments=[*libvfio_user.arguments(), "--record", str(path)]) as card, Client(card.socket) as client:
        use(client)
    result = CliRunner().invoke(app, ["replay", str(path)])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no difference")


@contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server with the library, ready, that a test may kill."""
    program = [
        sys.executable,
        "-c",
        "from vfio_user_xe.emulator.cli.main import main; main()",
        "serve",
        "--model",
        "conformance",
    ]
    process = subprocess.Popen(
        [*program, "--socket-dir", str(folder), *libvfio_user.arguments()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_crash_of_the_library_is_told_and_leaves_no_socket(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with started(folder) as process, Client(folder / "pf.sock") as client:
        client.device_info()
        os.kill(serving(process.pid), signal.SIGABRT)
        _, errors = process.communicate(timeout=200)
        with pytest.raises(Disconnected):
            client.device_info()
    assert process.returncode == 1
    assert "the process that served with libvfio-user died by SIGABRT" in errors
    assert not folder.exists() or list(folder.glob("*.sock")) == []


def test_the_serving_process_ends_with_its_supervisor(tmp_path: Path) -> None:
    with started(tmp_path / "s") as process:
        child = serving(process.pid)
        process.kill()
        process.wait()
        eventually(lambda: not runs(child), "it outlives its supervisor")
