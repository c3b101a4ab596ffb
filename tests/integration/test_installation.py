"""What is installed, and that it stands in nobody's way."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tree is no checkout of git"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


def build(folder: Path, *words: str, **variables: str) -> None:
    result = subprocess.run(
        [*words, sys.executable, str(ROOT / "scripts" / "build"), str(folder)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not (ROOT / ".venv/bin/python").exists(), reason="scripts/setup was not run here")
def test_a_python_without_a_setuptools_that_is_new_enough_takes_the_checkout_s_own(tmp_path: Path, built: Path) -> None:
    words = [sys.executable, "-S", str(ROOT / "scripts" / "build"), str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in built.iterdir()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_what_is_built_again_is_the_same_whatever_the_time_the_user_s_mask_and_the_language(
    built: Path, tmp_path: Path
) -> None:
    # In another home git does not find its user's word that it may read a checkout of somebody else's.
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    elsewhere = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "HOME": str(tmp_path)}
    build(tmp_path, "sh", "-c", 'umask 077; exec "$@"', "sh", **elsewhere, **trust)
    made = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in built.iterdir()}
    assert {name.rpartition(".")[2] for name in made} == {"whl", "gz"}
    assert made == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}


def test_both_know_the_commit_that_they_were_built_from(built: Path, wheel: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("vfio_user_xe/emulator/commit.txt").decode() == commit
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        (name,) = (name for name in archive.getnames() if name.endswith("/emulator/commit.txt"))
        file = archive.extractfile(name)
        assert file is not None
        assert file.read().decode() == commit


CONSUMER = """
from collections.abc import Sequence

from vfio_user_xe.emulator.api import Bar, Card, ModelInfo

INFO = ModelInfo(title="a Blinker")
reveal_type(INFO.title)


def names(card: Card) -> Sequence[str]:
    return [function.name for function in card.functions]


def wrong(card: Card) -> int:
    return card.name
"""


def test_a_type_checker_sees_the_api_s_types_in_an_installed_package(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = ["mypy", "--strict", "--python-executable", str(tmp_path / "venv" / "bin" / "python"), "consumer.py"]
    result = subprocess.run(
        [sys.executable, "-m", *command, "--config-file="], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    said = [line.partition("consumer.py:")[2] for line in result.stdout.splitlines() if line.startswith("consumer.py:")]
    assert len(said) == 2, result.stdout + result.stderr
    assert 'Revealed type is "builtins.str"' in said[0] or 'Revealed type is "str"' in said[0]
    assert 'Incompatible return value type (got "str", expected "int")' in said[1]


def interpreter(version: str) -> Path | None:
    """A Python of this version: this one, or one on PATH or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    own = [Path(sys.executable)] if version == ".".join(map(str, sys.version_info[:2])) else []
    found = [
        *own,
        *sorted(pyenv.glob(f"{version}.*/bin/python")),
        *map(Path, filter(None, [shutil.which(f"python{version}")])),
    ]
    return next((path for path in found if _runs(path)), None)


def _runs(python: Path) -> bool:
    done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return done.returncode == 0


_UNREACHABLE = "NewConnectionError|Temporary failure in name resolution|ReadTimeoutError|ConnectTimeoutError"
"""What pip says where there is no network (urllib3)."""
SUPPORTED = ["3.11", "3.12", "3.13", "3.14"]
HERE = [version for version in SUPPORTED if interpreter(version)]


@pytest.mark.parametrize("version", sorted({*HERE[:1], *HERE[-1:]}))
def test_the_oldest_and_the_newest_python_run_what_is_installed_into_a_clean_environment(
    version: str, built: Path, wheel: Path, tmp_path: Path
) -> None:
    python = interpreter(version)
    assert python is not None
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    (source,) = built.glob("*.tar.gz")
    bin_folder = tmp_path / "venv" / "bin"
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONWARNINGS": "error"}
    variables.pop("PYTHONPATH", None)
    for words in ([str(wheel)], ["--force-reinstall", "--no-deps", str(source)]):
        pip = [bin_folder / "python", "-m", "pip", "install", "--quiet", *words]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0 and re.search(_UNREACHABLE, done.stderr):
            pytest.skip("packages cannot be downloaded here")
        assert done.returncode == 0, done.stderr
        for command in (["--version"], ["plugins", "list"], ["card", "--default"]):
            program = [bin_folder / "vfio-user-xe", *command]
            done = subprocess.run(program, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert (tmp_path / "venv/share/man/man1/vfio-user-xe.1").is_file()
        assert (tmp_path / "venv/share/bash-completion/completions/vfio-user-xe").is_file()


def test_only_one_name_is_installed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith((".dist-info", ".data"))} == {"vfio_user_xe"}


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
        cwd=repository, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
