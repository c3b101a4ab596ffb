"""Directories of the cache that are replaced: one of the two is always there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vfio_user_xe.emulator.guest import cache


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "environment"
    folder.mkdir()
    (folder / "old").touch()
    return folder


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot exchange two names."""
    monkeypatch.setattr(cache, "_exchange", lambda one, other: False)


def replace(target: Path) -> None:
    with cache.building(target) as work:
        (work / "new").touch()


def content(target: Path) -> list[str]:
    return [path.name for path in target.iterdir()]


def test_a_new_one_takes_the_place_of_the_old_one(target: Path) -> None:
    replace(target)
    assert content(target) == ["new"]
    assert content(target.parent) == ["environment"]


@pytest.mark.usefixtures("without_exchange")
def test_a_new_one_takes_the_place_of_the_old_one_where_names_cannot_be_exchanged(target: Path) -> None:
    replace(target)
    assert content(target) == ["new"]
    assert content(target.parent) == ["environment"]


def test_the_old_one_is_never_away_where_names_can_be_exchanged(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = target.parent / "other"
    other.mkdir()
    if not cache._exchange(other, target):
        pytest.skip("the file system of temporary files cannot exchange names")
    assert content(other) == ["old"]
    monkeypatch.setattr(Path, "rename", lambda path, to: pytest.fail(f"{path} was renamed"))
    replace(other)
    assert content(other) == ["new"]


@pytest.mark.usefixtures("without_exchange")
@pytest.mark.parametrize("call", [1, 2])
def test_an_end_while_one_takes_the_place_of_the_other_keeps_the_old_one(
    target: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.rename, 0

    def told_to_end(path: Path, to: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(path, to)

    monkeypatch.setattr(Path, "rename", told_to_end)
    with pytest.raises(KeyboardInterrupt):
        replace(target)
    assert content(target) == ["old"]
    assert content(target.parent) == ["environment"]


KILLED = """
import os, signal, sys
from pathlib import Path
from vfio_user_xe.emulator.guest import cache
cache._exchange = lambda one, other: False
real, target = Path.rename, Path(sys.argv[1])
def once(path, to):
    real(path, to)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
with cache.building(target) as work:
    (work / "new").touch()
"""


def test_what_a_kill_between_the_two_renames_left_is_put_back(target: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(target)], env=os.environ, check=False)
    assert not target.exists()
    with pytest.raises(KeyboardInterrupt), cache.building(target):
        raise KeyboardInterrupt
    assert content(target) == ["old"]
    assert content(target.parent) == ["environment"]


def test_an_error_of_the_exchange_is_told_and_keeps_the_old_one(target: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        cache._exchange(tmp_path / "gone", target)
    assert content(target) == ["old"]
