"""Where a suite's pytest tests come from: its own folder, or a source distribution, downloaded once into the user's cache."""

from __future__ import annotations

import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from vfio_user_xe.emulator.guest import cache
from vfio_user_xe.emulator.guest.errors import FetchFailed
from vfio_user_xe.emulator.guest.tar import WholeMember, extract
from vfio_user_xe.emulator.suites.table import SuiteError
from vfio_user_xe.emulator.suites.userland.suite import Source

# Debian's version: epoch, upstream version, what Debian added to it, revision.
_UPSTREAM = re.compile(r"^(?:\d+:)?(.+?)(?:\+(?:dfsg|ds|repack|git).*)?(?:-[^-]+)?$")


def requirement(source: Source, packages: Mapping[str, str]) -> str:
    """What pip is asked for; `packages` are the versions of the userland's Debian packages.

    Raises:
        SuiteError: The requirement names a package that the userland does not have.
    """

    def version(match: re.Match[str]) -> str:
        if match[1] not in packages:
            raise SuiteError(f"[source].pip: the userland has no package {match[1]}")
        upstream = _UPSTREAM.match(packages[match[1]])
        assert upstream is not None
        return upstream[1]

    return re.sub(r"\{([^}]*)\}", version, source.pip)


def fetch_source(source: Source, packages: Mapping[str, str]) -> Path:
    """The folder of tests: the suite's own, or one unpacked in the cache, where pip downloads it when it is not there.

    Safe to call from several processes at once.

    Raises:
        SuiteError: The requirement names a package that the userland does not have, or the suite has no such folder.
        FetchFailed: pip cannot download it, it cannot be unpacked, or the folder is not in it.
    """
    if not source.pip:
        own = source.suite / source.folder
        if not own.is_dir():
            raise SuiteError(f"[source].folder: the suite in {source.suite} has no folder {source.folder}")
        return own
    wanted = requirement(source, packages)
    kept = cache.cache_dir() / "suites" / re.sub(r"[^\w.=-]", "_", wanted)
    with cache.lock(kept.parent / "lock", lambda: None):
        if not kept.is_dir():
            _download(wanted, kept)
    (top,) = kept.iterdir()
    folder = top / source.folder
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in top.iterdir() if path.is_dir()))
        raise FetchFailed(f"{wanted} has no folder {source.folder} (there are: {names})")
    return folder


def _download(wanted: str, kept: Path) -> None:
    name = re.split(r"[=<>!~\[ ]", wanted)[0]
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
        done = subprocess.run([*command, "--dest", temporary, wanted], capture_output=True, text=True, check=False)
        archives = list(Path(temporary).glob("*.tar.*"))
        if done.returncode != 0 or not archives:
            said = done.stderr.strip().splitlines()[-5:]
            raise FetchFailed("\n".join([f"pip could not download the source of {wanted}:", *said]))
        try:
            with cache.building(kept) as work, tarfile.open(archives[0], tarinfo=WholeMember) as archive:
                for member in archive:
                    extract(archive, member, work, links_inside=True)
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise FetchFailed(f"the source of {wanted} is damaged or cannot be stored: {error}") from error
