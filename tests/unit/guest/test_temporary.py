"""Folders for temporary files, and what killed programs left of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vfio_user_xe.emulator import temporary
from vfio_user_xe.emulator.temporary import temporary_folder

KILLED = """
import os, signal
from vfio_user_xe.emulator.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "sockets").mkdir()
    (folder / "sockets/lock").touch()
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> Path:
    """The folder, as if everything in it were old."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (0, 0))
    return folder


@pytest.fixture
def left(place: Path) -> Path:
    """What a killed program has left, young."""
    command = [sys.executable, "-c", KILLED]
    variables = {**os.environ, "TMPDIR": str(place)}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


def test_a_folder_is_gone_afterwards(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == place
    assert list(place.iterdir()) == []


def test_what_a_killed_program_left_is_removed_a_day_later(left: Path) -> None:
    with temporary_folder():
        assert left.exists()
    aged(left)
    with temporary_folder():
        assert not left.exists()


def test_a_folder_in_use_stays_however_old_it_is() -> None:
    with temporary_folder() as used:
        aged(used)
        with temporary_folder():
            assert used.exists()


def by_hand(folder: Path) -> None:
    folder.mkdir()


def with_a_marker_of_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / temporary._MARKER).touch()


@pytest.mark.parametrize("made", [by_hand, with_a_marker_of_nothing])
def test_a_users_own_folder_stays_whatever_its_name_is(made: Callable[[Path], None], place: Path) -> None:
    own = place / "vfio-user-xe-mine"
    made(own)
    # What `serve --socket-dir /tmp/vfio-user-xe-mine/sockets` makes.
    (own / "sockets").mkdir()
    (own / "sockets/lock").touch()
    aged(own)
    with temporary_folder():
        assert (own / "sockets/lock").exists()


def test_a_copy_that_a_user_made_stays(left: Path, place: Path) -> None:
    copy = place / "vfio-user-xe-copy"
    shutil.copytree(left, copy)
    aged(copy)
    with temporary_folder():
        assert copy.exists()


def test_a_link_to_a_folder_of_a_user_stays(left: Path, place: Path) -> None:
    kept = left.rename(place / "kept")
    link = place / left.name
    link.symlink_to(kept)
    aged(kept)
    with temporary_folder():
        assert kept.exists()
    assert link.is_symlink()
