from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest.debian.apt import Mirror, PrivateApt, debian_mirrors
from vfio_user_xe.emulator.guest.debian.packages import MIRROR_VARIABLE, Source
from vfio_user_xe.emulator.guest.errors import FetchFailed, MissingEnvironment

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt")


def mirrors(folder: Path, **files: str) -> list[Mirror]:
    """What apt finds in source files of these names ("__" stands for the dot) and contents."""
    parts = folder / "sources"
    parts.mkdir()
    for name, text in files.items():
        (parts / name.replace("__", ".")).write_text(text)
    return debian_mirrors(["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}"])


@needs_apt
def test_a_deb822_file_names_the_mirror_and_its_keyring(tmp_path: Path) -> None:
    text = f"""# a comment

Types: deb deb-src
URIs: http://mirror.example/debian
# another
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}
"""
    assert mirrors(tmp_path, debian__sources=text) == [Mirror("http://mirror.example/debian", KEYRING)]


@needs_apt
def test_a_one_line_file_names_the_mirror_with_and_without_options(tmp_path: Path) -> None:
    text = """deb-src http://source.example/debian trixie main
# deb http://commented.example/debian trixie main
deb [arch=amd64 signed-by=/keys/a.gpg] https://one.example/debian trixie main non-free-firmware # why
deb   http://two.example/debian/ stable main
"""
    assert mirrors(tmp_path, a__list=text) == [
        Mirror("https://one.example/debian", "/keys/a.gpg"),
        Mirror("http://two.example/debian"),
    ]


@needs_apt
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
deb http://flat.example/debian trixie/
deb cdrom:[Debian]/ trixie main
"""
    assert mirrors(tmp_path, a__sources=deb822, b__list=lines) == []


@needs_apt
def test_debians_own_entries_come_before_third_parties_with_the_same_suites(tmp_path: Path) -> None:
    text = f"""deb https://vendor.example trixie main
deb https://plain.example/debian trixie main
deb [signed-by={KEYRING}] https://signed.example/mirror trixie main
"""
    found = [mirror.uri for mirror in mirrors(tmp_path, a__list=text)]
    assert found == ["https://signed.example/mirror", "https://plain.example/debian", "https://vendor.example"]


@needs_apt
def test_several_uris_and_an_inline_key_are_understood_and_keyrings_of_later_stanzas_are_theirs(tmp_path: Path) -> None:
    text = """Types: deb
URIs: http://a.example/debian
 file:/srv/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

# off
Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Signed-By: /keys/off.gpg

