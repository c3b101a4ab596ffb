"""What is installed, and that it stands in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # setuptools leaves build/ and *.egg-info in the tree that it builds.
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "import setuptools.build_meta as backend, sys; print(backend.build_wheel(sys.argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_only_one_name_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"vfio_user_xe"}


def test_every_package_and_every_file_that_a_package_needs_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "emulator", "device_models", "plugins"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    assert {name for name in tracked if name and f"vfio_user_xe/{name}" not in installed} == set()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        "vfio_user_xe." + ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("emulator", "device_models", "plugins")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(listed) == found


def test_a_repository_with_packages_called_plugins_and_emulator_runs_its_tests(wheel: Path, tmp_path: Path) -> None:
    target, repository = tmp_path / "site", tmp_path / "repository"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    for name in ("plugins", "emulator", "device_models"):
        (repository / name).mkdir(parents=True)
        (repository / name / "__init__.py").write_text(f"NAME = {name!r}\n")
    (repository / "test_ours.py").write_text(
        "import device_models, emulator, plugins\n"
        "import vfio_user_xe.emulator\n\n"
        "def test_ours(pytestconfig):\n"
        "    assert (plugins.NAME, emulator.NAME, device_models.NAME) == ('plugins', 'emulator', 'device_models')\n"
        f"    assert vfio_user_xe.emulator.__file__.startswith({str(target)!r})\n"
        "    assert pytestconfig.pluginmanager.hasplugin('vfio-user-xe')\n"
    )
    # Ahead of the checkout, which this interpreter has too.
    environment = {**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{target}"}
    environment.pop("PYTEST_ADDOPTS", None)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(repository)],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
