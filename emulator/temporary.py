"""Temporary folders that go with who made them: at once, or by the next one that makes a folder if it was killed.

    with temporary_folder() as folder:
        (folder / "socket")

A folder is removed for another only if this module made it, as a file in it says, and nobody holds that file locked any more: the
kernel drops the lock when the owner ends, however it ends. A folder that a user made or copied is never one of these, whatever its name is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "vfio-user-xe-"
_MARKER = ".owner"
"""Locked while its folder is in use; it holds the folder's name, which tells a copy from what was made here."""
_LEFT_SECONDS = 86400.0
"""So long there is something to look at after a kill."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for temporary files, removed afterwards; what killed programs left a day ago or more is removed before.

    May be called from any thread.

    Raises:
        OSError: no folder can be made.
    """
    _sweep()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / _MARKER).open("x") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX)
            marker.write(folder.name)
            marker.flush()
            yield folder


def _sweep() -> None:
    """Remove the folders of this user that this module made, whose owners are dead."""
    for marker in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_MARKER}"):
        # Another program may remove it meanwhile, and what cannot be opened or locked is not ours to remove.
        with contextlib.suppress(OSError):
            folder, file = marker.parent.lstat(), marker.lstat()
            own = folder.st_uid == file.st_uid == os.getuid()
            if not (own and stat.S_ISDIR(folder.st_mode) and stat.S_ISREG(file.st_mode)):
                continue
            if time.time() - file.st_mtime < _LEFT_SECONDS:
                continue
            with marker.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if opened.read() == os.fsencode(marker.parent.name):
                    shutil.rmtree(marker.parent, ignore_errors=True)
