"""The user's cache folder: where it is, locks in it, and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

APPLICATION = "vfio-user-xe"

# A directory under construction is named NAME.partial-XXXX; it is never believed, and removed by the next builder.
_PARTIAL = ".partial-"
_ASIDE = ".aside"

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Linux's include/uapi/linux/fcntl.h and fs.h; see rename(2)."""


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/vfio-user-xe`, or `~/.cache/vfio-user-xe`; created when missing."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    path = root / APPLICATION
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the kernel drops it when this process ends, however it ends.

    `waiting` is called once if another process holds the lock, before waiting for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new directory beside `target` that takes its place when the block ends without an exception.

    The caller holds a lock that makes it the only builder of `target`, so what an earlier, killed builder left
    can be removed here.  An existing `target` is replaced in one step, where the file system can exchange two names.  Elsewhere it
    has another name for an instant, which an end of this process in that instant leaves, and `recover` takes back.

    Raises:
        OSError: the directory cannot be made or put in its place; an old `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}{_PARTIAL}", dir=target.parent))
    work.chmod(0o755)
    try:
        yield work
        if not target.exists():
            work.rename(target)
        elif not _exchange(work, target):
            try:
                target.rename(_aside(target))
                work.rename(target)
            finally:
                recover(target)
    finally:
        # What is here is the new one if something failed, and else the old one.
        shutil.rmtree(work, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back an old `target` that a builder which was killed had put aside, and remove what else it left.

    The caller holds the lock of the builders of `target`.
    """
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    for leftover in (aside, *target.parent.glob(f"{target.name}{_PARTIAL}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def left_aside(folder: Path) -> list[Path]:
    """Targets in a folder whose builders were killed between the two renames: `recover` puts them back."""
    return [path.with_name(path.name.removesuffix(_ASIDE)) for path in sorted(folder.glob(f"*{_ASIDE}"))]


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}{_ASIDE}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the C library, the kernel or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def by_age(paths: Iterable[Path]) -> list[tuple[float, Path]]:
    """Seconds since each file was written or touched, youngest first; without those that another process removes meanwhile."""
    now, found = time.time(), []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.append((now - path.stat().st_mtime, path))
    return sorted(found)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, also when this process is killed meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
