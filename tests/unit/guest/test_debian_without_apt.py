"""Packages by Python alone: what is believed of a mirror, and what is not."""

from __future__ import annotations

import errno
import hashlib
import http.server
import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, AnyStr, ClassVar
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator.guest.debian import downloader as module
from vfio_user_xe.emulator.guest.debian import mirror, signatures
from vfio_user_xe.emulator.guest.debian.apt import PrivateApt
from vfio_user_xe.emulator.guest.debian.deb import read_files
from vfio_user_xe.emulator.guest.debian.downloader import PythonDownloader, open_downloader
from vfio_user_xe.emulator.guest.debian.packages import MIRROR_VARIABLE, Package, Source
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, MissingEnvironment, NotUsable

if TYPE_CHECKING:
    from _typeshed import SupportsRead, SupportsWrite

pytest.importorskip("pysequoia", reason="the extra fetch is not installed")

from tests.support.guest.archive import Archive, package


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "mirror")


def downloader(
    archive: Archive, folder: Path, newer: Sequence[str] = (), expired: Sequence[str] = ()
) -> PythonDownloader:
    return PythonDownloader(folder / "own", Source(archive.address, archive.keyring), newer, expired)


def fetched(archive: Archive, folder: Path, *names: str) -> dict[str, str]:
    made = downloader(archive, folder)
    made.update()
    return {one.name: one.version for one in made.download(names, lambda fraction, total: None)}


def test_packages_come_with_what_they_need_and_are_unpacked(archive: Archive, tmp_path: Path) -> None:
    archive.add("tool", Depends="library (>= 2), debconf | other", files={"usr/bin/tool": b"program"})
    archive.add("library", "2.1", Pre_Depends="base")
    archive.add("base", "1:0.9~rc1-2")
    archive.publish()
    made = downloader(archive, tmp_path)
    made.update()
    seen: list[tuple[float, str]] = []
    found = made.download(["tool"], lambda fraction, total: seen.append((fraction, total)))
    assert {one.name: one.version for one in found} == {"tool": "1", "library": "2.1", "base": "1:0.9~rc1-2"}
    assert seen[-1][0] == 1.0
    for one in found:
        one.unpack(tmp_path / "root")
    assert (tmp_path / "root/usr/bin/tool").read_bytes() == b"program"
    assert made.names("l") == ["library"]
    assert [one.name for one in made.download_alone(["tool"], lambda fraction, total: None)] == ["tool"]


def test_what_was_downloaded_is_not_downloaded_again(archive: Archive, tmp_path: Path) -> None:
    path = archive.add("tool")
    archive.publish()
    fetched(archive, tmp_path, "tool")
    path.unlink()
    assert fetched(archive, tmp_path, "tool") == {"tool": "1"}


def test_the_preferred_suite_is_taken_and_else_the_newest(archive: Archive, tmp_path: Path) -> None:
    archive.add("kernel", "7.3", "trixie")
    archive.add("kernel", "7.2~bpo13", "trixie-backports")
    archive.add("tool", "1.0~rc1", "trixie")
    archive.add("tool", "1.0", "trixie")
    archive.publish()
    assert fetched(archive, tmp_path, "kernel", "tool") == {"kernel": "7.2~bpo13", "tool": "1.0"}


def test_a_package_that_was_changed_is_refused(archive: Archive, tmp_path: Path) -> None:
    path = archive.add("tool")
    archive.publish()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FetchFailed, match=r"tool_1_amd64\.deb is not what the archive describes"):
        fetched(archive, tmp_path, "tool")
    assert not list((tmp_path / "own/archives").iterdir())


def test_a_longer_one_is_not_read_to_its_end(archive: Archive, tmp_path: Path) -> None:
    path = archive.add("tool")
    archive.publish()
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(FetchFailed, match="is larger than"):
        fetched(archive, tmp_path, "tool")


def test_a_package_list_that_was_changed_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.add("tool")
    archive.publish()
    listed = archive.root / "dists/trixie/main/binary-amd64/Packages.xz"
    listed.write_bytes(listed.read_bytes()[::-1])
    with pytest.raises(FetchFailed, match=r"Packages\.xz is not what the archive describes"):
        fetched(archive, tmp_path, "tool")


