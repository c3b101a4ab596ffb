from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import cache, userland
from vfio_user_xe.emulator.guest.debian.packages import Package, Source
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, MissingEnvironment, UnknownUserland
from vfio_user_xe.emulator.guest.progress import Progress


def quiet() -> Progress:
    """Progress that nobody sees."""
    return Progress(io.StringIO())


class FakeApt:
    """Stands in for a downloader: only the suite forky has everything, and its Release file has expired."""

    asked: list[tuple[str, ...]] = []

    def __init__(
        self, directory: Path, source: Source | None, newer: Sequence[str], accept_expired: Sequence[str]
    ) -> None:
        self.directory, self.newer, self.accepted = directory, tuple(newer), tuple(accept_expired)
        directory.mkdir(parents=True, exist_ok=True)

    def update(self) -> None:
        self.asked.append(self.newer)
        if refused := tuple(suite for suite in self.newer if suite not in self.accepted):
            raise ExpiredSuites("apt's words", refused)

    def resolves(self, packages: Sequence[str]) -> bool:
        return "forky" in self.newer

    def download(self, packages: Sequence[str], progress: Callable[[float, str], None]) -> list[Package]:
        found = []
        for name in packages:
            archive = self.directory / f"{name}.deb"
            archive.write_bytes(b"12345")
            found.append(FakePackage(name, "1", archive))
        return list(found)


class FakePackage(Package):
    def unpack(self, root: Path) -> None:
        path = root / "lib" / self.name  # through the link of the merged /usr
        path.write_text(self.version)


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(userland, "open_downloader", FakeApt)
    monkeypatch.setattr(FakeApt, "asked", [])

    def listing(tools: Path, folder: Path, image: Path) -> None:
        image.write_text("\n".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))))

    monkeypatch.setattr(userland, "make_erofs", listing)
    return cache.cache_dir()


def test_a_userland_that_is_not_there_is_explained_with_the_command() -> None:
    with pytest.raises(MissingEnvironment, match=r"compute is not in .*`vfio-user-xe guest fetch --userland compute`"):
        userland.locate_userland("compute")


def test_an_unknown_userland_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownUserland, match=r"no userland 'games' \(allowed: compute, graphics, suites\)"):
        userland.locate_userland("games")


def test_an_expired_suite_is_refused_with_the_option_that_takes_it(cache_home: Path) -> None:
    with pytest.raises(ExpiredSuites, match=r"`vfio-user-xe guest fetch --userland compute --accept-expired forky`"):
        userland.fetch_userland("compute", progress=quiet())
    assert not (cache_home / "userlands/compute").exists()


def test_the_first_suites_that_have_everything_are_taken() -> None:
    fetched = userland.fetch_userland("compute", accept_expired=["forky"], progress=quiet())
    assert FakeApt.asked == [(), ("forky",)]
    assert fetched.manifest.suites == ["trixie", "trixie-backports", "forky"]


def test_a_fetched_userland_holds_the_models_packages_and_is_found_again_without_apt() -> None:
    fetched = userland.fetch_userland("compute", accept_expired=["forky"], progress=quiet())
    assert {"clinfo", "intel-opencl-icd", "erofs-utils"} <= set(fetched.manifest.packages)
    assert {"usr/lib/clinfo", "bin", "etc/passwd"} <= set(fetched.image.read_text().split("\n"))
    FakeApt.asked.clear()
    assert userland.fetch_userland("compute", progress=quiet()) == fetched
    assert FakeApt.asked == []


def test_a_failed_fetch_leaves_no_userland(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tools: Path, folder: Path, image: Path) -> None:
        raise FetchFailed("disk full")

    monkeypatch.setattr(userland, "make_erofs", fail)
    with pytest.raises(FetchFailed, match="disk full"):
        userland.fetch_userland("compute", accept_expired=["forky"], progress=quiet())
    assert not list((cache_home / "userlands").glob("compute*"))
