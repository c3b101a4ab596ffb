"""The user's cache folder: where it is, locks in it, and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
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
    can be removed here.  An existing `target` is replaced; between the two renames there is none for an instant.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target)
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}{_PARTIAL}", dir=target.parent))
    work.chmod(0o755)
    try:
        yield work
        old = work.with_name(f"{work.name}.old")
        if target.exists():
            target.rename(old)
        work.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def remove_partial(target: Path) -> None:
    """Remove what killed builders of `target` left behind."""
    for leftover in target.parent.glob(f"{target.name}{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


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
