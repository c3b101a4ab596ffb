"""Unpacking tar archives of others: nothing gets outside the folder, and no rights that the user did not have.

Python has filters for this since 3.11.4, and Debian 12 has 3.11.2; the filter "tar" lets hard links lead outside (3.11.7), and both follow
links by `os.path.realpath`, which gives up quietly on a path that is too long (CVE-2025-4517).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from pathlib import Path

_HAS_FILTERS = hasattr(tarfile, "data_filter")
_MOST_LINKS = 40
"""Links that Linux follows in a path: include/linux/namei.h:MAXSYMLINKS."""
_NO_PATH = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What the kernel says to a path that cannot be one."""


class WholeMember(tarfile.TarInfo):
    """For `tarfile.open(tarinfo=)`: an archive that ends early, or has a damaged header, is an error.

    tarfile takes both for the archive's end when they are where a header should be.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> WholeMember:
        """Read the next member's header.

        Raises:
            tarfile.TarError: there is none, and not the archive's end.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # typeshed lacks it
                raise
            raise tarfile.ReadError(f"it ends early or is damaged: {error}") from error


def extract(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, *, links_inside: bool) -> None:
    """Put a member below `root`, with `links_inside` only if its target is there too.

    What has its name there gives way, but for a folder. Everything is the user's own, who may read and write it; nobody else may write.

    Raises:
        tarfile.TarError: it would lie outside, cannot lie there, or is neither a file, a folder nor a link.
        OSError: it cannot be written.
    """
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.ExtractError(f"{member.name} is neither a file, a folder nor a link")
    try:
        _make_way(member, root, links_inside)
        member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
        member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        # Otherwise tarfile passes over what it could not do.
        archive.errorlevel = 2
        # Python's own checks, where it has them; since 3.14 they are stricter if none is named.
        if _HAS_FILTERS:
            archive.extract(member, root, filter="tar")
        else:
            archive.extract(member, root)
    except (ValueError, OverflowError) as error:
        # A name with a NUL or that this system cannot write, a time that is none.
        raise tarfile.ExtractError(f"{member.name!r} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno not in _NO_PATH:
            raise
        raise tarfile.ExtractError(f"{member.name} cannot be in {root}: {error.strerror}") from error


def _make_way(member: tarfile.TarInfo, root: Path, links_inside: bool) -> None:
    """Check where a member would lie, and remove what must not be written through: a link, or a file with further names."""
    member.name = member.name.lstrip("/")
    if member.isdir():
        _resolved(root, member.name)
        return
    folder, _, name = member.name.rstrip("/").rpartition("/")
    place = _resolved(root, folder) / name
    if member.issym() and links_inside:
        _check_link(root, _resolved(root, folder), member.linkname)
    elif member.islnk():
        member.linkname = member.linkname.lstrip("/")
        folder, _, linked = member.linkname.rpartition("/")
        target = _resolved(root, folder) / linked
        if not os.path.lexists(target):
            raise tarfile.ExtractError(f"{member.name} is another name of {member.linkname}, which is not there")
        if target.is_symlink() and (links_inside or not target.exists()):
            raise tarfile.ExtractError(f"{member.name} is another name of the link {member.linkname}")
        if target == place:
            raise tarfile.ExtractError(f"{member.name} is another name of itself")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = place.lstat().st_mode
        if stat.S_ISDIR(mode) or name in ("", ".", ".."):
            raise tarfile.ExtractError(f"{member.name} would take the place of a folder")
        if stat.S_ISLNK(mode) and links_inside:
            # Links that lead through this one were checked as it was.
            raise tarfile.ExtractError(f"{member.name} would take the place of a link")
        place.unlink()


def _check_link(root: Path, folder: Path, target: str) -> None:
    """Check that a link in `folder` leads to something below `root`."""
    if os.path.isabs(target):
        raise tarfile.ExtractError(f"there is a link to {target}")
    _resolved(root, f"{folder.relative_to(os.path.realpath(root))}/{target}")


def _resolved(root: Path, name: str) -> Path:
    """Where `name` below `root` leads when links are followed, whether it is there or not.

    Raises:
        tarfile.ExtractError: outside, if only on its way.
    """
    top = Path(os.path.realpath(root))
    at, left, links = top, name.split("/")[::-1], 0
    while left:
        part = left.pop()
        if part == "..":
            if at == top:
                raise tarfile.ExtractError(f"{name} would be outside of {root}")
            at = at.parent
        elif part not in ("", "."):
            try:
                target = os.readlink(at / part)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise
                at /= part
                continue
            links += 1
            if os.path.isabs(target) or links > _MOST_LINKS:
                raise tarfile.ExtractError(f"{name} would be outside of {root}: there is a link to {target}")
            left += target.split("/")[::-1]
    return at
