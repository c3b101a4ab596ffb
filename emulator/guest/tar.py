"""Unpacking tar archives of others: nothing gets outside the folder, and no rights that the user did not have.

Python has filters for this since 3.11.4, and Debian 12 has 3.11.2; the filter "tar" lets hard links lead outside (3.11.7).
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

_HAS_FILTERS = hasattr(tarfile, "data_filter")


def extract(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, *, links_inside: bool) -> None:
    """Put a member below `root`, with `links_inside` only if its target is there too.

    Raises:
        tarfile.TarError: it would lie outside, or is neither a file, a folder nor a link.
        OSError: it cannot be written.
    """
    member.name = member.name.lstrip("/")
    _check_inside(root / member.name, root, member)
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.ExtractError(f"{member.name} is neither a file, a folder nor a link")
    if member.islnk():
        _check_inside(root / member.linkname, root, member)
    elif member.issym() and links_inside:
        if os.path.isabs(member.linkname):
            raise tarfile.ExtractError(f"{member.name} is a link to {member.linkname}")
        _check_inside((root / member.name).parent / member.linkname, root, member)
    member.mode &= 0o755
    # Python's own checks, where it has them; since 3.14 they are stricter if none is named.
    if _HAS_FILTERS:
        archive.extract(member, root, filter="tar")
    else:
        archive.extract(member, root)


def _check_inside(path: Path, root: Path, member: tarfile.TarInfo) -> None:
    real = os.path.realpath(root)
    if os.path.commonpath([os.path.realpath(path), real]) != real:
        raise tarfile.ExtractError(f"{member.name} would be outside of {root}")
