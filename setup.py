"""What pyproject.toml cannot say: a distribution knows the commit that it was built from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
COMMIT = "emulator/commit.txt"
"""In a distribution only; `vfio_user_xe.emulator.version` reads it."""


def commit() -> str:
    """The commit of this tree: of a checkout git's, of an unpacked sdist the file's; empty where neither is, or no git."""
    file = ROOT / COMMIT
    if file.is_file():
        return file.read_text("ascii").strip()
    if not (ROOT / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # a clone that was copied to a machine without git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class BuildPackages(build_py):
    """Puts the commit into a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (found := commit()):
            target = Path(self.build_lib, "vfio_user_xe", COMMIT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"{found}\n", "ascii")


class SourceDistribution(sdist):
    """Puts the commit into an sdist."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if found := commit():
            Path(base_dir, COMMIT).write_text(f"{found}\n", "ascii")


setup(cmdclass={"build_py": BuildPackages, "sdist": SourceDistribution})
