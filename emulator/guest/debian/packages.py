"""What both ways to Debian's packages have in common: suites, a downloaded package, what a downloader can do."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vfio_user_xe.emulator.guest.debian.deb import unpack
from vfio_user_xe.emulator.guest.errors import FetchFailed

SUITES = ("trixie", "trixie-backports")
COMPONENTS = ("main", "non-free-firmware")
ARCHITECTURE = "amd64"
MIRROR_VARIABLE = "VFIO_USER_XE_DEBIAN_MIRROR"

# Where the package debian-archive-keyring puts the keys of all supported releases.
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")

# Dependencies that only matter to an installed system: nothing runs maintainer scripts, and the guest's /init stands in for an
# init system.
ASSUMED = {
    **dict.fromkeys(
        (
            "linux-initramfs-tool",
            "debconf",
            "debconf-2.0",
            "adduser",
            "passwd",
            "systemd",
            "systemd-sysusers",
            "udev",
            "init-system-helpers",
            "dpkg",
        ),
        "",
    ),
    "linux-base": "99",
}
"""What an unpacked folder does without, with the version that stands for it ("" for none)."""

Progress = Callable[[float, str], None]
"""Is called with the fraction done and the total, such as `172 MB`."""


@dataclass(frozen=True)
class Package:
    """A downloaded package."""

    name: str
    version: str
    archive: Path

    def unpack(self, root: Path) -> None:
        """Unpack the package's files below `root`; no maintainer script runs.

        Raises:
            FetchFailed: it is damaged; the file is removed, so that the next download fetches it again.
            OSError: what is in it cannot be written.
        """
        try:
            unpack(self.archive, root)
        except FetchFailed:
            # apt believes a file that it has by its size (apt-pkg/acquire-item.cc:pkgAcqArchive).
            self.archive.unlink(missing_ok=True)
            raise


@dataclass(frozen=True)
class Source:
    """Where packages come from: the mirror's address with its path, a keyring of the archive's keys, apt or Python.

    "" and None are what is found: the mirror of the environment variable or of the machine's apt, Debian's keyring, apt if it is there.
    """

    mirror: str = field(default_factory=lambda: os.environ.get(MIRROR_VARIABLE, ""))
    keyring: Path | None = None
    apt: bool | None = None


class Downloader(Protocol):
    """A way to Debian's packages. What it downloaded stays in its folder, so that an interrupted download goes on."""

    def update(self) -> object:
        """Fetch the package lists of the suites.

        Raises:
            ExpiredSuites: Release files are past their date, and nothing else is wrong.
            FetchFailed: they cannot be had, or are not what the archive signed.
        """

    def resolves(self, packages: Sequence[str]) -> bool:
        """Whether the suites have these packages with everything they need, after `update`."""

    def names(self, prefix: str) -> list[str]:
        """Names of packages that begin with `prefix`, after `update`."""

    def download_alone(self, names: Sequence[str], progress: Progress) -> list[Package]:
        """Download exactly these packages, without what they need.

        Raises:
            FetchFailed: one of them cannot be had.
        """

    def download(self, packages: Sequence[str], progress: Progress) -> list[Package]:
        """Download packages with everything they need.

        Raises:
            FetchFailed: one of them cannot be had.
        """
