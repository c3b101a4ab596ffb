"""Packages of device models and interconnects, installed into a folder without a package manager or a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def install(project: Path, target: Path) -> None:
    """Put the modules of `project` and its entry points into `target`, as its pyproject.toml says.

    A process that has `target` in PYTHONPATH has the package installed.
    """
    table = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    name, version = table["project"]["name"], table["project"]["version"]
    target.mkdir(parents=True, exist_ok=True)
    for module in table["tool"]["setuptools"]["py-modules"]:
        shutil.copy(project / f"{module}.py", target)
    information = target / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in table["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run_tests(project: Path, target: Path, marks: str) -> None:
    """Install `project` into `target` and run those of its tests that have these marks, in a pytest of their own."""
    install(project, target)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-p", "no:cacheprovider", "--strict-markers"]
    result = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