def test_a_release_file_that_was_changed_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    release = archive.root / "dists/trixie/InRelease"
    release.write_bytes(release.read_bytes().replace(b"Codename: trixie", b"Codename: Trixie"))
    with pytest.raises(FetchFailed, match="InRelease of trixie is not signed by a key"):
        fetched(archive, tmp_path)


def test_a_release_file_signed_by_another_key_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    keyring = Archive(tmp_path / "another").keyring
    made = PythonDownloader(tmp_path / "own", Source(archive.address, keyring))
    with pytest.raises(FetchFailed, match="InRelease of trixie is not signed by a key"):
        made.update()


def test_a_release_file_without_a_signature_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    (archive.root / "dists/trixie/InRelease").write_text("Codename: trixie\n")
    with pytest.raises(FetchFailed, match="InRelease of trixie is not signed by a key"):
        fetched(archive, tmp_path)


def test_the_release_file_of_another_suite_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    archive.publish("trixie-backports", Codename="bookworm-backports")
    with pytest.raises(FetchFailed, match="trixie-backports is that of bookworm-backports"):
        fetched(archive, tmp_path)


def test_an_expired_release_file_is_refused_and_taken_when_asked_for(archive: Archive, tmp_path: Path) -> None:
    archive.stanzas["forky"] = []
    archive.add("tool", suite="forky")
    archive.publish()
    past = format_datetime(datetime.now(UTC) - timedelta(days=1))
    archive.publish("forky", Valid_Until=past)
    with pytest.raises(ExpiredSuites, match=f"forky has expired.*{past[5:16]}") as refused:
        downloader(archive, tmp_path, ["forky"]).update()
    assert refused.value.suites == ("forky",)
    accepting = downloader(archive, tmp_path, ["forky"], ["forky"])
    accepting.update()
    assert accepting.resolves(["tool"])


def test_a_release_file_of_the_future_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    archive.publish("trixie", Date=format_datetime(datetime.now(UTC) + timedelta(days=2)))
    with pytest.raises(FetchFailed, match="trixie is of the future"):
        fetched(archive, tmp_path)


@pytest.mark.parametrize("suite", ["trixie", "trixie-backports"])
def test_keys_of_the_mirror_are_believed_by_their_fingerprints_alone(
    suite: str, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "KEYRINGS", ())
    others = bytes(Archive(tmp_path / "another").key.extract_certificate())
    keyring = "usr/share/keyrings/debian-archive-keyring"
    archive.add(
        "debian-archive-keyring",
        files={f"{keyring}.gpg": archive.keyring.read_bytes(), f"{keyring}.pgp": others, f"{keyring}.asc": b"none"},
    )
    archive.publish()
    source = Source(archive.address)
    with pytest.raises(FetchFailed, match="none of the keys that are known here"):
        PythonDownloader(tmp_path / "own", source).update()
    known = archive.key.extract_certificate().fingerprint.lower()
    monkeypatch.setattr(signatures, "FINGERPRINTS", frozenset({known}))
    PythonDownloader(tmp_path / "own", source).update()
    # The other key of that package is not believed.
    intruder = Archive(archive.root, Archive(tmp_path / "another").key, archive.stanzas)
    intruder.publish(suite)
    with pytest.raises(FetchFailed, match=f"InRelease of {suite} is not signed"):
        PythonDownloader(tmp_path / "own", source).update()


@pytest.mark.parametrize("there", ["old", "damaged"])
def test_a_machine_s_keyring_that_is_too_old_or_damaged_is_no_hindrance(
    there: str, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Archive(tmp_path / "another").keyring
    if there == "damaged":
        own.write_bytes(own.read_bytes()[:-20])
    monkeypatch.setattr(signatures, "KEYRINGS", (str(tmp_path / "absent"), str(own)))
    archive.add(
        "debian-archive-keyring",
        files={"usr/share/keyrings/debian-archive-keyring.gpg": archive.keyring.read_bytes()},
    )
    archive.publish()
    made = PythonDownloader(tmp_path / "own", Source(archive.address))
    with pytest.raises(FetchFailed, match="none of the keys that are known here"):
        made.update()
    known = archive.key.extract_certificate().fingerprint.lower()
    monkeypatch.setattr(signatures, "FINGERPRINTS", frozenset({known}))
    made.update()
    assert made.names("debian") == ["debian-archive-keyring"]


def test_a_keyring_of_the_user_is_the_only_one_that_is_believed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "FINGERPRINTS", frozenset({archive.key.extract_certificate().fingerprint.lower()}))
    archive.add(
        "debian-archive-keyring",
        files={"usr/share/keyrings/debian-archive-keyring.gpg": archive.keyring.read_bytes()},
    )
    archive.publish()
    source = Source(archive.address, Archive(tmp_path / "another").keyring)
    with pytest.raises(FetchFailed, match="InRelease of trixie is not signed"):
        PythonDownloader(tmp_path / "own", source).update()


