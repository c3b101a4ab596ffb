from __future__ import annotations

import os
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import apt
from vfio_user_xe.emulator.guest.apt import Mirror, PrivateApt, debian_mirrors
from vfio_user_xe.emulator.guest.errors import FetchFailed, MissingEnvironment

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def sources(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_deb822_file_names_the_mirror_and_its_keyring(tmp_path: Path) -> None:
    text = f"""# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# another
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}
"""
    assert debian_mirrors([sources(tmp_path, "debian.sources", text)]) == [
        Mirror("http://mirror.example/debian", KEYRING)
    ]


def test_a_one_line_file_names_the_mirror_with_and_without_options(tmp_path: Path) -> None:
    text = """deb-src http://source.example/debian trixie main
# deb http://commented.example/debian trixie main
deb [arch=amd64 signed-by=/keys/a.gpg] https://one.example/debian trixie main non-free-firmware # why
deb   http://two.example/debian/ stable main
"""
    assert debian_mirrors([sources(tmp_path, "sources.list", text)]) == [
        Mirror("https://one.example/debian", "/keys/a.gpg"),
        Mirror("http://two.example/debian/"),
    ]


def test_disabled_security_and_foreign_entries_are_no_mirrors(tmp_path: Path) -> None:
    deb822 = """Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: trixie
Components: main

Types: deb
URIs: http://nosuite.example/debian
Suites: nodistro
Components: main

Types: deb-src
URIs: http://sourceonly.example/debian
Suites: trixie
Components: main
"""
    lines = """deb http://security.example/debian-security trixie-security main
deb http://ubuntu.example/ubuntu noble main
deb http://docker.example/linux/debian trixie stable
deb cdrom:[Debian]/ trixie main
"""
    files = [sources(tmp_path, "a.sources", deb822), sources(tmp_path, "b.list", lines)]
    assert debian_mirrors([*files, tmp_path / "absent.list"]) == []


def test_debians_own_entries_come_before_third_parties_with_the_same_suites(tmp_path: Path) -> None:
    text = f"""deb https://vendor.example trixie main
deb https://plain.example/debian trixie main
deb [signed-by={KEYRING}] https://signed.example/mirror trixie main
"""
    found = [mirror.uri for mirror in debian_mirrors([sources(tmp_path, "sources.list", text)])]
    assert found == ["https://signed.example/mirror", "https://plain.example/debian", "https://vendor.example"]


def test_several_uris_and_an_inline_key_are_understood(tmp_path: Path) -> None:
    text = """Types: deb
URIs: http://a.example/debian
 file:/srv/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""
    found = debian_mirrors([sources(tmp_path, "a.sources", text)])
    assert found == [Mirror("http://a.example/debian"), Mirror("copy:/srv/debian")]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose apt-get is a script; it logs its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-config", "dpkg-deb"):
        script = folder / name
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://named.example/debian")
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}")


def test_a_host_without_apt_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingEnvironment, match=r"apt-get is not on this machine.*guest fetch"):
        PrivateApt(tmp_path / "apt")


def test_without_a_mirror_the_variable_is_named(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(apt.MIRROR_VARIABLE)
    install(tools, "apt-config", f"echo \"FILE='{tmp_path}/none'\"; echo \"PARTS='{tmp_path}/none.d/'\"")
    with pytest.raises(MissingEnvironment, match=apt.MIRROR_VARIABLE):
        PrivateApt(tmp_path / "apt").update()


def test_apt_works_in_its_own_directory_and_checks_signatures(tools: Path, tmp_path: Path) -> None:
    install(tools, "apt-get", "exit 0")
    own = tmp_path / "apt"
    PrivateApt(own).update()
    conf = (own / "apt.conf").read_text()
    assert f'Dir::State "{own}/state";' in conf
    assert f'Dir::Cache "{own}/cache";' in conf
    assert 'APT::Get::AllowUnauthenticated "false";' in conf
    assert "#clear APT::Update::Post-Invoke;" in conf
    listed = (own / "sources.list").read_text()
    assert "trusted" not in listed
    assert "http://named.example/debian trixie-backports main" in listed


def test_the_next_mirror_is_tried_when_one_fails(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(apt.MIRROR_VARIABLE)
    text = "deb http://bad.example/debian trixie main\ndeb http://good.example/debian trixie main\n"
    (tmp_path / "sources.list").write_text(text)
    install(tools, "apt-config", f"echo \"FILE='{tmp_path}/sources.list'\"")
    install(tools, "apt-get", f"grep -q good.example {tmp_path}/apt/sources.list || {{ echo 'E: refused'; exit 100; }}")
    assert PrivateApt(tmp_path / "apt").update().uri == "http://good.example/debian"


def test_a_failed_update_shows_what_apt_said(tools: Path, tmp_path: Path) -> None:
    install(tools, "apt-get", "echo chatter; echo 'E: The repository is not signed.' >&2; exit 100")
    with pytest.raises(FetchFailed, match=r"named\.example/debian:\n  E: The repository is not signed\."):
        PrivateApt(tmp_path / "apt").update()


APT_GET = r"""case "$*" in
*--simulate*)
    echo 'Inst libc6 (1:2.41-12+deb13u4 Debian:13.2/stable [amd64])'
    echo 'Inst tool (3.0 Debian Backports:trixie-backports [all]) []'
    ;;
*--download-only*)
    echo 'Need to get 12.5 MB of archives.'
    echo 'dlstatus:1:50.0000:Retrieving file 1 of 2'
    cd ARCHIVES && : >libc6_1%3a2.41-12+deb13u4_amd64.deb && : >tool_3.0_all.deb
    ;;
esac
"""


def test_downloads_are_told_with_their_versions_and_files(tools: Path, tmp_path: Path) -> None:
    archives = tmp_path / "apt/cache/archives"
    install(tools, "apt-get", APT_GET.replace("ARCHIVES", str(archives)))
    seen: list[tuple[float, str]] = []
    found = PrivateApt(tmp_path / "apt").download(["tool"], lambda fraction, total: seen.append((fraction, total)))
    assert [(package.name, package.version) for package in found] == [("libc6", "1:2.41-12+deb13u4"), ("tool", "3.0")]
    assert all(package.archive.is_file() for package in found)
    assert seen == [(0.5, "12.5 MB")]


def test_a_download_that_left_files_out_is_a_failure(tools: Path, tmp_path: Path) -> None:
    install(
        tools,
        "apt-get",
        APT_GET.replace("&& : >tool_3.0_all.deb", "").replace("ARCHIVES", f"{tmp_path}/apt/cache/archives"),
    )
    with pytest.raises(FetchFailed, match=r"did not download tool_3\.0_all\.deb"):
        PrivateApt(tmp_path / "apt").download(["tool"], lambda fraction, total: None)


def test_an_interrupted_download_ends_apt(tools: Path, tmp_path: Path) -> None:
    script = 'case "$*" in *--simulate*) exit 0;; esac\necho $$ >PID\necho dlstatus:1:1.0:x\nexec sleep 60\n'
    install(tools, "apt-get", script.replace("PID", str(tmp_path / "pid")))

    def interrupted(fraction: float, total: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PrivateApt(tmp_path / "apt").download(["tool"], interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_broken_archive_is_named(tools: Path, tmp_path: Path) -> None:
    install(tools, "dpkg-deb", "echo 'not a Debian format archive' >&2; exit 2")
    package = apt.Package("tool", "1", tmp_path / "tool_1_all.deb")
    with pytest.raises(FetchFailed, match=r"tool_1_all\.deb: not a Debian format archive"):
        package.unpack(tmp_path)
