"""Debian's packages without apt: a mirror that the user names, read and resolved by Python.

The same suites, rules and outcome as with apt, on any x86-64 Linux.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from vfio_user_xe.emulator.guest.debian.apt import PrivateApt
from vfio_user_xe.emulator.guest.debian.deb import read_files
from vfio_user_xe.emulator.guest.debian.mirror import Described, Mirror, Release
from vfio_user_xe.emulator.guest.debian.packages import (
    ARCHITECTURE,
    ASSUMED,
    COMPONENTS,
    MIRROR_VARIABLE,
    SUITES,
    Downloader,
    Package,
    Progress,
    Source,
)
from vfio_user_xe.emulator.guest.debian.resolver import Entry, PackageLists, resolve
from vfio_user_xe.emulator.guest.debian.signatures import known_keys, read_keyring, require_sequoia
from vfio_user_xe.emulator.guest.errors import ExpiredSuites, FetchFailed, MissingEnvironment, NotSigned
from vfio_user_xe.emulator.temporary import temporary_folder

if TYPE_CHECKING:
    from pysequoia import Cert

_LIST_LIMIT, _TEXT_LIMIT = 128 << 20, 1 << 30
"""Bytes of a package list, and of its text: trixie's has 10 MB and a text of 54 MB."""
_KEYRING_LIMIT = 4 << 20
"""Bytes of the package with the keys, and of what is in it: Debian 13's has 0.2 MB and 0.4 MB."""
_KEYRING_PACKAGE, _KEYRING = "debian-archive-keyring", ("usr/share/keyrings", "debian-archive-keyring")


