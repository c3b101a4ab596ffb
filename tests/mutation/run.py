"""Run the unit tests that cover a mutant's line against it, in a copy of the checkout."""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.mutating import use_mutation
from coverage import CoverageData

from tests.mutation.sample import Mutant

TIMEOUT = 180.0
"""Seconds for the tests of one mutant; a mutant that hangs is killed."""


MOST_TESTS = 200
"""Of a module's tests for what imports execute, evenly taken."""


class Verdict(enum.Enum):
    KILLED = "killed"
    HANGS = "hangs"
    SURVIVED = "survived"
    UNCOVERED = "no test covers it"


@dataclass(frozen=True, slots=True)
class Outcome:
    mutant: Mutant
    verdict: Verdict
    tests: int
    change: str


class Copy:
    """A copy of the checkout whose modules are imported instead of the checkout's."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, capture_output=True, check=True,
        ).stdout.decode()  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, folder / name)
        (folder / ".import").mkdir()
        (folder / ".import" / "vfio_user_xe").symlink_to(folder)
        self._environment = {**os.environ, "PYTHONPATH": str(folder / ".import"), "PYTHONDONTWRITEBYTECODE": "1"}
        self._environment.pop("PYTEST_ADDOPTS", None)

    def pytest(self, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run pytest in the copy.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
        """
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def coverage(self, modules: tuple[str, ...]) -> dict[tuple[str, int], set[str]]:
        """(module, line) -> the unit tests that execute it; of a line that imports execute, those that execute the module."""
        sources = [f"--cov={self.folder / Path(module).parent}" for module in sorted(set(modules))]
        done = self.pytest(
            "-n", "auto", "-m", "not guest", *sources, "--cov-context=test", "--cov-report=", "tests/unit"
        )
        if done.returncode > 1:
            raise RuntimeError(f"the unit tests cannot be run:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        # Measuring makes everything several times slower; a test that fails of that says nothing about mutants.
        failed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))}
        if failed:
            print(f"left out, as they fail without a mutant: {', '.join(sorted(failed))}", flush=True)
        data = CoverageData(str(self.folder / ".coverage"))
        data.read()
        found: dict[tuple[str, int], set[str]] = {}
        for file in data.measured_files():
            module = str(Path(file).resolve().relative_to(self.folder.resolve()))
            if module in modules:
                # A context is "path::test|phase"; the empty one is what imports execute: constants, declarations.
                lines = {
                    line: {context.partition("|")[0] for context in contexts if context} - failed
                    for line, contexts in data.contexts_by_lineno(file).items()
                }
                every = sorted(set().union(*lines.values()))
                some = set(every[:: -(-len(every) // MOST_TESTS)]) if every else set()
                found |= {(module, line): tests or some for line, tests in lines.items()}
        return found

    def test(self, mutant: Mutant, tests: set[str]) -> Outcome:
        """Whether any of `tests` fails with the mutant."""
        operator = cosmic_ray.plugins.get_operator(mutant.operator)()
        with use_mutation(self.folder / mutant.module, operator, mutant.occurrence) as (before, after):
            change = _changed(before, after)
            chosen = self.folder / ".chosen"
            chosen.write_text("\n".join(sorted(tests)) + "\n")
            try:
                done = self.pytest("-x", "--timeout=60", f"@{chosen}", timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                return Outcome(mutant, Verdict.HANGS, len(tests), change)
        return Outcome(mutant, Verdict.KILLED if done.returncode else Verdict.SURVIVED, len(tests), change)


def _changed(before: str, after: str | None) -> str:
    lines = zip(before.splitlines(), (after or "").splitlines(), strict=False)
    return next((f"{old.strip()} -> {new.strip()}" for old, new in lines if old != new), "")