Types: deb
URIs: http://b.example/debian
Suites: trixie
Components: main
Signed-By: /keys/b.gpg
"""
    assert mirrors(tmp_path, a__sources=text) == [
        Mirror("http://a.example/debian"),
        Mirror("copy:/srv/debian"),
        Mirror("http://b.example/debian", "/keys/b.gpg"),
    ]


@needs_apt
def test_sources_that_apt_cannot_read_are_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(MissingEnvironment, match=r"Malformed entry 1 in list file .*a\.list.*\n(.*\n)*.*DEBIAN_MIRROR"):
        mirrors(tmp_path, a__list="deb http://a.example/debian trixie\n")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose apt-get is a script; it logs its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        script = folder / name
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv(MIRROR_VARIABLE, "http://named.example/debian")
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}")


def test_a_host_without_apt_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingEnvironment, match=r"apt-get is not on this machine.*--mirror.*guest fetch --from"):
        PrivateApt(tmp_path / "apt", Source())


def test_without_a_mirror_the_variable_is_named(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE)
    install(tools, "apt-get", "exit 0")
    with pytest.raises(MissingEnvironment, match=MIRROR_VARIABLE):
        PrivateApt(tmp_path / "apt", Source()).update()


def test_apt_works_in_its_own_directory_and_checks_signatures(tools: Path, tmp_path: Path) -> None:
    install(tools, "apt-get", "exit 0")
    own = tmp_path / "apt"
    PrivateApt(own, Source()).update()
    conf = (own / "apt.conf").read_text()
    assert f'Dir::State "{own}/state";' in conf
    assert f'Dir::Cache "{own}/cache";' in conf
    assert 'APT::Get::AllowUnauthenticated "false";' in conf
    assert "#clear APT::Update::Post-Invoke;" in conf
    listed = (own / "sources.list").read_text()
    assert "trusted" not in listed
    assert "http://named.example/debian trixie-backports main" in listed


def test_the_next_mirror_is_tried_when_one_fails(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE)
    targets = "".join(f"http://{name}.example/debian/\\ttrixie\\tmain\\t/none:1\\n" for name in ("bad", "good"))
    refuse = f"grep -q good.example {tmp_path}/apt/sources.list || {{ echo 'E: refused'; exit 100; }}"
    install(tools, "apt-get", f"case $1 in indextargets) printf '{targets}';; *) {refuse};; esac")
    assert PrivateApt(tmp_path / "apt", Source()).update().uri == "http://good.example/debian"


def test_a_failed_update_shows_what_apt_said(tools: Path, tmp_path: Path) -> None:
    install(tools, "apt-get", "echo chatter; echo 'E: The repository is not signed.' >&2; exit 100")
    with pytest.raises(FetchFailed, match=r"named\.example/debian:\n  E: The repository is not signed\."):
        PrivateApt(tmp_path / "apt", Source()).update()


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
    found = PrivateApt(tmp_path / "apt", Source()).download(
        ["tool"], lambda fraction, total: seen.append((fraction, total))
    )
    assert [(package.name, package.version) for package in found] == [("libc6", "1:2.41-12+deb13u4"), ("tool", "3.0")]
    assert all(package.archive.is_file() for package in found)
    assert seen == [(0.5, "12.5 MB")]


PRINT_URIS = r"""case "$*" in
*--print-uris*)
    echo "'http://a.example/pool/tool_2_all.deb' tool_2_all.deb 3 SHA256:HASH"
    echo "'http://a.example/pool/tool-more_1%3a1_all.deb' tool-more_1%3a1_all.deb 3 SHA256:HASH"
    ;;
*download*)
    for file in tool_2_all.deb tool-more_1%3a1_all.deb; do test -e $file || printf new >$file; done
    ;;
esac
"""


def test_files_of_packages_are_the_ones_that_the_archive_describes(tools: Path, tmp_path: Path) -> None:
    """apt itself takes a file that is there and has the size for the right one."""
    install(tools, "apt-get", PRINT_URIS.replace("HASH", hashlib.sha256(b"new").hexdigest()))
    private = PrivateApt(tmp_path / "apt", Source())
    archives = tmp_path / "apt/cache/archives"
    for name in ("tool_1_all.deb", "tool_2_all.deb", "tool_3_all.deb"):
        (archives / name).write_text("bad")
    found = private.download_alone(["tool-more", "tool"], lambda fraction, total: None)
    assert [(one.name, one.archive.name) for one in found] == [
        ("tool-more", "tool-more_1%3a1_all.deb"),
        ("tool", "tool_2_all.deb"),
    ]
    assert {one.archive.read_text() for one in found} == {"new"}
    with pytest.raises(FetchFailed, match="did not download game"):
        private.download_alone(["game"], lambda fraction, total: None)


def test_a_download_that_left_files_out_is_a_failure(tools: Path, tmp_path: Path) -> None:
    install(
        tools,
        "apt-get",
        APT_GET.replace("&& : >tool_3.0_all.deb", "").replace("ARCHIVES", f"{tmp_path}/apt/cache/archives"),
    )
    with pytest.raises(FetchFailed, match=r"did not download tool_3\.0_all\.deb"):
        PrivateApt(tmp_path / "apt", Source()).download(["tool"], lambda fraction, total: None)


def test_an_interrupted_download_ends_apt(tools: Path, tmp_path: Path) -> None:
    script = (
        'case "$*" in *--simulate*|*--print-uris*) exit 0;; esac\necho $$ >PID\necho dlstatus:1:1.0:x\nexec sleep 60\n'
    )
    install(tools, "apt-get", script.replace("PID", str(tmp_path / "pid")))

    def interrupted(fraction: float, total: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PrivateApt(tmp_path / "apt", Source()).download(["tool"], interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
