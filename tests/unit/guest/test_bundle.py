"""The guest environment in one file: what was put in comes out, and nothing else is taken for it."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import bundle
from vfio_user_xe.emulator.guest.bundle import ABOUT, FORMAT, VERSION, read_bundle, write_bundle
from vfio_user_xe.emulator.guest.environment import Manifest, Qemu, environment_dir, locate
from vfio_user_xe.emulator.guest.errors import FetchFailed, MissingEnvironment, NotUsable

FORMS = [".tar.xz", ".tar.gz", ".tar", *([".tar.zst"] if shutil.which("zstd") else [])]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine that has an environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vfio_user_xe.emulator.guest.environment.find_qemu", lambda root, manifest: Qemu(("qemu",)))
    root = environment_dir() / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!program\0")
    (root / "usr/bin/tool").chmod(0o755)
    (root / "usr/bin/other").symlink_to("tool")
    (environment_dir() / "manifest.json").write_bytes(Manifest({"a": "1"}, "7.3.4", "11.1.3", 1, 2, "now").to_json())
    return tmp_path / "cache" / "vfio-user-xe"


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine, whose cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "vfio-user-xe"


@pytest.mark.parametrize("ending", FORMS)
def test_what_was_bundled_is_there_on_another_machine(
    ending: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("packaged-kernels/6.18.15+deb13-amd64/boot", "userlands/compute"):
        (cache / folder).mkdir(parents=True)
    (cache / "packaged-kernels/6.18.15+deb13-amd64/boot/vmlinuz").touch()
    (cache / "userlands/compute/image.erofs").write_bytes(b"image")
    monkeypatch.setattr(
        bundle, "named_kernel", lambda *words: _Image(cache / "packaged-kernels/6.18.15+deb13-amd64/boot/vmlinuz")
    )
    monkeypatch.setattr(bundle, "locate_userland", lambda name: _Image(cache / "userlands" / name / "image.erofs"))
    file = tmp_path / f"guest{ending}"
    made = write_bundle(file, ["6.18"], ["compute"])
    assert made.parts == ("environment", "packaged-kernels/6.18.15+deb13-amd64", "userlands/compute")
    other = elsewhere(tmp_path, monkeypatch)
    with pytest.raises(MissingEnvironment):
        locate()
    assert read_bundle(file, made.sha256.upper()) == made.parts
    tool = locate().root / "usr/bin/other"
    assert (tool.read_bytes(), tool.stat().st_mode & 0o777, tool.is_symlink()) == (b"#!program\0", 0o755, True)
    assert (other / "userlands/compute/image.erofs").read_bytes() == b"image"
    assert not list(other.glob("*.partial*"))


class _Image:
    def __init__(self, image: Path) -> None:
        self.image = image


def test_another_checksum_is_refused_and_what_is_there_is_kept(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "guest.tar.gz"
    write_bundle(file)
    with pytest.raises(NotUsable, match="has another SHA-256"):
        read_bundle(file, "00" * 32)
    assert (cache / "environment/root/usr/bin/tool").exists()


@pytest.mark.parametrize("ending", FORMS)
def test_a_file_that_ends_early_leaves_what_is_there(ending: str, cache: Path, tmp_path: Path) -> None:
    (cache / "environment/root/large").write_bytes(bytes(range(256)) * 4000)
    file = tmp_path / f"guest{ending}"
    write_bundle(file)
    content = file.read_bytes()
    (cache / "environment/root/large").write_bytes(b"before")
    file.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises((FetchFailed, NotUsable)):
        read_bundle(file)
    assert (cache / "environment/root/large").read_bytes() == b"before"
    assert not list(cache.glob("*.partial*"))


@pytest.mark.parametrize("ending", [form for form in FORMS if form != ".tar"])
def test_a_file_that_is_damaged_in_its_middle_is_told_and_nothing_stays_behind(
    ending: str, cache: Path, tmp_path: Path
) -> None:
    (cache / "environment/root/large").write_bytes(random.Random(1).randbytes(3 << 20))
    file = tmp_path / f"guest{ending}"
    write_bundle(file)
    content = bytearray(file.read_bytes())
    for place in range(1 << 10, len(content), 1 << 10):
        content[place : place + 64] = bytes(64)
    file.write_bytes(content)
    killed = cache / "bundle.partial-killed"
    killed.mkdir()
    with pytest.raises((FetchFailed, NotUsable), match=re.escape(str(file))):
        read_bundle(file)
    assert not list(cache.glob("*.partial*"))


def test_damage_that_only_the_checksum_tells_is_told(cache: Path, tmp_path: Path) -> None:
    """Content that does not compress lies in a .gz as it is."""
    content = random.Random(1).randbytes(1 << 18)
    (cache / "environment/root/large").write_bytes(content)
    file = tmp_path / "guest.tar.gz"
    write_bundle(file)
    packed = file.read_bytes()
    parts = (content[start : start + 100] for start in range(0, len(content), 100))
    file.write_bytes(packed.replace(next(part for part in parts if part in packed), bytes(100)))
    with pytest.raises(FetchFailed, match="is damaged or cannot be stored: CRC check failed"):
        read_bundle(file)
    assert (cache / "environment/root/large").read_bytes() == content


def archive(file: Path, about: object, *names: str) -> Path:
    with tarfile.open(file, "w") as made:
        for name, content in ((ABOUT, json.dumps(about).encode()), *((name, b"x") for name in names)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    ("about", "names", "said"),
    [
        ({"format": "another"}, [], "is no bundle of"),
        ([], [], "is no bundle of"),
        ({"format": FORMAT, "version": 9}, [], r"version 9 \(allowed: 1\)"),
        ({"format": FORMAT, "version": VERSION, "parts": ["../up"]}, [], "no folder of the cache"),
        ({"format": FORMAT, "version": VERSION, "parts": ["userlands/.."]}, [], "no folder of the cache"),
        ({"format": FORMAT, "version": VERSION, "parts": ["environment"]}, ["other"], "belongs to none of its parts"),
        (
            {"format": FORMAT, "version": VERSION, "parts": ["environment"]},
            ["environment/../x"],
            "belongs to none of its parts",
        ),
        ({"format": FORMAT, "version": VERSION, "parts": ["environment"]}, [], "lacks its part environment"),
    ],
)
def test_what_is_no_bundle_is_refused(
    about: object, names: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = elsewhere(tmp_path, monkeypatch)
    with pytest.raises((NotUsable, FetchFailed), match=said):
        read_bundle(archive(tmp_path / "odd.tar", about, *names))
    assert not (other / "x").exists()
    assert not list(other.glob("environment*"))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not an archive")
    with pytest.raises(NotUsable, match=r"notes\.txt: is no bundle"):
        read_bundle(file)
    with pytest.raises(NotUsable, match="cannot be read"):
        read_bundle(tmp_path / "gone")


def test_a_name_with_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match=r"must end with \.tar\.zst"):
        write_bundle(tmp_path / "guest.zip")


def test_without_zstd_the_message_says_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "guest.tar.zst"
    file.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setattr(bundle.shutil, "which", lambda name: None)
    with pytest.raises(NotUsable, match=r"no program zstd on PATH.*\.tar\.xz"):
        read_bundle(file)
