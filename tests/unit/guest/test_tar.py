"""Archives of others are unpacked below a folder, with Python's filters and without."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import tar

KINDS = [False, pytest.param(True, marks=pytest.mark.skipif(not tar._HAS_FILTERS, reason="this Python has no filters"))]


@pytest.fixture(params=KINDS, ids=lambda filters: "filters" if filters else "own checks")
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tar, "_HAS_FILTERS", request.param)
    monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(lambda member, path: member), raising=False)
    folder = tmp_path / "inside"
    folder.mkdir()
    return folder


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    return made


def unpacked(root: Path, *members: tarfile.TarInfo, links_inside: bool = True) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for each in members:
            archive.addfile(each, io.BytesIO())
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r|") as archive:
        for each in archive:
            tar.extract(archive, each, root, links_inside=links_inside)


def test_files_folders_and_links_are_unpacked(root: Path) -> None:
    unpacked(
        root,
        member("./a", tarfile.DIRTYPE, mode=0o755),
        member("./a/b", mode=0o4775),
        member("a/c", tarfile.SYMTYPE, "../a/b"),
        member("a/d", tarfile.LNKTYPE, "./a/b", mode=0o4775),
    )
    assert (root / "a/c").resolve() == (root / "a/b").resolve()
    assert (root / "a/d").samefile(root / "a/b")
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside")],
        [member("a", tarfile.SYMTYPE, ".."), member("a/outside")],
        [member("a", tarfile.LNKTYPE, "../outside")],
    ],
    ids=["name", "through a link", "hard link"],
)
def test_what_would_lie_outside_is_refused(members: list[tarfile.TarInfo], root: Path) -> None:
    (root.parent / "outside").write_text("as it was")
    with pytest.raises(tarfile.TarError):
        unpacked(root, *members, links_inside=False)
    assert (root.parent / "outside").read_text() == "as it was"


def test_an_absolute_name_is_below_the_folder(root: Path) -> None:
    unpacked(root, member("/a"))
    assert (root / "a").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside"])
def test_links_that_lead_outside_are_refused_where_they_must_not(target: str, root: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpacked(root, member("a", tarfile.SYMTYPE, target))
    assert not (root / "a").is_symlink()
    unpacked(root, member("a", tarfile.SYMTYPE, target), links_inside=False)
    assert (root / "a").is_symlink()


def test_devices_of_a_bundle_are_refused(root: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpacked(root, member("a", tarfile.CHRTYPE))
