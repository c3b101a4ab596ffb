from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import cache, environment
from vfio_user_xe.emulator.guest.debian.packages import Package, Source
from vfio_user_xe.emulator.guest.errors import FetchFailed, MissingEnvironment
from vfio_user_xe.emulator.guest.progress import Progress


def quiet() -> Progress:
    """Progress that nobody sees."""
    return Progress(io.StringIO())


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv(environment.QEMU_VARIABLE, raising=False)
    monkeypatch.setattr(environment, "qemu_on_path", lambda: None)
    return tmp_path / "cache/vfio-user-xe"


class FakeApt:
    """Stands in for a downloader: "downloads" empty archives and "unpacks" a kernel and a QEMU."""

    downloads = 0

    def __init__(
        self, directory: Path, source: Source | None, newer: Sequence[str], accept_expired: Sequence[str]
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def update(self) -> None:
        pass

    def download(self, packages: Sequence[str], progress: Callable[[float, str], None]) -> list[Package]:
        type(self).downloads += 1
        progress(1.0, "1 MB")
        found = []
        for name in packages:
            archive = self.directory / f"{name}_1_all.deb"
            archive.write_bytes(b"12345")
            found.append(FakePackage(name, "1:11.1.3+ds-1", archive))
        return list(found)


class FakePackage(Package):
    def unpack(self, root: Path) -> None:
        contents = {
            "linux-image-amd64": "usr/lib/modules/7.0/vmlinuz",
            "qemu-system-x86": "usr/bin/qemu-system-x86_64",
        }
        if self.name in contents:
            path = root / contents[self.name]
            path.parent.mkdir(parents=True)
            path.write_bytes(b"content")


@pytest.fixture
def fake_apt(monkeypatch: pytest.MonkeyPatch) -> type[FakeApt]:
    monkeypatch.setattr(environment, "open_downloader", FakeApt)
    monkeypatch.setattr(FakeApt, "downloads", 0)
    return FakeApt


def test_an_empty_cache_is_explained_with_the_command(cache_home: Path) -> None:
    with pytest.raises(MissingEnvironment, match=r"is not in .*vfio-user-xe/environment.*`vfio-user-xe guest fetch`"):
        environment.locate()


def test_a_fetched_environment_is_found_again_without_a_download(cache_home: Path, fake_apt: type[FakeApt]) -> None:
    fetched = environment.fetch(progress=quiet())
    assert (fetched.manifest.kernel, fetched.manifest.qemu) == ("7.0", "11.1.3")
    assert fetched.manifest.downloaded_bytes == 5 * len(fetched.manifest.packages)
    assert environment.fetch(progress=quiet()) == fetched == environment.locate()
    assert fake_apt.downloads == 1


def test_an_update_replaces_the_environment_and_leaves_nothing_else(cache_home: Path, fake_apt: type[FakeApt]) -> None:
    environment.fetch(progress=quiet())
    (cache_home / "environment/stale").touch()
    environment.fetch(update=True, progress=quiet())
    assert not (cache_home / "environment/stale").exists()
    assert {path.name for path in cache_home.iterdir()} == {"environment", "environment.lock"}


def test_a_failed_fetch_leaves_no_environment(
    cache_home: Path, fake_apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(package: Package, root: Path) -> None:
        raise FetchFailed("disk full")

    monkeypatch.setattr(FakePackage, "unpack", fail)
    with pytest.raises(FetchFailed):
        environment.fetch(progress=quiet())
    assert not list(cache_home.glob("environment*/"))
    with pytest.raises(MissingEnvironment):
        environment.locate()


def test_a_failed_update_keeps_the_environment(
    cache_home: Path, fake_apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = environment.fetch(progress=quiet())
    monkeypatch.setattr(FakePackage, "unpack", lambda package, root: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        environment.fetch(update=True, progress=quiet())
    assert environment.locate() == fetched


def test_what_a_killed_fetch_left_is_not_believed_and_removed(cache_home: Path, fake_apt: type[FakeApt]) -> None:
    partial = cache_home / "environment.partial-abc"
    partial.mkdir(parents=True)
    (partial / "manifest.json").write_text("{}")
    with pytest.raises(MissingEnvironment):
        environment.locate()
    environment.fetch(progress=quiet())
    assert not partial.exists()


def test_one_that_a_killed_update_had_put_aside_is_found_without_a_download(
    cache_home: Path, fake_apt: type[FakeApt]
) -> None:
    fetched = environment.fetch(progress=quiet())
    fetched.root.parent.rename(cache._aside(cache_home / "environment"))
    assert environment.fetch(progress=quiet()) == fetched
    assert fake_apt.downloads == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 0}', f'{{"schema": {environment.SCHEMA}}}'])
def test_a_manifest_of_another_version_asks_for_a_fetch(cache_home: Path, text: str) -> None:
    (cache_home / "environment").mkdir(parents=True)
    (cache_home / "environment/manifest.json").write_text(text)
    with pytest.raises(MissingEnvironment, match=r"another version.*guest fetch"):
        environment.locate()


def test_another_processor_is_refused(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(MissingEnvironment, match="aarch64"):
        environment.fetch(progress=quiet())


def test_a_file_that_the_environment_lacks_is_named(cache_home: Path, fake_apt: type[FakeApt]) -> None:
    with pytest.raises(MissingEnvironment, match=r"lacks usr/lib/firmware/xe/none\.bin"):
        environment.fetch(progress=quiet()).firmware("xe/none.bin")


def fake_qemu(path: Path, version: str, devices: str) -> str:
    path.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo 'QEMU emulator version {version}';; *) echo '{devices}';; esac\n"
    )
    path.chmod(0o755)
    return str(path)


def test_a_suitable_qemu_is_recognised(tmp_path: Path) -> None:
    path = fake_qemu(tmp_path / "qemu", "10.1.2 (Debian 1:10.1.2)", 'name "vfio-user-pci", bus PCI')
    qemu, problem = environment.probe_qemu(path)
    assert qemu == environment.Qemu((path,), {}, "10.1.2", path)
    assert not problem


@pytest.mark.parametrize(
    ("version", "devices", "problem"),
    [
        ("10.0.3", 'name "vfio-user-pci"', "10.0.3"),
        ("9.2.0", "", "9.2.0"),
        ("11.0.0", 'name "vfio-pci"', "without vfio-user-pci"),
    ],
)
def test_an_unsuitable_qemu_is_refused_with_the_reason(
    tmp_path: Path, version: str, devices: str, problem: str
) -> None:
    qemu, said = environment.probe_qemu(fake_qemu(tmp_path / "qemu", version, devices))
    assert qemu is None
    assert problem in said


def test_a_named_qemu_that_does_not_serve_is_an_error(
    cache_home: Path, fake_apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.fetch(progress=quiet())
    monkeypatch.setenv(environment.QEMU_VARIABLE, "/nowhere/qemu")
    with pytest.raises(MissingEnvironment, match=f"{environment.QEMU_VARIABLE} names /nowhere/qemu"):
        environment.locate()


def test_qemu_is_not_fetched_where_one_is_installed(
    cache_home: Path, fake_apt: type[FakeApt], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = environment.Qemu(("/usr/bin/qemu",), {}, "10.1.0", "/usr/bin/qemu")
    monkeypatch.setattr(environment, "qemu_on_path", lambda: installed)
    fetched = environment.fetch(progress=quiet())
    assert fetched.qemu == installed
    assert "qemu-system-x86" not in fetched.manifest.packages
    monkeypatch.setattr(environment, "qemu_on_path", lambda: None)
    with pytest.raises(MissingEnvironment, match="gone"):
        environment.locate()
    assert environment.fetch(progress=quiet()).qemu.origin == "fetched"


def test_the_cache_is_where_the_xdg_specification_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.cache_dir() == tmp_path / "x/vfio-user-xe"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_dir() == tmp_path / ".cache/vfio-user-xe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_dir().is_dir()


HOLD = """
import sys, time
from pathlib import Path
from vfio_user_xe.emulator.guest import cache
with cache.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

        def waiting() -> None:
            os.kill(holder.pid, signal.SIGKILL)

        with cache.lock(path, waiting):
            assert holder.wait() == -signal.SIGKILL
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    cache.write_atomically(target, b"old")

    def fail(self: Path, other: Path) -> Path:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        cache.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_told_by_age_without_those_that_go_meanwhile(tmp_path: Path) -> None:
    old, young = tmp_path / "old", tmp_path / "young"
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    (_, first), (age, second) = cache.by_age([old, tmp_path / "gone", young])
    assert (first, second) == (young, old)
    assert age > 1e9


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_few_lines() -> None:
    log = io.StringIO()
    progress = Progress(log)
    progress.step("downloading")
    for percent in range(101):
        progress.update(percent / 100, "QEMU and kernel, 172 MB")
    progress.end()
    lines = log.getvalue().splitlines()
    assert lines[0] == "downloading"
    assert lines[1:] == [f"  QEMU and kernel, 172 MB: {percent} %" for percent in (25, 50, 75, 100)]


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_progress_on_a_terminal_leaves_one_line_a_step_and_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Progress(terminal) as progress:
        progress.step("reading [lists]")
        progress.step("downloading")
        progress.update(0.5, "172 MB")
        progress.update(1.0, "172 MB")
    said = terminal.getvalue()
    rows = [row for row in re.split(r"[\r\n]+", ESCAPES.sub("", said)) if row.strip()]
    assert "reading [lists]" in rows
    assert rows[-1] == "172 MB: 100 %"
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l"), "the cursor stays hidden"


def test_an_interrupted_step_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    progress = Progress(terminal)

    def interrupted() -> None:
        with progress:
            progress.step("waiting")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    said = terminal.getvalue()
    assert "waiting" in said
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l")