class PythonDownloader:
    """Debian's packages in `directory`, from the suites `SUITES` and those in `newer`.

    A Release file that is past its date is refused, but for the suites in `accept_expired`.

    Raises:
        MissingEnvironment: no mirror is named, or signatures cannot be checked here.
    """

    def __init__(
        self, directory: Path, source: Source, newer: Sequence[str] = (), accept_expired: Sequence[str] = ()
    ) -> None:
        if not source.mirror:
            raise MissingEnvironment(
                "Without apt a Debian mirror must be named, with its path: `--mirror http://HOST/debian`, or the environment "
                f"variable {MIRROR_VARIABLE}. Debian's list is at https://www.debian.org/mirror/list. Without a network: "
                "`--from FILE`, with a file that `vfio-user-xe guest bundle FILE` made elsewhere."
            )
        require_sequoia()
        self._mirror = Mirror(source.mirror)
        self._keyring = source.keyring
        self._suites = (*SUITES, *newer)
        self._accept_expired = frozenset(accept_expired)
        self._archives = directory / "archives"
        self._archives.mkdir(parents=True, exist_ok=True)
        self._lists = PackageLists(SUITES[-1])

    def update(self) -> None:
        """Fetch the package lists of the suites.

        Raises:
            ExpiredSuites: Release files are past their date, and nothing else is wrong.
            FetchFailed: they cannot be had, or are not what the archive signed.
            NotUsable: the keyring that the user names is none.
        """
        keys = self._keys()
        lists = PackageLists(SUITES[-1])
        expired: list[ExpiredSuites] = []
        for suite in self._suites:
            release = self._mirror.release(suite, keys)
            try:
                release.check(suite in self._accept_expired)
            except ExpiredSuites as error:
                expired.append(error)
                continue
            for component in COMPONENTS:
                lists.add(suite, self._list(release, component))
        if expired:
            suites = tuple(suite for error in expired for suite in error.suites)
            raise ExpiredSuites("\n".join(error.message for error in expired), suites)
        self._lists = lists

    def _keys(self) -> list[Cert]:
        """The user's keys; without, the machine's, and if those are none or too old, Debian's as the mirror has them."""
        keys = read_keyring(self._keyring)
        if self._keyring is not None:
            return keys
        try:
            self._mirror.release(SUITES[0], keys)
        except NotSigned:
            return [*keys, *self._keys_of_the_mirror()]
        return keys

    def _list(self, release: Release, component: str) -> str:
        name = f"{component}/binary-{ARCHITECTURE}/Packages.xz"
        if name not in release.files:
            raise FetchFailed(f"the Release file of {release.suite} lists no {name}")
        with temporary_folder() as folder:
            packed = Path(folder, "Packages.xz")
            self._mirror.fetch(release.files[name], packed, release, lambda size: None, _LIST_LIMIT)
            try:
                return _plain(packed).decode("utf-8", "replace")
            except (lzma.LZMAError, EOFError, ValueError) as error:
                raise FetchFailed(f"{name} of {release.suite} is damaged: {error}") from error

    def _keys_of_the_mirror(self) -> list[Cert]:
        """Debian's keys in the mirror's package of them: nothing but their fingerprints is relied on."""
        release = self._mirror.unchecked_release(SUITES[0])
        lists = PackageLists(SUITES[0])
        lists.add(SUITES[0], self._list(release, COMPONENTS[0]))
        found = lists.candidates(_KEYRING_PACKAGE)
        if not found:
            raise FetchFailed(f"{self._mirror.address} has no {_KEYRING_PACKAGE}: name a keyring with --keyring FILE")
        with temporary_folder() as folder:
            archive = Path(folder, "keyring.deb")
            self._mirror.fetch(_described(found[0]), archive, None, lambda size: None, _KEYRING_LIMIT)
            keys = known_keys(read_files(archive, *_KEYRING, _KEYRING_LIMIT))
        if not keys:
            raise FetchFailed(f"{_KEYRING_PACKAGE} of {self._mirror.address} has none of the keys that are known here")
        return keys

    def resolves(self, packages: Sequence[str]) -> bool:
        """Whether the suites have these packages with everything they need, after `update`."""
        try:
            resolve(self._lists, packages, ASSUMED)
        except FetchFailed:
            return False
        return True

    def names(self, prefix: str) -> list[str]:
        """Names of packages that begin with `prefix`, after `update`."""
        return self._lists.names(prefix)

    def download_alone(self, names: Sequence[str], progress: Progress) -> list[Package]:
        """Download exactly these packages, without what they need.

        Raises:
            FetchFailed: one of them cannot be had.
        """
        found = [(name, self._lists.candidates(name)) for name in names]
        if lacking := [name for name, candidates in found if not candidates]:
            raise FetchFailed(f"{', '.join(lacking)} cannot be had from {', '.join(self._suites)}")
        return self._fetch([candidates[0] for _, candidates in found], progress)

    def download(self, packages: Sequence[str], progress: Progress) -> list[Package]:
        """Download packages with everything they need.

        Raises:
            FetchFailed: one of them cannot be had.
        """
        return self._fetch(resolve(self._lists, packages, ASSUMED), progress)

    def _fetch(self, entries: Sequence[Entry], progress: Progress) -> list[Package]:
        described = [_described(entry) for entry in entries]
        whole, arrived = sum(file.size for file in described), 0

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            progress(arrived / whole, decimal(whole))

        fetched = []
        for entry, file in zip(entries, described, strict=True):
            target = self._archives / Path(file.path).name
            self._mirror.fetch(file, target, None, count)
            fetched.append(Package(entry.name, entry.version, target))
        return fetched


def _plain(packed: Path) -> bytes:
    """What an xz file has.

    Raises:
        EOFError: it ends early.
        ValueError: it has more than a package list may have.
        lzma.LZMAError: it is damaged.
    """
    with lzma.open(packed) as opened:
        text = opened.read(_TEXT_LIMIT + 1)
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"it has more than {_TEXT_LIMIT} bytes")
    return text


def _described(entry: Entry) -> Described:
    try:
        return Described(entry.fields["Filename"], int(entry.fields["Size"]), entry.fields["SHA256"])
    except (KeyError, ValueError) as error:
        raise FetchFailed(f"the package list of {entry.suite} describes {entry.name} without {error}") from error


def open_downloader(
    directory: Path, source: Source | None = None, newer: Sequence[str] = (), accept_expired: Sequence[str] = ()
) -> Downloader:
    """The way to Debian's packages on this machine: apt's where it is, else Python's; `source` may say which.

    Raises:
        MissingEnvironment: neither can work here; the text says what is missing.
    """
    source = source or Source()
    use_apt = shutil.which("apt-get") is not None if source.apt is None else source.apt
    if use_apt:
        return PrivateApt(directory, source, newer, accept_expired)
    return PythonDownloader(directory, source, newer, accept_expired)
