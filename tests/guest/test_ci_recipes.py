"""The CI recipes' own steps, run here as shell in a copy of the example: what is not about installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import recipes
from vfio_user_xe.emulator.guest.environment import locate
from vfio_user_xe.emulator.guest.errors import MissingEnvironment
from vfio_user_xe.emulator.guest.kernel import Kernel

pytestmark = [pytest.mark.guest, pytest.mark.timeout(480)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    copy = tmp_path / "repository"
    shutil.copytree(recipes.PROJECT, copy, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    return copy


def run(shell: str, text: str, repository: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    result = subprocess.run(
        [shell, "-e"],
        input=text,
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=450,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def verdicts(repository: Path) -> tuple[str, str]:
    suite = ElementTree.parse(repository / "results" / "junit.xml").find("testsuite")
    assert suite is not None
    assert "<html" in (repository / "results" / "report.html").read_text()[:2000].lower()
    assert list((repository / "results" / "consoles").iterdir())
    return suite.get("tests", ""), suite.get("failures", "")


def environment_or_skip() -> Kernel:
    try:
        return Kernel.packaged(locate())
    except MissingEnvironment as exc:
        pytest.skip(f"{exc} (or run scripts/setup)")


def test_the_steps_for_github_test_the_packaged_kernel(repository: Path) -> None:
    environment_or_skip()
    steps = recipes.github_steps()
    run("bash", steps["Guest environment"] + steps["Test"], repository)
    assert verdicts(repository) == ("3", "0")


def test_the_script_for_gitlab_tests_a_kernel_artefact(repository: Path) -> None:
    kernel = environment_or_skip()
    assert kernel.modules is not None
    (repository / "kernel").mkdir()
    (repository / "kernel" / "bzImage").symlink_to(kernel.image)
    # As modules_install lays it out.
    tree = repository / "kernel" / "modules" / "lib" / "modules"
    tree.mkdir(parents=True)
    (tree / kernel.modules.name).symlink_to(kernel.modules)
    installing = ("apt-get", "python3 -m venv", ".venv/bin/pip", "export PATH")
    lines = [line for line in recipes.gitlab_script() if not line.startswith(installing)]
    run("sh", "\n".join(lines), repository)
    assert verdicts(repository) == ("3", "0")