def test_a_file_by_its_hash_that_is_another_is_asked_for_by_its_name(archive: Archive, tmp_path: Path) -> None:
    archive.add("tool")
    for suite in archive.stanzas:
        archive.publish(suite, Acquire_By_Hash="yes")
    listed = archive.root / "dists/trixie/main/binary-amd64/Packages.xz"
    by_hash = listed.parent / "by-hash/SHA256" / hashlib.sha256(listed.read_bytes()).hexdigest()
    by_hash.parent.mkdir(parents=True)
    by_hash.write_bytes(listed.read_bytes()[::-1])
    assert fetched(archive, tmp_path, "tool") == {"tool": "1"}


@pytest.mark.parametrize(
    ("limit", "said"),
    [("_LIST_LIMIT", r"Packages\.xz has \d+ bytes \(allowed: 100\)"), ("_TEXT_LIMIT", "has more than 100 bytes")],
)
def test_a_package_list_has_a_limit(
    limit: str, said: str, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("tool", Description="of many words, " * 20)
    archive.publish()
    monkeypatch.setattr(module, limit, 100)
    with pytest.raises(FetchFailed, match=said):
        fetched(archive, tmp_path, "tool")


@pytest.mark.parametrize("odd", ["hash", "hash many path", "hash -1 main/binary-amd64/Packages.xz"])
def test_an_odd_line_of_a_release_file_is_named(odd: str, archive: Archive, tmp_path: Path) -> None:
    archive.publish()
    archive.publish("trixie", Description=f"none\nSHA256:\n {odd}")
    with pytest.raises(FetchFailed, match=r"describes a file by ' hash|Packages.xz has -1 bytes"):
        fetched(archive, tmp_path)


class Once(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; the first answer of each path ends after half of what it announces."""

    seen: ClassVar[set[str]]

    def copyfile(self, source: SupportsRead[AnyStr], outputfile: SupportsWrite[AnyStr]) -> None:
        whole = source.read()
        first = self.path not in self.seen
        self.seen.add(self.path)
        outputfile.write(whole[: len(whole) // 2] if first else whole)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The archive's address at a server whose connections break."""
    monkeypatch.setattr(mirror.time, "sleep", create_autospec(mirror.time.sleep))
    handler = type("Handler", (Once,), {"seen": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=archive.root)) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_what_arrives_by_halves_is_asked_for_again(address: str, archive: Archive, tmp_path: Path) -> None:
    archive.add("tool")
    archive.publish()
    made = PythonDownloader(tmp_path / "own", Source(address, archive.keyring))
    made.update()
    seen: list[float] = []
    assert [one.name for one in made.download(["tool"], lambda fraction, total: seen.append(fraction))] == ["tool"]
    assert seen[-1] == 1.0
    assert max(seen) == 1.0


def test_a_full_disk_is_not_the_mirror_s_fault(archive: Archive, tmp_path: Path) -> None:
    archive.add("tool", files={"usr/bin/tool": random.Random(1).randbytes(1 << 16)})
    archive.publish()
    made = downloader(archive, tmp_path)
    made.update()
    (tmp_path / "own/archives/tool_1_amd64.deb.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        made.download(["tool"], lambda fraction, total: None)
    assert full.value.errno == errno.ENOSPC


def test_what_cannot_be_had_is_named_with_what_needs_it(archive: Archive, tmp_path: Path) -> None:
    archive.add("tool", Depends="library (>= 3) | nothing")
    archive.add("library", "2")
    archive.publish()
    with pytest.raises(FetchFailed, match=r"library \(>= 3\) \| nothing, which tool needs, cannot be had"):
        fetched(archive, tmp_path, "tool")
    made = downloader(archive, tmp_path)
    made.update()
    assert not made.resolves(["tool"])
    with pytest.raises(FetchFailed, match="game cannot be had from trixie, trixie-backports"):
        made.download_alone(["game"], lambda fraction, total: None)


def test_a_mirror_that_is_not_there_is_named(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"dists/trixie/InRelease cannot be had"):
        fetched(archive, tmp_path)


def test_only_addresses_of_mirrors_are_taken(tmp_path: Path) -> None:
    with pytest.raises(
        NotUsable, match=r"mirror.example/debian: is no address of a mirror \(allowed: http, https, file"
    ):
        PythonDownloader(tmp_path, Source("mirror.example/debian"))


def test_a_keyring_of_the_user_must_be_one(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no keys")
    with pytest.raises(NotUsable, match="keys: is no keyring"):
        PythonDownloader(tmp_path / "own", Source(archive.address, tmp_path / "keys")).update()
    with pytest.raises(NotUsable, match="absent: cannot be read: No such file"):
        PythonDownloader(tmp_path / "own", Source(archive.address, tmp_path / "absent")).update()


def test_a_machine_without_apt_and_a_mirror_is_told_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    with pytest.raises(MissingEnvironment, match=rf"--mirror http://HOST/debian.*{MIRROR_VARIABLE}.*--from FILE"):
        open_downloader(tmp_path / "own")


def test_apt_is_used_where_it_is_unless_the_user_says_otherwise(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "which", create_autospec(module.shutil.which, return_value="/usr/bin/apt-get"))
    assert isinstance(open_downloader(tmp_path / "a", Source(archive.address)), PrivateApt)
    assert isinstance(open_downloader(tmp_path / "b", Source(archive.address, apt=False)), PythonDownloader)


@pytest.mark.parametrize("content", [b"not a package", package({})[:150], b"!<arch>\n", b"!<arch>\n" + b"?" * 60])
def test_a_broken_package_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tool_1_all.deb").write_bytes(content)
    with pytest.raises(FetchFailed, match=r"tool_1_all\.deb could not be unpacked"):
        Package("tool", "1", tmp_path / "tool_1_all.deb").unpack(tmp_path / "root")


def test_a_broken_package_file_is_fetched_again(archive: Archive, tmp_path: Path) -> None:
    """apt believes a file that it has by its size."""
    archive.add("tool", files={"usr/bin/tool": b"program"})
    archive.publish()
    made = downloader(archive, tmp_path)
    made.update()
    (found,) = made.download_alone(["tool"], lambda fraction, total: None)
    found.archive.write_bytes(bytes(found.archive.stat().st_size))
    with pytest.raises(FetchFailed, match="could not be unpacked"):
        found.unpack(tmp_path / "root")
    assert not found.archive.exists()


@pytest.mark.parametrize("size", [b"-60       ", b"-1        "])
def test_a_member_of_a_package_with_less_than_no_bytes_is_an_error(size: bytes, tmp_path: Path) -> None:
    content = bytearray(package({}))
    content[8 + 48 : 8 + 58] = size
    (tmp_path / "odd.deb").write_bytes(content)
    with pytest.raises(FetchFailed, match=r"odd\.deb could not be unpacked: debian-binary has -\d+ bytes"):
        Package("odd", "1", tmp_path / "odd.deb").unpack(tmp_path / "root")


def test_no_more_is_read_of_a_package_of_anybody_than_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "keys.deb"
    file.write_bytes(package({"usr/share/keys.gpg": bytes(1 << 20)}))
    assert read_files(file, "usr/share", "keys", 2 << 20) == [bytes(1 << 20)]
    with pytest.raises(FetchFailed, match=r"keys\.deb could not be read"):
        read_files(file, "usr/share", "keys", 1 << 20)


def test_a_package_puts_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "evil.deb").write_bytes(package({"../../outside": b"x"}))
    with pytest.raises(FetchFailed, match=r"evil\.deb could not be unpacked"):
        Package("evil", "1", tmp_path / "evil.deb").unpack(tmp_path / "a" / "root")
    assert not (tmp_path / "outside").exists()
