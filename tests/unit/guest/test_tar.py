"""Archives of others are unpacked below a folder, with Python's filters and without."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from unittest.mock import create_autospec

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


def packed(*members: tarfile.TarInfo) -> bytes:
    """An archive of these; a file has its own name as its content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for each in members:
            content = each.name.encode() if each.isreg() else b""
            each.size = len(content)
            archive.addfile(each, io.BytesIO(content))
    return made.getvalue()


def unpack(root: Path, content: bytes, links_inside: bool = True) -> None:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|", tarinfo=tar.WholeMember) as archive:
        for each in archive:
            tar.extract(archive, each, root, links_inside=links_inside)


def unpacked(root: Path, *members: tarfile.TarInfo, links_inside: bool = True) -> None:
    unpack(root, packed(*members), links_inside)


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
        [member("a", tarfile.SYMTYPE, "../outside"), member("a/b")],
        [member("a", tarfile.LNKTYPE, "../outside")],
        [member("a", tarfile.SYMTYPE, ".."), member("b", tarfile.LNKTYPE, "a/outside")],
        [member("a", tarfile.SYMTYPE, "/"), member("a", tarfile.DIRTYPE)],
    ],
    ids=["name", "through a link", "through a file", "hard link", "hard link through a link", "folder"],
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


def test_no_chain_of_links_is_too_long_to_be_followed(root: Path) -> None:
    """As in CVE-2025-4517: a path that is longer than the kernel takes is not followed to its end by realpath."""
    step = "d" * 247
    made, folder = [], ""
    for name in "abcdefghijklmnop":
        made += [member(f"{folder}{step}", tarfile.DIRTYPE), member(f"{folder}{name}", tarfile.SYMTYPE, step)]
        folder += f"{name}/"
    long = folder + "l" * 254
    made += [member(long, tarfile.SYMTYPE, "../" * 16), member("escape", tarfile.SYMTYPE, f"{long}/..")]
    with pytest.raises(tarfile.TarError):
        unpacked(root, *made, member("escape/outside"), links_inside=False)
    assert not (root.parent / "outside").exists()


def test_a_file_takes_the_place_of_a_link_and_is_not_written_through_it(root: Path) -> None:
    (root.parent / "outside").write_text("as it was")
    link = member("a", tarfile.SYMTYPE, "../outside")
    unpacked(root, link, member("a"), links_inside=False)
    assert ((root / "a").read_text(), (root / "a").is_symlink()) == ("a", False)
    assert (root.parent / "outside").read_text() == "as it was"
    unpacked(root, link, link, links_inside=False)
    assert (root / "a").is_symlink()


def test_a_file_that_comes_again_leaves_its_other_names_alone(root: Path) -> None:
    unpacked(root, member("a"), member("b", tarfile.LNKTYPE, "a"))
    first = (root / "b").stat().st_ino
    unpacked(root, member("a"))
    assert (root / "b").stat().st_ino == first != (root / "a").stat().st_ino
    unpacked(root, member("b", tarfile.LNKTYPE, "/a"))
    assert (root / "b").samefile(root / "a")


@pytest.mark.parametrize(
    "members",
    [
        [
            member("a/b", tarfile.DIRTYPE),
            member("a/b/l", tarfile.SYMTYPE, "../x"),
            member("m", tarfile.LNKTYPE, "a/b/l"),
        ],
        [
            member("a", tarfile.SYMTYPE, "x/y"),
            member("l", tarfile.SYMTYPE, "a/../x"),
            member("a", tarfile.SYMTYPE, "x"),
        ],
    ],
    ids=["moved", "led elsewhere"],
)
def test_a_link_that_led_inside_is_not_made_to_lead_outside(members: list[tarfile.TarInfo], root: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpacked(root, *members)


def test_a_hard_link_to_what_is_not_there_is_an_error(root: Path) -> None:
    with pytest.raises(tarfile.TarError, match="a is another name of b, which is not there"):
        unpacked(root, member("a", tarfile.LNKTYPE, "b"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_folder_does_not_give_way(kind: bytes, root: Path) -> None:
    with pytest.raises(tarfile.TarError, match="a would take the place of a folder"):
        unpacked(root, member("a", tarfile.DIRTYPE, mode=0o755), member("a", kind, "b"))


def test_what_was_unpacked_is_the_user_s_who_may_read_and_write_it(root: Path) -> None:
    folder, file = member("a", tarfile.DIRTYPE, mode=0o500), member("a/b", mode=0o2066)
    for each in (folder, file):
        each.uid = each.gid = 1 << 20
        each.uname = each.gname = "games"
    unpacked(root, folder, file)
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/b")]
    assert modes == [0o700, 0o644]
    assert {(root / name).stat().st_uid for name in ("a", "a/b")} == {os.geteuid()}


def test_what_cannot_be_done_to_a_file_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.os, "chmod", create_autospec(os.chmod, side_effect=PermissionError))
    with pytest.raises(tarfile.TarError, match="could not change mode"):
        unpacked(root, member("a"))


@pytest.mark.parametrize("damage", ["ends early", "header"])
def test_an_archive_that_is_not_whole_is_an_error(damage: str, root: Path) -> None:
    content = packed(member("a"), member("b"))
    second = 2 * tarfile.BLOCKSIZE
    if damage == "header":
        content = content[:second] + b"?" * tarfile.BLOCKSIZE + content[second + tarfile.BLOCKSIZE :]
    with pytest.raises(tarfile.TarError, match="it ends early or is damaged"):
        unpack(root, content if damage == "header" else content[:second])


def test_a_name_that_no_file_can_have_is_an_error(root: Path) -> None:
    odd = member("a")
    odd.pax_headers = {"path": "a\0b"}
    with pytest.raises(tarfile.TarError):
        unpacked(root, odd)
