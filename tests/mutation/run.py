"""Run the unit tests that cover a mutant's line against it, in a copy of the checkout."""

from __future__ import annotations

import ast
import enum
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

from tests.mutation import forks
from tests.mutation.sample import Mutant

TIMEOUT = 180.0
"""Seconds for the tests of one mutant; a mutant that hangs is killed."""
TESTS_SECONDS = 60.0
"""How much a line's tests may take, as measured with their coverage: the quickest are taken."""
FEWEST_TESTS = 20
"""So many of a line's tests are taken whatever they take."""

Covering = dict[str, dict[int, list[str]]]
"""Module -> line -> the unit tests that execute it, the quickest and simplest first."""


class Verdict(enum.Enum):
    KILLED = "killed"
    HANGS = "hangs"
    SURVIVED = "survived"
    UNCOVERED = "no test covers it"

    @property
    def is_dead(self) -> bool:
        return self in (Verdict.KILLED, Verdict.HANGS)


@dataclass(frozen=True, slots=True)
class Outcome:
    mutant: Mutant
    verdict: Verdict
    tests: int
    """How many were chosen to be run."""
    killer: str = ""
    """The test that failed, or how pytest ended."""


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
        environment = {**os.environ, "PYTHONPATH": str(folder / ".import"), "OPENBLAS_NUM_THREADS": "1"}
        for name in ("PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        answers, theirs = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, str(Path(forks.__file__).resolve()), str(theirs)],
            cwd=folder, env=environment, pass_fds=(theirs,), stdin=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        self._answers = os.fdopen(answers)

    def close(self) -> None:
        """End the server."""
        self._server.communicate()
        self._answers.close()

    def pytest(self, *arguments: str, timeout: float | None = None) -> tuple[int | None, str]:
        """The exit code, None when it took longer than `timeout` seconds, and what it printed.

        Raises:
            RuntimeError: the process that forks the tests has ended.
        """
        request = {"arguments": ["-p", "no:cacheprovider", *arguments], "timeout": timeout}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._answers.readline().strip()
        if not answer:
            raise RuntimeError("the process that forks the tests has ended")
        output = (self.folder / forks.OUTPUT).read_text("utf-8", "replace")
        return None if answer == forks.TIMED_OUT else int(answer), output

    def covering(self, modules: tuple[str, ...], jobs: int, files: list[str]) -> Covering:
        """Which tests of `files` execute which lines; of a line outside of functions, all of the files that execute anything of its module."""
        config = self.folder / ".coveragerc"
        config.write_text("[run]\ninclude =\n" + "".join(f"    {self.folder / module}\n" for module in modules))
        code, output = self.pytest(
            "-q", "-n", str(jobs), "-m", "not guest", "--durations=0", "--durations-min=0", "--timeout=600",
            "--cov", f"--cov-config={config}", "--cov-context=test", "--cov-report=",
            *files,
        )  # fmt: skip
        if code not in (0, 1):
            raise RuntimeError(f"the unit tests cannot be run:\n{output[-8000:]}")
        # Measuring makes everything several times slower; a test that fails of that says nothing about mutants.
        failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+?\.py::.+?)(?: - .*)?$", output, re.MULTILINE))
        if failed:
            print(f"left out, as they fail without a mutant: {', '.join(sorted(failed))}", flush=True)
        seconds: dict[str, float] = {}
        for taken, test in re.findall(r"^([\d.]+)s (?:setup|call|teardown) +(.+)$", output, re.MULTILINE):
            seconds[test] = seconds.get(test, 0.0) + float(taken)
        return _covering(CoverageData(str(self.folder / ".coverage")), self.folder, failed, seconds)

    def test(self, mutant: Mutant, tests: list[str]) -> Outcome:
        """Whether any of `tests` fails with the mutant."""
        path = self.folder / mutant.module
        text = path.read_text("utf-8")
        compiled = Path(importlib.util.cache_from_source(str(path)))
        try:
            path.write_text(mutant.changed, "utf-8")
            # Python goes by the time in seconds and the size, which a mutant may share with the code.
            compiled.unlink(missing_ok=True)
            # Most mutants die of the first tests, and collecting all that there are takes longer than running these.
            for some in (tests[:FEWEST_TESTS], tests[FEWEST_TESTS:]):
                if some:
                    (self.folder / ".chosen").write_text("\n".join(some) + "\n")
                    code, output = self.pytest("-q", "-x", "--tb=no", "--timeout=60", "@.chosen", timeout=TIMEOUT)
                    if code != 0:
                        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
                        verdict = Verdict.HANGS if code is None else Verdict.KILLED
                        return Outcome(mutant, verdict, len(tests), failed[1] if failed else f"exit code {code}")
        finally:
            path.write_text(text, "utf-8")
            compiled.unlink(missing_ok=True)
        return Outcome(mutant, Verdict.SURVIVED if tests else Verdict.UNCOVERED, len(tests))


def _covering(data: CoverageData, folder: Path, failed: set[str], seconds: dict[str, float]) -> Covering:
    data.read()
    executed: dict[str, dict[int, set[str]]] = {}
    extent = dict.fromkeys(seconds.keys() - failed, 0)
    for file in data.measured_files():
        lines = executed[str(Path(file).resolve().relative_to(folder.resolve()))] = {}
        for line, contexts in data.contexts_by_lineno(file).items():
            # A context is "path::test|phase"; the empty one is what imports execute.
            lines[line] = {context.partition("|")[0] for context in contexts if context} & extent.keys()
            for test in lines[line]:
                extent[test] += 1
    # The quick ones first, and of these the ones that are about little else.
    order = {test: (int(10 * seconds[test]), extent[test], test) for test in extent}
    found: Covering = {}
    for module, lines in executed.items():
        within = _in_functions(folder / module)
        # A test that looks at constants executes nothing.
        files = {_file(test) for tests in lines.values() for test in tests}
        of_module = {test for test in extent if _file(test) in files}
        found[module] = {
            line: _some(sorted(tests if line in within else of_module, key=order.__getitem__), seconds)
            for line, tests in lines.items()
        }
    return found


def _file(test: str) -> str:
    return test.partition("::")[0]


def _in_functions(module: Path) -> set[int]:
    return {
        line
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        for line in range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
    }


def _some(tests: list[str], seconds: dict[str, float]) -> list[str]:
    chosen, total = [], 0.0
    for test in tests:
        total += seconds[test]
        if len(chosen) < FEWEST_TESTS or total <= TESTS_SECONDS:
            chosen.append(test)
    return chosen
