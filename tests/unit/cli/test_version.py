"""What `--version` says."""

from __future__ import annotations

import json
import runpy
import subprocess
from importlib.metadata import version as version_of
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from vfio_user_xe.emulator import API_VERSION, version
from vfio_user_xe.emulator.guest.environment import Environment, Manifest, Qemu
from vfio_user_xe.emulator.guest.errors import MissingEnvironment


def test_a_checkout_tells_its_commit() -> None:
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        pytest.skip("the tree is no checkout of git")
    wanted = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    assert version.commit().removesuffix("-dirty") == wanted[:12]


def test_where_there_is_no_git_a_checkout_is_built_without_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    commit = runpy.run_path(str(Path(__file__).parents[3] / "setup.py"))["commit"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit() == ""
    assert version.commit() == ""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the package lies that is not of a checkout."""
    monkeypatch.setattr(version, "_HERE", tmp_path)
    return tmp_path


def test_a_distribution_tells_the_commit_that_it_was_built_from(installed: Path) -> None:
    (installed / "commit.txt").write_text("0123456789abcdef\n")
    assert version.commit() == "0123456789ab"


def test_an_installation_from_a_repository_tells_what_pip_fetched(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution = create_autospec(version.importlib.metadata.Distribution, instance=True)
    distribution.read_text.return_value = json.dumps(
        {"url": "https://x", "vcs_info": {"commit_id": "fedcba9876543210"}}
    )
    monkeypatch.setattr(version.importlib.metadata, "distribution", lambda name: distribution)
    assert version.commit() == "fedcba987654"
    distribution.read_text.return_value = None
    assert version.commit() == ""


def test_the_guest_environment_is_told_or_how_to_get_one(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (installed / "commit.txt").write_text("0123456789abcdef\n")
    manifest = Manifest({}, "7.3.4", None, 0, 0, "2026-11-29T08:00:00")
    found = create_autospec(
        Environment, instance=True, manifest=manifest, qemu=Qemu(("qemu",), version="11.1.3", origin="fetched")
    )
    monkeypatch.setattr(version.environment, "locate", lambda: found)
    numbers = ".".join(map(str, API_VERSION))
    assert version.described().splitlines() == [
        f"vfio-user-xe {version_of('vfio-user-xe')} (commit 0123456789ab), plug-in API {numbers}",
        f"guest environment: {found.qemu}, kernel 7.3.4, of 2026-11-29",
    ]
    monkeypatch.setattr(
        version.environment, "locate", create_autospec(version.environment.locate, side_effect=MissingEnvironment("no"))
    )
    assert version.described().splitlines()[1] == "guest environment: none (vfio-user-xe guest fetch)"
